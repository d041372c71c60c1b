package storetest

import (
	"fmt"
	"maps"
	"slices"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// DESIGN. model is what a store must contain after all that was submitted, in
// the plainest form. It is compared as text (dump), so that a difference shows
// what is wrong.

type model struct {
	sessions map[uint64]*modelSession
	retained map[string]*mqtt.Message
}

type modelSession struct {
	rec     persist.Session
	subs    map[string]persist.Subscription
	inbound map[uint16]bool
	will    *persist.Will
	queue   map[uint64]persist.Entry
	tail    uint64
}

func newModel() *model {
	return &model{sessions: make(map[uint64]*modelSession), retained: make(map[string]*mqtt.Message)}
}

// apply does an op that was submitted; of an enqueue the result is checked. It
// tells whether a dequeue or release had a message to act on.
func (m *model) apply(op *persist.Op) (acted bool, err error) {
	switch op.Kind {
	case persist.OpPutSession:
		s := m.sessions[op.Sess.ID]
		if s == nil {
			s = &modelSession{
				subs: make(map[string]persist.Subscription), inbound: make(map[uint16]bool),
				queue: make(map[uint64]persist.Entry), tail: 1,
			}
			m.sessions[op.Sess.ID] = s
		}
		s.rec = *op.Sess
		return true, nil
	case persist.OpPutRetained:
		m.retained[string(op.Entry.Msg.Topic)] = op.Entry.Msg
		return true, nil
	case persist.OpDeleteRetained:
		delete(m.retained, string(op.Entry.Msg.Topic))
		return true, nil
	}
	s := m.sessions[op.ID]
	if s == nil {
		if op.Kind == persist.OpEnqueue && op.Seq != 0 {
			return false, fmt.Errorf("enqueue to unknown queue %d got sequence number %d", op.ID, op.Seq)
		}
		return true, nil
	}
	switch op.Kind {
	case persist.OpDeleteSession:
		delete(m.sessions, op.ID)
	case persist.OpPutSubscription:
		s.subs[op.Sub.Filter] = *op.Sub
	case persist.OpDeleteSubscription:
		delete(s.subs, op.Sub.Filter)
	case persist.OpEnqueue:
		if op.Seq != s.tail {
			return false, fmt.Errorf("enqueue to queue %d got sequence number %d, want %d", op.ID, op.Seq, s.tail)
		}
		e := op.Entry
		e.Seq = op.Seq
		s.queue[op.Seq] = e
		s.tail++
	case persist.OpDequeue:
		_, acted = s.queue[op.Seq]
		delete(s.queue, op.Seq)
	case persist.OpRelease:
		e, ok := s.queue[op.Seq]
		if acted = ok; ok {
			s.queue[op.Seq] = persist.Entry{Seq: e.Seq, QoS: e.QoS, Retain: e.Retain, Released: true}
		}
	case persist.OpPutInbound:
		s.inbound[op.PacketID] = true
	case persist.OpDeleteInbound:
		delete(s.inbound, op.PacketID)
	case persist.OpPutWill:
		s.will = op.Will
	case persist.OpDeleteWill:
		s.will = nil
	}
	return acted, nil
}

func (m *model) clone() *model {
	c := &model{sessions: make(map[uint64]*modelSession, len(m.sessions)), retained: maps.Clone(m.retained)}
	for id, s := range m.sessions {
		n := *s
		n.subs, n.inbound, n.queue = maps.Clone(s.subs), maps.Clone(s.inbound), maps.Clone(s.queue)
		c.sessions[id] = &n
	}
	return c
}

// dump gives one line for each record, in order, but no tails: a tail may be
// lower after a restart, by messages that were never written.
func (m *model) dump() (lines []string) {
	for _, id := range slices.Sorted(maps.Keys(m.sessions)) {
		s := m.sessions[id]
		lines = append(lines, fmt.Sprintf("session %+v", s.rec))
		for _, f := range slices.Sorted(maps.Keys(s.subs)) {
			lines = append(lines, fmt.Sprintf("session %d sub %+v", id, s.subs[f]))
		}
		for _, p := range slices.Sorted(maps.Keys(s.inbound)) {
			lines = append(lines, fmt.Sprintf("session %d inbound %d", id, p))
		}
		if s.will != nil {
			lines = append(lines, fmt.Sprintf("session %d will expires %v %d: %s", id, s.will.HasExpiry, s.will.ExpirySeconds, dumpMessage(s.will.Msg)))
		}
		for _, seq := range slices.Sorted(maps.Keys(s.queue)) {
			lines = append(lines, fmt.Sprintf("session %d entry %s", id, dumpEntry(s.queue[seq])))
		}
	}
	for _, t := range slices.Sorted(maps.Keys(m.retained)) {
		lines = append(lines, "retained "+dumpMessage(m.retained[t]))
	}
	return lines
}

func dumpEntry(e persist.Entry) string {
	return fmt.Sprintf("%d qos %d retain %v released %v shared %v ids %v: %s", e.Seq, e.QoS, e.Retain, e.Released, e.Shared, e.SubIDs, dumpMessage(e.Msg))
}

// dumpMessage leaves out the id, which a store need not keep, the session it is
// from, which it must not keep, and the expiry, which has a test of its own.
func dumpMessage(m *mqtt.Message) string {
	if m == nil {
		return "-"
	}
	return fmt.Sprintf("%s props %x payload %s qos %d retain %v", short(m.Topic), m.Props, short(m.Payload), m.QoS, m.Retain)
}

// short gives long bytes by length and content.
func short(b []byte) string {
	if len(b) <= 40 {
		return fmt.Sprintf("%q", b)
	}
	sum := uint32(0)
	for _, c := range b {
		sum = sum*31 + uint32(c)
	}
	return fmt.Sprintf("%q...(%d bytes, %08x)", b[:20], len(b), sum)
}
