package persist

import (
	"maps"
	"slices"
	"testing"

	"sluice/broker/mqtt"
)

// DESIGN. The pending set is checked against a model that knows no structure:
// it remembers every op that was ever submitted and says of each whether it is
// settled, by the words of the contract. A disk made of maps executes the
// transactions. After every step the set of settled groups, the contents of
// the disk (after a commit) and what a fetch gives must agree.

type modelOp struct {
	kind    OpKind
	session uint64
	seq     uint64
	group   int // index into model.groups, -1: none
	settled bool
	taken   bool
}

type modelGroup struct {
	token Token
	ops   []*modelOp
	told  bool
}

type modelSession struct {
	rec     Session
	onDisk  bool // was in some transaction
	tail    uint64
	queue   map[uint64]*Entry
	subs    map[string]Subscription
	inbound map[uint16]bool
}

type model struct {
	sessions map[uint64]*modelSession
	deleting map[uint64]bool
	retained map[string]*mqtt.Message
	ops      []*modelOp
	groups   []*modelGroup
	tried    map[[2]uint64]bool // enqueues that were in a failed transaction
}

func newModel() *model {
	return &model{
		sessions: map[uint64]*modelSession{}, deleting: map[uint64]bool{},
		retained: map[string]*mqtt.Message{}, tried: map[[2]uint64]bool{},
	}
}

func (m *model) add(op *modelOp) {
	m.ops = append(m.ops, op)
	if op.group >= 0 {
		m.groups[op.group].ops = append(m.groups[op.group].ops, op)
	}
}

// apply does op in the model; group is its group.
func (m *model) apply(op *Op, group int) {
	mo := &modelOp{kind: op.Kind, session: op.ID, seq: op.Seq, group: group}
	switch op.Kind {
	case OpPutSession:
		if m.deleting[op.Sess.ID] {
			return
		}
		mo.session = op.Sess.ID
		s := m.sessions[op.Sess.ID]
		if s == nil {
			s = &modelSession{tail: 1, queue: map[uint64]*Entry{}, subs: map[string]Subscription{}, inbound: map[uint16]bool{}}
			m.sessions[op.Sess.ID] = s
		}
		s.rec = *op.Sess
		m.add(mo)
		return
	case OpPutRetained:
		m.retained[string(op.Entry.Msg.Topic)] = op.Entry.Msg
		mo.session = 0
		m.add(mo)
		return
	case OpDeleteRetained:
		delete(m.retained, string(op.Entry.Msg.Topic))
		mo.session = 0
		m.add(mo)
		return
	}
	s := m.sessions[op.ID]
	if s == nil {
		return
	}
	switch op.Kind {
	case OpDeleteSession:
		for _, o := range m.ops {
			if o.session == op.ID && !o.taken {
				o.settled = true
			}
		}
		delete(m.sessions, op.ID)
		if s.onDisk {
			m.deleting[op.ID] = true
			mo.session = 0 // is itself not an op on the session any more
			mo.seq = op.ID
			m.add(mo)
		}
	case OpPutSubscription:
		s.subs[op.Sub.Filter] = *op.Sub
		m.add(mo)
	case OpDeleteSubscription:
		delete(s.subs, op.Sub.Filter)
		m.add(mo)
	case OpPutInbound:
		s.inbound[op.PacketID] = true
		m.add(mo)
	case OpDeleteInbound:
		delete(s.inbound, op.PacketID)
		m.add(mo)
	case OpEnqueue:
		mo.seq = s.tail
		e := op.Entry
		e.Seq = s.tail
		s.queue[s.tail] = &e
		s.tail++
		m.add(mo)
	case OpDequeue:
		m.dequeue(s, op, mo)
	case OpRelease:
		if e := s.queue[op.Seq]; e != nil && !e.Released {
			e.Released, e.Msg, e.SubIDs = true, nil, nil
		}
		if op.Seq > 0 && op.Seq < s.tail && s.queue[op.Seq] != nil {
			m.add(mo)
		}
	}
}

