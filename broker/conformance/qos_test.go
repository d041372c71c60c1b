package conformance

import (
	"fmt"
	"strings"
	"time"

	"sluice/broker/mqtt"
)

// Cases of the QoS protocols, of ordering, and of flow control.

func qos0Sender(c *trial) {
	sub, pub, topic := c.pair(0)
	for q := range mqtt.QoS(3) {
		pub.publish(topic, q, "m")
		if k := sub.want(mqtt.PUBLISH); k.flags != 0 {
			c.Errorf("flags %04b, want QoS 0, no DUP", k.flags)
		}
	}
}

func firstTimeFlags(q mqtt.QoS) func(*trial) {
	return func(c *trial) {
		sub, pub, topic := c.pair(2)
		pub.publish(topic, q, "m")
		k := sub.want(mqtt.PUBLISH)
		if m := sub.decode(k); k.flags != byte(q)<<1 || m.PacketID == 0 {
			c.Errorf("flags %04b, packet id %d; want QoS %d, no DUP, an id", k.flags, m.PacketID, q)
		}
	}
}

var (
	qos1First = firstTimeFlags(1)
	qos2First = firstTimeFlags(2)
)

// qos1Sender and qos2Sender are what 3.1.1 says in one statement.
func qos1Sender(c *trial) {
	qos1First(c)
	serverPacketIDs(c)
	resendKeepsIDs(c)
}

func qos2Sender(c *trial) {
	qos2First(c)
	pubrelFollows(c)
	resendKeepsIDs(c)
	notResentAfterPubrel(c)
}

func pubrelFollows(c *trial) {
	sub, pub := c.connect("s"), c.connect("p")
	sub.subscribe(c.topic("rel"), 2)
	pub.publish(c.topic("rel"), 2, "a")
	pub.publish(c.topic("rel"), 2, "b")
	a, b := sub.wantMessage("a"), sub.wantMessage("b")
	sub.ack(mqtt.PUBREC, b.PacketID, mqtt.Success)
	sub.wantAck(mqtt.PUBREL, b.PacketID)
	sub.ack(mqtt.PUBREC, a.PacketID, mqtt.Success)
	sub.wantAck(mqtt.PUBREL, a.PacketID)
	sub.ping()
	if !c.is5() {
		return
	}
	pub.publish(c.topic("rel"), 2, "c")
	sub.ack(mqtt.PUBREC, sub.wantMessage("c").PacketID, mqtt.QuotaExceeded)
	sub.ping() // no PUBREL after a refusal
}

func pubackReleasesID(c *trial) {
	sub, pub, topic := c.pair(1)
	for _, payload := range []string{"a", "b", "c"} {
		pub.send(c.publishPacket(topic, 1, 5, payload, dup))
		pub.wantAck(mqtt.PUBACK, 5)
		sub.take(payload)
	}
}

func qos1Receiver(c *trial) {
	acksNameThePacket(c)
	sub, pub := c.connect("sub1"), c.connect("pub1")
	sub.subscribe(c.topic("y"), 1)
	for _, payload := range []string{"a", "a"} {
		pub.send(c.publishPacket(c.topic("y"), 1, 5, payload, dup))
		pub.wantAck(mqtt.PUBACK, 5)
		sub.take(payload)
	}
}

// duplicateQoS2: until PUBREL, the same packet id is the same message; also by
// another connection of the session.
func duplicateQoS2(c *trial) {
	sub := c.connect("sub")
	sub.subscribe(c.topic("x"), 1)
	pub := c.connect("pub", renew)
	send := func(payload string, change ...func(*mqtt.Publish)) {
		c.Helper()
		pub.send(c.publishPacket(c.topic("x"), 2, 9, payload, change...))
		pub.wantAck(mqtt.PUBREC, 9)
	}
	send("a")
	send("a", dup)
	send("not looked at")
	pub.drop()
	pub = c.connect("pub", keep)
	send("a", dup)
	pub.ack(mqtt.PUBREL, 9, mqtt.Success)
	pub.wantAck(mqtt.PUBCOMP, 9)
	send("b")
	sub.take("a")
	sub.take("b")
}

func pubcompReleasesID(c *trial) {
	sub, pub, topic := c.pair(2)
	for _, payload := range []string{"a", "b"} {
		pub.send(c.publishPacket(topic, 2, 5, payload, dup))
		pub.wantAck(mqtt.PUBREC, 5)
		pub.ack(mqtt.PUBREL, 5, mqtt.Success)
		pub.wantAck(mqtt.PUBCOMP, 5)
		sub.take(payload)
	}
}

func pubcompAnswers(c *trial) {
	_, pub, topic := c.pair(2)
	for id := uint16(1); id <= 3; id++ {
		pub.send(c.publishPacket(topic, 2, id, "m"))
		pub.wantAck(mqtt.PUBREC, id)
	}
	for _, id := range []uint16{2, 3, 1} {
		pub.ack(mqtt.PUBREL, id, mqtt.Success)
		pub.wantAck(mqtt.PUBCOMP, id)
	}
	pub.ack(mqtt.PUBREL, 1, mqtt.Success) // once more: its PUBCOMP may have been lost
	pub.wantAck(mqtt.PUBCOMP, 1, mqtt.PacketIDNotFound)
}

