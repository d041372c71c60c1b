package e2e

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"sluice/broker/mqtt"
)

// inbox collects what arrives at a client.
type inbox[M comparable] struct {
	mu  sync.Mutex
	all []M
}

func (i *inbox[M]) put(m M) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.all = append(i.all, m)
}

func (i *inbox[M]) sofar() []M {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]M(nil), i.all...)
}

// await waits until n have arrived and returns all there are.
func (i *inbox[M]) await(t testing.TB, n int) []M {
	t.Helper()
	eventually(t, patience, fmt.Sprintf("%d messages", n), func() bool { return len(i.sofar()) >= n })
	return i.sofar()
}

// awaitOne waits until m has arrived.
func (i *inbox[M]) awaitOne(t testing.TB, m M) {
	t.Helper()
	eventually(t, patience, fmt.Sprint(m), func() bool { return slices.Contains(i.sofar(), m) })
}

// drain empties the inbox.
func (i *inbox[M]) drain() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.all = nil
}

// received is a message as a rig.Client got it, in one line: topic, payload, QoS,
// and "retained" if it is.
func received(p *mqtt.Publish) string {
	s := fmt.Sprintf("%s %s qos%d", p.Topic, p.Payload, p.QoS)
	if p.Retain {
		s += " retained"
	}
	return s
}
