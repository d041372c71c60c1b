package persist

import (
	"errors"
	"fmt"
	"sync"

	"sluice/broker/mqtt"
)

// DESIGN. Pending is what has been submitted and is not on disk: it assigns
// sequence numbers, lets later ops cancel earlier ones, and knows which groups
// wait. The committer takes everything there is into one transaction (Take),
// and says how it went (Committed). What was taken keeps its place until then,
// so that it can be fetched, and goes back in front of what has come since if
// the transaction failed. As everything is taken at once, what is on disk is
// always the state after some Submit: groups are whole, and nothing overtakes.
//
// The one exception is TakeFreeing: when the disk is full, the removals that
// nobody waits for are committed alone, to make room.
//
// A mutex guards it all; no method blocks, reads a clock or does I/O.

// ErrFull settles a group whose messages do not fit: more than the permitted
// bytes are waiting for a disk that does not take them. Nothing of the group
// is stored.
var ErrFull = errors.New("the store is full")

// SlowDepth is the depth from which on a message is not expected to be
// acknowledged within a commit interval, even if the receiver is connected: it
// is more than the receiver is likely to have in flight.
const SlowDepth = 1024

// Waiting are figures to decide by when to commit. They describe what has not
// been taken.
type Waiting struct {
	Ops        int    // pending ops
	Groups     int    // groups not settled, those taken included
	SlowGroups int    // groups with a message for a queue that is not attached, deep, or of QoS 2 (which is not sent before it is on disk)
	Bytes      int64  // message bytes, and some for each op
	TotalBytes int64  // the same with what is taken
	Oldest     int64  // when the oldest pending op was submitted
	Submits    uint64 // calls of Submit so far
	Urgent     bool   // a batch with ops was urgent
}

// Pending is the pending set. Its zero value is not ready: use NewPending.
type Pending struct {
	mu       sync.Mutex
	live     map[uint64]*session
	dirty    []*session // those with un != nil, and some without
	unused   []*uncommitted
	puts     changes[uint64, *Session]
	deletes  changes[uint64, struct{}]
	retained changes[string, *mqtt.Message] // nil: remove
	groups   groups
	ages     ages
	work     *Work // taken and not yet Committed

	now        int64 // of the current Submit
	ops        int
	bytes      int64
	takenBytes int64
	limit      int64
	gen        uint32 // number of the last full Take
	urgent     bool
	failed     bool // the last full transaction failed

	depth, queued int64 // over all queues
	submits       uint64
	stats         PendingStats
	groupOf       []int32 // scratch of Submit: the batch's groups
}

// PendingStats are counters since the start.
type PendingStats struct {
	Enqueued, Dequeued, Cancelled, Refused uint64
	BytesSubmitted                         uint64 // of the messages enqueued
}

// NewPending makes an empty set. Once more than limit bytes are pending, groups
// with new messages are settled with ErrFull; 0: never. step is the precision
// of Waiting.Oldest in the unit of Submit's now.
func NewPending(limit, step int64) *Pending {
	return &Pending{live: make(map[uint64]*session), limit: limit, ages: ages{step: step}}
}

// Restore makes a session known that is on disk with these counters.
func (p *Pending) Restore(id uint64, c Counters) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.Tail = max(c.Tail, 1)
	p.live[id] = &session{id: id, tail: c.Tail, stored: c, depth: c.Depth, bytes: c.Bytes, onDisk: true}
	p.depth += c.Depth
	p.queued += c.Bytes
}

// refused stands for the group of a group that does not fit.
const refused int32 = -1

// Submit applies the batch in order; see Store.Submit. What it settles is
// appended to dst.
func (p *Pending) Submit(b *Batch, now int64, dst []Settlement) ([]Settlement, Waiting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = now
	p.submits++
	p.groupOf = p.groupOf[:0]
	for _, t := range b.tokens {
		p.groupOf = append(p.groupOf, p.groups.open(b.Owner, t, p.gen))
	}
	last := int32(-1)
	for i := range b.Ops {
		op := &b.Ops[i]
		var group int32
		if op.group >= 0 {
			if op.group != last && p.full() && grows(b.Ops[i:], op.group) {
				p.refuse(op.group)
			}
			group = p.groupOf[op.group]
		} else if p.full() && adds(op.Kind) {
			group = refused
			p.stats.Refused++
		}
		last = op.group
		if group == refused {
			op.Seq = 0
			continue
		}
		p.apply(op, group)
	}
	for _, g := range p.groupOf {
		if g != refused {
			p.release(g)
		}
	}
	p.urgent = p.urgent || b.Urgent && p.ops > 0
	return p.groups.collect(dst), p.waiting()
}

// full tells whether what is pending exceeds the limit.
func (p *Pending) full() bool { return p.limit > 0 && p.bytes+p.takenBytes > p.limit }

// adds tells whether ops of this kind bring message bytes.
func adds(k OpKind) bool { return k == OpEnqueue || k == OpPutRetained }

// grows tells whether the group at the front of ops brings message bytes.
func grows(ops []Op, group int32) bool {
	for i := range ops {
		if ops[i].group != group {
			return false
		}
		if adds(ops[i].Kind) {
			return true
		}
	}
	return false
}

