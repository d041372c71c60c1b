package e2e

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cmd/sluice/e2e/rig"
)

// DESIGN. A thousand connections at once that never become clients, each transport
// having its own ways to be held up. What they cost is the resident memory of the
// broker as it is shipped, at its highest while they are there, against that of the same
// broker before, at rest; garbage that the runtime has not collected counts. A pair of
// clients on a listener of its own must not notice, and when the time for CONNECT
// is over, or before, nothing may be left.

const (
	besiegers     = 1000
	siegeTimeout  = 4 * time.Second // connect_timeout
	siegeSlackMax = 4 * time.Second // this machine has to close them all
)

// siege is what each of the besiegers does.
type siege struct {
	what    string
	scheme  string
	secure  bool   // its TLS handshake is done first
	first   string // sent at once
	upgrade bool   // and answered, before after is sent
	after   string
	trickle string // then a byte each second
	costMax int64  // bytes of all together; 0: only told
}

// hello is a ClientHello.
func hello(t testing.TB) string {
	t.Helper()
	near, far := net.Pipe()
	defer func() { _ = near.Close() }()
	go func() {
		_ = tls.Client(near, &tls.Config{ServerName: "localhost"}).Handshake() // ends when the pipe does
	}()
	var head [5]byte
	_, err := io.ReadFull(far, head[:])
	must(t, err)
	body := make([]byte, int(head[3])<<8|int(head[4]))
	_, err = io.ReadFull(far, body)
	must(t, err)
	return string(head[:]) + string(body)
}

const upgradeRequest = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"

func sieges(t testing.TB) []siege {
	hello := hello(t)
	half := upgradeRequest[:len(upgradeRequest)/2]
	const connect = "\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00"
	const plainMax = 1 << 20
	return []siege{
		{what: "a CONNECT of 256 MiB", scheme: "mqtt", first: "\x10\xff\xff\xff\x7f", costMax: plainMax},
		{what: "a CONNECT byte by byte", scheme: "mqtt", trickle: connect, costMax: plainMax},
		{what: "the length of CONNECT byte by byte", scheme: "mqtt", trickle: "\x10\xff\xff\xff\x7f", costMax: plainMax},
		{what: "silence", scheme: "mqtts"},
		{what: "no ClientHello", scheme: "mqtts", first: strings.Repeat("garbage ", 64)},
		{what: "a ClientHello that is garbage", scheme: "mqtts", first: hello[:16] + strings.Repeat("x", len(hello)-16)},
		{what: "a ClientHello, and silence", scheme: "mqtts", first: hello},
		{what: "a ClientHello byte by byte", scheme: "mqtts", trickle: hello},
		{what: "a record of TLS without its end", scheme: "mqtts", first: "\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + strings.Repeat("x", 1000), trickle: hello},
		{what: "a handshake, and silence", scheme: "mqtts", secure: true},
		{what: "a handshake, and a CONNECT byte by byte", scheme: "mqtts", secure: true, trickle: connect},
		{what: "half of a request", scheme: "ws", first: half},
		{what: "a request byte by byte", scheme: "ws", trickle: upgradeRequest},
		{what: "a giant header", scheme: "ws", first: half + "\r\nX: " + strings.Repeat("x", 60<<10)},
		{what: "a header that has no end", scheme: "ws", first: half + "\r\nX: ", trickle: "xxxxxxxxxxxx"},
		{what: "an upgrade, and silence", scheme: "ws", first: upgradeRequest, upgrade: true},
		{what: "frames without a mask", scheme: "ws", first: upgradeRequest, upgrade: true, after: "\x82\x0f" + connect},
		{what: "a frame of 2^62 bytes", scheme: "ws", first: upgradeRequest, upgrade: true, after: "\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00abcd", trickle: connect},
		{what: "a fragment without an end", scheme: "ws", first: upgradeRequest, upgrade: true, after: "\x02\x81\x00\x00\x00\x00\x10", trickle: "\x00\x80\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00"},
		{what: "a header of a proxy byte by byte", scheme: "proxy", trickle: "PROXY TCP4 1.2.3.4 1.2.3.4 1 1"},
		{what: "a header of a proxy without an end", scheme: "proxy", first: "PROXY TCP4 " + strings.Repeat("1", 4000)},
		{what: "a binary header of 4 KiB byte by byte", scheme: "proxy", first: "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x0f\x00" + strings.Repeat("x", 3000), trickle: connect},
		{what: "a binary header of 64 KiB", scheme: "proxy", first: "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + strings.Repeat("x", 3000), trickle: connect},
	}
}

func TestSiege(t *testing.T) {
	t.Parallel()
	for _, x := range sieges(t) {
		t.Run(x.scheme+"/"+x.what, func(t *testing.T) {
			t.Parallel()
			only := []string{"mqtt"}
			if x.scheme != "mqtt" {
				only = append(only, x.scheme)
			}
			s := newSite(t, siteOptions{binary: plainBinary, only: only, open: true, auth: fmt.Sprintf("[limits]\nconnect_timeout = %q\n", siegeTimeout)})
			control := s.control()
			before := s.quiet()
			began := time.Now()
			most := s.besiege(x, besiegers)
			took := time.Since(began)
			after := s.quiet()
			control.finish()
			cost := most.HeapBytes - before.HeapBytes
			t.Logf("%s: %d connections: %d KiB more at the highest, %d KiB after; %v; %d descriptors at the highest", x.what, besiegers,
				cost>>10, (after.HeapBytes-before.HeapBytes)>>10, took.Round(100*time.Millisecond), most.Descriptors)
			if after.Descriptors > before.Descriptors {
				t.Errorf("%d descriptors before, %d after", before.Descriptors, after.Descriptors)
			}
			if most.Threads > before.Threads+threadsSlack {
				t.Errorf("%d threads before, %d under siege", before.Threads, most.Threads)
			}
			if x.costMax > 0 && cost >= x.costMax {
				t.Errorf("they cost %d KiB", cost>>10)
			}
		})
	}
}

// TestSiegeWithFewFiles: where open files are few, handshakes that do not go on
// must not take those that other clients need.
func TestSiegeWithFewFiles(t *testing.T) {
	t.Parallel()
	const filesMax, besiegers = 1024, 700
	program := filepath.Join(t.TempDir(), "few")
	must(t, os.WriteFile(program, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d\nexec %s \"$@\"\n", filesMax, plainBinary), 0o700))
	s := newSite(t, siteOptions{binary: program, only: []string{"mqtt", "mqtts"}, open: true, auth: fmt.Sprintf("[limits]\nconnect_timeout = %q\n", siegeTimeout)})
	control := s.control()
	x := siege{what: "a ClientHello, and silence", scheme: "mqtts", first: hello(t)}
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.besiege(x, besiegers)
	}()
	t.Cleanup(func() { <-over })
	eventually(t, patience, "the besiegers are there", func() bool {
		u, err := s.Usage()
		must(t, err)
		return u.Descriptors > 300 // those whose handshakes wait have two; the rest is refused
	})
	var slowest time.Duration
	for came := false; !came; {
		began := time.Now()
		if got := s.try(5, anonymous, nil); got != 0 {
			t.Errorf("a client meanwhile: CONNACK 0x%02x", got)
		}
		slowest = max(slowest, time.Since(began))
		select {
		case <-over:
			came = true
		default:
		}
	}
	control.finish()
	t.Logf("clients meanwhile waited %v at most", slowest)
	if strings.Contains(s.Log(), "cannot accept connections") {
		t.Error("the broker ran out of files")
	}
}

