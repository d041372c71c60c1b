package session

import "slices"

// DESIGN. Most sessions have a handful of subscriptions, in a slice that is
// searched from its start. Above indexFrom a map says where each filter is; it
// goes when the session has fewer than half of that again.

// indexFrom is from how many subscriptions on they have an index: below, a
// search costs about as much as a map, which takes more memory than they do.
const indexFrom = 32

// subscriptions are those of one session, by filter, in no order.
type subscriptions struct {
	list  []Subscription
	index map[string]int32 // nil: none
}

// find gives the place of a filter in list, or -1.
func (t *subscriptions) find(filter []byte) int {
	if t.index != nil {
		if i, ok := t.index[string(filter)]; ok {
			return int(i)
		}
		return -1
	}
	for i := range t.list {
		if t.list[i].Filter == string(filter) {
			return i
		}
	}
	return -1
}

// grow makes room for n more, so that add does not move those there are.
func (t *subscriptions) grow(n int) { t.list = slices.Grow(t.list, n) }

// add adds one whose filter is not there.
func (t *subscriptions) add(s Subscription) *Subscription {
	t.list = append(t.list, s)
	i := len(t.list) - 1
	switch {
	case t.index != nil:
		t.index[s.Filter] = int32(i)
	case len(t.list) > indexFrom:
		t.index = make(map[string]int32, 2*indexFrom)
		for i := range t.list {
			t.index[t.list[i].Filter] = int32(i)
		}
	}
	return &t.list[i]
}

// remove takes out the one at i; the last takes its place.
func (t *subscriptions) remove(i int) {
	last := len(t.list) - 1
	if t.index != nil {
		delete(t.index, t.list[i].Filter)
		if i != last {
			t.index[t.list[last].Filter] = int32(i)
		}
	}
	t.list[i] = t.list[last]
	t.list[last] = Subscription{}
	t.list = t.list[:last]
	switch {
	case last == 0:
		*t = subscriptions{}
	case last < indexFrom/2:
		t.index = nil
	}
}
