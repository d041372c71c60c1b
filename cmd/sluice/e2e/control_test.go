package e2e

import (
	"sync"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// control is a publisher and a subscriber that have nothing to do with what a
// test does to the broker, and must not notice it.
type control struct {
	t      testing.TB
	ledger *rig.Ledger
	sub    *rig.Client
	end    chan struct{}
	task   sync.WaitGroup
	err    error
}

// control starts a pair that stays connected and busy until finish.
func (b *broker) control() *control {
	b.t.Helper()
	c := &control{t: b.t, ledger: rig.NewLedger(), end: make(chan struct{})}
	c.sub = subscribed(b.t, b.Addr(), rig.ClientOptions{ID: "control subscriber", Clean: true, OnMessage: arrive(c.ledger)}, 1, "control")
	pub := connected(b.t, b.Addr(), rig.ClientOptions{ID: "control publisher", Clean: true, Window: 10,
		OnAcked: func(tag uint64) { c.ledger.Acked("control", tag) }})
	c.task.Go(func() {
		for n := uint64(0); c.err == nil; n++ {
			select {
			case <-c.end:
				c.err = pub.Flush(patience)
				return
			case <-time.After(time.Millisecond): // a rate, so that it does not keep the machine busy
			}
			c.err = pub.Publish("control", rig.Payload("control", n, 64), 1, false, n)
		}
	})
	return c
}

// finish ends the pair, when it has exchanged some messages: a test may be over
// before. All it published must have arrived, in order and once, and neither
// connection may have been lost.
func (c *control) finish() {
	c.t.Helper()
	eventually(c.t, patience, "the control pair exchanges messages", func() bool { return c.ledger.Sum().Arrived >= 10 })
	close(c.end)
	c.task.Wait()
	if c.err != nil {
		c.t.Errorf("control publisher: %v", c.err)
	}
	if err := c.sub.Why(); err != nil {
		c.t.Errorf("control subscriber: %v", err)
	}
	settled(c.t, c.ledger, patience, once, ordered)
}

// flood publishes to topic, at QoS 0 and 1, until the returned function is
// called: in bursts, as fast as the broker takes them, with pauses between that
// leave the machine some time for others.
func (b *broker) flood(topic string) (stop func()) {
	b.t.Helper()
	end := make(chan struct{})
	var tasks sync.WaitGroup
	for qos := range mqtt.QoS(2) {
		pub := connected(b.t, b.Addr(), rig.ClientOptions{ID: name("flood", int(qos)), Clean: true})
		tasks.Go(func() {
			const burst = 64
			for n := uint64(0); ; n++ {
				if n%burst == 0 {
					select {
					case <-end:
						return
					case <-time.After(5 * time.Millisecond):
					}
				}
				if err := pub.Publish(topic, rig.Payload(topic, n, 100), qos, false, n); err != nil {
					b.t.Errorf("flood: %v", err)
					return
				}
			}
		})
	}
	return sync.OnceFunc(func() {
		close(end)
		tasks.Wait()
	})
}
