package topic

import (
	"slices"
	"sort"
	"sync/atomic"
)

// DESIGN. A roster is a set of subscriptions sorted by subscriber: the
// subscribers of one filter beside node.one, or the members of a share group.
// It consists of chunks; a chunk is immutable and is replaced as a whole. A
// roster of one chunk is itself immutable. A bigger one is a directory whose
// entries are replaced in place when a chunk changes, and which is copied only
// when a chunk is split, merged or removed. So a change among n subscribers
// costs a binary search, a copy of one chunk (1.5 KiB), and once in some 32
// changes a copy of n/64 to n/32 pointers.
//
// A reader sees every subscription that stands while it reads, and none twice:
// within one directory the first subscriber of an entry can only rise, so that
// a subscriber who left and came back cannot turn up in a later entry.

// chunkMax is the most subscriptions in a chunk, chunkMerge the most that two
// neighbours have together when they become one. The gap keeps a roster from
// splitting and merging in turn.
const (
	chunkMax   = 64
	chunkMerge = 32
)

// chunk is sorted by Subscriber, not empty, and immutable.
type chunk []Subscription

func (c chunk) search(subscriber uint64) (i int, found bool) {
	i = sort.Search(len(c), func(i int) bool { return c[i].Subscriber >= subscriber })
	return i, i < len(c) && c[i].Subscriber == subscriber
}

// with returns a copy with s at i, inserted or in place of what is there.
func (c chunk) with(i int, found bool, s Subscription) chunk {
	if found {
		d := slices.Clone(c)
		d[i] = s
		return d
	}
	d := make(chunk, len(c)+1)
	copy(d, c[:i])
	d[i] = s
	copy(d[i+1:], c[i:])
	return d
}

// without returns a copy without the subscription at i.
func (c chunk) without(i int) chunk {
	d := make(chunk, len(c)-1)
	copy(d, c[:i])
	copy(d[i:], c[i+1:])
	return d
}

// split returns c with s inserted at i, as two chunks. At the end it does not
// halve c: subscribers usually get rising numbers, and chunks then stay full.
func (c chunk) split(i int, s Subscription) (chunk, chunk) {
	if i == len(c) {
		return c, chunk{s}
	}
	half := len(c) / 2
	if i <= half {
		return c[:half:half].with(i, false, s), slices.Clone(c[half:])
	}
	return slices.Clone(c[:half]), c[half:].with(i-half, false, s)
}

// roster holds few or many: a nil many means few.
type roster struct {
	few  chunk
	many []atomic.Pointer[chunk] // two or more
}

func newDirectory(n int) *roster { return &roster{many: make([]atomic.Pointer[chunk], n)} }

// set replaces an entry. Each has a slice header of its own, so that none holds
// on to the chunk of another.
func (r *roster) set(e int, c chunk) { r.many[e].Store(&c) }

// spread returns a roster like r, a directory, in which the n entries from i on
// are replaced by parts.
func (r *roster) spread(i, n int, parts ...chunk) *roster {
	d := newDirectory(len(r.many) - n + len(parts))
	for k := range i {
		d.many[k].Store(r.many[k].Load())
	}
	for k, c := range parts {
		d.set(i+k, c)
	}
	for k := i + n; k < len(r.many); k++ {
		d.many[k-n+len(parts)].Store(r.many[k].Load())
	}
	return d
}

// entry returns the index of the only chunk that can hold subscriber.
func (r *roster) entry(subscriber uint64) int {
	i := sort.Search(len(r.many), func(i int) bool { return (*r.many[i].Load())[0].Subscriber > subscriber })
	return max(0, i-1)
}

// find returns a subscription, valid as long as the caller keeps it, or nil.
// r may be nil.
func (r *roster) find(subscriber uint64) *Subscription {
	if r == nil {
		return nil
	}
	c := r.few
	if r.many != nil {
		c = *r.many[r.entry(subscriber)].Load()
	}
	if i, found := c.search(subscriber); found {
		return &c[i]
	}
	return nil
}

// put adds or replaces a subscription and returns the roster to publish: r
// itself if it was changed in place. r may be nil. Writer only.
func (r *roster) put(s Subscription) (next *roster, existed bool) {
	if r == nil {
		return &roster{few: chunk{s}}, false
	}
	if r.many == nil {
		i, found := r.few.search(s.Subscriber)
		if found || len(r.few) < chunkMax {
			return &roster{few: r.few.with(i, found, s)}, found
		}
		a, b := r.few.split(i, s)
		return new(roster).spread(0, 0, a, b), false
	}
	e := r.entry(s.Subscriber)
	c := *r.many[e].Load()
	i, found := c.search(s.Subscriber)
	if found || len(c) < chunkMax {
		r.set(e, c.with(i, found, s))
		return r, found
	}
	a, b := c.split(i, s)
	return r.spread(e, 1, a, b), false
}

// remove takes out a subscription and returns the roster to publish: r itself
// if it was changed in place, nil if nothing is left. r may be nil. Writer only.
func (r *roster) remove(subscriber uint64) (next *roster, existed bool) {
	switch {
	case r == nil:
		return nil, false
	case r.many == nil:
		i, found := r.few.search(subscriber)
		switch {
		case !found:
			return r, false
		case len(r.few) == 1:
			return nil, true
		}
		return &roster{few: r.few.without(i)}, true
	}
	e := r.entry(subscriber)
	c := *r.many[e].Load()
	i, found := c.search(subscriber)
	if !found {
		return r, false
	}
	return r.settle(e, c.without(i)), true
}

// settle puts c, which lost a subscription and may be empty, back into entry e,
// or into a neighbour if both are small.
func (r *roster) settle(e int, c chunk) *roster {
	for _, first := range [...]int{e - 1, e} {
		if first < 0 || first+1 >= len(r.many) {
			continue
		}
		a, b := *r.many[first].Load(), *r.many[first+1].Load()
		if first == e {
			a = c
		} else {
			b = c
		}
		if len(c) > 0 && len(a)+len(b) > chunkMerge {
			continue
		}
		both := slices.Concat(a, b)
		if len(r.many) == 2 {
			return &roster{few: both}
		}
		return r.spread(first, 2, both)
	}
	r.set(e, c)
	return r
}

// appendTo appends all subscriptions in the order of their subscribers. r may be nil.
func (r *roster) appendTo(dst []Subscription) []Subscription {
	if r == nil {
		return dst
	}
	if r.many == nil {
		return append(dst, r.few...)
	}
	for i := range r.many {
		step()
		dst = append(dst, *r.many[i].Load()...)
	}
	return dst
}

// at returns the subscription at turn modulo the number of subscriptions.
func (r *roster) at(turn uint32) Subscription {
	if r.many == nil {
		return r.few[turn%uint32(len(r.few))]
	}
	n := 0
	for i := range r.many {
		n += len(*r.many[i].Load())
	}
	k := int(turn % uint32(n))
	var c chunk
	for i := range r.many {
		step()
		c = *r.many[i].Load()
		if k < len(c) {
			return c[k]
		}
		k -= len(c)
	}
	return c[len(c)-1] // chunks shrank after they were counted
}
