package bridge

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
)

// guarded feeds bytes to a guard, byte by byte or at once, and returns what
// came through and the error at the end.
func guarded(t *testing.T, g *guard, feed net.Conn, in []byte, step int) ([]byte, error) {
	t.Helper()
	go func() {
		for len(in) > 0 {
			n := min(step, len(in))
			if _, err := feed.Write(in[:n]); err != nil {
				return
			}
			in = in[n:]
		}
		_ = feed.Close()
	}()
	out, err := io.ReadAll(g)
	<-g.ended
	return out, err
}

func testGuard(t *testing.T, maxBytes int) (*guard, net.Conn) {
	a, b := socketpair(t)
	g := newGuard(a, a, maxBytes, time.Second, nil)
	t.Cleanup(func() {
		_ = g.fail(errUplinkClosed)
		_ = b.Close()
		<-g.ended
	})
	return g, b
}

const hello = "\x20\x02\x00\x00"

func TestGuard(t *testing.T) {
	big := "\x30\x81\x01\x00\x01a" + strings.Repeat("x", 126) // 132 bytes
	for _, c := range []struct {
		name, in string
		passes   int    // bytes that paho gets
		err      string // "": just the end of the stream
	}{
		{"connack", hello, 4, ""},
		{"puback, pingresp, publish", hello + "\x40\x02\x00\x01" + "\xd0\x00" + "\x32\x06\x00\x01a\x00\x01x", 4 + 4 + 2 + 8, ""},
		{"suback that is due", hello + "\x90\x03\x00\x01\x01", 9, ""},
		{"second suback", hello + "\x90\x03\x00\x01\x01" + "\x90\x03\x00\x01\x01", 9, "none was due"},
		{"suback with two codes", hello + "\x90\x04\x00\x01\x01\x01", 4, "one code was due"},
		{"suback without codes", hello + "\x90\x02\x00\x01", 4, "one code was due"},
		{"at the cap", hello + "\x30\x7e\x00\x01a" + strings.Repeat("x", 123), 4 + 128, ""},
		{"above the cap", hello + big, 4, "exceeds"},
		{"256 MiB announced", hello + "\x30\xff\xff\xff\x7f", 4, "exceeds"},
		{"endless length", hello + "\x30\xff\xff\xff\xff\x01", 4, "refused"},
		{"connack announces much", "\x20\xff\xff\xff\x7f", 0, "exceeds"},
		{"unknown connack code", "\x20\x02\x00\x06", 0, "return code"},
		{"connack of v5", "\x20\x03\x00\x00\x00", 0, "return code"},
		{"empty connack", "\x20\x00", 0, "return code"},
		{"refusal", "\x20\x02\x00\x05", 4, ""},
		{"publish first", "\x30\x03\x00\x01a", 0, "CONNACK comes first"},
		{"second connack", hello + hello, 4, "CONNACK comes first"},
		{"qos 2", hello + "\x34\x06\x00\x01a\x00\x01x", 4, "QoS above"},
		{"qos 3", hello + "\x36\x06\x00\x01a\x00\x01x", 4, "refused"},
		{"pubrec", hello + "\x50\x02\x00\x01", 4, "not for this client"},
		{"pubcomp", hello + "\x70\x02\x00\x01", 4, "not for this client"},
		{"unsuback", hello + "\xb0\x02\x00\x01", 4, "not for this client"},
		{"connect", hello + "\x10\x00", 4, "not for this client"},
		{"disconnect", hello + "\xe0\x00", 4, "not for this client"},
		{"long puback", hello + "\x40\x03\x00\x01\x00", 4, "malformed"},
		{"pingresp with a body", hello + "\xd0\x01\x00", 4, "malformed"},
		{"reserved type", hello + "\x00\x00", 4, "refused"},
		{"cut in a header", hello + "\x30", 4, ""},
		{"cut in a body", hello + "\x30\x05\x00", 4 + 3, ""},
	} {
		for _, step := range []int{1, 1000} {
			g, feed := testGuard(t, 128)
			g.subacks.Store(1)
			out, err := guarded(t, g, feed, []byte(c.in), step)
			if !bytes.HasPrefix([]byte(c.in), out) || len(out) != c.passes {
				t.Errorf("%s: %d bytes pass, want %d", c.name, len(out), c.passes)
			}
			if c.err == "" && err != nil && !errors.Is(err, io.EOF) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%s: error %v, want %q", c.name, err, c.err)
			}
		}
	}
}