func (p *Pending) refuse(group int32) {
	p.groups.close(p.groupOf[group], ErrFull)
	p.groupOf[group] = refused
	p.stats.Refused++
}

func (p *Pending) apply(op *Op, group int32) {
	switch op.Kind {
	case OpPutSession:
		p.putSession(op.Sess, group)
		return
	case OpPutRetained:
		p.retained.put(p, string(op.Entry.Msg.Topic), op.Entry.Msg, markBytes+messageBytes(op.Entry.Msg), group)
		return
	case OpDeleteRetained:
		p.retained.put(p, string(op.Entry.Msg.Topic), nil, markBytes, group)
		return
	}
	s := p.live[op.ID]
	if s == nil {
		if op.Kind == OpEnqueue {
			op.Seq, op.Entry.Seq = 0, 0
		}
		return
	}
	switch op.Kind {
	case OpDeleteSession:
		p.deleteSession(s, group)
	case OpAttach:
		p.attach(s, true)
	case OpDetach:
		p.attach(s, false)
	case OpPutSubscription:
		sub := *op.Sub
		p.uncommitted(s).subs.put(p, sub.Filter, &sub, markBytes+int64(len(sub.Filter)), group)
	case OpDeleteSubscription:
		p.uncommitted(s).subs.put(p, op.Sub.Filter, nil, markBytes, group)
	case OpEnqueue:
		p.enqueue(s, op, group)
	case OpDequeue:
		p.dequeue(s, op.Seq, group)
	case OpRelease:
		p.releaseSeq(s, op.Seq, group)
	case OpPutInbound, OpDeleteInbound:
		p.uncommitted(s).inbound.put(p, op.PacketID, op.Kind == OpPutInbound, markBytes, group)
		if op.Kind == OpPutInbound {
			p.groups.addSlow(group)
		}
	default:
		panic(fmt.Sprintf("BUG: op of kind %d", op.Kind))
	}
}

// putSession creates the session, unless it is just being deleted: ids are not used again.
func (p *Pending) putSession(sess *Session, group int32) {
	if p.deleting(sess.ID) {
		return
	}
	if p.live[sess.ID] == nil {
		p.live[sess.ID] = &session{id: sess.ID, tail: 1, stored: Counters{Tail: 1}}
	}
	rec := *sess
	p.puts.put(p, sess.ID, &rec, markBytes+int64(len(rec.ClientID)+len(rec.Username)), group)
}

func (p *Pending) deleting(id uint64) bool {
	if _, ok := p.deletes.get(id); ok {
		return true
	}
	return p.work != nil && p.work.deletes(id)
}

func (p *Pending) deleteSession(s *session, group int32) {
	p.puts.drop(p, s.id)
	if u := s.un; u != nil {
		for seq := u.base + uint64(u.taken); seq < s.tail; seq++ {
			if sl := u.at(seq); sl != nil && sl.flags&slotLive != 0 {
				p.cancelSlot(sl)
			}
		}
		clear(u.slots[u.off+u.taken:])
		u.slots = u.slots[:u.off+u.taken]
		u.marks.dropAll(p)
		u.subs.dropAll(p)
		u.inbound.dropAll(p)
	}
	p.setDepth(s, 0, 0)
	s.deleted = true
	delete(p.live, s.id)
	if s.onDisk {
		p.deletes.put(p, s.id, struct{}{}, markBytes, group)
	}
}

// attach notes whether the session is connected, and judges its pending messages anew.
func (p *Pending) attach(s *session, attached bool) {
	if s.attached == attached {
		return
	}
	s.attached = attached
	u := s.un
	if u == nil {
		return
	}
	for i := u.off + u.taken; i < len(u.slots); i++ {
		sl := &u.slots[i]
		if sl.flags&slotLive == 0 {
			continue
		}
		if sl.flags&slotSlow != 0 {
			sl.flags &^= slotSlow
			p.groups.subSlow(sl.group)
		}
		p.judge(s, sl)
	}
}

// judge marks the slot, and its group, if nobody is likely to dequeue it soon.
func (p *Pending) judge(s *session, sl *slot) {
	if !s.attached || sl.qos == 2 || s.depth > SlowDepth {
		sl.flags |= slotSlow
		p.groups.addSlow(sl.group)
	}
}

func (p *Pending) enqueue(s *session, op *Op, group int32) {
	e := &op.Entry
	if e.Msg == nil || e.QoS != 1 && e.QoS != 2 {
		panic(fmt.Sprintf("BUG: enqueue without a message or with QoS %d", e.QoS))
	}
	u := p.uncommitted(s)
	size := messageBytes(e.Msg)
	sl := slot{msg: e.Msg, subIDs: e.SubIDs, size: int32(size), group: group, qos: e.QoS, age: p.addOp(), flags: slotLive}
	if e.Retain {
		sl.flags |= slotRetain
	}
	p.hold(group)
	if group != 0 {
		if g := &p.groups.all[group]; g.bytes == 0 {
			g.bytes = size
			p.bytes += size
		}
	} else {
		sl.charged = size
		p.bytes += size
	}
	p.bytes += markBytes
	p.setDepth(s, s.depth+1, s.bytes+size)
	p.judge(s, &sl)
	u.push(sl)
	op.Seq, e.Seq = s.tail, s.tail
	s.tail++
	p.stats.Enqueued++
	p.stats.BytesSubmitted += uint64(size)
}

