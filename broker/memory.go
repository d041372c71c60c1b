package broker

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// DESIGN. Go keeps memory that it once needed: after a storm of connections the
// garbage stays until the next collection, which on an idle broker comes after
// two minutes, and then goes back to the system over minutes more. A gateway
// wants it back. So one goroutine looks every trimEvery, and when the broker has
// become quiet and much lies idle, collects and returns it, once until the next
// burst. The pause of a collection is well below a millisecond; its work grows
// with the live heap, which is why a busy broker is left alone.

const (
	trimEvery = 5 * time.Second
	// quietBytes allocated since the last look, at most: a broker that only
	// answers pings, or passes QoS 0, which costs none.
	quietBytes = 1 << 20
	// idleBytes that lie idle or are garbage, at least: less is not worth a
	// collection.
	idleBytes = 2 << 20
)

// trimmer remembers what it saw at its last look.
type trimmer struct {
	samples []metrics.Sample
	allocs  uint64
	trimmed bool // nothing much was allocated since
}

func newTrimmer() *trimmer {
	return &trimmer{samples: []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}}
}

// due tells whether memory should be returned now.
func (t *trimmer) due() bool {
	metrics.Read(t.samples)
	v := func(i int) uint64 { return t.samples[i].Value.Uint64() }
	fresh := v(0) - t.allocs
	t.allocs = v(0)
	if fresh > quietBytes {
		t.trimmed = false
		return false
	}
	if t.trimmed {
		return false
	}
	t.trimmed = true
	garbage := max(v(2), v(3)) - v(3)
	return v(1)+garbage > idleBytes
}

// trim runs until stop is closed.
func trim(stop <-chan struct{}) {
	t := newTrimmer()
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if t.due() {
				debug.FreeOSMemory()
			}
		}
	}
}
