package session

import (
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/platform/mono"
)

// Delivery is one message on its way to one session.
type Delivery struct {
	Topic, Props, Payload []byte // valid during the call only, unless Msg is set
	Msg                   *mqtt.Message
	Seq                   uint64 // durable session, QoS above 0: its number in the queue, from the store
	SubIDs                []uint32
	Expires               int64
	QoS                   mqtt.QoS // effective
	Retain                bool     // flag to send
	Priority              bool     // its topic has priority
	Shared                bool     // by a shared subscription
}

func (d *Delivery) message() *mqtt.Message {
	if d.Msg == nil {
		p := mqtt.Publish{Topic: d.Topic, Props: d.Props, Payload: d.Payload, QoS: d.QoS}
		d.Msg = mqtt.NewMessage(&p)
		d.Msg.Expires = d.Expires
	}
	return d.Msg
}

// Deliver takes a message for the client: it is sent at once if it may, and
// queued otherwise. A durable session is told of messages that the store has
// got already; those it cannot send now it finds there again.
func (s *Session) Deliver(fx *Effects, d *Delivery, now mono.Time) {
	if d.QoS == 0 {
		s.deliver0(fx, d, now)
		return
	}
	l := s.laneOf(d)
	if s.Durable != 0 {
		s.deliverDurable(fx, l, d, now)
		return
	}
	if s.ready(fx, l) && len(l.queue) == 0 {
		d.Seq, l.tail = l.tail, l.tail+1
		l.have = l.tail
		if d.QoS == 1 {
			s.adopt(l, d)
		}
		s.send(fx, l, d, now)
		return
	}
	if !s.admit(fx, l, d, now) {
		return
	}
	d.Seq = l.tail
	s.adopt(l, d)
	e := persist.Entry{Seq: l.tail, Msg: d.message(), QoS: d.QoS, Retain: d.Retain, Until: s.limits.Queue.Until(int64(now))}
	if len(d.SubIDs) > 0 {
		e.SubIDs = append([]uint32(nil), d.SubIDs...)
	}
	l.tail++
	l.have = l.tail
	l.push(e)
}

func (s *Session) deliver0(fx *Effects, d *Delivery, now mono.Time) {
	switch {
	case !s.connected:
		s.keep(fx, d, now)
	case fx.Blocked || s.extra != nil && !s.sendKept(fx, now):
		fx.Dropped.QoS0Blocked++
	default:
		s.append(fx, d, 0, false, now)
	}
}

// deliverDurable is told of sequence number d.Seq. Numbers may come out of
// order from different workers: whatever is not the very next one is left to
// a fetch, and what a fetch has brought already is known by its number.
func (s *Session) deliverDurable(fx *Effects, l *lane, d *Delivery, now mono.Time) {
	if d.Seq < l.have {
		return
	}
	next := d.Seq == l.have && !l.fetching
	if d.Seq >= l.tail {
		l.tail = d.Seq + 1
	}
	if !s.connected {
		return
	}
	switch {
	case !next || d.QoS == 2:
		// QoS 2 must be on disk before the client sees its packet id; the
		// store hands it out when it is.
		s.fetch(fx, l)
	case len(l.queue) == 0 && s.ready(fx, l) && l.window.room(d.Seq): // numbers before may be gone
		l.have = d.Seq + 1
		s.send(fx, l, d, now)
	case len(l.queue) < aheadMax && l.queued < aheadBytesMax:
		l.have = d.Seq + 1
		e := persist.Entry{Seq: d.Seq, Msg: d.message(), QoS: d.QoS, Retain: d.Retain}
		if len(d.SubIDs) > 0 {
			e.SubIDs = append([]uint32(nil), d.SubIDs...)
		}
		l.push(e)
	}
}

// ready tells whether one more message of QoS 1 or 2 may be sent now in a lane.
// What was kept of QoS 0 comes before those without priority, and so does what
// the priority lane has from before the connection.
func (s *Session) ready(fx *Effects, l *lane) bool {
	if fx.SendMax > 0 && len(fx.Send) > fx.SendMax {
		fx.Blocked = true
	}
	return s.connected && !fx.Blocked && !fx.Close && l.window.room(l.next) && s.inflight() < s.inflightMax(l) &&
		(l.priority || s.Kept() == 0 && (s.first == nil || !s.first.opening))
}

// send sends a message of QoS 1 or 2 whose turn it is.
func (s *Session) send(fx *Effects, l *lane, d *Delivery, now mono.Time) {
	dup := d.Seq < l.sent
	if !s.append(fx, d, packetID(d.Seq, l.priority), dup, now) {
		if dup && d.QoS == 2 {
			// The client may have taken it, and wait for PUBREL; it would take
			// another message with this packet id for the same.
			s.disown(l, d.Seq)
			s.resendPubrel(fx, l, d.Seq)
			return
		}
		s.skip(fx, l, d.Seq)
		return
	}
	f := flightPuback
	if d.QoS == 2 {
		f = flightPubrec
		s.disown(l, d.Seq) // [MQTT-4.8.2-5]
	}
	l.window.put(d.Seq, f)
	l.next = d.Seq + 1
	l.sent = max(l.sent, l.next)
}

