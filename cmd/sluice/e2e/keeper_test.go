package e2e

import (
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// keep connects a client again whenever its connection is lost, to wherever
// address says that the broker is, until the test ends.
func keep(t testing.TB, c *rig.Client, address func() string) {
	t.Helper()
	t.Cleanup(rig.Keep(c, address).Close)
}

// here is where the broker is, "" while it is down. Any goroutine may ask.
func (b *broker) here() string {
	if a := b.address.Load(); a != nil {
		return *a
	}
	return ""
}

// kept is a client that comes back by itself.
func (b *broker) kept(opt rig.ClientOptions) *rig.Client {
	b.t.Helper()
	c := connected(b.t, b.Addr(), opt)
	keep(b.t, c, b.here)
	return c
}

// stream publishes the messages of a source, in a goroutine, over all crashes of
// the broker.
type stream struct {
	t      testing.TB
	ledger *rig.Ledger
	done   chan struct{}
	err    error // valid after done
}

// stream starts to publish messages 0 to n-1 to topic, by a client of its own.
func (b *broker) stream(ledger *rig.Ledger, topic string, n int, qos mqtt.QoS, opt rig.ClientOptions) *stream {
	b.t.Helper()
	opt.ID = "publisher of " + topic
	opt.OnAcked = func(tag uint64) { ledger.Acked(topic, tag) }
	return produce(b.t, ledger, b.kept(opt), topic, n, qos)
}

// produce is stream for a client that is kept already.
func produce(t testing.TB, ledger *rig.Ledger, c *rig.Client, topic string, n int, qos mqtt.QoS) *stream {
	s := &stream{t: t, ledger: ledger, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		deadline := time.Now().Add(2 * patience)
		for i := uint64(0); i < uint64(n); {
			if s.err = c.Publish(topic, rig.Payload(topic, i, 100), qos, false, i); s.err == nil {
				i++
				continue
			}
			if time.Now().After(deadline) {
				return
			}
			<-time.After(5 * time.Millisecond) // until the keeper has connected again
		}
		for s.err = c.Flush(patience); s.err != nil && time.Now().Before(deadline); s.err = c.Flush(patience) {
			<-time.After(5 * time.Millisecond)
		}
	}()
	return s
}

// acked waits until so many messages are acknowledged.
func (s *stream) acked(n int) {
	s.t.Helper()
	eventually(s.t, patience, "messages are acknowledged", func() bool { return s.ledger.Sum().Acked >= n })
}

// wait waits for the acknowledgement of the last message.
func (s *stream) wait() {
	s.t.Helper()
	<-s.done
	must(s.t, s.err)
}
