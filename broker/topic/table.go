package topic

import "sync/atomic"

// DESIGN. A table finds the child of a node by its level: open addressing with
// linear probing over an array of hashes, beside it the array of nodes. A
// reader touches a node only when 32 bits of hash agree, and a miss touches
// none.
//
// One writer, any number of readers that never wait. A slot's node is stored
// before its hash; a reader who finds the hash loads the node and compares the
// level, which alone decides. A removed child leaves a tombstone, so that
// those behind it are still found. A table that fills up is not changed but
// replaced by a copy at half load; readers of the old one miss only what came
// after. Growing is by a factor of 1.5 (capacities are no powers of two), so
// the load is between 1/2 and 3/4.
//
// Flooding: the hash is public. A child that would be more than probesMax
// slots from its place makes the table reseed: it is copied with the next of a
// row of seeds, at most reseedsMax times for one insertion. Levels that collide
// under one seed do not under the next; to find one that is near the others
// under each of five seeds takes some 2^50 tries in a table of 100,000
// children. In a table of 4,000 it is within reach, and gains a probe through
// 12 KiB. The first seed is 0 for all tables, so that Match hashes a level once.

const (
	tableMin = 8 // slots of the smallest table; a node with fewer children has none, see few

	// probesMax is far above what chance gives: at a load of 3/4 the longest
	// of a million probes has about 300 slots. 512 hashes are 2 KiB.
	probesMax  = 512
	reseedsMax = 4

	slotFree = 0 // hashes of children are at least slotUsed
	slotTomb = 1
	slotUsed = 2

	nextSeed = 0x94D049BB133111EB // added to get the next seed
)

type table struct {
	seed   uint64
	hashes []atomic.Uint32
	nodes  []atomic.Pointer[node] // nil where the hash is slotFree or slotTomb
	live   int                    // children; writer only
	used   int                    // children and tombstones; writer only
}

func newTable(slots int, seed uint64) *table {
	return &table{seed: seed, hashes: make([]atomic.Uint32, slots), nodes: make([]atomic.Pointer[node], slots)}
}

// tableHash is the hash of a level as it stands in a slot.
func tableHash(level []byte, seed uint64) uint32 {
	h := hashLevel(level, seed)
	if h < slotUsed {
		h += slotUsed
	}
	return h
}

// home is the first slot to look at, for any number of slots.
func (t *table) home(hash uint32) int {
	return int(uint64(hash) * uint64(len(t.hashes)) >> 32)
}

// find returns the child or nil. hash must be tableHash(level, t.seed). It
// terminates because at least a quarter of the slots is free.
func (t *table) find(level []byte, hash uint32) *node {
	for i := t.home(hash); ; {
		switch t.hashes[i].Load() {
		case slotFree:
			return nil
		case hash:
			step()
			if n := t.nodes[i].Load(); n != nil && n.level.is(level) {
				return n
			}
		}
		step()
		if i++; i == len(t.hashes) {
			i = 0
		}
	}
}

// add puts in a child that is not there, and returns the table that holds it:
// t, or the copy that replaces t.
func (t *table) add(n *node) *table {
	if 4*(t.used+1) > 3*len(t.hashes) {
		t = t.copy(max(tableMin, 2*(t.live+1)), t.seed)
	}
	hash := tableHash(n.level.bytes(), t.seed)
	if t.place(n, hash) <= probesMax {
		return t
	}
	for range reseedsMax {
		t = t.copy(len(t.hashes), t.seed+nextSeed)
		if t.probes(n) <= probesMax {
			break
		}
	}
	return t
}

// place stores a child and returns how many slots it looked at.
func (t *table) place(n *node, hash uint32) (probes int) {
	i := t.home(hash)
	for probes = 1; ; probes++ {
		h := t.hashes[i].Load()
		if h == slotFree {
			t.used++
		}
		if h == slotFree || h == slotTomb {
			break
		}
		if i++; i == len(t.hashes) {
			i = 0
		}
	}
	t.live++
	t.nodes[i].Store(n)
	step()
	t.hashes[i].Store(hash)
	return probes
}

// copy returns a table of the same children without tombstones. With the same
// seed it need not look at a node.
func (t *table) copy(slots int, seed uint64) *table {
	c := newTable(slots, seed)
	for i := range t.hashes {
		h := t.hashes[i].Load()
		if h < slotUsed {
			continue
		}
		n := t.nodes[i].Load()
		if seed != t.seed {
			h = tableHash(n.level.bytes(), seed)
		}
		c.place(n, h)
	}
	return c
}

// slot returns where a child is and how many slots one looks at to find it; it
// must be there.
func (t *table) slot(n *node) (i, probes int) {
	i = t.home(tableHash(n.level.bytes(), t.seed))
	for probes = 1; t.nodes[i].Load() != n; probes++ {
		if probes > len(t.hashes) {
			panic("BUG: topic: child " + n.level.String() + " is not in its table")
		}
		if i++; i == len(t.hashes) {
			i = 0
		}
	}
	return i, probes
}

func (t *table) probes(n *node) int {
	_, p := t.slot(n)
	return p
}

// remove takes out a child that is there, and returns the table to use from
// now on: t, a smaller copy, or nil if that was the last child.
func (t *table) remove(n *node) *table {
	i, _ := t.slot(n)
	t.hashes[i].Store(slotTomb)
	step()
	t.nodes[i].Store(nil)
	step()
	t.live--
	if t.live == 0 {
		return nil
	}
	t.sweep(i)
	if len(t.hashes) > tableMin && 8*t.live < len(t.hashes) {
		return t.copy(max(tableMin, 2*t.live), t.seed)
	}
	return t
}

// sweep frees the tombstone at slot i, and those right before it, if nothing
// stands behind them: then no probe has to pass.
func (t *table) sweep(i int) {
	next := i + 1
	if next == len(t.hashes) {
		next = 0
	}
	if t.hashes[next].Load() != slotFree {
		return
	}
	for t.hashes[i].Load() == slotTomb {
		step()
		t.hashes[i].Store(slotFree)
		t.used--
		if i--; i < 0 {
			i = len(t.hashes) - 1
		}
	}
}
