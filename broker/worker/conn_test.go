package worker

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/broker/mqtt"
)

// A message goes to subscribers on its own worker and on others, whichever
// worker they connected to.
func TestAcrossWorkers(t *testing.T) {
	r := newRig(t, 3, nil)
	pub := r.connect(r.idOn(0, "pub"), mqtt.V5, nil)
	var subs []*device
	for i := range r.ws {
		s := r.connect(r.idOn(i, "sub"), mqtt.V311, nil)
		s.subscribe("a/+:2")
		subs = append(subs, s)
	}
	for qos := range mqtt.QoS(3) {
		pub.send(pub.publication("a/b", "x", qos, 7))
		want := []string{"a/b=x qos0", "a/b=x qos1 id1", "a/b=x qos2 id2"}[qos]
		for _, s := range subs {
			s.expect(want)
		}
	}
	pub.expect("PUBACK 7", "PUBREC 7")
	pub.send(pub.publication("b", "x", 1, 8))
	pub.expect("PUBACK 8 0x10")
	if s := r.sum(); s.Received != 4 || s.Sent != 9 || s.Connects != 4 || s.Connections != 4 || s.Sessions != 4 {
		t.Errorf("counters: %+v", s)
	}
}

// A large message crosses as a shared one.
func TestLargeMessages(t *testing.T) {
	r := newRig(t, 2, func(o *Options) { o.OutputBytesMax = 4 << 20 })
	pub := r.connect(r.idOn(0, "pub"), mqtt.V5, nil)
	a, b := r.connect(r.idOn(0, "a"), mqtt.V5, nil), r.connect(r.idOn(1, "b"), mqtt.V5, nil)
	a.subscribe("t:1")
	b.subscribe("t:1")
	payload := strings.Repeat("0123456789", 90_000)
	packet := pub.publication("t", payload, 1, 1)
	// In pieces of odd sizes, so that the packet is put together again.
	for i := 1; len(packet) > 0; i++ {
		n := min(len(packet), i*997)
		pub.send(packet[:n])
		packet = packet[n:]
		r.run()
	}
	pub.send(pub.publication("t", "after", 0, 0))
	pub.expect("PUBACK 1")
	a.expect("t="+payload+" qos1 id1", "t=after qos0")
	b.expect("t="+payload+" qos1 id1", "t=after qos0")
	if c := connOf(r, pub); c.in != nil {
		t.Errorf("the connection still holds %d bytes of input", len(c.in))
	}
}

// connOf finds the worker's side of a device's connection.
func connOf(r *rig, d *device) (found *conn) {
	for _, w := range r.ws {
		w.conns.each(func(c *conn) {
			if c.fd == d.fd {
				found = c
			}
		})
	}
	if found == nil {
		r.t.Fatalf("descriptor %d has no connection", d.fd)
	}
	return found
}

// An idle connection owns no buffer.
func TestIdleConnectionsHoldNothing(t *testing.T) {
	r := newRig(t, 2, nil)
	d := r.connect(r.idOn(1, "a"), mqtt.V5, nil)
	d.subscribe("#:0")
	d.send(d.publication("a", "x", 0, 0)[:3])
	r.run()
	if c := connOf(r, d); len(c.in) != 3 || cap(c.in) > 16 {
		t.Errorf("part of a packet: %d bytes in %d", len(c.in), cap(c.in))
	}
	d.send(d.publication("a", "x", 0, 0)[3:])
	d.expect("a=x qos0")
	if c := connOf(r, d); c.in != nil || c.out != nil {
		t.Errorf("an idle connection holds %d and %d bytes", cap(c.in), cap(c.out))
	}
}

// What cannot be written waits, and is written when there is room.
func TestSlowReader(t *testing.T) {
	r := newRig(t, 1, nil)
	pub, sub := r.connect("pub", mqtt.V5, nil), r.connect("sub", mqtt.V5, nil)
	sub.subscribe("t:0")
	sub.room = 10
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprintf("t=%d qos0", i))
		pub.send(pub.publication("t", fmt.Sprint(i), 0, 0))
	}
	for r.run(); ; r.run() {
		if c := connOf(r, sub); len(c.out) == 0 {
			break
		}
		sub.room = 7
	}
	sub.got(want...)
}

// Messages of QoS 0 are lost only if the socket does not take them: a burst
// within one turn is no reason.
func TestBurstIsNotLost(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.OutputBytesMax = 1000 })
	pub, sub := r.connect("pub", mqtt.V5, nil), r.connect("sub", mqtt.V5, nil)
	sub.subscribe("t:0")
	for range 1000 {
		pub.send(pub.publication("t", "0123456789", 0, 0))
	}
	r.run()
	if got := len(sub.read()); got != 1000 {
		t.Errorf("%d of 1000 messages arrived: %+v", got, r.sum().Dropped)
	}
	if sub.writes > 50 {
		t.Errorf("%d writes for 1000 messages", sub.writes)
	}

	sub.room = 0
	for range 1000 {
		pub.send(pub.publication("t", "0123456789", 0, 0))
	}
	r.run()
	sub.room = -1
	r.run()
	got, dropped := len(sub.read()), r.sum().Dropped.QoS0Blocked
	if got+int(dropped) != 1000 || got < 60 || got > 80 {
		t.Errorf("from a socket that takes nothing: %d arrived, %d dropped", got, dropped)
	}
}