func (m *model) dequeue(s *modelSession, op *Op, mo *modelOp) {
	if op.Seq == 0 || op.Seq >= s.tail {
		return
	}
	wasThere := s.queue[op.Seq] != nil
	delete(s.queue, op.Seq)
	if !wasThere {
		return
	}
	for _, o := range m.ops {
		if o.kind == OpEnqueue && o.session == op.ID && o.seq == op.Seq && !o.settled {
			o.settled = true
			if !o.taken && !m.tried[[2]uint64{op.ID, op.Seq}] {
				return // both are as if they had never been
			}
		}
	}
	m.add(mo)
}

func (m *model) take() {
	for _, o := range m.ops {
		if !o.settled {
			o.taken = true
		}
	}
	for _, s := range m.sessions {
		s.onDisk = true
	}
}

func (m *model) committed(ok bool) {
	for _, o := range m.ops {
		if !o.taken {
			continue
		}
		o.taken = false
		if ok {
			o.settled = true
			if o.kind == OpDeleteSession {
				delete(m.deleting, o.seq)
			}
			continue
		}
		if o.kind == OpEnqueue {
			m.tried[[2]uint64{o.session, o.seq}] = true
		}
		if o.session != 0 && m.sessions[o.session] == nil {
			o.settled = true
		}
	}
	m.ops = slices.DeleteFunc(m.ops, func(o *modelOp) bool { return o.settled })
}

// modelDisk executes transactions.
type modelDisk struct {
	sessions map[uint64]*modelSession
	retained map[string]*mqtt.Message
}

func (d *modelDisk) apply(t *testing.T, w *Work) {
	for _, id := range w.Deletes {
		delete(d.sessions, id)
	}
	for _, rec := range w.Puts {
		if d.sessions[rec.ID] == nil {
			d.sessions[rec.ID] = &modelSession{tail: 1, queue: map[uint64]*Entry{}, subs: map[string]Subscription{}, inbound: map[uint16]bool{}}
		}
		d.sessions[rec.ID].rec = *rec
	}
	for i := range w.Queues {
		q := &w.Queues[i]
		s := d.sessions[q.Session]
		if s == nil {
			t.Fatalf("transaction changes session %d, which is not on disk", q.Session)
		}
		for _, e := range q.Enqueue {
			if s.queue[e.Seq] != nil && !w.Again {
				t.Fatalf("session %d seq %d written twice", q.Session, e.Seq)
			}
			s.queue[e.Seq] = &e
		}
		for _, seq := range q.Release {
			if e := s.queue[seq]; e != nil {
				s.queue[seq] = &Entry{Seq: seq, QoS: e.QoS, Retain: e.Retain, Released: true}
			}
		}
		for _, seq := range q.Dequeue {
			delete(s.queue, seq)
		}
		for _, sub := range q.Subs {
			if sub.Sub == nil {
				delete(s.subs, sub.Filter)
			} else {
				s.subs[sub.Filter] = *sub.Sub
			}
		}
		for _, in := range q.Inbound {
			if in.Put {
				s.inbound[in.PacketID] = true
			} else {
				delete(s.inbound, in.PacketID)
			}
		}
		s.tail = q.Tail
		q.Counters = Counters{Tail: q.Tail, Depth: int64(len(s.queue))}
		for _, e := range s.queue {
			if e.Msg != nil {
				q.Counters.Bytes += messageBytes(e.Msg)
			}
		}
	}
	for _, r := range w.Retained {
		if r.Msg == nil {
			delete(d.retained, r.Topic)
		} else {
			d.retained[r.Topic] = r.Msg
		}
	}
}

type diskReader struct {
	entries []Entry
}

func (r *diskReader) Next() (e Entry, ok bool, err error) {
	if len(r.entries) == 0 {
		return e, false, nil
	}
	e, r.entries = r.entries[0], r.entries[1:]
	return e, true, nil
}

func (d *modelDisk) reader(id, from uint64) *diskReader {
	r := &diskReader{}
	if s := d.sessions[id]; s != nil {
		for _, seq := range slices.Sorted(maps.Keys(s.queue)) {
			if seq >= from {
				r.entries = append(r.entries, *s.queue[seq])
			}
		}
	}
	return r
}
