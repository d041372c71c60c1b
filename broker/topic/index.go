package topic

import (
	"sync"
	"sync/atomic"
)

// Index finds the subscriptions that a topic name matches. It is safe for use
// by many goroutines: Subscribe and Unsubscribe wait for each other, Match and
// Len for nobody.
type Index struct {
	root  node
	count atomic.Int64

	mu   sync.Mutex // held by the writer
	buf  []byte     // the filter being walked
	path []*node    // from the root to the node of the filter; empty between calls
}

// NewIndex returns an empty index.
func NewIndex() *Index { return new(Index) }

// Len returns the number of subscriptions.
func (x *Index) Len() int { return int(x.count.Load()) }

// Subscribe adds s, or replaces the subscription of the same subscriber to the
// same filter, and tells whether there was one. The filter has passed
// CheckFilter; it may be that of a shared subscription, and the same filter
// without its $share and group is another subscription. The filter is not kept.
func (x *Index) Subscribe(filter string, s Subscription) (existed bool) {
	group, rest, shared := SplitShare(filter)
	if s.Marks &^= Shared; shared {
		s.Marks |= Shared
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	defer x.forget()
	n := &x.root
	for level, left, more := []byte(nil), x.load(rest), true; more; {
		level, left, more = cutLevel(left)
		n = n.getOrAdd(level)
	}
	if shared {
		existed = n.putShared(group, s)
	} else {
		existed = n.put(s)
	}
	if !existed {
		x.count.Add(1)
	}
	return existed
}

// Unsubscribe removes the subscription of a subscriber to exactly this filter,
// and tells whether there was one.
func (x *Index) Unsubscribe(filter string, subscriber uint64) (existed bool) {
	group, rest, shared := SplitShare(filter)
	x.mu.Lock()
	defer x.mu.Unlock()
	defer x.forget()
	n := &x.root
	x.path = append(x.path, n)
	for level, left, more := []byte(nil), x.load(rest), true; more; {
		level, left, more = cutLevel(left)
		if n = n.get(level); n == nil {
			return false
		}
		x.path = append(x.path, n)
	}
	if shared {
		existed = n.removeShared(group, subscriber)
	} else {
		existed = n.remove(subscriber)
	}
	if !existed {
		return false
	}
	x.count.Add(-1)
	for i := len(x.path) - 1; i > 0 && x.path[i].empty(); i-- {
		step()
		x.path[i-1].drop(x.path[i])
	}
	return true
}

// load copies filter to the writer's buffer: the levels of a Match are []byte
// too, and no call needs to allocate.
func (x *Index) load(filter string) []byte {
	x.buf = append(x.buf[:0], filter...)
	return x.buf
}

// forget lets go of removed nodes, and of buffers that one giant filter made big.
func (x *Index) forget() {
	const keep = 1024 // bytes and levels; filters are far shorter
	clear(x.path)
	x.path = x.path[:0]
	if cap(x.path) > keep {
		x.path = nil
	}
	if cap(x.buf) > keep {
		x.buf = nil
	}
}

// put adds or replaces a subscription that is not shared. Writer only.
func (n *node) put(s Subscription) (existed bool) {
	one := n.one.Load()
	if one != nil && one.Subscriber == s.Subscriber {
		n.one.Store(&s)
		return true
	}
	var r *roster
	if b := n.bulk.Load(); b != nil {
		r = b.subs.Load()
	}
	if one == nil && r.find(s.Subscriber) == nil {
		n.one.Store(&s)
		return false
	}
	next, existed := r.put(s)
	if next != r {
		n.grow().subs.Store(next)
	}
	return existed
}

// remove takes out a subscription that is not shared. Writer only.
func (n *node) remove(subscriber uint64) (existed bool) {
	if one := n.one.Load(); one != nil && one.Subscriber == subscriber {
		n.one.Store(nil)
		return true
	}
	b := n.bulk.Load()
	if b == nil {
		return false
	}
	r := b.subs.Load()
	next, existed := r.remove(subscriber)
	if next != r {
		b.subs.Store(next)
		n.shrink()
	}
	return existed
}