// skip drops a message whose turn it is.
func (s *Session) skip(fx *Effects, l *lane, seq uint64) {
	l.next = seq + 1
	s.disown(l, seq)
	if s.Durable != 0 {
		fx.Batch.Dequeue(s.queueID(l), seq)
	}
}

// append encodes a PUBLISH for the client. It tells whether it did: a message
// may have expired, or be larger than the client takes [MQTT-3.1.2-24].
func (s *Session) append(fx *Effects, d *Delivery, id uint16, dup bool, now mono.Time) bool {
	if s.Guarded && !s.MayReceive(d.Topic) {
		fx.Dropped.Denied++
		return false
	}
	p := mqtt.Publish{
		Topic: d.Topic, Props: d.Props, Payload: d.Payload,
		PacketID: id, QoS: d.QoS, Dup: dup, Retain: d.Retain, SubIDs: d.SubIDs,
	}
	if d.Expires != 0 {
		left := mono.Time(d.Expires).Sub(now)
		if left <= 0 {
			if !dup || d.QoS != 2 { // [MQTT-4.3.3-7]: once sent, it does not expire
				fx.Dropped.Expired++
				return false
			}
			p.HasMessageExpiry = true
		} else {
			p.HasMessageExpiry, p.ExpirySeconds = true, wholeSeconds(left)
		}
	}
	known := false
	if s.aliasOutMax != 0 {
		if p.TopicAlias, known = s.chooseAlias(d.Topic); known {
			p.Topic = nil
		}
	}
	if s.packetMax != 0 || len(d.Payload) > hugeBytes {
		if p.TopicAlias != 0 && !known && mqtt.PublishSize(&p, s.Version) > s.packetLimit() {
			p.TopicAlias = 0
		}
		if mqtt.PublishSize(&p, s.Version) > s.packetLimit() {
			fx.Dropped.TooLarge++
			return false
		}
	}
	fx.Send = mqtt.AppendPublish(fx.Send, &p, s.Version)
	if p.TopicAlias != 0 && !known {
		s.extra.aliasesOut.set(p.TopicAlias, d.Topic)
	}
	fx.Sent++
	return true
}

// wholeSeconds rounds what is left of a message's time to the nearest second:
// our turn may have begun a moment before the one that took the message in, so
// that rounding up would give it a second it never had. A message that is still
// valid never says 0 (MQTT5 3.3.2.3.3).
func wholeSeconds(left time.Duration) uint32 {
	return uint32(max((left+time.Second/2)/time.Second, 1))
}

// hugeBytes is the payload size from which on topic and properties might make
// the packet larger than MQTT can say (256 MiB).
const hugeBytes = mqtt.PacketBytesMax - 512<<10

func (s *Session) packetLimit() int {
	if s.packetMax == 0 || s.packetMax > mqtt.PacketBytesMax {
		return mqtt.PacketBytesMax
	}
	return int(s.packetMax)
}

// Resume sends what may be sent now, and asks the store for more if needed. To
// be called whenever room came about: an acknowledgement, the output drained.
func (s *Session) Resume(fx *Effects, now mono.Time) {
	if s.first != nil {
		s.resume(fx, s.first, now)
	}
	if s.sendKept(fx, now) {
		s.resume(fx, &s.lane, now)
	}
}

func (s *Session) resume(fx *Effects, l *lane, now mono.Time) {
	n := 0
	for n < len(l.queue) && s.ready(fx, l) && l.window.room(l.queue[n].Seq) {
		e := &l.queue[n]
		if e.Released {
			s.resendPubrel(fx, l, e.Seq)
		} else {
			l.queued -= e.Msg.Size()
			if s.Durable == 0 && aged(e, now) {
				fx.Dropped.QueueAged++
				s.skip(fx, l, e.Seq)
			} else {
				d := entryDelivery(e)
				s.send(fx, l, &d, now)
			}
		}
		n++
	}
	if n > 0 {
		clear(l.queue[:n])
		if l.queue = l.queue[n:]; len(l.queue) == 0 {
			l.queue = nil
		}
	}
	if len(l.queue) == 0 {
		s.fetch(fx, l)
	}
}

