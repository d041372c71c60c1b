package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/broker/mqtt"
)

// Cases of PUBLISH.

// pair gives a subscriber of topic x and a publisher.
func (c *trial) pair(qos mqtt.QoS, change ...func(*mqtt.SubscribeFilter)) (sub, pub *peer, topic string) {
	c.Helper()
	topic = c.topic("x")
	sub, pub = c.connect("sub"), c.connect("pub")
	sub.subscribe(topic, qos, change...)
	return sub, pub, topic
}

func dupOfQoS0(c *trial) {
	sub, pub, topic := c.pair(0)
	pub.publish(topic, 2, "a", dup)
	if m := sub.take("a"); m.QoS != 0 || m.Dup {
		c.Errorf("QoS %d, DUP %v", m.QoS, m.Dup)
	}
	pub.send(raw(0x38, str(topic), c.props(), []byte("b")))
	pub.wantClosed(mqtt.ProtocolError, mqtt.MalformedPacket)
}

func dupIsNotPassedOn(c *trial) {
	sub, pub, topic := c.pair(2)
	for q := mqtt.QoS(1); q <= 2; q++ {
		pub.publish(topic, q, "m", dup)
		if m := sub.take("m"); m.Dup {
			c.Errorf("QoS %d came with DUP of the publisher", q)
		}
	}
}

func qos3(c *trial) {
	for _, first := range []byte{0x36, 0x37, 0x3E} {
		p := c.connect("x")
		p.send(raw(first, str(c.topic("x")), u16(1), c.props(), []byte("x")))
		p.wantClosed(mqtt.MalformedPacket)
	}
}

func topicIllFormed(c *trial) {
	for _, bad := range illFormed {
		p := c.connect("x")
		p.send(c.rawPublish(c.topic(bad), 1))
		p.wantClosed(mqtt.MalformedPacket)
	}
	p := c.connect("x")
	p.send(raw(0x32, []byte{0xFF, 0xFF}, []byte("x")))
	p.wantClosed(mqtt.MalformedPacket)
}

func topicWithWildcard(c *trial) {
	for _, t := range []string{"#", "+", "a/#", "+/b", "a+", "a#b"} {
		p := c.connect("x")
		p.send(c.rawPublish(c.topic(t), 1))
		p.wantClosed(mqtt.TopicNameInvalid)
	}
}

func topicOfDelivery(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	sub.subscribe(c.topic("a/+/c/#"), 0)
	for _, t := range []string{"a/b/c", "a//c/", "a/x/c/d/e", "a/b/d", "a/c"} {
		pub.publish(c.topic(t), 0, t)
	}
	for _, t := range []string{"a/b/c", "a//c/", "a/x/c/d/e"} {
		if m := sub.take(t); string(m.Topic) != c.topic(t) {
			c.Errorf("topic %q, want %q", m.Topic, c.topic(t))
		}
	}
	c.quiet(pub, sub, c.topic("a/b/c"))
}

// messageProperties: what belongs to a message is passed on as it came: for a
// client that is there, for one that comes later, and for one of a retained
// message.
func messageProperties(c *trial) {
	want := slices.Concat(
		prop(propPayloadFormat, []byte{1}), prop(propUser, str("b"), str("1")), prop(propContentType, str("text/plain; ä")),
		prop(propResponseTopic, str("answers/€")), prop(propUser, str("a"), str("2")), prop(propCorrelation, str("\x00\xFF\x80")),
		prop(propUser, str("b"), str("")), prop(propUser, str("b"), str("1")))
	sub, pub, topic := c.pair(2)
	c.connect("away", renew).subscribe(topic, 1)
	c.connect("away", keep).drop()
	for q := range mqtt.QoS(3) {
		id := uint16(0)
		if q > 0 {
			id = pub.packetID()
		}
		pub.send(c.publishPacket(topic, q, id, "payload", retained, func(p *mqtt.Publish) { p.Props = want }))
		pub.acknowledged(q, id)
		if m := sub.take("payload"); !bytes.Equal(m.Props, want) {
			c.Errorf("QoS %d: properties % x, want % x", q, m.Props, want)
		}
	}
	late, away := c.connect("late"), c.connect("away", keep)
	late.subscribe(topic, 2)
	for _, p := range []*peer{late, away, away} {
		if m := p.take("payload"); !bytes.Equal(m.Props, want) {
			c.Errorf("later: properties % x, want % x", m.Props, want)
		}
	}
}

// messageExpiry: messages that wait for a session that is away, and a retained one.
func messageExpiry(c *trial) {
	p, pub := c.connect("x", renew), c.connect("pub")
	p.subscribe(c.topic("x"), 1)
	p.drop()
	pub.publish(c.topic("x"), 1, "one second", expires(1))
	pub.publish(c.topic("x"), 1, "100 seconds", expires(100))
	pub.publish(c.topic("x"), 1, "for ever")
	pub.publish(c.topic("kept"), 1, "one second", expires(1), retained)
	c.wait(1100 * time.Millisecond)
	p = c.connect("x", keep)
	if m := p.take("100 seconds"); !m.HasMessageExpiry || m.ExpirySeconds < 90 || m.ExpirySeconds > 99 {
		c.Errorf("expiry %v %d s, want what is left of 100 s after more than one", m.HasMessageExpiry, m.ExpirySeconds)
	}
	if m := p.take("for ever"); m.HasMessageExpiry {
		c.Error("an expiry was made up")
	}
	p.subscribe(c.topic("kept"), 1)
	c.quiet(pub, p, c.topic("x"))
}

