package conformance

import (
	"fmt"
	"slices"

	"sluice/broker/mqtt"
)

// Cases of retained messages.

// retainedIs shows what a new subscriber gets: a message, or none.
func (c *trial) retainedIs(topic string, want string, qos mqtt.QoS) {
	c.Helper()
	p := c.connect("late")
	p.subscribe(topic, 2)
	if want != "" {
		if m := p.take(want); m.QoS != qos || !m.Retain {
			c.Errorf("%q came with QoS %d and RETAIN %v, want %d and true", want, m.QoS, m.Retain, qos)
		}
	}
	c.quiet(p, p, topic)
	p.disconnect()
}

func retainedStored(c *trial) {
	pub, topic := c.connect("pub"), c.topic("x")
	for i, q := range []mqtt.QoS{1, 2, 0, 1} {
		payload := fmt.Sprint("message ", i)
		pub.publish(topic, q, payload, retained)
		pub.ping() // QoS 0 has no other answer
		c.retainedIs(topic, payload, q)
	}
}

func retainedQoS0Replaces(c *trial) {
	pub, topic := c.connect("pub"), c.topic("x")
	pub.publish(topic, 2, "old", retained)
	pub.publish(topic, 0, "new", retained)
	pub.ping()
	c.retainedIs(topic, "new", 0)
}

func retainedSentToNew(c *trial) {
	pub := c.connect("pub")
	for _, t := range []string{"a", "b", "c/d"} {
		pub.publish(c.topic(t), 1, "old "+t, retained)
		pub.publish(c.topic(t), 1, t, retained)
	}
	p := c.connect("sub")
	p.subscribe(c.topic("#"), 1)
	var got []string
	for range 3 {
		m := p.wantPublish()
		p.finish(m)
		got = append(got, string(m.Payload))
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b", "c/d"}) {
		c.Errorf("retained messages %q", got)
	}
	c.quiet(pub, p, c.topic("a"))
}

func retainedFlagForNew(c *trial) {
	c.connect("pub").publish(c.topic("x"), 1, "m", retained)
	c.retainedIs(c.topic("x"), "m", 1)
}

func retainFlagForOld(c *trial) {
	sub, pub, topic := c.pair(1)
	pub.publish(topic, 1, "m", retained)
	if m := sub.take("m"); m.Retain {
		c.Error("RETAIN on a message for a subscription that was there")
	}
}

func retainAsPublished(c *trial) {
	sub, pub, topic := c.pair(1, asPublished)
	pub.publish(topic, 1, "retained", retained)
	pub.publish(topic, 1, "not")
	if m := sub.take("retained"); !m.Retain {
		c.Error("RETAIN was taken away")
	}
	if m := sub.take("not"); m.Retain {
		c.Error("RETAIN was made up")
	}
}

func retainEmptyRemoves(c *trial) {
	sub, pub, topic := c.pair(1)
	pub.publish(topic, 1, "m", retained)
	sub.take("m")
	pub.publish(topic, 1, "", retained)
	sub.take("") // processed as any other
	c.retainedIs(topic, "", 0)
}

func retainEmptyNotStored(c *trial) {
	pub, topic := c.connect("pub"), c.topic("x")
	pub.publish(topic, 1, "", retained)
	c.retainedIs(topic, "", 0)
}

func notRetained(c *trial) {
	pub, topic := c.connect("pub"), c.topic("x")
	pub.publish(topic, 1, "passes")
	c.retainedIs(topic, "", 0)
	pub.publish(topic, 1, "stays", retained)
	pub.publish(topic, 1, "passes")
	pub.publish(topic, 1, "")
	c.retainedIs(topic, "stays", 1)
}

// retainHandlingIs subscribes twice, and wants the retained message the first
// time, the second, both or never.
func retainHandlingIs(h uint8, first, second bool) func(*trial) {
	return func(c *trial) {
		pub, p, topic := c.connect("pub"), c.connect("sub"), c.topic("x")
		pub.publish(topic, 1, "kept", retained)
		for _, want := range []bool{first, second} {
			p.subscribe(topic, 1, handling(h))
			if want {
				p.take("kept")
			}
			c.quiet(pub, p, topic)
		}
	}
}

var (
	retainHandling0 = retainHandlingIs(0, true, true)
	retainHandling1 = retainHandlingIs(1, true, false)
	retainHandling2 = retainHandlingIs(2, false, false)
)