// fetch asks the store for the messages that come next, unless they are at
// hand, there are none, or they could not be sent.
func (s *Session) fetch(fx *Effects, l *lane) {
	if s.Durable == 0 || l.fetching || l.have >= l.tail || !s.ready(fx, l) || len(l.queue) > 0 {
		return
	}
	l.fetching = true
	fx.Fetches = append(fx.Fetches, persist.FetchRequest{
		Tag: s.ID, Epoch: s.Epoch, Session: s.queueID(l), From: l.have,
		MaxMessages: aheadMax, MaxBytes: aheadBytesMax,
	})
}

// Fetched takes the store's answer to a fetch.
func (s *Session) Fetched(fx *Effects, f *persist.Fetched, now mono.Time) {
	l := &s.lane
	if _, priority := persist.OfPriority(f.Session); priority {
		l = s.priorityLane()
	}
	if f.Epoch != s.Epoch || !s.connected || !l.fetching || f.From != l.have {
		return
	}
	l.fetching = false
	if f.Err != nil {
		s.closeSaying(fx, mqtt.UnspecifiedError, "the store cannot be read: "+f.Err.Error(), "the store cannot be read")
		return
	}
	for i := range f.Entries {
		e := f.Entries[i]
		l.queue = append(l.queue, e)
		if e.Msg != nil {
			l.queued += e.Msg.Size()
		}
	}
	l.tail = max(l.tail, f.Next)
	opened := l.opening
	l.opening = false
	if f.Next <= l.have { // nothing there, and asking again at once would not change it
		if opened {
			s.Resume(fx, now)
		}
		return
	}
	l.have = f.Next
	s.Resume(fx, now)
}

// resendPubrel goes on with a QoS 2 message that had been received by the
// client before the connection was lost [MQTT-4.4.0-1]. The store may know of
// the release without having it on disk; so PUBREL waits, as in OnPubrec.
func (s *Session) resendPubrel(fx *Effects, l *lane, seq uint64) {
	l.window.put(seq, flightRelease)
	l.next = seq + 1
	s.release(fx, l, seq)
	s.acks.list[len(s.acks.list)-1].again = true
}

// release makes the release of a QoS 2 message durable, and sends PUBREL then.
func (s *Session) release(fx *Effects, l *lane, seq uint64) {
	fx.Batch.Begin(s.wait(fx, mqtt.PUBREL, packetID(seq, l.priority), nil))
	fx.Batch.Add(persist.Op{Kind: persist.OpRelease, ID: s.queueID(l), Seq: seq})
	fx.Batch.End()
}

// done ends the flight of a sequence number.
func (s *Session) done(fx *Effects, l *lane, seq uint64) {
	l.window.set(seq, flightDone)
	s.disown(l, seq)
	if s.Durable != 0 {
		fx.Batch.Dequeue(s.queueID(l), seq)
	}
}

// OnPuback ends a QoS 1 exchange to the client. A reason code of 0x80 and above
// ends it just the same: the message is not sent again (MQTT5 4.4), to nobody
// else of a share group either [MQTT-4.8.2-6].
func (s *Session) OnPuback(fx *Effects, a *mqtt.Ack, now mono.Time) {
	if l, seq, f := s.find(a.PacketID); f == flightPuback {
		s.done(fx, l, seq)
		s.Resume(fx, now)
	}
}

// OnPubrec goes on with a QoS 2 exchange to the client. PUBREL goes when the
// release is durable: a broker that sent the message again after a crash,
// once the client is done with the packet id, would deliver it twice.
func (s *Session) OnPubrec(fx *Effects, a *mqtt.Ack, now mono.Time) {
	l, seq, f := s.find(a.PacketID)
	switch {
	case f == flightPubrec && a.Reason >= mqtt.UnspecifiedError:
		s.done(fx, l, seq)
		s.Resume(fx, now)
	case f == flightPubrec && s.Durable != 0:
		l.window.set(seq, flightRelease)
		s.release(fx, l, seq)
	case f == flightPubrec:
		l.window.set(seq, flightRelease)
		s.answer(fx, mqtt.PUBREL, a.PacketID, mqtt.Success, nil)
	case f == flightPubcomp:
		s.answer(fx, mqtt.PUBREL, a.PacketID, mqtt.Success, nil)
	case f == flightRelease:
		// its PUBREL is on its way
	default:
		s.answer(fx, mqtt.PUBREL, a.PacketID, s.ackReason(mqtt.PacketIDNotFound), nil)
	}
}

// released notes that PUBREL is being sent.
func (s *Session) released(id uint16) {
	if l, seq, f := s.find(id); f == flightRelease {
		l.window.set(seq, flightPubcomp)
	}
}

// OnPubcomp ends a QoS 2 exchange to the client.
func (s *Session) OnPubcomp(fx *Effects, a *mqtt.Ack, now mono.Time) {
	if l, seq, f := s.find(a.PacketID); f == flightPubcomp {
		s.done(fx, l, seq)
		s.Resume(fx, now)
	}
}