// cancelSlot settles a pending message that will not be written.
func (p *Pending) cancelSlot(sl *slot) {
	if sl.flags&slotSlow != 0 {
		p.groups.subSlow(sl.group)
	}
	p.ops--
	p.ages.drop(sl.age)
	p.bytes -= markBytes + sl.charged
	p.release(sl.group)
	*sl = slot{}
	p.stats.Cancelled++
}

func (p *Pending) dequeue(s *session, seq uint64, group int32) {
	if seq == 0 || seq >= s.tail {
		return
	}
	u := p.uncommitted(s)
	sl := u.at(seq)
	if sl == nil { // on disk, or gone
		if m, ok := u.marks.get(seq); !ok || m != markDequeue {
			p.stats.Dequeued++
			p.setDepth(s, max(s.depth-1, 0), s.bytes)
		}
		u.marks.put(p, seq, markDequeue, markBytes, group)
		return
	}
	if sl.flags&slotLive == 0 {
		return
	}
	p.stats.Dequeued++
	p.setDepth(s, max(s.depth-1, 0), s.bytes-int64(sl.size))
	if seq < u.base+uint64(u.taken) {
		// The transaction in progress writes it, the next removes it; its group has what it waited for now.
		p.release(sl.group)
		sl.group = 0
		sl.flags &^= slotLive
		u.marks.put(p, seq, markDequeue, markBytes, group)
		return
	}
	tried := sl.flags&slotTried != 0
	p.cancelSlot(sl)
	if tried {
		u.marks.put(p, seq, markDequeue, markBytes, group)
	}
	u.trimFree()
}

// trimFree pops dead slots if no transaction holds the front of the window.
func (u *uncommitted) trimFree() {
	if u.taken == 0 {
		u.trim()
	}
}

func (p *Pending) releaseSeq(s *session, seq uint64, group int32) {
	if seq == 0 || seq >= s.tail {
		return
	}
	u := p.uncommitted(s)
	sl := u.at(seq)
	if sl == nil {
		if m, ok := u.marks.get(seq); ok && m == markDequeue {
			return
		}
		u.marks.put(p, seq, markRelease, markBytes, group)
		return
	}
	if sl.flags&slotLive == 0 {
		return
	}
	if sl.flags&slotReleased == 0 {
		p.setDepth(s, s.depth, s.bytes-int64(sl.size))
		sl.flags |= slotReleased
		sl.size, sl.msg, sl.subIDs = 0, nil, nil
	}
	// A slot that is not taken will be written as released: a mark is needed
	// only so that the group has something to wait for.
	if seq < u.base+uint64(u.taken) || group != 0 {
		u.marks.put(p, seq, markRelease, markBytes, group)
	}
}

// addOp counts an op that is pending from now on, and gives its age.
func (p *Pending) addOp() uint32 {
	p.ops++
	return p.ages.add(p.now)
}

// restoreOp counts an op that is pending again.
func (p *Pending) restoreOp() uint32 {
	p.ops++
	return p.ages.addOldest()
}

// cancel settles a pending op that will not be written.
func (p *Pending) cancel(groups *waiters, bytes int64, age uint32) {
	p.ops--
	p.ages.drop(age)
	p.bytes -= bytes
	groups.release(p)
}

// hold makes a group wait for one more op.
func (p *Pending) hold(group int32) {
	if group != 0 {
		p.groups.all[group].left++
	}
}

// release tells a group that one of its ops is settled.
func (p *Pending) release(group int32) {
	if group == 0 {
		return
	}
	g := &p.groups.all[group]
	g.left--
	if g.left > 0 {
		return
	}
	if g.left < 0 {
		panic(fmt.Sprintf("BUG: group %d of owner %d released too often", group, g.owner))
	}
	if p.work != nil && !p.work.freeing && g.gen != p.gen {
		p.takenBytes -= g.bytes
	} else {
		p.bytes -= g.bytes
	}
	p.groups.close(group, nil)
}

// Waiting gives the figures of the moment.
func (p *Pending) Waiting() Waiting {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting()
}

func (p *Pending) waiting() Waiting {
	if p.ops == 0 {
		p.urgent = false
	}
	return Waiting{
		Ops: p.ops, Groups: p.groups.waiting, SlowGroups: p.groups.slow,
		Bytes: p.bytes, TotalBytes: p.bytes + p.takenBytes,
		Oldest: p.ages.oldest(), Submits: p.submits, Urgent: p.urgent,
	}
}

// Stats gives the counters, and how much is queued, committed or not.
func (p *Pending) Stats() (st PendingStats, messages, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats, p.depth, p.queued
}

// messageBytes is what a message counts in all limits.
func messageBytes(m *mqtt.Message) int64 {
	return int64(len(m.Topic) + len(m.Props) + len(m.Payload))
}
