package persist

import "fmt"

// DESIGN. What each op does to the pending set. An op either has no effect, or
// becomes a change (changes.go) or a slot of a queue's window (queue.go), or
// cancels what is there. Its group waits for it only if it became something.

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
		if s.quota != nil {
			s.quota.held = int(min(op.Seq, handedMax))
		}
		p.attach(s, true)
	case OpDetach:
		if s.quota != nil {
			s.quota.held = 0
		}
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
	case OpExpire:
		if p.dequeue(s, op.Seq, group) {
			p.drop(s, Drops{Aged: 1})
		}
	case OpPutWill:
		will := *op.Will
		p.uncommitted(s).will.put(p, struct{}{}, &will, markBytes+messageBytes(will.Msg), group)
	case OpDeleteWill:
		p.uncommitted(s).will.put(p, struct{}{}, nil, markBytes, group)
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
	p.setLimits(p.live[sess.ID], sess.Queue)
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
		u.will.dropAll(p)
	}
	p.setLimits(s, QueueLimits{})
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
	size := messageBytes(e.Msg)
	if p.turnsAway(s, size, group) {
		op.Seq, e.Seq = 0, 0
		return
	}
	u := p.uncommitted(s)
	sl := slot{msg: e.Msg, subIDs: e.SubIDs, size: int32(size), group: group, qos: e.QoS, age: p.addOp(), flags: slotLive}
	if e.Retain {
		sl.flags |= slotRetain
	}
	if e.Shared {
		sl.flags |= slotShared
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

// dequeue tells whether there was, for all it knows, a message to remove.
func (p *Pending) dequeue(s *session, seq uint64, group int32) bool {
	if seq == 0 || seq >= s.tail {
		return false
	}
	u := p.uncommitted(s)
	sl := u.at(seq)
	if sl == nil { // on disk, or gone
		m, ok := u.marks.get(seq)
		first := !ok || m != markDequeue
		if first {
			p.stats.Dequeued++
			p.setDepth(s, max(s.depth-1, 0), s.bytes)
		}
		u.marks.put(p, seq, markDequeue, markBytes, group)
		return first
	}
	if sl.flags&slotLive == 0 {
		return false
	}
	p.stats.Dequeued++
	p.setDepth(s, max(s.depth-1, 0), s.bytes-int64(sl.size))
	if seq < u.base+uint64(u.taken) {
		// The transaction in progress writes it, the next removes it; its group has what it waited for now.
		p.release(sl.group)
		sl.group = 0
		sl.flags &^= slotLive
		u.marks.put(p, seq, markDequeue, markBytes, group)
		return true
	}
	tried := sl.flags&slotTried != 0
	p.cancelSlot(sl)
	if tried {
		u.marks.put(p, seq, markDequeue, markBytes, group)
	}
	u.trimFree()
	return true
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