// besiege waits until all n besiegers have been closed, and returns the most that
// the broker took meanwhile.
func (s *site) besiege(x siege, n int) (most rig.Usage) {
	s.t.Helper()
	var tasks sync.WaitGroup
	slots := make(chan struct{}, 16) // connecting at once
	over := make(chan struct{})
	var bad inbox[string]
	for range n {
		tasks.Go(func() {
			slots <- struct{}{}
			c, err := s.approach(x)
			<-slots
			if err == nil {
				err = x.hold(c)
				_ = c.Close()
			}
			if err != nil {
				bad.put(err.Error())
			}
		})
	}
	go func() {
		tasks.Wait()
		close(over)
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-over:
			if all := bad.sofar(); len(all) > 0 {
				s.t.Errorf("%s: %d of %d: %s", x.what, len(all), n, all[0])
			}
			return most
		case <-tick.C:
		}
		u, err := s.Usage()
		must(s.t, err)
		most = rig.Usage{Threads: max(most.Threads, u.Threads), Descriptors: max(most.Descriptors, u.Descriptors), HeapBytes: max(most.HeapBytes, u.HeapBytes)}
	}
}

// approach connects and sends what a besieger sends at once.
func (s *site) approach(x siege) (net.Conn, error) {
	c, err := net.Dial("tcp", s.at(x.scheme))
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if x.secure {
		secure := tls.Client(c, s.clients)
		if err := secure.Handshake(); err != nil {
			return nil, err
		}
		c = secure
	}
	_, err = c.Write([]byte(x.first))
	if x.upgrade && err == nil {
		var b [256]byte
		n, err := c.Read(b[:])
		if err != nil || !bytes.HasPrefix(b[:n], []byte("HTTP/1.1 101 ")) {
			return nil, fmt.Errorf("the upgrade is answered with %q, %v", b[:n], err)
		}
		_, _ = c.Write([]byte(x.after)) // it may be closed meanwhile
	}
	return c, nil
}

// hold goes on sending a byte each second, and ends when the broker has closed
// the connection, which it must do in time.
func (x *siege) hold(c net.Conn) error {
	began := time.Now()
	gone := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, c)
		gone <- err
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for rest := x.trickle; ; {
		select {
		case err := <-gone:
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return errors.New("still open")
			}
			if took := time.Since(began); took > siegeTimeout+siegeSlackMax {
				return fmt.Errorf("closed after %v", took)
			}
			return nil
		case <-tick.C:
			if rest != "" {
				_, _ = c.Write([]byte(rest[:1])) // it may be closed meanwhile
				rest = rest[1:]
			}
		}
	}
}
