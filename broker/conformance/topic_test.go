package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/broker/mqtt"
)

// Cases of topics, wildcards and shared subscriptions.

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
	peers, names := []*peer{a, b}, []string{"a", "b"}
	var waiting []int // have had the other message; whoever has this one as well may get it later
	for i, p := range peers {
		first := p.wantPublish()
		if string(first.Payload) == "for both" {
			waiting = append(waiting, i)
			continue
		}
		p.wantMessage("for both")
		has, other, name, m = p, peers[1-i], names[i], first
	}
	for end := time.Now().Add(patience); m == nil && time.Now().Before(end); {
		for _, i := range waiting {
			if k := peers[i].peek(); k != nil {
				has, other, name, m = peers[i], peers[1-i], names[i], peers[i].decode(k)
			}
		}
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
