package worker

// table maps slot numbers to things, with a generation that tells a slot's
// present content from all that were in it before. A name for a thing is its
// slot and its generation; a name that is out of date finds nothing. The table
// never shrinks (16 bytes a slot): its generations must not begin anew.
type table[T any] struct {
	slots []slot[T]
	free  []uint32 // slots to be used again, last in first out
	used  int
}

type slot[T any] struct {
	gen  uint32
	used bool
	v    T
}

// genMask keeps generations within 24 bits, so that worker, generation and slot
// fit into 64. They start at 1: a name is never 0.
const genMask = 1<<24 - 1

// put takes a slot for v.
func (t *table[T]) put(v T) (at, gen uint32) {
	if n := len(t.free); n > 0 {
		at, t.free = t.free[n-1], t.free[:n-1]
	} else {
		at = uint32(len(t.slots))
		t.slots = append(t.slots, slot[T]{})
	}
	s := &t.slots[at]
	if s.gen = (s.gen + 1) & genMask; s.gen == 0 {
		s.gen = 1
	}
	s.used, s.v = true, v
	t.used++
	return at, s.gen
}

// get finds what is named by slot and generation.
func (t *table[T]) get(at, gen uint32) (v T, ok bool) {
	if int(at) >= len(t.slots) {
		return v, false
	}
	if s := &t.slots[at]; s.used && s.gen == gen {
		return s.v, true
	}
	return v, false
}

// drop empties a slot.
func (t *table[T]) drop(at uint32) {
	s := &t.slots[at]
	if !s.used {
		panic("BUG: slot dropped twice")
	}
	var none T
	s.used, s.v = false, none
	t.free = append(t.free, at)
	t.used--
}

// each calls f for all that is in the table, in the order of the slots.
func (t *table[T]) each(f func(T)) {
	for i := range t.slots {
		if t.slots[i].used {
			f(t.slots[i].v)
		}
	}
}
