package conformance

import (
	"fmt"

	"sluice/broker/mqtt"
)

// Cases of SUBSCRIBE, UNSUBSCRIBE and their acknowledgements.

func filterIllFormed(c *trial) {
	for _, bad := range illFormed {
		p := c.connect("x")
		p.send(c.rawSubscribe(1, c.topic(bad), 0))
		p.wantClosed(mqtt.MalformedPacket)
	}
}

func subscribeEmpty(c *trial) {
	p := c.connect("x")
	p.send(raw(0x82, u16(1), c.props()))
	p.wantClosed(mqtt.ProtocolError, mqtt.MalformedPacket)
}

func noLocalKept(c *trial) {
	p, other := c.connect("x"), c.connect("other")
	p.subscribe(c.topic("x"), 2, noLocal)
	for q := range mqtt.QoS(3) {
		p.publish(c.topic("x"), q, "own")
	}
	p.publish(c.topic("x"), 1, "own", retained)
	p.subscribe(c.topic("x"), 2, noLocal) // nor as a retained message
	p.ping()
	c.quiet(other, p, c.topic("x"))
}

func noLocalShared(c *trial) {
	p := c.connect("x")
	p.sendSubscribe(1, 0, "$share/g/"+c.topic("x"), 1, noLocal)
	p.wantClosed(mqtt.ProtocolError)
}

func optionsReserved(c *trial) {
	bad := []byte{0x40, 0x80, 0xC1}
	if !c.is5() {
		bad = []byte{0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x7C}
	}
	for _, options := range bad {
		p := c.connect("x")
		p.send(c.rawSubscribe(1, c.topic("x"), options))
		p.wantClosed(mqtt.MalformedPacket, mqtt.ProtocolError)
	}
}

func subscribeAnswered(c *trial) {
	p := c.connect("x")
	for q := range mqtt.QoS(3) {
		p.sendSubscribe(uint16(q)+9, 0, c.topic("x"), q)
		p.wantSuback(mqtt.SUBACK, uint16(q)+9, byte(q))
	}
	p.ping()
}

// subscriptionReplaced: subscribed twice, there is one subscription, the later.
func subscriptionReplaced(c *trial) {
	sub, pub, topic := c.pair(0)
	pub.publish(topic, 2, "kept", retained)
	sub.take("kept")
	sub.subscribe(topic, 2)
	if m := sub.take("kept"); m.QoS != 2 || !m.Retain {
		c.Errorf("retained message sent again with QoS %d, RETAIN %v", m.QoS, m.Retain)
	}
	pub.publish(topic, 2, "m")
	if m := sub.take("m"); m.QoS != 2 {
		c.Errorf("QoS %d, want that of the new subscription", m.QoS)
	}
	c.quiet(pub, sub, topic)
	sub.subscribe(topic, 0)
	sub.take("kept")
	pub.publish(topic, 2, "m")
	if m := sub.take("m"); m.QoS != 0 {
		c.Errorf("QoS %d, want that of the new subscription", m.QoS)
	}
	c.quiet(pub, sub, topic)
}

// nothingLostByReplacing: while messages flow, their subscription is replaced.
func nothingLostByReplacing(c *trial) {
	sub, pub, topic := c.pair(1)
	pub.publish(topic, 1, "kept", retained)
	sub.take("kept")
	const n = 200
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range n {
			pub.send(c.publishPacket(topic, 1, uint16(i+1), fmt.Sprint(i)))
			if k, err := pub.read(); err != nil || k.typ != mqtt.PUBACK {
				c.Errorf("%v, %v", k, err)
				return
			}
		}
	}()
	next, retainedCount, acked := 0, 0, 0
	const again = 20
	for next < n || retainedCount < again || acked < again {
		if acked < again && next >= acked*n/again {
			sub.sendSubscribe(uint16(1000+acked), 0, topic, 1)
			acked++
		}
		switch k := sub.next(); k.typ {
		case mqtt.SUBACK:
		case mqtt.PUBLISH:
			m := sub.decode(k)
			sub.finish(m)
			if m.Retain {
				retainedCount++
			} else if string(m.Payload) != fmt.Sprint(next) {
				c.Fatalf("%s came, want %d", m.Payload, next)
			} else {
				next++
			}
		default:
			c.Fatalf("%v", k.typ)
		}
	}
	<-done
}

// severalFilters in one SUBSCRIBE, the same one twice among them.
func severalFilters(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	f := func(topic string, qos mqtt.QoS) mqtt.SubscribeFilter {
		return mqtt.SubscribeFilter{Filter: []byte(c.topic(topic)), QoS: qos}
	}
	sub.send(c.subscribePacket(3, f("a", 0), f("b", 1), f("c", 2), f("a", 2)))
	sub.wantSuback(mqtt.SUBACK, 3, 0, 1, 2, 2)
	for i, t := range []string{"a", "b", "c"} {
		pub.publish(c.topic(t), 2, t)
		if m, want := sub.take(t), []mqtt.QoS{2, 1, 2}[i]; m.QoS != want {
			c.Errorf("%s came with QoS %d, want %d", t, m.QoS, want)
		}
	}
	sub.ping()
}

