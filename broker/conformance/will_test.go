package conformance

import (
	"bytes"
	"fmt"
	"time"

	"sluice/broker/mqtt"
)

// Cases of the will.

// willWatch gives a client that sees the topic of wills.
func (c *trial) willWatch(change ...func(*mqtt.SubscribeFilter)) *peer {
	c.Helper()
	p := c.connect("watch")
	p.subscribe(c.topic("will"), 2, change...)
	return p
}

// A will is published when the connection ends without DISCONNECT: lost, taken
// over, closed for an error.
func willPublished(c *trial) {
	watch := c.willWatch()
	c.connect("lost", will(c.topic("will"), "lost")).drop()
	if m := watch.take("lost"); string(m.Topic) != c.topic("will") || m.QoS != 0 {
		c.Errorf("will on %q with QoS %d", m.Topic, m.QoS)
	}
	p := c.connect("error", will(c.topic("will"), "error", willQoS(2)))
	p.send([]byte{0x00, 0x00})
	p.wantClosed(mqtt.MalformedPacket)
	if m := watch.take("error"); m.QoS != 2 {
		c.Errorf("will with QoS %d, want 2", m.QoS)
	}
	c.connect("taken", will(c.topic("will"), "taken"))
	c.connect("taken")
	watch.take("taken")
}

// willPublished5 is the same, with the delay, which the end of the session cuts short.
func willPublished5(c *trial) {
	willPublished(c)
	watch := c.connect("watch5")
	watch.subscribe(c.topic("delayed"), 1)
	began := time.Now()
	c.connect("a", expiry(3600), will(c.topic("delayed"), "after its delay", willDelay(2))).drop()
	c.connect("b", expiry(1), will(c.topic("delayed"), "with its session", willDelay(3600))).drop()
	c.connect("c", will(c.topic("delayed"), "at once", willDelay(3600))).drop()
	for i, payload := range []string{"at once", "with its session", "after its delay"} {
		watch.take(payload)
		if took := time.Since(began); took < time.Duration(i)*time.Second {
			c.Errorf("%q after %v, want %d s", payload, took, i)
		}
	}
}

func willFields(c *trial) {
	for _, payload := range [][]byte{nil, c.props(), append(c.props(), str(c.topic("will"))...)} {
		malformedFlags(c, flagClean|flagWill, payload)
	}
	watch := c.willWatch()
	c.connect("x", will(c.topic("will"), "kept", willQoS(1), willRetain)).drop()
	if m := watch.take("kept"); m.QoS != 1 {
		c.Errorf("will QoS %d, want 1", m.QoS)
	}
	late := c.connect("late")
	late.subscribe(c.topic("will"), 1)
	if m := late.take("kept"); !m.Retain {
		c.Error("the will was not retained")
	}
}

// willOnce: a will that was published, or that DISCONNECT has removed, is gone.
func willOnce(c *trial) {
	watch := c.willWatch()
	c.connect("x", renew, will(c.topic("will"), "once")).drop()
	watch.take("once")
	c.connect("x", keep).drop()
	c.connect("y", renew, will(c.topic("will"), "never")).disconnect()
	c.connect("y", keep).drop()
	c.quietWills(watch)
}

// quietWills shows that no will has been published: one that is, by another
// client of the same worker and of the other, is the next to come.
func (c *trial) quietWills(watch *peer) {
	c.Helper()
	for i := range 8 { // 8 client ids: both workers, but for one time in 128
		c.connect(fmt.Sprint("fence", i), will(c.topic("will"), "fence")).drop()
		watch.take("fence")
	}
}

func withoutWill(c *trial) {
	watch := c.willWatch()
	c.connect("x").drop()
	c.quietWills(watch)
}

func willNotRetained(c *trial) { willRetainFlag(c, false) }
func willRetained(c *trial)    { willRetainFlag(c, true) }

func willRetainFlag(c *trial, kept bool) {
	watch := c.willWatch()
	w := will(c.topic("will"), "last words")
	if kept {
		w = will(c.topic("will"), "last words", willRetain)
	}
	c.connect("x", w).drop()
	watch.take("last words")
	late := c.connect("late")
	late.subscribe(c.topic("will"), 1)
	if kept {
		if m := late.take("last words"); !m.Retain {
			c.Error("a retained will without RETAIN")
		}
	}
	c.quiet(watch, late, c.topic("will"))
}

func willDiscarded(c *trial) {
	watch := c.willWatch()
	c.connect("x", will(c.topic("will"), "never")).disconnect()
	if c.is5() {
		p := c.connect("y", will(c.topic("will"), "asked for"))
		p.send(mqtt.AppendDisconnect(nil, &mqtt.Disconnect{Reason: mqtt.DisconnectWithWill}, c.v))
		p.wantEOF()
		watch.take("asked for")
	}
	c.quietWills(watch)
}

// willCalledOff: who comes back before the delay is over has no will published,
// stay or not; another client's, due later, comes.
func willCalledOff(c *trial) {
	watch := c.willWatch()
	c.connect("x", renew, will(c.topic("will"), "called off", willDelay(1))).drop()
	c.connect("y", renew, will(c.topic("will"), "due", willDelay(2))).drop()
	c.connect("x", keep)
	c.connect("z", renew, will(c.topic("will"), "called off", willDelay(1))).drop()
	c.connect("z", keep).disconnect()
	watch.take("due")
}

func willUserProperties(c *trial) {
	watch := c.willWatch()
	var want []byte
	c.connect("x", will(c.topic("will"), "x", func(w *mqtt.Will) {
		for _, name := range []string{"b", "a", "b", "c"} {
			value := fmt.Sprint("value ", len(w.Props.User))
			w.Props.User = append(w.Props.User, mqtt.UserProperty{Name: []byte(name), Value: []byte(value)})
			want = append(want, prop(propUser, str(name), str(value))...)
		}
	})).drop()
	if m := watch.take("x"); !bytes.Equal(m.Props, want) {
		c.Errorf("properties %q, want %q", m.Props, want)
	}
}
