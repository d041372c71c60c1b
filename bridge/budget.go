package bridge

import "sync"

// DESIGN. A budget bounds what one direction holds in memory, from the moment
// a message is taken until it is acknowledged on both sides. The goroutine
// that takes messages waits here, so the bound is backpressure: the local
// session's socket, or the upstream's, fills up.
//
// Waiting must not become a deadlock. The local reader that waits for room in
// the out budget reads no local PUBACK; without it the in direction does not
// advance; if that is full too, paho's reader waits and reads no upstream
// PUBACK; without it the out budget never gets room. The circle is cut at one
// place: while the in budget has somebody waiting, the out budget of the session
// that both directions share lets QoS 1 messages pass beyond its limits. Those are still bounded by the receive maximum
// of the local session, InflightMax. QoS 0 messages are refused instead, and counted.
type budget struct {
	mu    sync.Mutex
	room  sync.Cond
	items int
	bytes int

	maxItems int
	maxBytes int
	waiting  int
	lifted   bool // the limits are off
	closed   bool // the link is over

	onWait func(waiting bool) // told when the first begins to wait and when the last has stopped; called with mu held; may be nil
}

func newBudget(maxItems, maxBytes int, onWait func(bool)) *budget {
	b := &budget{maxItems: maxItems, maxBytes: maxBytes, onWait: onWait}
	b.room.L = &b.mu
	return b
}

// full tells whether a message of n bytes has to wait. One message always
// fits, however large.
func (b *budget) full(n int) bool {
	return b.items > 0 && (b.items >= b.maxItems || b.bytes > b.maxBytes-n)
}

// acquire takes room for a message, waiting for it if need be. It reports
// false, and takes nothing, if the link is over, or if the limits were lifted
// while it waited and the message may not go beyond them.
func (b *budget) acquire(n int, beyond bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full(n) && !b.lifted && !b.closed {
		b.wait(n)
	}
	if b.closed || b.full(n) && !beyond {
		return false
	}
	b.items++
	b.bytes += n
	return true
}

func (b *budget) wait(n int) {
	b.waiting++
	if b.waiting == 1 && b.onWait != nil {
		b.onWait(true)
	}
	for b.full(n) && !b.lifted && !b.closed {
		b.room.Wait()
	}
	b.waiting--
	if b.waiting == 0 && b.onWait != nil {
		b.onWait(false)
	}
}

// release gives back what acquire took.
func (b *budget) release(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.items--
	b.bytes -= n
	if b.items < 0 || b.bytes < 0 {
		panic("BUG: bridge budget released more than was taken")
	}
	b.room.Broadcast()
}

// lift turns the limits off or on again.
func (b *budget) lift(off bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lifted = off
	b.room.Broadcast()
}

// close lets everybody go; acquire fails from now on.
func (b *budget) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.room.Broadcast()
}

// pressure tells whether all room is taken, or hardly more than half of it.
func (b *budget) pressure() (full, low bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	full = b.waiting > 0 || b.items >= b.maxItems
	return full, !full && b.items <= b.maxItems/2
}

// held returns what is taken at the moment.
func (b *budget) held() (items, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.items, b.bytes
}