// codesInOrder: grants and refusals, one for each filter, in their order.
func codesInOrder(c *trial) {
	p := c.connect("x")
	f := func(filter string, qos mqtt.QoS) mqtt.SubscribeFilter {
		return mqtt.SubscribeFilter{Filter: []byte(filter), QoS: qos}
	}
	deep := c.topic(tooDeep()) // well-formed, but more levels than allowed
	p.send(c.subscribePacket(3, f(c.topic("a"), 2), f(deep, 1), f(c.topic("b"), 0), f(deep, 0), f(c.topic("c"), 1)))
	bad := byte(mqtt.TopicFilterInvalid)
	if !c.is5() {
		bad = 0x80
	}
	p.wantSuback(mqtt.SUBACK, 3, 2, bad, 0, bad, 1)
}

func smallerQoS(c *trial) {
	pub := c.connect("pub")
	for granted := range mqtt.QoS(3) {
		sub := c.connect(fmt.Sprint("sub", granted))
		sub.subscribe(c.topic("x"), granted)
		for q := range mqtt.QoS(3) {
			pub.publish(c.topic("x"), q, "m")
			if m := sub.take("m"); m.QoS != min(q, granted) {
				c.Errorf("published with %d, granted %d, came with %d", q, granted, m.QoS)
			}
		}
		sub.disconnect()
	}
}

func unsubscribeIllFormed(c *trial) {
	for _, bad := range illFormed {
		p := c.connect("x")
		p.send(raw(0xA2, u16(1), c.props(), str(c.topic(bad))))
		p.wantClosed(mqtt.MalformedPacket)
	}
}

func unsubscribeEmpty(c *trial) {
	p := c.connect("x")
	p.send(raw(0xA2, u16(1), c.props()))
	p.wantClosed(mqtt.ProtocolError, mqtt.MalformedPacket)
}

// unsubscribeExact: filters are compared as they are written, not by what they match.
func unsubscribeExact(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	sub.subscribe(c.topic("a/b"), 1)
	sub.subscribe(c.topic("a/+"), 1)
	filters := []string{"a/B", "a/b/", "/a/b", "+/b", "a/#", "#", "a"}
	none := make([]mqtt.Reason, len(filters))
	for i, f := range filters {
		filters[i], none[i] = c.topic(f), mqtt.NoSubscriptionExisted
	}
	sub.send(c.unsubscribePacket(9, filters...))
	sub.wantUnsuback(9, none...)
	pub.publish(c.topic("a/b"), 1, "m")
	sub.take("m")
	sub.unsubscribe(c.topic("a/+"))
	pub.publish(c.topic("a/c"), 1, "not subscribed any more")
	c.quiet(pub, sub, c.topic("a/b"))
}

func unsubscribedGetsNothing(c *trial) {
	sub, pub, topic := c.pair(1)
	sub.subscribe(c.topic("other"), 1)
	sub.unsubscribe(topic)
	for q := range mqtt.QoS(3) {
		pub.publish(topic, q, "not subscribed any more")
	}
	c.quiet(pub, sub, c.topic("other"))
}

// deliveryGoesOn: what was on its way when its subscription ended, arrives.
func deliveryGoesOn(c *trial) {
	sub, pub := c.connect("sub", renew), c.connect("pub")
	topic := c.topic("x")
	sub.subscribe(topic, 2)
	pub.publish(topic, 1, "a")
	pub.publish(topic, 2, "b")
	pub.publish(topic, 2, "c")
	sub.wantMessage("a")
	b, last := sub.wantMessage("b"), sub.wantMessage("c")
	sub.ack(mqtt.PUBREC, b.PacketID, mqtt.Success)
	sub.wantAck(mqtt.PUBREL, b.PacketID)
	sub.unsubscribe(topic)
	sub.ack(mqtt.PUBCOMP, b.PacketID, mqtt.Success)
	sub.finish(last)
	sub.ping()
	sub.drop()
	sub = c.connect("sub", keep)
	sub.take("a") // was not acknowledged
	sub.ping()
}

func unsubscribeAnswered(c *trial) {
	p := c.connect("x")
	p.subscribe(c.topic("x"), 0)
	p.send(c.unsubscribePacket(11, c.topic("x")))
	p.wantUnsuback(11, mqtt.Success)
	p.send(c.unsubscribePacket(0x1100, c.topic("x")))
	p.wantUnsuback(0x1100, mqtt.NoSubscriptionExisted)
	p.ping()
}

func unsubscribeSeveral(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	for _, t := range []string{"a", "b", "c"} {
		sub.subscribe(c.topic(t), 0)
	}
	sub.send(c.unsubscribePacket(5, c.topic("a"), c.topic("none"), c.topic("b"), c.topic("a")))
	sub.wantUnsuback(5, mqtt.Success, mqtt.NoSubscriptionExisted, mqtt.Success, mqtt.NoSubscriptionExisted)
	sub.ping()
	pub.publish(c.topic("a"), 0, "not subscribed any more")
	pub.publish(c.topic("b"), 0, "not subscribed any more")
	c.quiet(pub, sub, c.topic("c"))
}
