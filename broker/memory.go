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

// heap is what the runtime tells of its heap, in bytes.
type heap struct {
	allocated uint64 // in all since the start
	free      uint64 // pages without anything on them, not returned
	objects   uint64 // live, and garbage not yet swept
	live      uint64 // found by the last collection
}

// trimmer remembers what it saw at its last look.
type trimmer struct {
	read      func() heap
	allocated uint64
	trimmed   bool // and nothing much was allocated since
}

// readHeap gives a function that asks the runtime.
func readHeap() func() heap {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}
	return func() heap {
		metrics.Read(s)
		return heap{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Uint64()}
	}
}

// due tells whether memory should be returned now.
func (t *trimmer) due() bool {
	h := t.read()
	fresh := h.allocated - t.allocated
	t.allocated = h.allocated
	if fresh > quietBytes {
		t.trimmed = false
		return false
	}
	if t.trimmed {
		return false
	}
	t.trimmed = true
	garbage := max(h.objects, h.live) - h.live
	return h.free+garbage > idleBytes
}

// trim runs until stop is closed.
func trim(stop <-chan struct{}) {
	t := trimmer{read: readHeap()}
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
