package session

import "sluice/persist"

// DESIGN. A session has two lanes: one for most messages, and one for those
// whose topic has priority. Each is a queue of its own, with its own sequence
// numbers and window, so order holds within a lane, and a topic is always in
// the same one. The priority lane goes first wherever something may be sent.
// It is made when it is first used.
//
// The packet ids are divided between the lanes, so that an acknowledgement says
// which one it is for. The client's receive maximum is for both together. While
// there are rules for priority (Limits.Priority) the other lane leaves a part of
// it free: a client whose window is full of a backlog gets an alarm at once.
//
// In the store the priority lane of a session is another queue, whose id follows
// from the session's (persist.PriorityOf). It has the limits of the first.

// lane is one queue of a session on its way to the client.
type lane struct {
	window   window
	next     uint64 // sequence number to be sent next
	have     uint64 // queue covers [next, have)
	tail     uint64 // sequence number that comes next into being
	sent     uint64 // everything below was, or may have been, sent before: DUP
	fetching bool
	priority bool // this is the priority lane
	opening  bool // of the priority lane: what it has for this connection is being fetched, and the other waits for it
	queue    []persist.Entry
	queued   int // bytes in queue
}

// rewind makes the outbound side begin again at the oldest message not done.
func (l *lane) rewind(head, tail uint64) {
	l.window.reset(head)
	l.next, l.have, l.tail = head, head, tail
	l.fetching, l.opening = false, false
	clear(l.queue)
	l.queue, l.queued = nil, 0
}

// oldest is the oldest message not done.
func (l *lane) oldest() uint64 {
	if l.window.low < l.window.end {
		return l.window.low
	}
	return l.next
}

func (l *lane) push(e persist.Entry) {
	l.queue = append(l.queue, e)
	l.queued += e.Msg.Size()
}

// laneOf gives the lane of a delivery.
func (s *Session) laneOf(d *Delivery) *lane {
	if d.Priority {
		return s.priorityLane()
	}
	return &s.lane
}

func (s *Session) priorityLane() *lane {
	if s.first == nil {
		s.first = &lane{priority: true}
		s.first.rewind(1, 1)
	}
	return s.first
}

// queueID is the id of a lane's queue in the store.
func (s *Session) queueID(l *lane) uint64 {
	if l.priority {
		return persist.PriorityOf(s.Durable)
	}
	return s.Durable
}

// find gives what is in flight with a packet id, and in which lane.
func (s *Session) find(id uint16) (l *lane, seq uint64, f flight) {
	l = &s.lane
	if id >= priorityIDMin {
		if l = s.first; l == nil {
			return nil, 0, flightDone
		}
	}
	seq, f = l.window.find(id, l.priority)
	return l, seq, f
}

// inflightMax is how many messages may be in flight, of both lanes together,
// when one more of this lane is to be sent.
func (s *Session) inflightMax(l *lane) int {
	most := int(s.receiveMax)
	if s.limits.Priority && !l.priority && most > 1 {
		most -= max(most/8, 1)
	}
	return most
}

// inflight counts both lanes.
func (s *Session) inflight() int {
	n := s.window.inflight
	if s.first != nil {
		n += s.first.window.inflight
	}
	return n
}

// laned tells whether the session has a priority lane in the store.
func (s *Session) laned() bool { return s.Durable != 0 && (s.limits.Priority || s.first != nil) }

// AddRecord appends what the store is to keep of a session: it is new, or
// something of it has changed.
func (s *Session) AddRecord(b *persist.Batch) {
	b.Add(persist.Op{Kind: persist.OpPutSession, ID: s.Durable, Sess: s.record()})
	if s.laned() {
		AddPriority(b, s.record())
	}
}

// AddPriority appends the record of the priority lane of a session with record
// r.
func AddPriority(b *persist.Batch, r *persist.Session) {
	of := *r
	of.ID = persist.PriorityOf(r.ID)
	b.Add(persist.Op{Kind: persist.OpPutSession, ID: of.ID, Sess: &of})
}

// attachLanes tells the store that a client is connected.
func (s *Session) attachLanes(b *persist.Batch) {
	b.Add(persist.Op{Kind: persist.OpAttach, ID: s.Durable, Seq: s.held()})
	if s.laned() {
		b.Add(persist.Op{Kind: persist.OpAttach, ID: persist.PriorityOf(s.Durable), Seq: s.held()})
	}
	if l := s.first; l != nil {
		l.opening = l.have < l.tail
	}
}

// RestorePriority fills the priority lane from what the store kept of it.
func (s *Session) RestorePriority(im *persist.SessionImage) {
	if im.Tail == 1 && s.limits.Priority {
		return // never used
	}
	l := s.priorityLane()
	l.rewind(im.Head, im.Tail)
	l.sent = im.Tail
}

// PriorityBacklog is Backlog for the priority lane.
func (s *Session) PriorityBacklog() (low, sent, tail uint64) {
	if s.first == nil {
		return 1, 1, 1
	}
	return s.first.next, s.first.sent, s.first.tail
}

// shareKey is the name in extras.shared of a message.
func (l *lane) shareKey(seq uint64) uint64 {
	if l.priority {
		return persist.PriorityOf(seq)
	}
	return seq
}

// ofShareKey is the reverse of shareKey.
func (s *Session) ofShareKey(key uint64) (l *lane, seq uint64) {
	if id, ok := persist.OfPriority(key); ok {
		return s.priorityLane(), id
	}
	return &s.lane, key
}
