package session

import (
	"sluice/broker/mqtt"
	"sluice/persist"
)

// DESIGN. Acknowledgements leave in the order of the packets they answer. One
// that has to wait for the store blocks those behind it. The queue is bounded
// by the worker, which stops reading from a client with too many of them.

// ack is one acknowledgement that waits.
type ack struct {
	codes  []byte // SUBACK, UNSUBACK
	id     uint16
	kind   mqtt.Type
	reason mqtt.Reason
	done   bool
	again  bool // PUBREL: it may have been sent before
}

type acks struct {
	list []ack // in order of arrival; list[0] is not done
}

// Token names the acknowledgement of the given kind and packet id, for a group
// of store operations.
func (s *Session) token(kind mqtt.Type, id uint16) persist.Token {
	return persist.Token{Session: s.ID, Index: uint32(kind)<<16 | uint32(id), Epoch: s.Epoch}
}

// wait queues an acknowledgement until Accepted names its token.
func (s *Session) wait(fx *Effects, kind mqtt.Type, id uint16, codes []byte) persist.Token {
	s.acks.list = append(s.acks.list, ack{kind: kind, id: id, codes: codes})
	fx.Waiting++
	return s.token(kind, id)
}

// answer sends an acknowledgement that need not wait, in its turn.
func (s *Session) answer(fx *Effects, kind mqtt.Type, id uint16, r mqtt.Reason, codes []byte) {
	if len(s.acks.list) == 0 {
		s.write(fx, &ack{kind: kind, id: id, reason: r, codes: codes})
		return
	}
	s.acks.list = append(s.acks.list, ack{kind: kind, id: id, reason: r, codes: codes, done: true})
	fx.Waiting++
}

// write sends an acknowledgement: with the reason in words if it refuses, and
// without if that does not fit.
func (s *Session) write(fx *Effects, a *ack) {
	switch a.kind {
	case mqtt.PUBREL:
		s.released(a.id)
	case mqtt.PUBACK, mqtt.PUBCOMP:
		s.giveQuota()
	case mqtt.PUBREC:
		if a.reason >= mqtt.UnspecifiedError {
			delete(s.received, a.id)
			s.giveQuota()
		}
	}
	at := len(fx.Send)
	if text := s.ackText(a); text != "" {
		s.encode(fx, a, text)
		if !s.cut(fx, at) {
			return
		}
	}
	s.encode(fx, a, "")
	s.mustFit(fx, at)
}

// ackText is the reason string for an acknowledgement, "" for none.
func (s *Session) ackText(a *ack) string {
	if s.Version != mqtt.V5 || s.noProblem { // [MQTT-3.1.2-29]
		return ""
	}
	r := a.reason
	for _, code := range a.codes {
		r = max(r, mqtt.Reason(code))
	}
	return reasonText(a.kind, r)
}

func (s *Session) encode(fx *Effects, a *ack, text string) {
	switch {
	case a.kind == mqtt.SUBACK || a.kind == mqtt.UNSUBACK:
		p := mqtt.Suback{Type: a.kind, PacketID: a.id, Codes: a.codes}
		p.Props.ReasonString = reasonString(text)
		fx.Send = mqtt.AppendSuback(fx.Send, &p, s.Version)
	case text != "":
		fx.Send = mqtt.AppendAckReason(fx.Send, a.kind, a.id, a.reason, text)
	default:
		fx.Send = mqtt.AppendPuback(fx.Send, a.kind, a.id, a.reason, s.Version)
		if a.again && s.Version == mqtt.V31 { // MQTT3.1 2.1: DUP is for PUBREL, too
			fx.Send[len(fx.Send)-4] |= 0x08
		}
	}
}

// Accepted tells that the store is done with the group that t names: its
// acknowledgement may go. err says why the group was refused instead.
func (s *Session) Accepted(fx *Effects, t persist.Token, err error) {
	kind, id := mqtt.Type(t.Index>>16), uint16(t.Index)
	_, known := s.received[id]
	switch {
	case kind == mqtt.PUBREC && err == nil:
		// Holds whichever connection the packet came by, and for those behind
		// it that carry it again.
		if known {
			s.received[id] = true
		}
	case kind == mqtt.PUBREC:
		// Sent again, by whichever connection, it is a new packet.
		delete(s.received, id)
	case t.Epoch != s.Epoch:
		return
	}
	for i := range s.acks.list {
		a := &s.acks.list[i]
		if a.kind != kind || a.id != id || a.done {
			continue
		}
		a.done = true
		if err != nil {
			s.refuse(fx, a, err)
		}
		if i == 0 {
			s.flushAcks(fx)
		}
		return
	}
}

// refuse answers what the store could not take. MQTT before 5 has no way to
// say no to a PUBLISH: the connection ends without an acknowledgement, and the
// client sends it again later.
func (s *Session) refuse(fx *Effects, a *ack, err error) {
	a.reason = mqtt.QuotaExceeded
	if s.Version == mqtt.V5 && (a.kind == mqtt.PUBACK || a.kind == mqtt.PUBREC) {
		return
	}
	a.done = false
	s.closeSaying(fx, mqtt.QuotaExceeded, "the store refused a packet: "+err.Error(), "there is no room in the store")
}

// flushAcks sends the acknowledgements at the head of the queue that need not
// wait any more.
func (s *Session) flushAcks(fx *Effects) {
	n := 0
	for n < len(s.acks.list) && s.acks.list[n].done {
		if s.connected && !fx.Close {
			s.write(fx, &s.acks.list[n])
		}
		n++
	}
	fx.Waiting -= n
	rest := s.acks.list[n:]
	switch {
	case len(rest) == 0 && cap(s.acks.list) <= 32:
		clear(s.acks.list)
		s.acks.list = s.acks.list[:0]
	case len(rest) == 0:
		s.acks.list = nil
	default:
		s.acks.list = rest
	}
}

// dropAcks forgets what waits: its connection is gone.
func (s *Session) dropAcks(fx *Effects) {
	fx.Waiting -= len(s.acks.list)
	s.acks.list = nil
}
