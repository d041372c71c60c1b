package conformance

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/broker"
	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/persist/mem"
)

// Cases of sessions: what is kept, for how long, and what is sent again.

// fill makes a session with a subscription to x of QoS 2 and messages a (QoS 1)
// and b (QoS 2) waiting; it gives the publisher.
func (c *trial) fill(id string) *peer {
	c.Helper()
	p, pub := c.connect(id, renew), c.connect(id+"-pub")
	p.subscribe(c.topic("x"), 2)
	p.drop()
	pub.publish(c.topic("x"), 1, "a")
	pub.publish(c.topic("x"), 2, "b")
	return pub
}

func cleanStart(c *trial) {
	pub := c.fill("x")
	p := c.connect("x")
	if p.connack.SessionPresent {
		c.Error("session present after a clean start")
	}
	p.subscribe(c.topic("y"), 1)
	pub.publish(c.topic("x"), 1, "x: not subscribed any more")
	c.quiet(pub, p, c.topic("y"))
	if c.is5() {
		return
	}
	// A clean session ends with its connection.
	p.drop()
	p = c.connect("x", keep)
	if p.connack.SessionPresent {
		c.Error("a clean session is still there")
	}
	p.subscribe(c.topic("z"), 1)
	pub.publish(c.topic("y"), 1, "y: not subscribed any more")
	c.quiet(pub, p, c.topic("z"))
}

func sessionResumed(c *trial) {
	pub := c.fill("x")
	p := c.connect("x", keep)
	if c.v != mqtt.V31 && !p.connack.SessionPresent {
		c.Error("no session present")
	}
	p.take("a")
	p.take("b")
	pub.publish(c.topic("x"), 1, "c") // the subscription, too
	p.take("c")
}

func sessionMade(c *trial) {
	p := c.connect("new", keep)
	if p.connack.SessionPresent {
		c.Error("session present, although there was none")
	}
	p.subscribe(c.topic("x"), 1)
	c.connect("new-pub").publish(c.topic("x"), 1, "m")
	p.take("m")
}

func sessionPresent(c *trial) {
	sessionMade(c)
	sessionResumed(c)
}

// offlineQueue: messages of QoS 1 and 2 for those who are away.
func offlineQueue(c *trial) {
	c.fill("x")
	p := c.connect("x", keep)
	if m := p.take("a"); m.QoS != 1 {
		c.Errorf("a came with QoS %d", m.QoS)
	}
	if m := p.take("b"); m.QoS != 2 {
		c.Errorf("b came with QoS %d", m.QoS)
	}
}

// everyMatchingSession gets its copy, connected or not.
func everyMatchingSession(c *trial) {
	here := c.connect("here")
	here.subscribe(c.topic("+"), 2)
	none := c.connect("none")
	none.subscribe(c.topic("y"), 2)
	pub := c.fill("away")
	here.take("a")
	here.take("b")
	away := c.connect("away", keep)
	away.take("a")
	away.take("b")
	c.quiet(pub, none, c.topic("y"))
}

// sessionOnDisk: the state outlives the broker itself.
func sessionOnDisk(c *trial) {
	dir := c.TempDir()
	c.own(onDisk(dir))
	pub := c.fill("x")
	pub.publish(c.topic("kept"), 1, "retained", retained)
	if err := c.b.Close(); err != nil {
		c.Fatal(err)
	}
	c.own(onDisk(dir))
	p := c.connect("x", keep)
	if c.v != mqtt.V31 && !p.connack.SessionPresent {
		c.Error("no session present after a restart")
	}
	p.take("a")
	p.take("b")
	late := c.connect("late")
	late.subscribe(c.topic("kept"), 1)
	late.take("retained")
}

func retainedOutlivesSession(c *trial) {
	p := c.connect("x")
	p.publish(c.topic("x"), 1, "stays", retained)
	p.drop()
	sub := c.connect("sub")
	sub.subscribe(c.topic("x"), 1)
	sub.take("stays")
}

