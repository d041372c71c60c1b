package persist

// DESIGN. The commit interval counts from the oldest op that is still pending,
// not from the oldest that ever was: with receivers that acknowledge fast,
// there are always some ops pending, all of them young, and nothing need be
// written. So every pending op belongs to an age, ages count their ops, and
// those at the front that have none left are dropped. Ops that come within
// step of each other share an age, and all share the last one when there are
// agesMax: then the disk is far behind and precision is of no use.

// agesMax bounds the number of ages. With a step of a sixteenth of the commit
// interval, 64 cover four intervals.
const agesMax = 64

// ages counts pending ops by when they came. The zero value is empty.
type ages struct {
	step        int64 // ns
	first, last uint32
	at          [agesMax]int64 // when the first op of the age came, ns
	live        [agesMax]int32
}

// add counts an op that came now, and gives its age.
func (a *ages) add(now int64) uint32 {
	if n := a.last - a.first; n == 0 || n < agesMax && now-a.at[(a.last-1)%agesMax] > a.step {
		a.at[a.last%agesMax] = now
		a.live[a.last%agesMax] = 0
		a.last++
	}
	i := a.last - 1
	a.live[i%agesMax]++
	return i
}

// addOldest counts an op that has waited longer than all others.
func (a *ages) addOldest() uint32 {
	if a.first == a.last {
		return a.add(0)
	}
	a.live[a.first%agesMax]++
	return a.first
}

// drop forgets an op of age i.
func (a *ages) drop(i uint32) {
	a.live[i%agesMax]--
	for a.first != a.last && a.live[a.first%agesMax] == 0 {
		a.first++
	}
}

// reset forgets all ops.
func (a *ages) reset() { a.first = a.last }

// oldest is when the oldest op came, 0 if there is none.
func (a *ages) oldest() int64 {
	if a.first == a.last {
		return 0
	}
	return a.at[a.first%agesMax]
}
