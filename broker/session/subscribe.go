package session

import (
	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/broker/topic"
	"sluice/persist"
)

// Subscription is one subscription of a session.
type Subscription persist.Subscription

// Grant is a subscription that has been made: to be entered into the index,
// and retained messages to be sent for it.
type Grant struct {
	Sub      *Subscription // valid until the next OnSubscribe or OnUnsubscribe
	Retained bool          // the client wants the retained messages (MQTT5 3.8.3.1)
}

// Subscriptions gives the session's subscriptions; not to be changed.
func (s *Session) Subscriptions() []Subscription { return s.subs.list }

// filtersMax is how many filters one packet may have however few subscriptions
// are allowed: the rest of those is refused one by one.
const filtersMax = 1000

// errTooManyFilters: each filter of a packet is looked for among all of the
// session, so a packet full of them would hold up the worker.
var errTooManyFilters = &mqtt.Error{Reason: mqtt.QuotaExceeded, Text: "more filters in one packet than limits.subscriptions_max, and than 1000"}

// checkFilters judges how many filters a SUBSCRIBE or UNSUBSCRIBE has. One
// whose answer the client would not take is not carried out at all: SUBACK and
// UNSUBACK cannot be split [MQTT-3.8.4-6].
func (s *Session) checkFilters(n int) error {
	if n > max(s.limits.SubscriptionsMax, filtersMax) {
		return errTooManyFilters
	}
	if s.packetMax != 0 && !s.fits(mqtt.SubackSize(n)) {
		return errAnswerTooLarge
	}
	return nil
}

// OnSubscribe takes a SUBSCRIBE, and appends to grants what came of it. The
// SUBACK of a durable session waits until its subscriptions are durable: a
// client that has it need not subscribe again after a crash.
func (s *Session) OnSubscribe(fx *Effects, p *mqtt.Subscribe, grants []Grant) []Grant {
	if err := s.checkFilters(len(p.Filters)); err != nil {
		s.Fail(fx, err)
		return grants
	}
	for i := range p.Filters {
		if err := malformed(p.Filters[i].Filter); err != nil {
			s.Fail(fx, err)
			return grants
		}
	}
	codes := make([]byte, 0, len(p.Filters))
	s.subs.grow(min(len(p.Filters), max(0, s.limits.SubscriptionsMax-len(s.subs.list)))) // grants point into it
	if s.Durable != 0 {
		fx.Batch.Begin(s.wait(fx, mqtt.SUBACK, p.PacketID, nil))
		fx.Batch.Urgent = true
	}
	for i := range p.Filters {
		f := &p.Filters[i]
		sub, isNew, r := s.subscribe(f, p.Props.SubscriptionID)
		if r >= mqtt.UnspecifiedError {
			codes = append(codes, s.subCode(r))
			continue
		}
		codes = append(codes, byte(f.QoS))
		if s.Durable != 0 {
			rec := persist.Subscription(*sub)
			fx.Batch.Add(persist.Op{Kind: persist.OpPutSubscription, ID: s.Durable, Sub: &rec})
		}
		_, _, shared := topic.SplitShare(sub.Filter)
		grants = append(grants, Grant{Sub: sub,
			Retained: !shared && (f.RetainHandling == 0 || f.RetainHandling == 1 && isNew)})
	}
	if s.Durable != 0 {
		fx.Batch.End()
		s.acks.list[len(s.acks.list)-1].codes = codes
	} else {
		s.answer(fx, mqtt.SUBACK, p.PacketID, mqtt.Success, codes)
	}
	return grants
}

// malformed tells whether a filter breaks the rules of MQTT, against which the
// packet as a whole is refused (MQTT5 4.13, [MQTT-4.8.0-1] of MQTT 3.1.1). One that is
// merely too long or too deep for us is refused by itself.
func malformed(filter []byte) error {
	err := topic.CheckFilter(filter, 0)
	if err == nil {
		return nil
	}
	return &mqtt.Error{Reason: mqtt.MalformedPacket, Text: err.Error()}
}

