package auth

import (
	"time"

	"sluice/platform/mono"
)

// DESIGN. A table of at most max entries: a map from key to the place in a
// slice, and the entries chained in one list per class, the class being the
// number of bits of the count. At the head of a list stands who has not failed
// for the longest time. Finding room looks at one head per class.

// failureEntry is the count of one key. Times are 0 if there is none.
type failureEntry struct {
	key          guardKey
	began        mono.Time // start of the window
	refusedUntil mono.Time // pairs only
	logged       mono.Time // addresses only
	unlogged     int32
	count        int32 // failures in the window; saturates
	prev, next   int32 // in the list of the class; none
	class        uint8
}

const (
	none    = -1
	classes = 16 // the last is for 2^15 and more
)

type failures struct {
	max        int
	window     time.Duration
	places     map[guardKey]int32
	entries    []failureEntry
	head, tail [classes]int32
}

func (t *failures) init(max int, window time.Duration) {
	t.max, t.window = max, window
	t.places = map[guardKey]int32{}
	for c := range t.head {
		t.head[c], t.tail[c] = none, none
	}
}

// find returns the entry of k if its window lasts or it is refused, or nil.
func (t *failures) find(k guardKey, now mono.Time) *failureEntry {
	i, ok := t.places[k]
	if !ok || t.over(&t.entries[i], now) && now >= t.entries[i].refusedUntil {
		return nil
	}
	return &t.entries[i]
}

// over tells whether the window of e is.
func (t *failures) over(e *failureEntry, now mono.Time) bool { return now.Sub(e.began) >= t.window }

// count adds a failure to k and returns its entry, which is valid until the
// next call of count.
func (t *failures) count(k guardKey, now mono.Time) *failureEntry {
	i, ok := t.places[k]
	if !ok {
		i = t.room(now)
		t.entries[i] = failureEntry{key: k, began: now}
		t.places[k] = i
	} else {
		t.unlink(i)
	}
	e := &t.entries[i]
	if t.over(e, now) {
		e.began, e.count = now, 0
	}
	if e.count < 1<<30 {
		e.count++
	}
	t.link(i)
	return e
}

// room returns a place that is in no list.
func (t *failures) room(now mono.Time) int32 {
	if len(t.entries) < t.max {
		t.entries = append(t.entries, failureEntry{})
		return int32(len(t.entries) - 1)
	}
	victim := int32(none)
	for _, i := range t.head {
		if i == none {
			continue
		}
		if e := &t.entries[i]; t.over(e, now) && now >= e.refusedUntil {
			victim = i
			break
		}
		if victim == none {
			victim = i
		}
	}
	t.unlink(victim)
	delete(t.places, t.entries[victim].key)
	return victim
}

func (t *failures) link(i int32) {
	e := &t.entries[i]
	e.class = 0
	for n := e.count >> 1; n > 0 && e.class < classes-1; n >>= 1 {
		e.class++
	}
	e.prev, e.next = t.tail[e.class], none
	if e.prev == none {
		t.head[e.class] = i
	} else {
		t.entries[e.prev].next = i
	}
	t.tail[e.class] = i
}

func (t *failures) unlink(i int32) {
	e := &t.entries[i]
	if e.prev == none {
		t.head[e.class] = e.next
	} else {
		t.entries[e.prev].next = e.next
	}
	if e.next == none {
		t.tail[e.class] = e.prev
	} else {
		t.entries[e.next].prev = e.prev
	}
}
