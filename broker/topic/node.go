package topic

import "sync/atomic"

// DESIGN. The Index is a trie: a node per level of a filter, "+" and "#"
// being levels like any other. Most nodes are leaves with one subscription, so
// a node holds just that and its level; whatever else a node can have is in its
// bulk, which is there only if needed.
//
// Writers hold the Index's mutex. What readers may count on:
//   - A node in the trie has a subscription or a child, or gets one before the
//     mutex is released.
//   - A child never moves between few and table but once, from few to table,
//     and is in the table before it leaves few. The table is given up only
//     when it is empty.

// node is one level of a filter. It is never reused: a reader that holds a
// node removed in the meantime sees an empty one.
type node struct {
	one   atomic.Pointer[Subscription] // immutable; one of the subscribers, those beside it are in bulk.subs
	bulk  atomic.Pointer[bulk]
	level level
}

// fewChildren is how many children a node finds by comparing, without a table:
// a chain of single children, as in "device/<id>/cmd/#", is common below a
// level with many.
const fewChildren = 2

// bulk is what few nodes need. All nil means empty, and then the node has none.
type bulk struct {
	single atomic.Pointer[node]              // child "+", the single-level wildcard
	multi  atomic.Pointer[node]              // child "#", the multi-level wildcard
	few    [fewChildren]atomic.Pointer[node] // all others: here, or all in table
	table  atomic.Pointer[table]
	subs   atomic.Pointer[roster]   // non-empty
	group  atomic.Pointer[[]*group] // shared subscriptions, sorted by name, non-empty, immutable
}

// hashed is a level of a topic on its way down the trie, with its hash when it
// was needed once.
type hashed struct {
	level []byte
	hash  uint32 // tableHash with the seed 0; 0: not known yet
}

// child returns the child of that very level ("+" and "#" mean nothing here), or nil.
func (b *bulk) child(l *hashed) *node {
	t := b.table.Load()
	if t == nil {
		for i := range b.few {
			step()
			if n := b.few[i].Load(); n != nil && n.level.is(l.level) {
				return n
			}
		}
		step()
		// It may have moved to the table while we were looking.
		if t = b.table.Load(); t == nil {
			return nil
		}
	}
	if t.seed != 0 {
		return t.find(l.level, tableHash(l.level, t.seed))
	}
	if l.hash == 0 {
		l.hash = tableHash(l.level, 0)
	}
	return t.find(l.level, l.hash)
}

// special returns the field of the child "+" or "#", nil for all other levels.
func (b *bulk) special(level []byte) *atomic.Pointer[node] {
	if len(level) == 1 && level[0] == '+' {
		return &b.single
	}
	if len(level) == 1 && level[0] == '#' {
		return &b.multi
	}
	return nil
}

// get returns the child for a level of a filter, or nil.
func (n *node) get(level []byte) *node {
	b := n.bulk.Load()
	if b == nil {
		return nil
	}
	if p := b.special(level); p != nil {
		return p.Load()
	}
	return b.child(&hashed{level: level})
}

// getOrAdd returns the child for a level of a filter. Writer only; a child
// that is new must not be left empty.
func (n *node) getOrAdd(level []byte) *node {
	if c := n.get(level); c != nil {
		return c
	}
	b := n.grow()
	c := &node{level: makeLevel(level)}
	if p := b.special(level); p != nil {
		p.Store(c)
	} else {
		b.add(c)
	}
	return c
}

// grow returns the node's bulk, a new one if there was none.
func (n *node) grow() *bulk {
	b := n.bulk.Load()
	if b == nil {
		b = new(bulk)
		n.bulk.Store(b)
	}
	return b
}

func (b *bulk) add(c *node) {
	if t := b.table.Load(); t != nil {
		if grown := t.add(c); grown != t {
			b.table.Store(grown)
		}
		return
	}
	for i := range b.few {
		if b.few[i].Load() == nil {
			b.few[i].Store(c)
			return
		}
	}
	t := newTable(tableMin, 0)
	for i := range b.few {
		t = t.add(b.few[i].Load())
	}
	b.table.Store(t.add(c))
	for i := range b.few {
		step()
		b.few[i].Store(nil)
	}
}

// drop takes out the child c, which is there.
func (n *node) drop(c *node) {
	b := n.bulk.Load()
	if p := b.special(c.level.bytes()); p != nil {
		p.Store(nil)
	} else if t := b.table.Load(); t != nil {
		if left := t.remove(c); left != t {
			b.table.Store(left)
		}
	} else {
		for i := range b.few {
			if b.few[i].Load() == c {
				b.few[i].Store(nil)
			}
		}
	}
	n.shrink()
}

// shrink drops the bulk if nothing is in it any more.
func (n *node) shrink() {
	if b := n.bulk.Load(); b != nil && b.empty() {
		n.bulk.Store(nil)
	}
}

func (b *bulk) empty() bool {
	for i := range b.few {
		if b.few[i].Load() != nil {
			return false
		}
	}
	return b.single.Load() == nil && b.multi.Load() == nil && b.table.Load() == nil &&
		b.subs.Load() == nil && b.group.Load() == nil
}

func (n *node) empty() bool { return n.one.Load() == nil && n.bulk.Load() == nil }
