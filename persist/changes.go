package persist

// DESIGN. changes holds the pending ops of one kind of record, at most one for
// each key: a later op on a key replaces the earlier, and the groups that
// waited for the earlier wait for the later. Order within a transaction means
// nothing, since each key comes once; the list keeps the order of insertion
// only so that everything is reproducible.

// waiters are the groups that wait for one op. Most ops have none or one.
type waiters struct {
	first int32
	more  []int32
}

func (w *waiters) none() bool { return w.first == 0 }

// change is the pending op on one key.
type change[K comparable, V any] struct {
	key    K
	val    V
	bytes  int64
	age    uint32
	groups waiters
}

// changes is a set of ops. The zero value is empty.
type changes[K comparable, V any] struct {
	index map[K]int32
	list  []change[K, V]
}

// put sets the op of key to val; bytes is what it is charged with.
func (c *changes[K, V]) put(p *Pending, key K, val V, bytes int64, group int32) {
	p.hold(group)
	if i, ok := c.index[key]; ok {
		ch := &c.list[i]
		p.bytes += bytes - ch.bytes
		ch.val, ch.bytes = val, bytes
		ch.groups.add(group)
		return
	}
	if c.index == nil {
		c.index = make(map[K]int32)
	}
	c.index[key] = int32(len(c.list))
	c.list = append(c.list, change[K, V]{key: key, val: val, bytes: bytes, age: p.addOp(), groups: waiters{first: group}})
	p.bytes += bytes
}

func (w *waiters) add(group int32) {
	switch {
	case group == 0:
	case w.first == 0:
		w.first = group
	default:
		w.more = append(w.more, group)
	}
}

// release tells all groups that the op they wait for is settled.
func (w *waiters) release(p *Pending) {
	p.release(w.first)
	for _, g := range w.more {
		p.release(g)
	}
	*w = waiters{}
}

func (w *waiters) each(f func(group int32)) {
	if w.first != 0 {
		f(w.first)
	}
	for _, g := range w.more {
		f(g)
	}
}

// get gives the pending op of key.
func (c *changes[K, V]) get(key K) (val V, ok bool) {
	i, ok := c.index[key]
	if ok {
		val = c.list[i].val
	}
	return val, ok
}

// drop cancels the op of key, if there is one.
func (c *changes[K, V]) drop(p *Pending, key K) {
	i, ok := c.index[key]
	if !ok {
		return
	}
	ch := c.list[i]
	last := len(c.list) - 1
	if int(i) != last {
		c.list[i] = c.list[last]
		c.index[c.list[i].key] = i
	}
	c.list[last] = change[K, V]{}
	c.list = c.list[:last]
	delete(c.index, key)
	p.cancel(&ch.groups, ch.bytes, ch.age)
}

// dropAll cancels all ops.
func (c *changes[K, V]) dropAll(p *Pending) {
	for i := range c.list {
		ch := &c.list[i]
		p.cancel(&ch.groups, ch.bytes, ch.age)
	}
	*c = changes[K, V]{}
}

// take hands over all ops to a transaction. Their age has no meaning then.
func (c *changes[K, V]) take(p *Pending) []change[K, V] {
	list := c.list
	c.list = nil
	if len(list) > 0 {
		clear(c.index)
		p.ops -= len(list)
	}
	return list
}

// takeIf hands over those ops that no group waits for and that f selects.
func (c *changes[K, V]) takeIf(p *Pending, f func(val V) bool) (taken []change[K, V]) {
	kept := c.list[:0]
	for _, ch := range c.list {
		if !ch.groups.none() || !f(ch.val) {
			c.index[ch.key] = int32(len(kept))
			kept = append(kept, ch)
			continue
		}
		delete(c.index, ch.key)
		p.ops--
		p.ages.drop(ch.age)
		taken = append(taken, ch)
	}
	clear(c.list[len(kept):])
	c.list = kept
	return taken
}

// restore puts ops that were taken in front of what has come since.
func (c *changes[K, V]) restore(p *Pending, taken []change[K, V]) {
	if len(taken) == 0 {
		return
	}
	newer := c.list
	c.list, c.index = taken, make(map[K]int32, len(taken)+len(newer))
	for i := range taken {
		c.index[taken[i].key] = int32(i)
		taken[i].age = p.restoreOp()
	}
	for _, n := range newer {
		i, ok := c.index[n.key]
		if !ok {
			c.index[n.key] = int32(len(c.list))
			c.list = append(c.list, n)
			continue
		}
		older := &c.list[i]
		p.ops--
		p.ages.drop(n.age)
		p.bytes -= older.bytes
		older.val, older.bytes = n.val, n.bytes
		n.groups.each(older.groups.add)
	}
}

// settle releases the groups of ops that were taken and are on disk, or that
// have lost their session.
func settle[K comparable, V any](p *Pending, taken []change[K, V]) {
	for i := range taken {
		taken[i].groups.release(p)
	}
}