// clientIDIsTheSession: state belongs to the client id, not to the connection,
// the address or the user name.
func clientIDIsTheSession(c *trial) {
	c.fill("x")
	other := c.connect("other", keep, func(m *mqtt.Connect) { m.HasUsername, m.Username = true, []byte("u") })
	if other.connack.SessionPresent {
		c.Error("another client id finds a session")
	}
	other.ping() // and no message
	p := c.connect("x", keep)
	p.take("a")
	p.take("b")
}

// sessionKeptWhileConnected: however short its time, it does not run while the
// client is there.
func sessionKeptWhileConnected(c *trial) {
	p := c.connect("x", renew, expiry(1))
	p.subscribe(c.topic("x"), 1)
	c.wait(1500 * time.Millisecond)
	c.connect("pub").publish(c.topic("x"), 1, "still here")
	p.take("still here")
	p.drop()
	if again := c.connect("x", keep); !again.connack.SessionPresent {
		c.Error("the session is gone before its time")
	}
}

// sessionKeptWhileConnected3: before MQTT 5 a session has no time of its own.
func sessionKeptWhileConnected3(c *trial) {
	p, pub := c.connect("x"), c.connect("pub")
	p.subscribe(c.topic("x"), 1)
	for i := range 50 {
		pub.publish(c.topic("x"), 1, fmt.Sprint(i))
		p.take(fmt.Sprint(i))
	}
}

func sessionExpires(c *trial) {
	p := c.connect("x", renew, expiry(1))
	q := c.connect("y", renew, expiry(3600))
	p.subscribe(c.topic("x"), 1)
	p.disconnect()
	q.disconnect()
	c.wait(1050 * time.Millisecond)
	if p = c.connect("x", keep); p.connack.SessionPresent {
		c.Error("a session is there after its time")
	}
	if q = c.connect("y", keep); !q.connack.SessionPresent {
		c.Error("a session is gone before its time")
	}
	// None at all: it ends with the connection.
	c.connect("z").drop()
	if z := c.connect("z", keep); z.connack.SessionPresent {
		c.Error("a session without an expiry interval outlives its connection")
	}
}

// resend: a durable session loses its connection in each state that a message
// can be in, and gets again what it has not acknowledged, and nothing else.
//
//	a QoS 1 sent; b QoS 1 acknowledged; c QoS 2 sent; d QoS 2, PUBREL sent
func resend(c *trial) (before, after map[string]*message, released uint16) {
	before, after = map[string]*message{}, map[string]*message{}
	p, pub := c.connect("resend", renew), c.connect("resend-pub")
	p.subscribe(c.topic("r"), 2)
	for i, name := range []string{"a", "b", "c", "d"} {
		pub.publish(c.topic("r"), mqtt.QoS(1+i/2), name)
		m := p.wantMessage(name)
		if m.Dup {
			c.Errorf("%s: DUP, the first time", name)
		}
		before[name] = m
	}
	p.ack(mqtt.PUBACK, before["b"].PacketID, mqtt.Success)
	p.ack(mqtt.PUBREC, before["d"].PacketID, mqtt.Success)
	p.wantAck(mqtt.PUBREL, before["d"].PacketID)
	p.ping() // no resending while connected
	p.drop()

	p = c.connect("resend", keep)
	for range 3 {
		switch k := p.next(); k.typ {
		case mqtt.PUBLISH:
			m := p.decode(k)
			after[string(m.Payload)] = m
		case mqtt.PUBREL:
			var a mqtt.Ack
			p.check(mqtt.DecodeAck(&a, mqtt.PUBREL, k.body, c.v))
			released = a.PacketID
		default:
			c.Fatalf("%v, want what is not acknowledged", k.typ)
		}
	}
	p.ping()
	for _, m := range after {
		p.finish(m)
	}
	p.ack(mqtt.PUBCOMP, released, mqtt.Success)
	p.ping()
	p.drop()
	c.connect("resend", keep).ping() // now there is nothing left
	return before, after, released
}

