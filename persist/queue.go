package persist

import "sluice/broker/mqtt"

// DESIGN. A queue's sequence numbers are dense, so the messages that are not on
// disk form a window at its tail: one slot for each number from base to tail.
// The slots at the front may be in the hands of the committer (taken); the
// others can still be cancelled by a Dequeue, which is what normally happens,
// and costs no more than clearing the slot. Everything that is only needed
// while something is uncommitted hangs off the session by one pointer, so
// that a session at rest is small.

// Counters describe a queue as it is on disk.
type Counters struct {
	Tail  uint64 // next sequence number, at least 1; never lower than before
	Depth int64  // messages, released ones included
	Bytes int64  // topic, properties and payload
}

type slotFlags uint8

const (
	slotLive     slotFlags = 1 << iota // not dequeued
	slotRetain                         // Entry.Retain
	slotReleased                       // Entry.Released
	slotSlow                           // counted in its group as unlikely to be cancelled soon
	slotTaken                          // is in the transaction in progress, live or not
	slotTried                          // was in a transaction that failed: might be on disk all the same
	slotShared                         // Entry.Shared
)

// slot is a message that is not on disk.
type slot struct {
	msg     *mqtt.Message
	subIDs  []uint32
	charged int64 // message bytes charged to the pending set by this slot, having no group that could be charged
	size    int32 // message bytes
	group   int32
	age     uint32
	qos     mqtt.QoS
	flags   slotFlags
}

func (sl *slot) entry(seq uint64) Entry {
	e := Entry{Seq: seq, QoS: sl.qos, Retain: sl.flags&slotRetain != 0, Released: sl.flags&slotReleased != 0, Shared: sl.flags&slotShared != 0}
	if !e.Released {
		e.Msg, e.SubIDs = sl.msg, sl.subIDs
	}
	return e
}

// window is the slots of the sequence numbers from base on.
type window struct {
	base  uint64
	slots []slot
	off   int // slots[off] is that of base
}

func (w *window) len() int { return len(w.slots) - w.off }

// at gives the slot of a sequence number, nil if the window does not reach there.
func (w *window) at(seq uint64) *slot {
	if seq < w.base || seq-w.base >= uint64(w.len()) {
		return nil
	}
	return &w.slots[w.off+int(seq-w.base)]
}

func (w *window) push(sl slot) {
	if w.off >= 32 && w.off*2 >= len(w.slots) {
		n := copy(w.slots, w.slots[w.off:])
		clear(w.slots[n:])
		w.slots, w.off = w.slots[:n], 0
	}
	w.slots = append(w.slots, sl)
}

// pop removes the n lowest sequence numbers.
func (w *window) pop(n int) {
	clear(w.slots[w.off : w.off+n])
	w.off += n
	w.base += uint64(n)
	if w.off == len(w.slots) {
		w.slots, w.off = w.slots[:0], 0
	}
}

// trim pops the slots at the front that are dead.
func (w *window) trim() {
	for w.off < len(w.slots) && w.slots[w.off].flags&slotLive == 0 {
		w.pop(1)
	}
}

// mark is a pending op on a message that is on disk or on its way there.
type mark uint8

const (
	markRelease mark = iota + 1
	markDequeue
)

// markBytes is what a mark or another small op is charged with: about what it takes in memory.
const markBytes = 64

// session is a session that exists, in the eyes of the submitters.
type session struct {
	id       uint64
	tail     uint64
	stored   Counters // as of the last commit
	depth    int64    // messages in the queue now; too low by what was dequeued twice, until the next commit
	bytes    int64    // their bytes; those dequeued since the last commit still count
	attached bool
	onDisk   bool // its record may be on disk
	deleted  bool
	dirty    bool         // in Pending.dirty
	un       *uncommitted // nil: all is on disk
	quota    *quota       // nil: no limits
}

// uncommitted is what of a session is not on disk.
type uncommitted struct {
	window
	taken   int // slots at the front of the window that the transaction in progress writes
	marks   changes[uint64, mark]
	subs    changes[string, *Subscription] // nil: remove
	inbound changes[uint16, bool]          // false: remove
	will    changes[struct{}, *Will]       // nil: remove

	takenMarks   []change[uint64, mark]
	takenSubs    []change[string, *Subscription]
	takenInbound []change[uint16, bool]
	takenWill    []change[struct{}, *Will]
}

func (u *uncommitted) empty() bool {
	return u.len() == 0 && len(u.marks.list) == 0 && len(u.subs.list) == 0 && len(u.inbound.list) == 0 && len(u.will.list) == 0 &&
		len(u.takenMarks) == 0 && len(u.takenSubs) == 0 && len(u.takenInbound) == 0 && len(u.takenWill) == 0
}

// slotsKept is how many slots (64 bytes each) an unused uncommitted keeps, and
// unusedKept how many of those are kept.
const (
	slotsKept  = 256
	unusedKept = 64
)

// uncommitted gives what of s is not on disk, making it if need be.
func (p *Pending) uncommitted(s *session) *uncommitted {
	if s.un == nil {
		if n := len(p.unused); n > 0 {
			s.un, p.unused = p.unused[n-1], p.unused[:n-1]
		} else {
			s.un = &uncommitted{}
		}
		s.un.base = s.tail
	}
	if s.un.len() == 0 {
		s.un.base = s.tail
	}
	if !s.dirty {
		s.dirty = true
		p.dirty = append(p.dirty, s)
	}
	return s.un
}

// Sweep gives back memory that was needed for what is settled. Take does the
// same; so it is for times when all is cancelled and nothing is taken.
func (p *Pending) Sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep()
}

// sweep forgets the sessions that have nothing uncommitted.
func (p *Pending) sweep() {
	kept := p.dirty[:0]
	for _, s := range p.dirty {
		if s.un != nil && s.un.empty() {
			if len(p.unused) < unusedKept && cap(s.un.slots) <= slotsKept {
				p.unused = append(p.unused, &uncommitted{window: window{slots: s.un.slots[:0]}})
			}
			s.un = nil
		}
		if s.un == nil || s.deleted {
			s.dirty = false
			continue
		}
		kept = append(kept, s)
	}
	clear(p.dirty[len(kept):])
	p.dirty = kept
}

// count brings depth and bytes up to date with what was committed.
func (p *Pending) count(s *session) {
	depth, bytes := s.stored.Depth, s.stored.Bytes
	if u := s.un; u != nil {
		for i := u.off; i < len(u.slots); i++ {
			if u.slots[i].flags&slotLive != 0 {
				depth++
				bytes += int64(u.slots[i].size)
			}
		}
		for i := range u.marks.list {
			if u.marks.list[i].val == markDequeue {
				depth--
			}
		}
	}
	p.setDepth(s, max(depth, 0), max(bytes, 0))
}

func (p *Pending) setDepth(s *session, depth, bytes int64) {
	p.depth += depth - s.depth
	p.queued += bytes - s.bytes
	s.depth, s.bytes = depth, bytes
}