// A message of QoS 1 that was held back because of the output is sent when the
// output has gone, also if no event tells of that, and nothing else is under way.
func TestHeldBackIsSent(t *testing.T) {
	for _, version := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		for _, durable := range []bool{false, true} {
			r := newRig(t, 2, func(o *Options) { o.OutputBytesMax = 1000 })
			pub := r.connect(r.idOn(1, "pub"), mqtt.V5, nil)
			sub := r.connect(r.idOn(0, "sub"), version, func(c *mqtt.Connect) {
				if durable {
					durableSession(c)
				}
			})
			sub.subscribe("t:1")
			sub.room = 0
			for range 30 {
				pub.send(pub.publication("t", strings.Repeat("x", 100), 0, 0))
			}
			pub.send(pub.publication("t", "held", 1, 1))
			r.run()
			if len(sub.read()) != 0 {
				t.Fatal("a socket without room took something")
			}
			// The room comes back while the worker is writing: settle, not an
			// event, finds the socket ready.
			sub.net.r.ws[0].Call(func(w *Worker) { w.touch(connOf(r, sub)); sub.room = -1 })
			r.run()
			got := sub.read()
			if len(got) == 0 || got[len(got)-1] != "t=held qos1 id1" {
				t.Errorf("version %s, durable %v: %d messages, no held one", version, durable, len(got))
			}
		}
	}
}

// A client that sends and never reads is not read any more, and costs a bounded
// amount of memory; when it reads, everything goes on.
func TestClientThatDoesNotRead(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.OutputBytesMax = 1000 })
	d := r.connect("deaf", mqtt.V311, nil)
	d.room = 0
	const pings = 500_000
	d.send(bytes.Repeat(mqtt.AppendPingreq(nil), pings))
	r.run()
	c := connOf(r, d)
	if len(c.out) > 1000+readBytes || !c.paused || len(d.in) == 0 {
		t.Fatalf("%d bytes of output, paused %v, %d bytes unread", len(c.out), c.paused, len(d.in))
	}
	got := 0
	for range 10_000 {
		d.room = 5000
		r.run()
		got += len(d.read())
	}
	if got != pings || c.paused || c.out != nil {
		t.Errorf("%d of %d answers, paused %v, %d bytes left", got, pings, c.paused, len(c.out))
	}
}

// The same for a client whose acknowledgements come from the store.
func TestPublisherThatDoesNotRead(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.OutputBytesMax = 1000 })
	sub := r.connect("sub", mqtt.V311, durableSession)
	sub.subscribe("t:1")
	sub.lose()
	d := r.connect("deaf", mqtt.V311, nil)
	d.room = 0
	const messages = 40_000
	for i := range messages {
		d.send(d.publication("t", "", 1, uint16(i+1)))
	}
	r.run()
	c := connOf(r, d)
	if len(c.out) > 1000+readBytes || !c.paused || len(d.in) == 0 {
		t.Fatalf("%d bytes of output, paused %v, %d bytes unread", len(c.out), c.paused, len(d.in))
	}
	d.room = -1
	r.run()
	if got := len(d.read()); got != messages || c.paused {
		t.Errorf("%d of %d acknowledgements, paused %v", got, messages, c.paused)
	}
}

// A publisher whose acknowledgements wait for the store is not read beyond a
// limit, and is read again when they have left.
func TestPublisherWaitsForTheStore(t *testing.T) {
	r := newRig(t, 2, nil)
	sub := r.connect(r.idOn(1, "sub"), mqtt.V311, durableSession)
	sub.subscribe("t:1")
	sub.lose()
	pub := r.connect(r.idOn(0, "pub"), mqtt.V311, func(c *mqtt.Connect) { c.KeepAliveSeconds = 10 })
	r.lazy = true
	const messages = 30_000
	for i := range messages {
		pub.send(pub.publication("t", strings.Repeat("x", 30), 1, uint16(i%60_000+1)))
	}
	r.run()
	c := connOf(r, pub)
	waiting := c.client.Pending()
	if !c.paused || waiting < acksMax || waiting > acksMax+readBytes/40 || len(pub.read()) != 0 {
		t.Fatalf("paused %v, %d acknowledgements wait", c.paused, waiting)
	}
	r.wait(time.Minute)
	r.lazy = false
	r.run()
	got := pub.read()
	if len(got) != messages || c.paused || r.sum().AcksWaiting != 0 {
		t.Errorf("%d of %d acknowledged, paused %v, %d wait", len(got), messages, c.paused, r.sum().AcksWaiting)
	}
	for i, g := range got {
		if g != fmt.Sprintf("PUBACK %d", i%60_000+1) {
			t.Fatalf("acknowledgement %d is %s", i, g)
		}
	}
}

