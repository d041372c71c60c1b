package session

import (
	"sluice/broker/mqtt"
	"sluice/persist"
)

// Errors of a PUBLISH that end the connection.
var (
	errReceiveMax   = &mqtt.Error{Reason: mqtt.ReceiveMaxExceeded, Statement: "MQTT-3.3.4-7", Text: "more QoS 1 and 2 messages under way than the receive maximum"}
	errSubIDInbound = &mqtt.Error{Reason: mqtt.ProtocolError, Statement: "MQTT-3.3.4-6", Text: "subscription identifier in a PUBLISH from a client"}
)

// OnPublish checks a PUBLISH from the client and resolves its alias. It tells
// whether the message is to be routed; if so, and its QoS is above 0, the
// caller follows up with Begin or Ack.
func (s *Session) OnPublish(fx *Effects, p *mqtt.Publish) bool {
	if len(p.SubIDs) > 0 {
		s.Fail(fx, errSubIDInbound)
		return false
	}
	if p.QoS > 0 && !s.takeQuota() {
		s.Fail(fx, errReceiveMax)
		return false
	}
	if p.TopicAlias != 0 || len(p.Topic) == 0 {
		if err := s.resolveAlias(p); err != nil {
			s.Fail(fx, err)
			return false
		}
	}
	if p.QoS == 2 {
		if accepted, known := s.received[p.PacketID]; known {
			s.again(fx, p.PacketID, accepted)
			return false
		}
	}
	if err := checkName(p.Topic, s.limits); err != nil {
		return s.deny(fx, p, mqtt.TopicNameInvalid, err.Error())
	}
	if (p.Topic[0] == '$' || s.Permit != nil) && !mayPublish(s.Permit, p.Topic) {
		return s.deny(fx, p, mqtt.NotAuthorized, "PUBLISH without permission")
	}
	return true
}

// takeQuota counts a PUBLISH of QoS 1 or 2 as the client does [MQTT-4.9.0-2]:
// one less with each packet, whether new or sent again, and nothing of an
// earlier connection. A client that keeps to the receive maximum is never
// refused: we count an answer when it is written, it does when it comes.
func (s *Session) takeQuota() bool {
	if s.Version != mqtt.V5 {
		return true
	}
	if s.quota == 0 {
		return false
	}
	s.quota--
	return true
}

// giveQuota counts a PUBACK, a PUBCOMP or a PUBREC that refuses (MQTT5 4.9).
// A PUBCOMP for a packet of an earlier connection counts, too, up to the
// receive maximum.
func (s *Session) giveQuota() { s.quota = uint16(min(int(s.quota)+1, s.limits.ReceiveMax, 65535)) }

// deny answers a PUBLISH that is not routed. In MQTT 5 the acknowledgement
// carries the reason; before, there is none to carry, and the message is
// acknowledged and dropped (MQTT3.1.1 3.3.5).
func (s *Session) deny(fx *Effects, p *mqtt.Publish, r mqtt.Reason, detail string) bool {
	fx.Denied++
	if s.Version != mqtt.V5 && r == mqtt.TopicNameInvalid || s.limits.DeniedDisconnects && r == mqtt.NotAuthorized {
		s.close(fx, r, detail)
		return false
	}
	r = s.ackReason(r)
	switch p.QoS {
	case 1:
		s.answer(fx, mqtt.PUBACK, p.PacketID, r, nil)
	case 2:
		if r == mqtt.Success {
			s.receive(p.PacketID, true)
		}
		s.answer(fx, mqtt.PUBREC, p.PacketID, r, nil)
	}
	return false
}

// again answers a QoS 2 PUBLISH that was received before [MQTT-4.3.3-10]: with
// PUBREC once more, when that has been earned.
func (s *Session) again(fx *Effects, id uint16, accepted bool) {
	if accepted {
		s.answer(fx, mqtt.PUBREC, id, mqtt.Success, nil)
		return
	}
	for i := range s.acks.list {
		if a := &s.acks.list[i]; a.kind == mqtt.PUBREC && a.id == id {
			return
		}
	}
	s.wait(fx, mqtt.PUBREC, id, nil)
}

func (s *Session) receive(id uint16, accepted bool) {
	if s.received == nil {
		s.received = make(map[uint16]bool)
	}
	s.received[id] = accepted
}

// Begin opens the group of store operations that the acknowledgement of p
// waits for, and returns after adding what the session itself must keep. The
// caller adds the copies for durable receivers and calls Batch.End.
func (s *Session) Begin(fx *Effects, p *mqtt.Publish) {
	if p.QoS == 1 {
		fx.Batch.Begin(s.wait(fx, mqtt.PUBACK, p.PacketID, nil))
		return
	}
	s.receive(p.PacketID, false)
	fx.Batch.Begin(s.wait(fx, mqtt.PUBREC, p.PacketID, nil))
	if s.Durable != 0 {
		fx.Batch.Add(persist.Op{Kind: persist.OpPutInbound, ID: s.Durable, PacketID: p.PacketID})
	}
}

// Ack acknowledges p at once: no durable receiver, nothing to store. A durable
// session must not use it for QoS 2, for its packet id is to be stored.
func (s *Session) Ack(fx *Effects, p *mqtt.Publish, r mqtt.Reason) {
	if p.QoS == 1 {
		s.answer(fx, mqtt.PUBACK, p.PacketID, s.ackReason(r), nil)
		return
	}
	s.receive(p.PacketID, true)
	s.answer(fx, mqtt.PUBREC, p.PacketID, s.ackReason(r), nil)
}

func (s *Session) ackReason(r mqtt.Reason) mqtt.Reason {
	if s.Version != mqtt.V5 {
		return mqtt.Success
	}
	return r
}

// OnPubrel ends a QoS 2 exchange from the client. PUBCOMP goes when the packet
// id is forgotten durably: the client may use it again at once, and a broker
// that still knew it after a crash would take the new message for the old.
func (s *Session) OnPubrel(fx *Effects, a *mqtt.Ack) {
	_, known := s.received[a.PacketID]
	delete(s.received, a.PacketID)
	if s.Durable != 0 {
		fx.Batch.Begin(s.wait(fx, mqtt.PUBCOMP, a.PacketID, nil))
		fx.Batch.Add(persist.Op{Kind: persist.OpDeleteInbound, ID: s.Durable, PacketID: a.PacketID})
		fx.Batch.End()
		return
	}
	r := mqtt.Success
	if !known {
		r = mqtt.PacketIDNotFound
	}
	s.answer(fx, mqtt.PUBCOMP, a.PacketID, s.ackReason(r), nil)
}