func expiryPassedOn(c *trial) {
	messageExpiry(c)
	sub, pub := c.connect("sub2"), c.connect("pub2")
	sub.subscribe(c.topic("y"), 0)
	pub.publish(c.topic("y"), 0, "m", expires(1000))
	if m := sub.take("m"); !m.HasMessageExpiry || m.ExpirySeconds < 990 || m.ExpirySeconds > 1000 {
		c.Errorf("expiry %v %d s, want 1000 s or a little less", m.HasMessageExpiry, m.ExpirySeconds)
	}
}

func alias(n uint16) func(*mqtt.Publish) { return func(p *mqtt.Publish) { p.TopicAlias = n } }

func aliasesEndWithConnection(c *trial) {
	p := c.connect("x", renew)
	p.publish(c.topic("x"), 1, "m", alias(1))
	p.publish("", 1, "m", alias(1))
	p.drop()
	p = c.connect("x", keep)
	p.send(c.publishPacket("", 1, 1, "m", alias(1)))
	p.wantClosed(mqtt.ProtocolError)
}

func aliasZero(c *trial) {
	p := c.connect("x")
	p.send(c.rawPublish(c.topic("x"), 1, prop(propAlias, u16(0))))
	p.wantClosed(mqtt.TopicAliasInvalid)
}

func aliasTooLarge(c *trial) {
	p := c.connect("x")
	p.send(c.publishPacket(c.topic("x"), 1, 1, "m", alias(p.connack.Props.TopicAliasMax+1)))
	p.wantClosed(mqtt.TopicAliasInvalid)
}

func aliasesAccepted(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	sub.subscribe(c.topic("#"), 0)
	if n := pub.connack.Props.TopicAliasMax; n != topicAliasMax {
		c.Fatalf("topic alias maximum %d", n)
	}
	for round := range 2 {
		for n := uint16(1); n <= topicAliasMax; n++ {
			topic := c.topic(fmt.Sprint(round, n))
			pub.publish(topic, 0, "named", alias(n))
			pub.publish("", 0, "alias", alias(n))
			for _, payload := range []string{"named", "alias"} {
				if m := sub.take(payload); string(m.Topic) != topic {
					c.Errorf("alias %d: %s came to %q, want %q", n, payload, m.Topic, topic)
				}
			}
		}
	}
}

// aliasesToClient: as many topics as may be, and each message must name its own.
func aliasesToClient(limit uint16) func(*trial) {
	return func(c *trial) {
		sub := c.connect("sub", func(m *mqtt.Connect) { m.Props.TopicAliasMax = limit })
		pub := c.connect("pub")
		sub.subscribe(c.topic("#"), 1)
		for i := range 30 {
			topic := c.topic(strings.Repeat("long/", 10) + fmt.Sprint(i%6))
			pub.publish(topic, mqtt.QoS(i/3%2), topic)
			m := sub.take(topic)
			if string(m.Topic) != topic || m.TopicAlias > limit {
				c.Errorf("topic %q by alias %d, want %q; the maximum is %d", m.Topic, m.TopicAlias, topic, limit)
			}
		}
	}
}

var (
	aliasesWithinMax = aliasesToClient(2)
	noAliases        = aliasesToClient(0)
)

// badProperty publishes with a property that must not be.
func badProperty(c *trial, r mqtt.Reason, p []byte) {
	c.Helper()
	x := c.connect("x")
	x.send(c.rawPublish(c.topic("x"), 1, p))
	x.wantClosed(r)
}

func responseTopicIllFormed(c *trial) {
	for _, bad := range illFormed {
		badProperty(c, mqtt.MalformedPacket, prop(propResponseTopic, str(bad)))
	}
}

func responseTopicWildcard(c *trial) {
	for _, bad := range []string{"#", "a/+", "a/#"} {
		badProperty(c, mqtt.ProtocolError, prop(propResponseTopic, str(bad)))
	}
}

func contentTypeIllFormed(c *trial) {
	for _, bad := range illFormed {
		badProperty(c, mqtt.MalformedPacket, prop(propContentType, str(bad)))
	}
}

func subscriptionIDFromClient(c *trial) {
	badProperty(c, mqtt.ProtocolError, prop(propSubscriptionID, []byte{1}))
}

func answerByQoS(c *trial) {
	p, topic := c.connect("x"), c.topic("x")
	p.send(c.publishPacket(topic, 0, 0, "m"))
	p.ping() // no answer to QoS 0
	p.publish(topic, 1, "m")
	p.publish(topic, 2, "m")
	p.ping()
}

