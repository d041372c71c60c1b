package bridge

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/broker/mqtt"

	"github.com/eclipse/paho.golang/packets"
	"go.uber.org/zap"
)

const (
	hello5   = "\x20\x03\x00\x00\x00"
	puback5  = "\x40\x02\x00\x01"
	publish5 = "\x32\x07\x00\x01a\x00\x01\x00x"
)

func TestGuardInMQTT5(t *testing.T) {
	for _, c := range []struct {
		name, in string
		passes   int    // bytes that paho gets
		err      string // "": just the end of the stream
	}{
		{"connack", hello5, 5, ""},
		{"connack with limits", "\x20\x06\x00\x00\x03\x21\x00\x0a", 8, ""},
		{"puback with a reason, pingresp", hello5 + "\x40\x04\x00\x01\x97\x00" + "\xd0\x00", 5 + 6 + 2, ""},
		{"one publish", hello5 + publish5, 5 + 9, ""},
		{"suback that is due", hello5 + "\x90\x04\x00\x01\x00\x01", 11, ""},
		{"second suback", hello5 + "\x90\x04\x00\x01\x00\x01" + "\x90\x04\x00\x01\x00\x01", 11, "none was due"},
		{"suback with two codes", hello5 + "\x90\x05\x00\x01\x00\x01\x01", 5, "one code was due"},
		{"no connack", puback5, 0, "CONNACK comes first"},
		{"second connack", hello5 + hello5, 5, "CONNACK comes first"},
		{"3.1.1 refuses the version", "\x20\x02\x00\x01", 0, "does not speak MQTT 5"},
		{"3.1.1 refuses the password", "\x20\x02\x00\x04", 0, "bad user name or password"},
		{"3.1.1 accepts", "\x20\x02\x00\x00", 0, "CONNACK"},
		{"refuses the version", "\x20\x03\x00\x84\x00", 0, "does not speak MQTT 5"},
		{"refuses with a reason", "\x20\x08\x00\x87\x05\x1f\x00\x02no", 0, `Not authorized ("no")`},
		{"unknown code", "\x20\x03\x00\x06\x00", 0, "CONNACK"},
		{"disconnect", hello5 + "\xe0\x01\x8e", 5, "disconnects us: Session taken over"},
		{"disconnect with a reason", hello5 + "\xe0\x07\x97\x05\x1f\x00\x02no", 5, `("no")`},
		{"auth", hello5 + "\xf0\x00", 5, "not for this client"},
		{"pubrec", hello5 + "\x50\x02\x00\x01", 5, "not for this client"},
		{"unsuback", hello5 + "\xb0\x04\x00\x01\x00\x00", 5, "not for this client"},
		{"QoS 2", hello5 + "\x34\x07\x00\x01a\x00\x01\x00x", 5, "QoS above"},
		{"topic alias", hello5 + "\x30\x07\x00\x01a\x03\x23\x00\x01", 5, "topic alias"},
		{"property that is none", hello5 + "\x30\x07\x00\x01a\x03\x7f\x00\x01", 5, "unknown property"},
		{"property length", hello5 + "\x40\x04\x00\x01\x00\x7f", 5, "property length"},
		{"empty suback", hello5 + "\x90\x00", 5, ""},
		{"too large", hello5 + "\x30\xff\x01", 5, "maximum packet size"},
		{"cut", hello5 + "\x32\x07\x00\x01a", 5, ""},
	} {
		for _, step := range []int{1, 1000} {
			g, feed := testGuard(t, 128)
			g.v5()
			g.subacks.Store(1)
			out, err := guarded(t, g, feed, []byte(c.in), step)
			if string(out) != c.in[:c.passes] {
				t.Errorf("%s: %q passes, want %q", c.name, out, c.in[:c.passes])
			}
			if c.err == "" && (err == nil || strings.Contains(err.Error(), "EOF") || strings.Contains(err.Error(), "refused")) {
				continue
			}
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %s", c.name, err, c.err)
			}
		}
	}
}

// One message at a time: the next is not even read before the one before was taken.
func TestGuardKeepsTheQueueOfPahoEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		g := &guard{Conn: a, raw: a, maxBytes: 128, dead: make(chan struct{}), out: newWriter(a, 0, func(error) {}, nil)}
		g.five = &gate5{g: g, in: frames{src: a, max: 128}, turn: make(chan struct{}, 1)}
		g.five.turn <- struct{}{}
		var through []byte
		var end error
		go func() {
			buf := make([]byte, 4)
			for end == nil {
				var n int
				n, end = g.Read(buf)
				through = append(through, buf[:n]...)
			}
		}()
		go func() { _, _ = b.Write([]byte(hello5 + publish5 + puback5 + publish5)) }()
		synctest.Wait()
		if want := hello5 + publish5 + puback5; string(through) != want {
			t.Errorf("%q passes, want %q", through, want)
		}
		g.five.done()
		synctest.Wait()
		if want := hello5 + publish5 + puback5 + publish5; string(through) != want {
			t.Errorf("%q passes, want %q", through, want)
		}
		go func() { _, _ = b.Write([]byte(publish5)) }()
		synctest.Wait()
		_ = g.fail(errNoPuback) // who waits for the turn hears of it
		synctest.Wait()
		if !errors.Is(end, errNoPuback) {
			t.Errorf("the reader ends with %v", end)
		}
		_ = b.Close()
	})
}