// paho keeps quiet about a connection that it believes to have closed itself.
func TestGuardNeverSaysClosed(t *testing.T) {
	var read atomic.Int64
	for what, end := range map[string]func(g *guard, feed net.Conn){
		"fail":  func(g *guard, _ net.Conn) { _ = g.fail(errNoPuback) },
		"close": func(g *guard, _ net.Conn) { _ = g.Close() },
		"body": func(g *guard, feed net.Conn) {
			_, _ = feed.Write([]byte("\x30\x05\x00")) // the rest never comes
			eventually(t, "the head is read", func() bool { return read.Load() == 3 })
			_ = g.fail(errNoPuback)
		},
		"write": func(g *guard, feed net.Conn) { _ = feed.Close(); _, _ = g.Write([]byte("x")) },
	} {
		g, feed := testGuard(t, 128)
		if what == "body" {
			g.greeted = true
		}
		read.Store(0)
		got := make(chan error, 1)
		go func() {
			var err error
			for buf := make([]byte, 10); err == nil; {
				var n int
				n, err = g.Read(buf)
				read.Add(int64(n))
			}
			got <- err
		}()
		end(g, feed)
		if err := <-got; err == nil || strings.Contains(err.Error(), "use of closed") {
			t.Errorf("%s: Read returns %v", what, err)
		}
		<-g.ended
		if _, err := g.Write([]byte("x")); err == nil || strings.Contains(err.Error(), "use of closed") {
			t.Errorf("%s: Write returns %v", what, err)
		}
	}
}

func TestGuardWritesWhatWasWrittenBeforeClose(t *testing.T) {
	g, feed := testGuard(t, 128)
	_, _ = g.Write([]byte("one "))
	_, _ = g.Write([]byte("two"))
	_ = g.Close()
	got := make([]byte, len("one two"))
	if _, err := io.ReadFull(feed, got); string(got) != "one two" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	<-g.ended
	if _, err := g.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the upstream does not hang up, and Read returns %v", err)
	}
}

// A peer that does not read costs the connection, not a goroutine.
func TestGuardWriteTimeout(t *testing.T) {
	a, b := net.Pipe() // unbuffered: nobody reads b
	defer b.Close()
	g := newGuard(a, a, 128, 20*time.Millisecond, nil)
	_, _ = g.Write([]byte("x"))
	<-g.ended
	if _, err := g.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("%v", err)
	}
}

func TestPacketCapEndsTheLink(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	o := testOptions(local, up.addr(), outAll, inCmd)
	o.MaxPacketBytes = 1000
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	up.send("dev/cmd/a", strings.Repeat("x", 500), 1, false)
	eventually(t, "the small one", func() bool { return len(local.received()) == 1 })
	up.send("dev/cmd/a", strings.Repeat("x", 1000), 1, false)
	eventually(t, "a new link", func() bool { return b.Status().Links == 2 })
	if got := b.Status().LastError; !strings.Contains(got, "exceeds the maximum packet size") {
		t.Errorf("last error %q", got)
	}
	if len(local.received()) != 1 {
		t.Error("the large one arrived")
	}
}

// An upstream that sends rubbish makes the bridge dial again, nothing else.
func TestHostileUpstream(t *testing.T) {
	for _, rubbish := range []string{
		"HTTP/1.1 400 Bad Request\r\n\r\n", "\x20\x02\x00\x06", "\x20\xff\xff\xff\x7f", "",
		hello + "\x90\x05\x00\x01\x01\x01\x01", hello + "\x40\x02\x00\x09", hello + "\x30\xff\xff\xff\x7f",
	} {
		local, up := newFakeLocal(t), newFakeUpstream(t)
		up.with(func() {
			up.raw = func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1000))
				_, _ = c.Write([]byte(rubbish))
			}
		})
		b, err := New(testOptions(local, up.addr(), outAll, inCmd), zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an error", func() bool { return b.Status().LastError != "" })
		_ = b.Close()
		if st := b.Status(); st.Acked != 0 {
			t.Errorf("%q: %+v", rubbish, st)
		}
	}
}
