package persist

import (
	"cmp"
	"fmt"
	"slices"

	"sluice/broker/mqtt"
)

// DESIGN. Work is one transaction as the store is to write it: a copy, so that
// the committer works on it without the lock while Submit goes on. Each record
// comes at most once, with one exception: a released message may come both in
// Enqueue and in Release of its queue. The order in which a store applies the
// parts is: Deletes first, the rest as it likes.

// Work is the content of one transaction.
type Work struct {
	Deletes  []uint64   // sessions that go, with all they have
	Puts     []*Session // sessions that come or change
	Queues   []QueueWork
	Retained []RetainedWork

	// Again: an earlier transaction with some of this failed. A disk that
	// failed while it synced may have written it all the same, so what is to
	// be added may be there already.
	Again bool

	freeing       bool
	takenPuts     []change[uint64, *Session]
	takenDeletes  []change[uint64, struct{}]
	takenRetained []change[string, *mqtt.Message]
}

// QueueWork is what changes for one session, other than its record. Queues are
// in the order of Session, the lists in the order of their numbers or, for
// Subs, of the filter.
type QueueWork struct {
	Session  uint64
	Tail     uint64 // sequence number of the next message
	Enqueue  []Entry
	Release  []uint64
	Dequeue  []uint64
	Subs     []SubscriptionWork
	Inbound  []InboundWork
	Counters Counters // of the queue on disk; the store brings them up to date before Committed

	HasWill bool  // the will changes
	Will    *Will // nil: it is removed

	Limits QueueLimits // see Trim
	Drops  Drops       // what the store has removed by Trim

	held   int
	handed uint64
	s      *session
}

// SubscriptionWork puts a subscription or, if Sub is nil, removes it.
type SubscriptionWork struct {
	Filter string
	Sub    *Subscription
}

// InboundWork adds a packet id or, if Put is false, removes it.
type InboundWork struct {
	PacketID uint16
	Put      bool
}

// RetainedWork replaces the retained message of Topic; nil removes it.
type RetainedWork struct {
	Topic string
	Msg   *mqtt.Message
}

func (w *Work) deletes(id uint64) bool {
	return slices.Contains(w.Deletes, id)
}

func (w *Work) empty() bool {
	return len(w.Deletes) == 0 && len(w.Puts) == 0 && len(w.Queues) == 0 && len(w.Retained) == 0
}

// Take gives all that is pending as one transaction, nil if nothing is. Each
// Take is followed by Committed before the next.
func (p *Pending) Take() *Work {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mustBeIdle()
	p.sweep()
	w := &Work{Again: p.failed}
	p.gen++
	w.takenPuts, w.takenDeletes, w.takenRetained = p.puts.take(p), p.deletes.take(p), p.retained.take(p)
	for i := range w.takenPuts {
		if s := p.live[w.takenPuts[i].key]; s != nil {
			s.onDisk = true
		}
		p.forgetSlow(&w.takenPuts[i].groups)
		w.Puts = append(w.Puts, w.takenPuts[i].val)
	}
	for i := range w.takenDeletes {
		p.forgetSlow(&w.takenDeletes[i].groups)
	}
	for i := range w.takenRetained {
		ch := &w.takenRetained[i]
		p.forgetSlow(&ch.groups)
		w.Retained = append(w.Retained, RetainedWork{Topic: ch.key, Msg: ch.val})
	}
	for _, s := range p.dirty {
		u := s.un
		u.takenMarks, u.takenSubs, u.takenInbound, u.takenWill = u.marks.take(p), u.subs.take(p), u.inbound.take(p), u.will.take(p)
		q := p.takeQueue(s)
		p.takeWindow(s, &q)
		w.Queues = append(w.Queues, q)
	}
	if p.ops != 0 || p.groups.slow != 0 {
		panic(fmt.Sprintf("BUG: %d ops and %d slow groups left after all were taken", p.ops, p.groups.slow))
	}
	return p.taken(w, p.bytes)
}