// An upstream that sends rubbish makes the bridge dial again, nothing else.
func TestHostileUpstreamInMQTT5(t *testing.T) {
	for _, rubbish := range []string{
		"HTTP/1.1 400 Bad Request\r\n\r\n", "\x20\xff\xff\xff\x7f", "", hello5 + "\x90\x00", hello5 + "\x40\x00", hello5 + puback5 + puback5 + "\x30\xff\xff\xff\x7f",
		hello5 + "\x90\x03\x00\x01\x00", hello5 + "\xe0\x00", hello5 + "\xf0\x00", hello5 + "\x30\x04\x00\x01a\xff", "\xf0\x00",
	} {
		local, up := newFakeLocal(t), newFakeUpstream(t)
		up.with(func() {
			up.raw = func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1000))
				_, _ = c.Write([]byte(rubbish))
			}
		})
		o := testOptions(local, up.addr(), outAll, inCmd)
		o.Protocol = Protocol5
		b, err := New(o, zap.NewNop())
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

// paho writes a packet in pieces, and holds the lock of the connection over them if it
// has one. Packets of several goroutines must not mix.
func TestPacketsDoNotMix(t *testing.T) {
	const n, writers = 3000, 4
	a, b := socketpair(t)
	c := &conn5{guard: newGuard(a, a, 1<<20, time.Minute, nil)}
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range n {
				p := packets.NewControlPacket(packets.PUBLISH)
				body := p.Content.(*packets.Publish)
				body.Topic, body.Payload = "some/topic", []byte("some payload")
				_, _ = p.WriteTo(c)
				c.send([]byte(puback5))
			}
		})
	}
	in := frames{src: b, max: 1 << 20}
	for i := range 2 * n * writers {
		h, body, err := in.next()
		var p mqtt.Publish
		if err == nil && h.Type == mqtt.PUBLISH {
			if err = mqtt.DecodePublish(&p, h.Flags, body, mqtt.V5); err == nil && string(p.Payload) != "some payload" {
				err = fmt.Errorf("payload %q", p.Payload)
			}
		}
		if err != nil || h.Type != mqtt.PUBLISH && h.Type != mqtt.PUBACK {
			t.Errorf("packet %d: type %d, %q: %v", i, h.Type, body, err)
			break
		}
	}
	wg.Wait()
	_ = c.fail(errUplinkClosed)
	_ = b.Close()
	<-c.ended
}

// The session gives each id once, goes around, and takes an answer only for what it is
// an answer to.
func TestPacketIdentifiers(t *testing.T) {
	s := newSession5()
	s.last = 65533
	var ids []uint16
	var receipts []*receipt5
	add := func() {
		r := &receipt5{done: make(chan struct{})}
		p := &fakePacket{kind: 3}
		if err := s.AddToSession(withReceipt(r), p, nil); err != nil {
			t.Fatal(err)
		}
		ids, receipts = append(ids, p.id), append(receipts, r)
	}
	for range 4 {
		add()
	}
	if !slices.Equal(ids, []uint16{65534, 65535, 1, 2}) {
		t.Errorf("ids %v", ids)
	}
	if _, ok := s.take(1, false); ok {
		t.Error("a SUBACK answers a PUBLISH")
	}
	if w, ok := s.take(1, true); !ok || w.receipt != receipts[2] {
		t.Error("the PUBACK is for somebody else")
	}
	if _, ok := s.take(1, true); ok {
		t.Error("a second PUBACK counts")
	}
	for range receiveMaxAny - 3 {
		add()
	}
	if err := s.AddToSession(withReceipt(&receipt5{}), &fakePacket{kind: 3}, nil); !errors.Is(err, errNoID) {
		t.Errorf("65536 messages under way: %v", err)
	}
	_ = s.ConnectionLost(nil)
	if err := s.AddToSession(withReceipt(&receipt5{}), &fakePacket{kind: 3}, nil); !errors.Is(err, errSessionLost) {
		t.Errorf("after the end: %v", err)
	}
	select {
	case <-receipts[0].Done():
		t.Error("the loss of the connection is an answer")
	default:
	}
}

type fakePacket struct {
	kind byte
	id   uint16
}

func (p *fakePacket) SetIdentifier(id uint16)          { p.id = id }
func (p *fakePacket) Type() byte                       { return p.kind }
func (p *fakePacket) WriteTo(io.Writer) (int64, error) { return 0, nil }
