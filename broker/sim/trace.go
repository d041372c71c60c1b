package sim

import (
	"fmt"

	"sluice/platform/mono"
)

// DESIGN. Everything that happens is noted as a small struct, and turned into
// text only when a run has failed. A hash goes over all of it, not only over
// what the ring still holds: two runs of one seed are the same if their hashes
// are.

// event is one line of the trace.
type event struct {
	at   mono.Time
	kind string
	who  string
	a, b int64
	text string
}

func (e *event) String() string {
	return fmt.Sprintf("%12.6f %-10s %-10s %6d %6d %s", float64(e.at)/1e9, e.kind, e.who, e.a, e.b, e.text)
}

// TraceEvents is how many events are kept by default: enough to see how a
// message or a connection came to be where it is.
const TraceEvents = 600

type trace struct {
	ring []event
	max  int // events in the ring, at least 1
	n    int
	hash uint64
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func (t *trace) add(e event) {
	if t.n == 0 {
		t.hash = fnvOffset
	}
	if len(t.ring) < t.max {
		t.ring = append(t.ring, e)
	} else {
		t.ring[t.n%t.max] = e
	}
	t.n++
	t.mix(uint64(e.at))
	t.mixString(e.kind)
	t.mixString(e.who)
	t.mix(uint64(e.a))
	t.mix(uint64(e.b))
	t.mixString(e.text)
}

func (t *trace) mix(v uint64) {
	for range 8 {
		t.hash = (t.hash ^ v&0xFF) * fnvPrime
		v >>= 8
	}
}

func (t *trace) mixString(s string) {
	for i := range len(s) {
		t.hash = (t.hash ^ uint64(s[i])) * fnvPrime
	}
	t.hash *= fnvPrime
}

// lines gives the events that the ring holds, oldest first.
func (t *trace) lines() []string {
	var out []string
	for i := max(0, t.n-t.max); i < t.n; i++ {
		out = append(out, t.ring[i%t.max].String())
	}
	return out
}