func resendKeepsIDs(c *trial) {
	before, after, released := resend(c)
	for _, name := range []string{"a", "c"} {
		if m := after[name]; m == nil || m.PacketID != before[name].PacketID || m.QoS != before[name].QoS {
			c.Errorf("%s came again as %+v, before as %+v", name, m, before[name])
		}
	}
	if len(after) != 2 || released != before["d"].PacketID {
		c.Errorf("%d messages came again, and PUBREL for %d, want 2 and %d", len(after), released, before["d"].PacketID)
	}
}

func resendHasDup(c *trial) {
	_, after, _ := resend(c)
	for name, m := range after {
		if !m.Dup {
			c.Errorf("%s came again without DUP", name)
		}
	}
}

func notResentAfterPubrel(c *trial) {
	before, after, released := resend(c)
	if after["d"] != nil || released != before["d"].PacketID {
		c.Errorf("after PUBREL was sent, PUBLISH came again: %v; PUBREL for %d, want %d", after["d"] != nil, released, before["d"].PacketID)
	}
}

// resendInOrder: what is sent again, is in the order of before, and so is what
// has waited.
func resendInOrder(c *trial) {
	p, pub := c.connect("x", renew), c.connect("pub")
	p.subscribe(c.topic("x"), 2)
	var all []string
	for i := range 30 {
		all = append(all, fmt.Sprint(i))
		pub.publish(c.topic("x"), mqtt.QoS(1+i%2), all[i])
		if i < 15 {
			p.wantMessage(all[i])
		}
	}
	p.drop()
	p = c.connect("x", keep)
	for _, name := range all {
		p.wantMessage(name)
	}
}

// refusedIsNotResent: PUBACK and PUBREC that refuse end it.
func refusedIsNotResent(c *trial) {
	p, pub := c.connect("x", renew), c.connect("pub")
	p.subscribe(c.topic("x"), 2)
	pub.publish(c.topic("x"), 1, "a")
	p.ack(mqtt.PUBACK, p.wantMessage("a").PacketID, mqtt.UnspecifiedError)
	pub.publish(c.topic("x"), 2, "b")
	p.ack(mqtt.PUBREC, p.wantMessage("b").PacketID, mqtt.QuotaExceeded)
	p.ping()
	p.drop()
	p = c.connect("x", keep)
	p.ping()
	pub.publish(c.topic("x"), 1, "c")
	p.take("c")
}

// byteByByte: packets come in pieces, and several in one.
func byteByByte(c *trial) {
	p := c.dial()
	all := append(c.hello("x"), c.rawSubscribe(1, c.topic("x"), 2)...)
	all = append(all, c.publishPacket(c.topic("x"), 1, 2, strings.Repeat("long ", 100))...)
	for i := range all {
		p.send(all[i : i+1])
	}
	p.wantConnack(mqtt.Success)
	p.wantSuback(mqtt.SUBACK, 1, 2)
	var got []mqtt.Type
	for range 2 {
		got = append(got, p.next().typ)
	}
	if got[0] == got[1] || got[0] != mqtt.PUBACK && got[1] != mqtt.PUBACK {
		c.Errorf("%v, want PUBACK and PUBLISH", got)
	}
}

// storeFull: a message that must be stored and cannot be, is not acknowledged;
// the connection ends.
func storeFull(c *trial) {
	var disk *mem.Store
	c.own(func(o *broker.Options) {
		o.OpenStore = func(e persist.Events) (persist.Store, error) {
			disk = mem.New(mem.Options{Events: e, MaxPendingBytes: 1})
			return disk, nil
		}
	})
	// A client without a session of its own would be held back instead, unread.
	away, pub := c.connect("away", renew), c.connect("pub", renew)
	away.subscribe(c.topic("x"), 1)
	away.drop()
	pub.subscribe(c.topic("y"), 1)
	disk.FailCommits(errors.New("no space left on device"))
	c.Cleanup(func() { disk.FailCommits(nil) })
	var all []byte
	for id := uint16(1); id <= 5; id++ {
		all = append(all, c.publishPacket(c.topic("x"), 1, id, "m")...)
	}
	pub.send(all)
	pub.wantEOF()
}