// TakeFreeing gives those pending removals that no group waits for, nil if
// there are none. It is for a disk that is full. When they are committed,
// there may be room for the rest.
func (p *Pending) TakeFreeing() *Work {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mustBeIdle()
	p.sweep()
	w := &Work{Again: p.failed, freeing: true}
	bytes := int64(0)
	w.takenDeletes = p.deletes.takeIf(p, func(struct{}) bool { return true })
	for i := range w.takenDeletes {
		bytes += w.takenDeletes[i].bytes
	}
	for _, s := range p.dirty {
		u := s.un
		u.takenMarks = u.marks.takeIf(p, func(mark) bool { return true })
		u.takenInbound = u.inbound.takeIf(p, func(put bool) bool { return !put })
		if len(u.takenMarks) == 0 && len(u.takenInbound) == 0 {
			continue
		}
		for i := range u.takenMarks {
			bytes += u.takenMarks[i].bytes
		}
		for i := range u.takenInbound {
			bytes += u.takenInbound[i].bytes
		}
		w.Queues = append(w.Queues, p.takeQueue(s))
	}
	return p.taken(w, bytes)
}

func (p *Pending) mustBeIdle() {
	if p.work != nil {
		panic("BUG: Take before Committed")
	}
}

// taken finishes a Take of ops that are charged with bytes.
func (p *Pending) taken(w *Work, bytes int64) *Work {
	for i := range w.takenDeletes {
		w.Deletes = append(w.Deletes, w.takenDeletes[i].key)
	}
	if w.empty() {
		return nil
	}
	slices.Sort(w.Deletes)
	slices.SortFunc(w.Puts, func(a, b *Session) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(w.Queues, func(a, b QueueWork) int { return cmp.Compare(a.Session, b.Session) })
	slices.SortFunc(w.Retained, func(a, b RetainedWork) int { return cmp.Compare(a.Topic, b.Topic) })
	if !w.freeing {
		p.ages.reset()
		p.urgent = false
	}
	p.bytes -= bytes
	p.takenBytes = bytes
	p.work = w
	return w
}

// takeQueue copies the lists that have been taken of s.
func (p *Pending) takeQueue(s *session) QueueWork {
	u := s.un
	q := QueueWork{Session: s.id, Tail: s.tail, Counters: s.stored, s: s}
	for i := range u.takenMarks {
		m := &u.takenMarks[i]
		p.forgetSlow(&m.groups)
		if m.val == markDequeue {
			q.Dequeue = append(q.Dequeue, m.key)
		} else {
			q.Release = append(q.Release, m.key)
		}
	}
	for i := range u.takenSubs {
		p.forgetSlow(&u.takenSubs[i].groups)
		q.Subs = append(q.Subs, SubscriptionWork{Filter: u.takenSubs[i].key, Sub: u.takenSubs[i].val})
	}
	for i := range u.takenInbound {
		p.forgetSlow(&u.takenInbound[i].groups)
		q.Inbound = append(q.Inbound, InboundWork{PacketID: u.takenInbound[i].key, Put: u.takenInbound[i].val})
	}
	for i := range u.takenWill {
		p.forgetSlow(&u.takenWill[i].groups)
		q.HasWill, q.Will = true, u.takenWill[i].val
	}
	if s.quota != nil {
		q.Limits, q.held, q.handed = s.quota.limits, s.quota.held, s.quota.handed
	}
	slices.Sort(q.Dequeue)
	slices.Sort(q.Release)
	slices.SortFunc(q.Subs, func(a, b SubscriptionWork) int { return cmp.Compare(a.Filter, b.Filter) })
	slices.SortFunc(q.Inbound, func(a, b InboundWork) int { return cmp.Compare(a.PacketID, b.PacketID) })
	return q
}

// takeWindow takes the messages of s, and copies them.
func (p *Pending) takeWindow(s *session, q *QueueWork) {
	u := s.un
	u.trim()
	u.taken = u.len()
	for i := u.off; i < len(u.slots); i++ {
		sl := &u.slots[i]
		if sl.flags&slotLive == 0 {
			continue
		}
		p.ops--
		p.groups.forgetSlow(sl.group)
		sl.flags = sl.flags&^slotSlow | slotTaken
		q.Enqueue = append(q.Enqueue, sl.entry(u.base+uint64(i-u.off)))
	}
}

func (p *Pending) forgetSlow(w *waiters) { w.each(p.groups.forgetSlow) }

// Committed says how the transaction w went: nil if all of it is on disk. If
// not, it is pending again, in front of what has come since. What is settled
// is appended to dst.
func (p *Pending) Committed(w *Work, err error, dst []Settlement) []Settlement {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w == nil || p.work != w {
		panic("BUG: Committed without Take")
	}
	if err != nil {
		p.putBack(w)
		return p.groups.collect(dst)
	}
	settle(p, w.takenPuts)
	settle(p, w.takenDeletes)
	settle(p, w.takenRetained)
	for i := range w.Queues {
		q := &w.Queues[i]
		p.settleQueue(q.s)
		if !q.s.deleted {
			q.s.stored = q.Counters
			p.count(q.s)
			p.drop(q.s, q.Drops)
		}
	}
	p.work, p.takenBytes = nil, 0
	if !w.freeing {
		p.failed = false
	}
	p.sweep()
	return p.groups.collect(dst)
}

// settleQueue settles what was taken of s.
func (p *Pending) settleQueue(s *session) {
	u := s.un
	for i := u.off; i < u.off+u.taken; i++ {
		p.release(u.slots[i].group)
	}
	u.pop(u.taken)
	u.taken = 0
	u.trim()
	settle(p, u.takenMarks)
	settle(p, u.takenSubs)
	settle(p, u.takenInbound)
	settle(p, u.takenWill)
	u.takenMarks, u.takenSubs, u.takenInbound, u.takenWill = nil, nil, nil, nil
}

// putBack makes a failed transaction pending again.
func (p *Pending) putBack(w *Work) {
	p.failed = true
	p.work = nil
	p.bytes += p.takenBytes
	p.takenBytes = 0
	p.restorePuts(w)
	p.deletes.restore(p, w.takenDeletes)
	p.retained.restore(p, w.takenRetained)
	for i := range w.Queues {
		s := w.Queues[i].s
		if s.deleted {
			p.abandonQueue(s)
			continue
		}
		u := s.un
		for i := u.off; i < u.off+u.taken; i++ {
			sl := &u.slots[i]
			if sl.flags&slotTaken == 0 {
				continue
			}
			if sl.flags&slotLive == 0 {
				p.bytes -= markBytes + sl.charged
				*sl = slot{}
				continue
			}
			sl.flags = sl.flags&^slotTaken | slotTried
			sl.age = p.restoreOp()
			p.judge(s, sl)
		}
		u.taken = 0
		u.trim()
		u.keepDequeues()
		u.marks.restore(p, u.takenMarks)
		u.subs.restore(p, u.takenSubs)
		u.inbound.restore(p, u.takenInbound)
		u.will.restore(p, u.takenWill)
		u.takenMarks, u.takenSubs, u.takenInbound, u.takenWill = nil, nil, nil, nil
	}
	p.sweep()
}

// keepDequeues sees to it that a release that came after a dequeue does not
// take its place.
func (u *uncommitted) keepDequeues() {
	for i := range u.takenMarks {
		if j, ok := u.marks.index[u.takenMarks[i].key]; ok && u.takenMarks[i].val == markDequeue {
			u.marks.list[j].val = markDequeue
		}
	}
}

// restorePuts restores the session records, but those of sessions deleted meanwhile.
func (p *Pending) restorePuts(w *Work) {
	kept := w.takenPuts[:0]
	for _, ch := range w.takenPuts {
		if p.live[ch.key] == nil {
			p.bytes -= ch.bytes
			ch.groups.release(p)
			continue
		}
		kept = append(kept, ch)
	}
	p.puts.restore(p, kept)
}

// abandonQueue settles what was taken of a session that has been deleted since.
func (p *Pending) abandonQueue(s *session) {
	u := s.un
	for i := u.off; i < u.off+u.taken; i++ {
		if u.slots[i].flags&slotTaken != 0 {
			p.bytes -= markBytes + u.slots[i].charged
		}
	}
	p.bytes -= charges(u.takenMarks) + charges(u.takenSubs) + charges(u.takenInbound) + charges(u.takenWill)
	p.settleQueue(s)
}

func charges[K comparable, V any](taken []change[K, V]) (bytes int64) {
	for i := range taken {
		bytes += taken[i].bytes
	}
	return bytes
}