// A publisher to a worker that has too much mail is not read until that worker
// has taken it.
func TestPublisherWaitsForACongestedWorker(t *testing.T) {
	r := newRig(t, 2, func(o *Options) { o.OutputBytesMax = 1 << 30 })
	pub := r.connect(r.idOn(0, "pub"), mqtt.V311, nil)
	sub := r.connect(r.idOn(1, "sub"), mqtt.V311, nil)
	sub.subscribe("t:0")
	payload := strings.Repeat("x", 5000)
	const messages = 2000
	for range messages {
		pub.send(pub.publication("t", payload, 0, 0))
	}
	// Only worker 0 runs.
	w, c := r.ws[0], connOf(r, pub)
	for range 300 {
		r.turn(w, r.nets[0].events())
	}
	if !c.paused || len(pub.in) == 0 {
		t.Fatalf("paused %v, %d bytes unread", c.paused, len(pub.in))
	}
	if mail := r.ws[1].inbox.bytes; mail > congestedBytes+turnBytesMax+2*readBytes {
		t.Errorf("%d bytes of mail", mail)
	}
	r.run()
	if got := len(sub.read()); got != messages || c.paused || len(w.held) != 0 {
		t.Errorf("%d of %d arrived, paused %v, %d held", got, messages, c.paused, len(w.held))
	}
}

// The same with messages that are shared and not copied into the mail.
func TestLargeMessagesCongest(t *testing.T) {
	r := newRig(t, 2, func(o *Options) { o.OutputBytesMax = 1 << 30 })
	pub := r.connect(r.idOn(0, "pub"), mqtt.V311, nil)
	sub := r.connect(r.idOn(1, "sub"), mqtt.V311, nil)
	sub.subscribe("t:0")
	packet := pub.publication("t", strings.Repeat("x", 60_000), 0, 0)
	for range 200 {
		pub.send(packet)
	}
	for range 300 {
		r.turn(r.ws[0], r.nets[0].events())
	}
	if c := connOf(r, pub); !c.paused || len(pub.in) < 100*len(packet) {
		t.Errorf("paused %v, %d messages are in the mail", c.paused, 200-len(pub.in)/len(packet))
	}
	r.run()
	if got := len(sub.read()); got != 200 {
		t.Errorf("%d of 200 arrived", got)
	}
}

// A turn that is full keeps the events that are left, and only those, however
// often it is called with new ones.
func TestFullTurns(t *testing.T) {
	r := newRig(t, 1, nil)
	var all []*device
	for i := range 100 {
		all = append(all, r.connect(fmt.Sprint(i), mqtt.V311, nil))
	}
	for _, d := range all {
		d.send(bytes.Repeat(d.publication("t", strings.Repeat("x", 1000), 0, 0), 1000))
	}
	w := r.ws[0]
	for range 500 {
		before := w.stats.BytesReceived
		r.turn(w, r.nets[0].events())
		if n := w.stats.BytesReceived - before; n > turnBytesMax+readBytes {
			t.Fatalf("a turn read %d bytes", n)
		}
		if len(w.unread) > len(all) {
			t.Fatalf("%d events are kept for %d connections", len(w.unread), len(all))
		}
	}
	for _, d := range all {
		if len(d.in) > 0 {
			t.Fatal("a connection starves")
		}
	}
}

func TestConnectionsThatFail(t *testing.T) {
	r := newRig(t, 2, nil)
	watch := r.connect("watch", mqtt.V5, nil)
	watch.subscribe("will/+:0")
	will := func(c *mqtt.Connect) {
		c.HasWill, c.Will = true, mqtt.Will{Topic: []byte("will/x"), Payload: c.ClientID}
	}
	for i, end := range []error{io.EOF, unix.ECONNRESET} {
		d := r.connect(fmt.Sprintf("end-%d", i), mqtt.V5, will)
		d.end = end
		r.run()
		if !d.closed {
			t.Errorf("%v: not closed", end)
		}
		watch.expect(fmt.Sprintf("will/x=end-%d qos0", i))
	}
	d := r.connect("malformed", mqtt.V5, will)
	d.send([]byte{0x36, 2, 0, 0}) // QoS 3
	d.expect("DISCONNECT 0x81")
	watch.expect("will/x=malformed qos0")
	d = r.connect("second", mqtt.V5, will)
	d.sendConnect("second", nil)
	d.expect("DISCONNECT 0x82")
	watch.expect("will/x=second qos0")
	d = r.connect("polite", mqtt.V5, will)
	d.send(mqtt.AppendDisconnect(nil, &mqtt.Disconnect{}, mqtt.V5), d.publication("will/x", "after DISCONNECT", 0, 0))
	d.expect()
	watch.expect()
	if r.g.Connections() != 1 || r.open.Load() != 1 {
		t.Errorf("%d connections, %d of the listener, want 1", r.g.Connections(), r.open.Load())
	}
}
