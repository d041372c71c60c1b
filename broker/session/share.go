package session

import (
	"slices"

	"sluice/broker/mqtt"
	"sluice/broker/topic"
)

// DESIGN. A message of a share group has one receiver. If that goes before it
// has acknowledged the message, another member is to get it (MQTT5 4.8.2). For
// a session in the store this is known from the store. A session without one
// remembers which of its messages came by a group, and by which: those of QoS
// 1 until PUBACK, those of QoS 2 until they are sent: from then on nobody else
// may have them [MQTT-4.8.2-5]. Their bytes are bounded as those of the queue.
//
// The worker says that a delivery is a shared one, not by which filter: the
// index does not know. The session finds it among its own; where several
// match, by the subscription identifier. Two groups of one session that match
// the same topic with the same identifier, or none, cannot be told apart, and
// one of them may get the message of the other.

// Orphan is a message of a share group whose receiver is gone.
type Orphan struct {
	Msg    *mqtt.Message
	QoS    mqtt.QoS // as delivered
	Filter string   // of the subscription, with $share and group
}

// orphaned is what becomes an Orphan if the session ends.
type orphaned Orphan

var sharePrefix = "$share/"

func isShared[S string | []byte](filter S) bool {
	return len(filter) > len(sharePrefix) && string(filter[:len(sharePrefix)]) == sharePrefix
}

// adopt remembers a delivery, whose sequence number is known, as one of a
// share group.
func (s *Session) adopt(l *lane, d *Delivery) {
	if !d.Shared {
		return
	}
	filter := s.sharedFilter(d)
	if filter == "" { // the client left the group meanwhile
		return
	}
	x := s.extras()
	if most := s.limits.Queue.Bytes; most > 0 && int64(x.sharedSize+d.size()) > most {
		return // it is delivered; to hand it on is a SHOULD only
	}
	if x.shared == nil {
		x.shared = make(map[uint64]orphaned)
	}
	x.shared[l.shareKey(d.Seq)] = orphaned{Msg: d.message(), QoS: d.QoS, Filter: filter}
	x.sharedSize += d.Msg.Size()
}

// disown forgets that a message was of a share group.
func (s *Session) disown(l *lane, seq uint64) {
	if s.extra != nil && len(s.extra.shared) > 0 {
		s.disownKey(l.shareKey(seq))
	}
}

func (s *Session) disownKey(key uint64) {
	if o, ok := s.extra.shared[key]; ok {
		s.extra.sharedSize -= o.Msg.Size()
		delete(s.extra.shared, key)
	}
}

// sharedFilter gives the filter by which a shared delivery came.
func (s *Session) sharedFilter(d *Delivery) (filter string) {
	id := uint32(0)
	if len(d.SubIDs) > 0 {
		id = d.SubIDs[0]
	}
	for i := range s.subs.list {
		sub := &s.subs.list[i]
		if !isShared(sub.Filter) {
			continue
		}
		if _, rest, _ := topic.SplitShare(sub.Filter); !topic.Matches(rest, d.Topic) {
			continue
		}
		filter = sub.Filter
		if sub.ID == id {
			return filter
		}
	}
	return filter
}

// orphans gives up all messages of share groups, in their order.
func (s *Session) orphans() []Orphan {
	if s.extra == nil || len(s.extra.shared) == 0 {
		return nil
	}
	return s.giveUp(func(*lane, uint64, *orphaned) bool { return true })
}

// leave gives up the messages of a share group that the client has left and
// that were not sent yet. Those under way stay its own [MQTT-3.10.4-3].
func (s *Session) leave(fx *Effects, filter string) {
	if s.extra == nil || len(s.extra.shared) == 0 || !isShared(filter) {
		return
	}
	s.leaveLane(&s.lane, filter)
	if s.first != nil {
		s.leaveLane(s.first, filter)
	}
	fx.Orphans = append(fx.Orphans, s.giveUp(func(l *lane, seq uint64, o *orphaned) bool { return seq >= l.next && o.Filter == filter })...)
}

func (s *Session) leaveLane(l *lane, filter string) {
	kept := l.queue[:0]
	for _, e := range l.queue {
		if o, ok := s.extra.shared[l.shareKey(e.Seq)]; ok && o.Filter == filter {
			l.queued -= e.Msg.Size()
			continue
		}
		kept = append(kept, e)
	}
	clear(l.queue[len(kept):])
	l.queue = kept
}

// giveUp takes the chosen messages out of the shared ones, in the order of each
// lane.
func (s *Session) giveUp(chosen func(l *lane, seq uint64, o *orphaned) bool) (all []Orphan) {
	var keys []uint64
	for key, o := range s.extra.shared {
		if l, seq := s.ofShareKey(key); chosen(l, seq, &o) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		all = append(all, Orphan(s.extra.shared[key]))
		s.disownKey(key)
	}
	return all
}
