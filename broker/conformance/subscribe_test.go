package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

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

// Topics and filters.

// badFilter: a filter that is not formed as it must be is a protocol violation.
func badFilter(c *trial, filters ...string) {
	c.Helper()
	for _, f := range filters {
		p := c.connect("x")
		p.send(c.rawSubscribe(1, f, 0))
		p.wantClosed(mqtt.TopicFilterInvalid, mqtt.ProtocolError, mqtt.MalformedPacket)
	}
}

func multiLevelWildcard(c *trial) {
	topicOfDelivery(c)
	sub, pub := c.connect("sub2"), c.connect("pub2")
	sub.subscribe(c.topic("sport/#"), 0)
	for _, t := range []string{"sport", "sport/", "sport/a", "sport/a/b", "sports"} {
		pub.publish(c.topic(t), 0, t)
	}
	for _, t := range []string{"sport", "sport/", "sport/a", "sport/a/b"} {
		sub.take(t)
	}
	c.quiet(pub, sub, c.topic("sport"))
	badFilter(c, c.topic("a#"), c.topic("#/a"), c.topic("a/#/b"), c.topic("##"), "#a")
}

func singleLevelWildcard(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	sub.subscribe(c.topic("a/+"), 0)
	sub.subscribe(c.topic("+/b/+/d"), 0)
	for _, t := range []string{"a/x", "a/", "a", "a/b/c", "x/b/c/d", "/b//d", "x/b/d"} {
		pub.publish(c.topic(t), 0, t)
	}
	for _, t := range []string{"a/x", "a/", "x/b/c/d", "/b//d"} {
		sub.take(t)
	}
	c.quiet(pub, sub, c.topic("a/x"))
	badFilter(c, c.topic("a+"), c.topic("+a/b"), c.topic("++"), "a/b+/c")
}

// dollarTopics: filters that begin with a wildcard leave out topics that begin with $.
func dollarTopics(c *trial) {
	c.own(nil) // it needs filters that match all
	sub, pub := c.connect("sub"), c.connect("pub")
	sub.subscribe("#", 0)
	sub.subscribe("+/x", 0)
	sub.subscribe("+/+", 0)
	pub.publish("$dollar/x", 0, "to whom it concerns")
	pub.publish("$dollar/x", 0, "to whom it concerns", retained)
	c.quiet(pub, sub, "a/x")
	sub.subscribe("#", 0)
	c.quiet(pub, sub, "a/x")
	sub.subscribe("$dollar/#", 0)
	sub.take("to whom it concerns")
}

func emptyTopics(c *trial) {
	for _, b := range [][]byte{c.rawPublish("", 1), c.rawSubscribe(1, "", 0), raw(0xA2, u16(1), c.props(), str(""))} {
		p := c.connect("x")
		p.send(b)
		p.wantClosed(mqtt.ProtocolError, mqtt.MalformedPacket, mqtt.TopicNameInvalid, mqtt.TopicFilterInvalid)
	}
}

func nulInTopics(c *trial) {
	for _, b := range [][]byte{
		c.rawPublish(c.topic("a\x00"), 1), c.rawSubscribe(1, c.topic("\x00a"), 0),
		raw(0xA2, u16(1), c.props(), str(c.topic("a\x00b"))),
	} {
		p := c.connect("x")
		p.send(b)
		p.wantClosed(mqtt.MalformedPacket)
	}
}

// longestTopic: 65535 bytes are possible, and more have no encoding.
func longestTopic(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	topic := c.topic("")
	topic += strings.Repeat("x", 65535-len(topic))
	sub.subscribe(topic, 1)
	pub.publish(topic, 1, "m")
	if m := sub.take("m"); string(m.Topic) != topic {
		c.Errorf("a topic of %d bytes came, want 65535", len(m.Topic))
	}
}

// topicsAsTheyAre: what looks alike is not the same.
func topicsAsTheyAre(c *trial) {
	all := []string{"a", "A", "/a", "a/", "a//", "a/../a", "\u00e9", "e\u0301", "\u212b", "\u00c5", "a b", "a%20b", "\ufdd0", "\ufb01", "fi"}
	sub, pub := c.connect("sub"), c.connect("pub")
	for i, t := range all {
		sub.subscribe(c.topic(t), 0)
		for _, u := range all {
			pub.publish(c.topic(u), 0, u)
		}
		if m := sub.take(t); !bytes.Equal(m.Topic, []byte(c.topic(t))) {
			c.Errorf("topic %q, want %q", m.Topic, c.topic(t))
		}
		c.quiet(pub, sub, c.topic(all[i]))
		sub.unsubscribe(c.topic(t))
	}
}