// overlapping subscriptions: one message, of the highest QoS.
func overlapping(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	sub.subscribe(c.topic("a/+"), 2)
	sub.subscribe(c.topic("a/#"), 0)
	sub.subscribe(c.topic("a/b"), 1)
	for q := range mqtt.QoS(3) {
		pub.publish(c.topic("a/b"), q, "m")
		if m := sub.take("m"); m.QoS != q {
			c.Errorf("published with QoS %d, came with %d, want %d", q, m.QoS, q)
		}
		c.quiet(pub, sub, c.topic("a/b"))
	}
}

func subscriptionIDs(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	sub.subscribeID(5, c.topic("a/+"), 0)
	sub.subscribeID(268435455, c.topic("a/#"), 1)
	sub.subscribeID(7, c.topic("b"), 1)
	sub.subscribe(c.topic("+/b"), 1)
	pub.publish(c.topic("a/b"), 1, "m")
	m := sub.take("m")
	slices.Sort(m.SubIDs)
	if !slices.Equal(m.SubIDs, []uint32{5, 268435455}) {
		c.Errorf("subscription identifiers %v", m.SubIDs)
	}
	c.quiet(pub, sub, c.topic("c/b")) // without any: decode would find them
}

// subscriptionIDsApart: of a shared subscription and another one come two
// copies, each with its own identifier.
func subscriptionIDsApart(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	sub.subscribeID(3, c.topic("x"), 1)
	sub.subscribeID(4, "$share/g/"+c.topic("x"), 1)
	pub.publish(c.topic("x"), 1, "m")
	a, b := sub.take("m"), sub.take("m")
	ids := slices.Sorted(slices.Values(append(a.SubIDs, b.SubIDs...)))
	if len(a.SubIDs) != 1 || !slices.Equal(ids, []uint32{3, 4}) {
		c.Errorf("subscription identifiers %v and %v", a.SubIDs, b.SubIDs)
	}
}

func receiveMaxExceeded(c *trial) {
	p := c.connect("x")
	if n := p.connack.Props.ReceiveMax; n != receiveMax {
		c.Fatalf("receive maximum %d", n)
	}
	for id := uint16(1); id <= receiveMax; id++ {
		p.send(c.publishPacket(c.topic("x"), 2, id, "m"))
		p.wantAck(mqtt.PUBREC, id, mqtt.NoMatchingSubscribers)
	}
	p.send(c.publishPacket(c.topic("x"), 2, receiveMax+1, "m"))
	p.wantClosed(mqtt.ReceiveMaxExceeded)
}

// window fills the client's receive maximum of two.
func window(c *trial) (sub, pub *peer, topic string) {
	topic = c.topic("x")
	sub, pub = c.connect("sub", receiveMaximum(2)), c.connect("pub")
	sub.subscribe(topic, 2)
	sub.subscribe(c.topic("qos 0"), 0)
	for i := range 6 {
		pub.publish(topic, mqtt.QoS(1+i%2), fmt.Sprint(i))
	}
	return sub, pub, topic
}

func receiveMaxOfClient(c *trial) {
	sub, pub, _ := window(c)
	a, b := sub.wantMessage("0"), sub.wantMessage("1")
	c.quiet(pub, sub, c.topic("qos 0"))
	sub.finish(a)
	d := sub.wantMessage("2")
	c.quiet(pub, sub, c.topic("qos 0"))
	sub.ack(mqtt.PUBREC, b.PacketID, mqtt.Success)
	sub.wantAck(mqtt.PUBREL, b.PacketID)
	c.quiet(pub, sub, c.topic("qos 0")) // PUBREC frees nothing
	sub.ack(mqtt.PUBCOMP, b.PacketID, mqtt.Success)
	e := sub.wantMessage("3")
	sub.finish(d)
	f := sub.wantMessage("4")
	sub.ack(mqtt.PUBREC, e.PacketID, mqtt.UnspecifiedError) // but one that refuses does
	sub.finish(f)
	sub.take("5")
}

func othersNotDelayed(c *trial) {
	sub, pub, _ := window(c)
	sub.wantMessage("0")
	b := sub.wantMessage("1")
	sub.ping()
	sub.subscribe(c.topic("more"), 1)
	sub.publish(c.topic("more than nothing"), 1, "m")
	sub.publish(c.topic("more than nothing"), 2, "m")
	c.quiet(pub, sub, c.topic("qos 0"))
	sub.unsubscribe(c.topic("more"))
	sub.ack(mqtt.PUBREC, b.PacketID, mqtt.Success)
	sub.wantAck(mqtt.PUBREL, b.PacketID)
}

// unauthorizedPublish: before MQTT 5 it is acknowledged, or the connection ends.
func unauthorizedPublish(c *trial) {
	p := c.connect("x")
	p.subscribe("$SYS/"+c.topic("x"), 1)
	p.publish("$SYS/"+c.topic("x"), 1, "m")
	p.publish("$SYS/"+c.topic("x"), 2, "m")
	p.ping()
}