func (s *Session) subCode(r mqtt.Reason) byte {
	if s.Version != mqtt.V5 {
		return r.Suback311()
	}
	return byte(r)
}

func (s *Session) subscribe(f *mqtt.SubscribeFilter, id uint32) (sub *Subscription, isNew bool, r mqtt.Reason) {
	if checkFilter(f.Filter, s.limits) != nil {
		return nil, false, mqtt.TopicFilterInvalid
	}
	// A member of a share group must be able to take whatever comes to the group.
	if !s.Permit.Can(auth.Subscribe, f.Filter) || isShared(f.Filter) && !s.Permit.Covers(f.Filter) {
		return nil, false, mqtt.NotAuthorized
	}
	n := Subscription{ID: id, QoS: f.QoS, NoLocal: f.NoLocal, RetainAsPublished: f.RetainAsPublished, RetainHandling: f.RetainHandling}
	if s.bridge {
		// A bridge must not get back what it brought, and passes on whether a
		// message was retained. Before MQTT 5 the bit in CONNECT is the only way
		// to ask for it. A share group knows no publishers [MQTT-3.8.3-4].
		n.NoLocal, n.RetainAsPublished = !isShared(f.Filter), true
	}
	if i := s.subs.find(f.Filter); i >= 0 {
		n.Filter = s.subs.list[i].Filter
		s.subs.list[i] = n
		return &s.subs.list[i], false, mqtt.Success
	}
	if len(s.subs.list) >= s.limits.SubscriptionsMax {
		return nil, false, mqtt.QuotaExceeded
	}
	n.Filter = string(f.Filter)
	return s.subs.add(n), true, mqtt.Success
}

// OnUnsubscribe takes an UNSUBSCRIBE, and appends to gone the filters that are
// to leave the index.
func (s *Session) OnUnsubscribe(fx *Effects, p *mqtt.Unsubscribe, gone []string) []string {
	if err := s.checkFilters(len(p.Filters)); err != nil {
		s.Fail(fx, err)
		return gone
	}
	var codes []byte
	if s.Version == mqtt.V5 {
		codes = make([]byte, 0, len(p.Filters))
	}
	if s.Durable != 0 {
		fx.Batch.Begin(s.wait(fx, mqtt.UNSUBACK, p.PacketID, nil))
		fx.Batch.Urgent = true
	}
	for _, f := range p.Filters {
		r := mqtt.NoSubscriptionExisted
		if i := s.subs.find(f); i >= 0 {
			r = mqtt.Success
			filter := s.subs.list[i].Filter
			gone = append(gone, filter)
			s.subs.remove(i)
			s.leave(fx, filter)
			if s.Durable != 0 {
				fx.Batch.Add(persist.Op{Kind: persist.OpDeleteSubscription, ID: s.Durable, Sub: &persist.Subscription{Filter: filter}})
			}
		}
		if s.Version == mqtt.V5 {
			codes = append(codes, byte(r))
		}
	}
	if s.Durable != 0 {
		fx.Batch.End()
		s.acks.list[len(s.acks.list)-1].codes = codes
	} else {
		s.answer(fx, mqtt.UNSUBACK, p.PacketID, mqtt.Success, codes)
	}
	return gone
}

// DropSubscriptions removes all subscriptions and gives their filters.
func (s *Session) DropSubscriptions(fx *Effects) (filters []string) {
	for i := range s.subs.list {
		filter := s.subs.list[i].Filter
		filters = append(filters, filter)
		s.leave(fx, filter)
		if s.Durable != 0 {
			fx.Batch.Add(persist.Op{Kind: persist.OpDeleteSubscription, ID: s.Durable, Sub: &persist.Subscription{Filter: filter}})
		}
	}
	s.subs = subscriptions{}
	return filters
}