// Shared subscriptions.

func shareFilter(c *trial) {
	a, b, pub := c.connect("a"), c.connect("b"), c.connect("pub")
	for _, p := range []*peer{a, b} {
		p.subscribe("$share/g/"+c.topic("x"), 0)
		p.subscribe(c.topic("end"), 0)
	}
	const n = 40
	for i := range n {
		pub.publish(c.topic("x"), 0, fmt.Sprint(i))
	}
	pub.publish(c.topic("end"), 0, "end")
	got := map[string]int{}
	for _, p := range []*peer{a, b} {
		for m := p.wantPublish(); string(m.Payload) != "end"; m = p.wantPublish() {
			got[string(m.Payload)]++
		}
	}
	if len(got) != n || slices.Max(values(got)) != 1 {
		c.Errorf("%d different messages, want %d, each once: %v", len(got), n, got)
	}
	badFilter(c, "$share//"+c.topic("x"))
}

func values(m map[string]int) (v []int) {
	for _, n := range m {
		v = append(v, n)
	}
	return v
}

func shareName(c *trial) {
	badFilter(c, "$share/g+/"+c.topic("x"), "$share/#/"+c.topic("x"), "$share/+/"+c.topic("x"), "$share/g", "$share/g/", "$share/")
}

func shareQoS(c *trial) {
	pub := c.connect("pub")
	for granted := range mqtt.QoS(3) {
		p := c.connect("x")
		p.subscribe(fmt.Sprintf("$share/g%d/%s", granted, c.topic("x")), granted)
		for q := range mqtt.QoS(3) {
			pub.publish(c.topic("x"), q, "m")
			if m := p.take("m"); m.QoS != min(q, granted) {
				c.Errorf("published with %d, granted %d, came with %d", q, granted, m.QoS)
			}
		}
		p.disconnect()
	}
}

// sharedTwo gives a member of a group that has got a QoS 2 message and not
// answered, and the other member.
func sharedTwo(c *trial) (has, other *peer, name string, m *message) {
	a, b, pub := c.connect("a", renew), c.connect("b", renew), c.connect("pub")
	for _, p := range []*peer{a, b} {
		p.subscribe("$share/g/"+c.topic("x"), 2)
		p.subscribe(c.topic("y"), 0)
	}
	pub.publish(c.topic("x"), 2, "for one of them")
	pub.publish(c.topic("y"), 0, "for both")
	for i, p := range []*peer{a, b} {
		first := p.wantPublish()
		if string(first.Payload) == "for both" {
			if k := p.peek(); k == nil {
				continue
			} else {
				first = p.decode(k)
			}
		} else {
			p.wantMessage("for both")
		}
		has, other, name, m = p, []*peer{b, a}[i], []string{"a", "b"}[i], first
	}
	if m == nil {
		c.Fatal("nobody got the message")
	}
	return has, other, name, m
}

// peek reads a packet that may not come: one before the answer to a PINGREQ, or nil.
func (p *peer) peek() *packet {
	p.c.Helper()
	p.send(mqtt.AppendPingreq(nil))
	k := p.next()
	if k.typ == mqtt.PINGRESP {
		return nil
	}
	p.want(mqtt.PINGRESP)
	return k
}

func sharedCompletes(c *trial) {
	has, other, name, m := sharedTwo(c)
	has.drop()
	has = c.connect(name, keep)
	if again := has.take("for one of them"); again.PacketID != m.PacketID || !again.Dup {
		c.Errorf("sent again with packet id %d and DUP %v, want %d and true", again.PacketID, again.Dup, m.PacketID)
	}
	other.ping()
	c.quiet(has, other, c.topic("y"))
}

func sharedEnds(c *trial) {
	has, other, name, _ := sharedTwo(c)
	has.drop()
	has = c.connect(name) // a new session: the old one has ended
	other.ping()
	c.quiet(has, other, c.topic("y"))
}

func sharedRefused(c *trial) {
	has, other, name, m := sharedTwo(c)
	has.ack(mqtt.PUBREC, m.PacketID, mqtt.UnspecifiedError)
	has.ping()
	c.quiet(has, other, c.topic("y"))
	has.take("fence 1") // has is subscribed to y, too
	has.drop()
	c.connect(name, keep).ping()
	other.ping()
}
