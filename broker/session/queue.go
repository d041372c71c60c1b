package session

import (
	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/platform/mono"
)

// DESIGN. How much may wait for a session is decided where it waits. What is in
// the store, the store judges: the session only says what its limits are
// (OpPutSession). What waits in memory, the session judges here: messages of
// QoS 1 and 2 of a session without a store, and those of QoS 0 that a session
// keeps while its client is away. Nobody waits for these, so a queue in memory
// cannot reject: what does not fit is dropped and counted.

// QoS0 says what becomes of a message of QoS 0 for a session whose client is away.
type QoS0 uint8

// The choices.
const (
	QoS0Off    QoS0 = iota // it is dropped
	QoS0Memory             // it is kept in memory
)

// Queue bounds what waits for a session. The limits are those of the store; in
// memory, Reject is as DropNewest.
type Queue struct {
	persist.QueueLimits
	QoS0 QoS0
	// Hold: a publisher of MQTT 5 waits when a queue rejects its message, as older
	// ones do; otherwise it is told.
	Hold bool
}

// away is what is kept in memory for a client that is not there.
type away struct {
	list  []persist.Entry // of QoS 0, without sequence numbers, oldest first
	bytes int
}

// SetLimits sets other limits: the session belongs to another class now.
func (s *Session) SetLimits(l *Limits) { s.limits = l }

// Limits gives the limits of the session.
func (s *Session) Limits() *Limits { return s.limits }

// held is how many messages at the front of its queue in the store the session
// may have in its hands: these are not dropped as the oldest while it is
// connected. It leaves half of the queue to be dropped.
func (s *Session) held() uint64 {
	n := int64(s.receiveMax)
	if most := s.limits.Queue.Messages; most > 0 {
		n = min(n, max(most/2, 1))
	}
	return uint64(n)
}

// admit makes room in a queue in memory, as far as its policy goes. It tells
// whether a message of so many bytes may be put into it.
func (q *Queue) admit(fx *Effects, list []persist.Entry, bytes *int, size int, now mono.Time, drop func(e *persist.Entry)) (rest []persist.Entry, ok bool) {
	full := func() bool {
		return q.Messages > 0 && int64(len(list)) >= q.Messages || q.Bytes > 0 && int64(*bytes)+int64(size) > q.Bytes
	}
	oldest := q.Policy == persist.DropOldest && (q.Bytes == 0 || int64(size) <= q.Bytes)
	for len(list) > 0 && full() {
		e := &list[0]
		switch {
		case aged(e, now):
			fx.Dropped.QueueAged++
		case oldest:
			fx.Dropped.QueueOldest++
		default:
			fx.Dropped.QueueFull++
			return list, false
		}
		*bytes -= e.Msg.Size()
		drop(e)
		*e = persist.Entry{}
		list = list[1:]
	}
	if full() {
		fx.Dropped.QueueFull++
		return list, false
	}
	return list, true
}

func aged(e *persist.Entry, now mono.Time) bool { return e.Until != 0 && e.Until <= int64(now) }

// admit tells whether a message may wait in the queue of a session without a
// store.
func (s *Session) admit(fx *Effects, l *lane, d *Delivery, now mono.Time) (ok bool) {
	l.queue, ok = s.limits.Queue.admit(fx, l.queue, &l.queued, d.size(), now, func(e *persist.Entry) { s.disown(l, e.Seq) })
	return ok
}

// size is what a delivery counts in limits, as Message.Size.
func (d *Delivery) size() int { return len(d.Topic) + len(d.Props) + len(d.Payload) }

// keep keeps a message of QoS 0 until its client is back.
func (s *Session) keep(fx *Effects, d *Delivery, now mono.Time) {
	q := &s.limits.Queue
	if q.QoS0 != QoS0Memory || s.Durable == 0 {
		fx.Dropped.QoS0Offline++
		return
	}
	x := s.extras()
	if x.away == nil {
		x.away = new(away)
	}
	a, ok := x.away, false
	if a.list, ok = q.admit(fx, a.list, &a.bytes, d.size(), now, func(*persist.Entry) {}); !ok {
		return
	}
	e := persist.Entry{Msg: d.message(), Retain: d.Retain, Until: q.Until(int64(now))}
	if len(d.SubIDs) > 0 {
		e.SubIDs = append([]uint32(nil), d.SubIDs...)
	}
	a.list = append(a.list, e)
	a.bytes += e.Msg.Size()
}

// Kept tells how many messages of QoS 0 wait in memory for the client.
func (s *Session) Kept() int {
	if s.extra == nil || s.extra.away == nil {
		return 0
	}
	return len(s.extra.away.list)
}

// sendKept sends what was kept while the client was away, as far as its output
// takes it. It tells whether nothing is left.
func (s *Session) sendKept(fx *Effects, now mono.Time) bool {
	if s.Kept() == 0 {
		return true
	}
	a := s.extra.away
	for len(a.list) > 0 {
		if fx.SendMax > 0 && len(fx.Send) > fx.SendMax {
			fx.Blocked = true
		}
		if !s.connected || fx.Blocked || fx.Close {
			return false
		}
		e := &a.list[0]
		if aged(e, now) {
			fx.Dropped.QueueAged++
		} else {
			d := entryDelivery(e)
			s.append(fx, &d, 0, false, now)
		}
		a.bytes -= e.Msg.Size()
		*e = persist.Entry{}
		a.list = a.list[1:]
	}
	s.extra.away = nil
	return true
}

// entryDelivery gives a queued message as it is to be sent.
func entryDelivery(e *persist.Entry) Delivery {
	return Delivery{Msg: e.Msg, Topic: e.Msg.Topic, Props: e.Msg.Props, Payload: e.Msg.Payload,
		Seq: e.Seq, SubIDs: e.SubIDs, Expires: e.Msg.Expires, QoS: e.QoS, Retain: e.Retain}
}

// forgetConnection drops what goes with the connection, and keeps what is kept
// for the next.
func (s *Session) forgetConnection() {
	var kept *away
	if s.extra != nil {
		kept = s.extra.away
	}
	s.connected, s.will, s.extra = false, nil, nil
	if kept != nil {
		s.extra = &extras{away: kept}
	}
}

// MayHold tells whether the client may be made to wait, unread, for the
// acknowledgement of a publication that was refused for want of room. Not one
// that empties a queue in the store by its own acknowledgements: the queue that
// is full may be that one, or its publishers may be those who are waited for.
func (s *Session) MayHold() bool {
	if s.Durable != 0 && (len(s.subs.list) > 0 || s.oldest() < s.tail || s.first != nil && s.first.oldest() < s.first.tail) {
		return false
	}
	return s.connected && !s.Internal && (s.Version != mqtt.V5 || s.limits.Queue.Hold)
}
