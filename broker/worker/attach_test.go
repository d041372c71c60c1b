package worker

import (
	"fmt"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// watchWills subscribes to the wills of a test.
func watchWills(r *rig) *device {
	d := r.connect("watch", mqtt.V5, nil)
	d.subscribe("will:0")
	return d
}

func willOf(payload string, delay, stay uint32) func(*mqtt.Connect) {
	return func(c *mqtt.Connect) {
		c.Clean = false
		expiry(c, stay)
		c.HasWill, c.Will = true, mqtt.Will{Topic: []byte("will"), Payload: []byte(payload)}
		c.Will.Props.WillDelaySeconds = delay
	}
}

func TestTakeover(t *testing.T) {
	r := newRig(t, 3, nil)
	watch := watchWills(r)
	for i := range r.ws {
		id := r.idOn(i, "a")
		first := r.connect(id, mqtt.V5, willOf("first", 0, 60))
		first.subscribe("t:1")
		second := r.dial((i+1)%3, mqtt.V311)
		second.sendConnect(id, durableSession)
		second.expect("CONNACK 0 present")
		first.expect("DISCONNECT 0x8e")
		watch.expect("will=first qos0")
		if !first.closed {
			t.Error("the first connection is open")
		}
		watch.send(watch.publication("t", "x", 1, 1))
		second.expect("t=x qos1 id1")
		watch.expect("PUBACK 1")
		second.send(second.publication("will", "bye", 0, 0))
		watch.expect("will=bye qos0")
	}
	if n := r.sum().Takeovers; n != 3 {
		t.Errorf("%d takeovers", n)
	}
}

// A connection that is taken over while it is dying already gets no second
// DISCONNECT, and no acknowledgement behind the first [MQTT-3.14.4-1].
func TestNothingAfterDisconnect(t *testing.T) {
	r := newRig(t, 1, nil)
	sub := r.connect("sub", mqtt.V311, durableSession)
	sub.subscribe("t:1")
	sub.lose()
	first := r.connect("a", mqtt.V5, durableSession)
	r.lazy = true
	first.send(first.publication("t", "x", 1, 1))
	r.run()
	first.got()
	first.send([]byte{0xFF, 0xFF})
	second := r.dial(0, mqtt.V5)
	second.sendConnect("a", durableSession)
	r.store.Step() // the acknowledgement is in the mail
	r.ws[0].Call(func(w *Worker) {
		if c := w.byID["a"].conn; c.dying {
			w.kick(c, mqtt.SessionTakenOver, "")
		} else {
			t.Error("the connection does not die in this turn")
		}
	})
	r.run()
	first.got("DISCONNECT 0x81")
	second.got("CONNACK 0 present")
}

// Whoever connects with a new client id while it is being handed over twice.
func TestTakeoverInOneTurn(t *testing.T) {
	r := newRig(t, 2, nil)
	id := r.idOn(1, "a")
	var all []*device
	for range 5 {
		d := r.dial(0, mqtt.V5)
		d.sendConnect(id, durableSession)
		all = append(all, d)
	}
	r.run()
	for i, d := range all {
		if i < 4 {
			got := d.read()
			if len(got) != 2 || got[1] != "DISCONNECT 0x8e" || !d.closed {
				t.Errorf("connection %d: %q, closed %v", i, got, d.closed)
			}
		} else {
			d.got("CONNACK 0 present")
		}
	}
	if s := r.sum(); s.Connections != 1 || s.Sessions != 1 {
		t.Errorf("%d connections, %d sessions", s.Connections, s.Sessions)
	}
}

func TestWillDelay(t *testing.T) {
	for _, x := range []struct {
		name          string
		delay, expiry uint32
		after         time.Duration // when the will comes
	}{
		{"none", 0, 60, 0},
		{"delay", 10, 60, 10 * time.Second},
		{"session ends first", 60, 10, 10 * time.Second},
		{"session ends with the connection", 60, 0, 0},
		{"session stays", 10, persist.NoExpiry, 10 * time.Second},
	} {
		r := newRig(t, 1, nil)
		watch := watchWills(r)
		r.connect("a", mqtt.V5, willOf("dead", x.delay, x.expiry)).lose()
		if x.after > 0 {
			r.wait(x.after - time.Second)
			watch.got()
			r.wait(time.Second + 2*timerTick)
		}
		if got := watch.read(); len(got) != 1 || got[0] != "will=dead qos0" {
			t.Errorf("%s: %q", x.name, got)
		}
		r.wait(100 * time.Second)
		watch.got()
	}
}

// [MQTT-3.1.3-9]: who comes back in time keeps the will from being published.
func TestWillDelayAndReturn(t *testing.T) {
	r := newRig(t, 1, nil)
	watch := watchWills(r)
	r.connect("a", mqtt.V5, willOf("first", 10, 60)).lose()
	r.wait(9 * time.Second)
	second := r.connect("a", mqtt.V5, willOf("second", 10, 60))
	r.wait(20 * time.Second)
	watch.expect()
	second.lose()
	r.wait(5 * time.Second)
	// A clean start ends the session, and with it the wait.
	r.connect("a", mqtt.V5, willOf("third", 10, 60)).lose()
	r.connect("a", mqtt.V5, nil)
	watch.expect("will=third qos0")
	// Who comes back without a will has none.
	r.connect("b", mqtt.V5, willOf("fourth", 10, 60)).lose()
	r.connect("b", mqtt.V5, durableSession).lose()
	r.wait(20 * time.Second)
	watch.expect()
}

// A will that waits is in the store with its session: it comes after a restart,
// once, when its delay is over, unless the client is back by then. The time between
// the last commit and a crash does not count (persist.Clock).
func TestWillDelayOverRestart(t *testing.T) {
	r := newRig(t, 2, nil)
	r.connect("a", mqtt.V5, willOf("of a", 30, 600)).lose()
	r.connect("b", mqtt.V5, willOf("of b", 30, 600)).lose()
	r.connect("c", mqtt.V5, willOf("of c", 30, 600)).lose()
	r.connect("c", mqtt.V5, durableSession)
	r.wait(10 * time.Second)
	r.restart()
	watch := watchWills(r)
	r.wait(10 * time.Second)
	r.connect("b", mqtt.V5, durableSession).lose()
	watch.expect()
	r.wait(21 * time.Second)
	watch.expect("will=of a qos0")
	r.restart()
	watch = watchWills(r)
	r.wait(60 * time.Second)
	watch.expect()
}

// A stop in order keeps the wills that have a delay, as a crash does.
func TestWillDelayOverStop(t *testing.T) {
	r := newRig(t, 1, nil)
	r.connect("a", mqtt.V5, willOf("of a", 30, 600))
	r.connect("b", mqtt.V5, willOf("of b", 0, 600))
	r.ws[0].Stop()
	r.turn(r.ws[0], nil)
	r.store.Step()
	if n := r.sum().Wills; n != 1 {
		t.Errorf("%d wills at once", n)
	}
	r.restart()
	watch := watchWills(r)
	r.wait(31 * time.Second)
	watch.expect("will=of a qos0")
}

func TestSessionExpiry(t *testing.T) {
	r := newRig(t, 2, nil)
	id := r.idOn(1, "a")
	connect := func(stay uint32) *device {
		return r.connect(id, mqtt.V5, func(c *mqtt.Connect) { c.Clean = false; expiry(c, stay) })
	}
	connect(60).lose()
	r.wait(55 * time.Second)
	connect(60).lose() // the time begins anew
	r.wait(55 * time.Second)
	if n := r.sum().Sessions; n != 1 {
		t.Fatalf("%d sessions before the time is up", n)
	}
	r.wait(6 * time.Second)
	if s := r.sum(); s.Sessions != 0 || s.Expired != 1 {
		t.Errorf("%d sessions, %d expired", s.Sessions, s.Expired)
	}
	if im, _ := r.store.Load(); len(im.Sessions) != 0 {
		t.Errorf("the store has %d sessions", len(im.Sessions))
	}
	connect(60).lose()
	connect(persist.NoExpiry).lose()
	r.wait(1000 * time.Hour)
	if n := r.sum().Sessions; n != 1 {
		t.Errorf("%d sessions, one was to stay for ever", n)
	}
}

// Sessions, subscriptions, messages and packet ids survive a power cut; a
// session that was away gets its whole time again.
func TestRestart(t *testing.T) {
	r := newRig(t, 3, nil)
	id := r.idOn(2, "a")
	a := r.connect(id, mqtt.V5, durableSession)
	a.subscribe("t:2", "u:1")
	a.send(a.publication("u", "from a", 2, 77))
	a.expect("u=from a qos1 id1", "PUBREC 77")
	pub := r.connect("pub", mqtt.V5, nil)
	pub.send(pub.publication("t", "two", 2, 1), pub.publication("t", "one", 1, 2))
	pub.expect("PUBREC 1", "PUBACK 2")
	a.expect("t=two qos2 id2", "t=one qos1 id3")
	a.ack(mqtt.PUBREC, 2)
	a.expect("PUBREL 2")
	r.restart()

	pub = r.connect("pub", mqtt.V5, nil)
	pub.send(pub.publication("t", "three", 1, 1))
	pub.expect("PUBACK 1")
	a = r.dial(0, mqtt.V5)
	a.sendConnect(id, durableSession)
	a.expect("CONNACK 0 present", "u=from a qos1 id1 dup", "t=one qos1 id3 dup", "t=three qos1 id4", "PUBREL 2")
	a.send(a.publication("u", "from a", 2, 77))
	a.expect("PUBREC 77")
	a.ack(mqtt.PUBREL, 77)
	a.expect("PUBCOMP 77")
	a.lose()
	r.restart()
	r.wait(3599 * time.Second)
	if n := r.sum().Sessions; n != 1 {
		t.Errorf("%d sessions", n)
	}
	r.wait(2 * time.Second)
	if n := r.sum().Sessions; n != 0 {
		t.Errorf("%d sessions after their time", n)
	}
}

// What the store is asked for comes to the worker that asked.
func TestFetchComesBack(t *testing.T) {
	r := newRig(t, 4, nil)
	pub := r.connect("pub", mqtt.V311, nil)
	for i := range r.ws {
		id := r.idOn(i, "a")
		a := r.connect(id, mqtt.V311, durableSession)
		a.subscribe("t:1")
		a.lose()
		pub.send(pub.publication("t", id, 1, 1))
		pub.expect("PUBACK 1")
		a = r.dial(0, mqtt.V311)
		a.sendConnect(id, durableSession)
		a.expect("CONNACK 0 present", "t="+id+" qos1 id1")
		a.ack(mqtt.PUBACK, 1)
		a.send(mqtt.AppendUnsubscribe(nil, &mqtt.Unsubscribe{PacketID: 5, Filters: [][]byte{[]byte("t")}}, mqtt.V311))
		a.expect("UNSUBACK 5")
	}
}

func TestKeepalive(t *testing.T) {
	r := newRig(t, 1, nil)
	watch := watchWills(r)
	alive := func(c *mqtt.Connect) {
		willOf("gone", 0, 0)(c)
		c.KeepAliveSeconds = 10
	}
	d := r.connect("a", mqtt.V5, alive)
	for range 10 {
		r.wait(14 * time.Second)
		d.send(mqtt.AppendPingreq(nil))
		d.expect("PINGRESP")
	}
	r.wait(14 * time.Second)
	d.got()
	r.wait(time.Second + 2*timerTick)
	d.got("DISCONNECT 0x8d")
	watch.got("will=gone qos0")
	if !d.closed {
		t.Error("not closed")
	}
	// Without a keepalive silence is no reason.
	quiet := r.connect("b", mqtt.V311, nil)
	r.wait(100 * time.Hour)
	if quiet.closed {
		t.Error("a connection without keepalive was closed")
	}
	if n := r.ws[0].timers.count; n != 0 {
		t.Errorf("%d timers for connections that need none", n)
	}
}

// Clients that come and go leave nothing behind but one turn of the wheel.
func TestTimersUnderChurn(t *testing.T) {
	r := newRig(t, 1, nil)
	long := func(c *mqtt.Connect) {
		c.Clean, c.KeepAliveSeconds = false, 65535
		expiry(c, 100*24*3600)
	}
	most := 0
	for i := range 1000 {
		d := r.connect(fmt.Sprint("stays-", i%3), mqtt.V5, long)
		d.lose()
		r.connect("goes", mqtt.V5, func(c *mqtt.Connect) { c.KeepAliveSeconds = 65535 }).lose()
		r.now = r.now.Add(time.Second)
		r.turn(r.ws[0], nil)
		most = max(most, r.ws[0].timers.count)
	}
	perTurn := int(timerSlots * timerTick / time.Second)
	if most > 4*(perTurn+2) {
		t.Errorf("up to %d timers for 3 clients, %d turns of the wheel", most, 1000/perTurn)
	}
	if n := len(r.ws[0].conns.slots); n > 3 {
		t.Errorf("%d slots for at most two connections", n)
	}
}