func qos2Receiver(c *trial) {
	acksNameThePacket(c)
	duplicateQoS2(c)
	p := c.connect("z")
	p.ack(mqtt.PUBREL, 77, mqtt.Success)
	p.wantAck(mqtt.PUBCOMP, 77, mqtt.PacketIDNotFound)
}

func tooDeep() string { return strings.Repeat("/", levelsMax) }

func pubrecRefusalReleasesID(c *trial) {
	sub, pub, topic := c.pair(2)
	pub.send(c.publishPacket(c.topic(tooDeep()), 2, 5, "refused"))
	pub.wantAck(mqtt.PUBREC, 5, mqtt.TopicNameInvalid)
	pub.send(c.publishPacket(topic, 2, 5, "another", dup))
	pub.wantAck(mqtt.PUBREC, 5)
	sub.take("another")
}

// sentDoesNotExpire: a QoS 2 message that was sent is sent again, however late.
func sentDoesNotExpire(c *trial) {
	p, pub := c.connect("x", renew), c.connect("pub")
	p.subscribe(c.topic("x"), 2)
	pub.publish(c.topic("x"), 2, "m", expires(1))
	p.wantMessage("m")
	p.drop()
	c.wait(1100 * time.Millisecond)
	p = c.connect("x", keep)
	p.take("m")
}

// receiverGoesOnAfterExpiry: a message that expires while it is received.
func receiverGoesOnAfterExpiry(c *trial) {
	away, pub := c.connect("away", renew), c.connect("pub")
	away.subscribe(c.topic("x"), 2)
	away.drop()
	pub.send(c.publishPacket(c.topic("x"), 2, 5, "m", expires(1)))
	pub.wantAck(mqtt.PUBREC, 5)
	c.wait(1100 * time.Millisecond)
	away = c.connect("away", keep)
	away.ping() // it has expired
	pub.send(c.publishPacket(c.topic("x"), 2, 5, "m", expires(1), dup))
	pub.wantAck(mqtt.PUBREC, 5)
	pub.ack(mqtt.PUBREL, 5, mqtt.Success)
	pub.wantAck(mqtt.PUBCOMP, 5)
	away.ping()
}

// answersInOrder: acknowledgements come in the order of what they answer,
// although some must wait for the store and others need not.
func answersInOrder(t mqtt.Type, qos mqtt.QoS) func(*trial) {
	return func(c *trial) {
		c.own(onDisk(c.TempDir()))
		away := c.connect("away", renew)
		away.subscribe(c.topic("stored"), 2)
		away.drop()
		p := c.connect("x")
		var all []byte
		for id := uint16(1); id <= receiveMax; id++ {
			topic := c.topic([]string{"stored", "not"}[id%2])
			all = append(all, c.publishPacket(topic, qos, id, "m")...)
		}
		p.send(all)
		for id := uint16(1); id <= receiveMax; id++ {
			p.wantAck(t, id, mqtt.Success, mqtt.NoMatchingSubscribers)
		}
	}
}

var (
	pubacksInOrder = answersInOrder(mqtt.PUBACK, 1)
	pubrecsInOrder = answersInOrder(mqtt.PUBREC, 2)
)

func pubrelsInOrder(c *trial) {
	c.own(onDisk(c.TempDir()))
	p, pub := c.connect("x", renew), c.connect("pub")
	p.subscribe(c.topic("x"), 2)
	var got []*message
	for i := range receiveMax {
		pub.publish(c.topic("x"), 2, fmt.Sprint(i))
		got = append(got, p.wantMessage(fmt.Sprint(i)))
	}
	var all []byte
	for _, m := range got {
		all = mqtt.AppendPuback(all, mqtt.PUBREC, m.PacketID, mqtt.Success, c.v)
	}
	p.send(all)
	for _, m := range got {
		p.wantAck(mqtt.PUBREL, m.PacketID)
	}
}

// inOrder: messages of one client, topic and QoS stay in order; on the way to
// clients of any worker, from any worker.
func inOrder(c *trial) {
	var subs []*peer
	for i := range 4 {
		p := c.connect(fmt.Sprint("sub", i))
		p.subscribe(c.topic("#"), 2)
		subs = append(subs, p)
	}
	pub := c.connect("pub")
	const n = 60
	for i := range n {
		pub.publish(c.topic("x"), mqtt.QoS(i%3), fmt.Sprint(i))
	}
	for _, p := range subs {
		next := [3]int{0, 1, 2}
		for range n {
			m := p.wantPublish()
			if want := fmt.Sprint(next[m.QoS]); string(m.Payload) != want {
				c.Fatalf("QoS %d: %s came, want %s", m.QoS, m.Payload, want)
			}
			next[m.QoS] += 3
		}
	}
}

func inOrderAndAgain(c *trial) {
	inOrder(c)
	resendInOrder(c)
}
