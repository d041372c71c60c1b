package sim

import (
	"bytes"
	"slices"

	"sluice/broker/mqtt"
)

// onPublish judges a PUBLISH from the broker, and owes its acknowledgement.
func (l *link) onPublish(m *mqtt.Publish) {
	d := l.d
	l.resolve(m)
	p := d.w.identify(m.Payload)
	n := -1
	if p != nil {
		n = p.n
	}
	d.w.note("< PUBLISH", l.name, int64(m.PacketID), int64(n), traceFlags(m))
	d.w.counts.Arrived++
	first := true
	if m.QoS > 0 {
		first = l.takeID(m, n)
	}
	if p != nil && first {
		l.judge(m, p)
	}
	switch m.QoS {
	case 1:
		l.answers = append(l.answers, answer{mqtt.PUBACK, m.PacketID, n})
	case 2:
		l.answers = append(l.answers, answer{mqtt.PUBREC, m.PacketID, n})
	}
}

// resolve replaces a topic alias of the broker by its topic (MQTT5 3.3.2.3.4).
func (l *link) resolve(m *mqtt.Publish) {
	switch {
	case m.TopicAlias == 0 && len(m.Topic) > 0:
		return
	case m.TopicAlias == 0:
		l.fail("alias", "a PUBLISH with neither topic nor alias")
	case int(m.TopicAlias) > l.theirMax:
		l.fail("alias", "topic alias %d, the maximum is %d [MQTT-3.1.2-26]", m.TopicAlias, l.theirMax)
	case len(m.Topic) > 0:
		l.theirs[m.TopicAlias] = string(m.Topic)
		return
	case l.theirs[m.TopicAlias] == "":
		l.fail("alias", "topic alias %d was never set on this connection", m.TopicAlias)
	}
	m.Topic = []byte(l.theirs[m.TopicAlias])
	l.d.w.counts.Aliased++
}

func traceFlags(m *mqtt.Publish) string {
	return [...]string{"q0", "q0 retain", "q1", "q1 retain", "q1 dup", "q1 dup retain", "q2", "q2 retain", "q2 dup", "q2 dup retain"}[flagIndex(m)]
}

func flagIndex(m *mqtt.Publish) int {
	i := 0
	if m.Retain {
		i++
	}
	if m.QoS > 0 {
		i += 4*int(m.QoS) - 2
		if m.Dup {
			i += 2
		}
	}
	return i
}

// takeID checks the packet id and the number of messages in flight. It tells
// whether the message is a new one, as far as its packet id tells.
func (l *link) takeID(m *mqtt.Publish, n int) bool {
	d := l.d
	s := d.book
	if l.inflight[m.PacketID] {
		l.fail("packet id", "packet id %d (publication %d) is in flight already [MQTT-2.2.1-4]", m.PacketID, n)
	}
	l.inflight[m.PacketID] = true
	if len(l.inflight) > l.receiveMax {
		l.fail("receive maximum", "%d messages in flight, the receive maximum is %d [MQTT-3.3.4-9]", len(l.inflight), l.receiveMax)
	}
	old1, in1 := s.in1[m.PacketID]
	old2, in2 := s.in2[m.PacketID]
	in1 = in1 && !(old1 != n && d.mayLose(old1))
	in2 = in2 && !(old2 != n && d.mayLose(old2))
	switch {
	case in1 && (m.QoS != 1 || old1 != n):
		l.fail("packet id", "packet id %d belongs to publication %d, which was not acknowledged, and comes with %d", m.PacketID, old1, n)
	case in2 && (m.QoS != 2 || old2 != n):
		l.fail("packet id", "packet id %d belongs to publication %d, which was not released, and comes with %d", m.PacketID, old2, n)
	case (in1 || in2) && !m.Dup:
		l.fail("dup", "publication %d is sent again without DUP [MQTT-3.3.1-1]", n)
	}
	if m.QoS == 1 {
		if l.excuse&crashed == 0 {
			s.in1[m.PacketID] = n
		}
		return true
	}
	s.in2[m.PacketID] = n
	return !in2
}

// judge holds the arrival of p against all rules about what may arrive.
func (l *link) judge(m *mqtt.Publish, p *pub) {
	d := l.d
	s := d.book
	p.got = true
	if string(m.Topic) != p.topic {
		l.fail("topic", "publication %d to %q arrives on %q", p.n, p.topic, m.Topic)
	}
	if p.voided {
		l.fail("will", "publication %d is the will of a client that has said goodbye", p.n)
	}
	l.judgeRules(p)
	l.judgeRetain(m, p)
	retained := m.Retain && !l.asPublished(p)
	low, high, any := s.qosRange(p, d, m.Retain && p.retain)
	if !any {
		l.fail("not subscribed", "publication %d on %q arrives, session %d has no subscription to it", p.n, p.topic, s.gen)
	}
	if m.QoS > min(p.qos, high) || !m.Retain && m.QoS < min(p.qos, low) {
		l.fail("qos", "publication %d of QoS %d arrives with QoS %d, granted from %d to %d", p.n, p.qos, m.QoS, low, high)
	}
	l.judgeIDs(m, p)
	if l.version == mqtt.V5 && !bytes.Equal(mqtt.AppendForwardProps(nil, m), p.tagProps()) {
		l.fail("properties", "publication %d arrives with properties % x, sent were % x", p.n, m.Props, p.tagProps())
	}
	if m.HasMessageExpiry && m.ExpirySeconds > p.expirySeconds {
		l.fail("expiry", "publication %d with %d s to live arrives with %d s", p.n, p.expirySeconds, m.ExpirySeconds)
	}
	l.judgeCount(m, p)
	l.judgeOrder(m, p, retained)
}

// judgeRetain: the retain flag is set only on what was published with it, and
// then only on what a SUBSCRIBE brought, or for subscriptions that keep it
// (MQTT5 3.3.1.3).
func (l *link) judgeRetain(m *mqtt.Publish, p *pub) {
	if m.Retain && !p.retain {
		l.fail("retain", "publication %d arrives with the retain flag", p.n)
	}
	if !p.retain {
		return
	}
	live, keeps := true, true
	for _, g := range l.d.book.grants {
		if matches(g.filter, p.topic) {
			live = live && g.acked != 0 && g.acked < p.first
			keeps = keeps && g.rap && g.stands(p)
		}
	}
	if m.Retain && live && !l.asPublished(p) {
		l.fail("retain", "publication %d arrives with the retain flag, although it was not there at any SUBSCRIBE", p.n)
	}
	if !m.Retain && keeps {
		l.fail("retain", "publication %d arrives without the retain flag [MQTT-3.3.1-13]", p.n)
	}
}

// asPublished tells whether a subscription that keeps the retain flag may be
// the reason for p.
func (l *link) asPublished(p *pub) bool {
	return slices.ContainsFunc(l.d.book.grants, func(g *grant) bool { return g.rap && matches(g.filter, p.topic) })
}

// judgeIDs checks subscription identifiers: only those the client gave, and of
// subscriptions that surely stand all [MQTT-3.3.4-3 ff].
func (l *link) judgeIDs(m *mqtt.Publish, p *pub) {
	s := l.d.book
	for _, id := range m.SubIDs {
		if !slices.ContainsFunc(s.grants, func(g *grant) bool { return g.id == id && matches(g.filter, p.topic) }) {
			l.fail("subscription id", "publication %d arrives with subscription identifier %d", p.n, id)
		}
	}
	if m.Retain || l.version != mqtt.V5 {
		return
	}
	for _, g := range s.grants {
		if g.id == 0 || g.shared || g.noLocal || g.replaced != 0 || !g.stands(p) || !matches(g.filter, p.topic) {
			continue
		}
		if !slices.Contains(m.SubIDs, g.id) && !l.sharedToo(p) && !(p.retain) {
			l.fail("subscription id", "publication %d arrives with subscription identifiers %v, without %d", p.n, m.SubIDs, g.id)
		}
	}
}

// sharedToo tells whether p may have come through a shared subscription, which
// is another message.
func (l *link) sharedToo(p *pub) bool {
	return slices.ContainsFunc(l.d.book.grants, func(g *grant) bool { return g.shared && matches(g.filter, p.topic) })
}

// judgeCount: exactly once with QoS 2, and with QoS 1 no more once the
// acknowledgement was processed; QoS 0 is never repeated.
func (l *link) judgeCount(m *mqtt.Publish, p *pub) {
	s := l.d.book
	r := s.receipt(p)
	r.arrivals[m.QoS]++
	routed := p.routed(l.d.w, m.QoS, l.durable)
	n, limit := r.arrivals[m.QoS], s.copies(p, routed, l.d.w.sharers(p))
	switch m.QoS {
	case 2:
		if n > limit {
			l.fail("exactly once", "publication %d arrives as a new message %d times in session %d; it was sent as one %d times",
				p.n, n, s.gen, routed)
		}
	case 1:
		if r.processed >= limit {
			l.fail("acknowledged", "publication %d, sent as a new message %d times, arrives again in session %d after %d acknowledgements were processed",
				p.n, routed, s.gen, r.processed)
		}
	default:
		if n > limit {
			l.fail("repeated", "publication %d arrives %d times with QoS 0, it was sent as a new message %d times", p.n, n, routed)
		}
	}
}

// judgeOrder: messages of one publisher, topic and QoS arrive in the order in
// which they were sent (MQTT5 4.6). Only first arrivals count.
func (l *link) judgeOrder(m *mqtt.Publish, p *pub, retained bool) {
	d := l.d
	s := d.book
	if retained || p.retain || p.expirySeconds != 0 || m.QoS == 0 && p.sends > 1 || p.will || p.fresh > 1 || d.w.cfg.pending > 0 || s.receipt(p).total() > 1 || l.sharedToo(p) ||
		!slices.ContainsFunc(s.grants, func(g *grant) bool {
			return g.stands(p) && g.replaced == 0 && matches(g.filter, p.topic) && g.qos >= m.QoS && !(g.noLocal && p.from == d)
		}) {
		return
	}
	k := stream{p.from.n, p.topic, p.qos, m.QoS}
	if last, ok := s.order[k]; ok && last > p.n {
		l.fail("order", "publication %d arrives after %d, both from %s on %q with QoS %d", p.n, last, p.from.id, p.topic, p.qos)
	}
	s.order[k] = p.n
}

// onAck takes a PUBACK, PUBREC, PUBREL or PUBCOMP from the broker.
func (l *link) onAck(a *mqtt.Ack) {
	d := l.d
	d.w.note("< "+a.Type.String(), l.name, int64(a.PacketID), int64(a.Reason), "")
	switch a.Type {
	case mqtt.PUBACK:
		l.inOrder(a, &l.wantPuback)
		d.onPuback(l, a)
	case mqtt.PUBREC:
		l.inOrder(a, &l.wantPubrec)
		d.onPubrec(l, a)
	case mqtt.PUBREL:
		d.onPubrel(l, a)
	case mqtt.PUBCOMP:
		l.inOrder(a, &l.wantPubcomp)
		d.onPubcomp(l, a)
	}
}

// inOrder checks that an acknowledgement answers the oldest packet that waits
// for one of its kind [MQTT-4.6.0-2] ff.
func (l *link) inOrder(a *mqtt.Ack, want *[]uint16) {
	if len(*want) == 0 || (*want)[0] != a.PacketID {
		l.fail("ack order", "%v for packet id %d, expected %v", a.Type, a.PacketID, *want)
	}
	*want = (*want)[1:]
}

// onSuback takes the answer to a SUBSCRIBE or UNSUBSCRIBE.
func (l *link) onSuback(a *mqtt.Suback) {
	d := l.d
	d.w.note("< "+a.Type.String(), l.name, int64(a.PacketID), 0, "")
	if len(l.requests) == 0 || l.requests[0].pid != a.PacketID || l.requests[0].kind != a.Type {
		l.fail("ack order", "%v for packet id %d", a.Type, a.PacketID)
	}
	r := l.requests[0]
	l.requests = l.requests[1:]
	if l.version == mqtt.V5 || a.Type == mqtt.SUBACK {
		if len(a.Codes) != r.codes {
			l.fail("protocol", "%v with %d codes for %d filters", a.Type, len(a.Codes), r.codes)
		}
	}
	stamp, granted := d.w.next(), false
	for i, g := range r.grants {
		if a.Type == mqtt.UNSUBACK {
			g.unacked = stamp
			continue
		}
		want := byte(g.qos)
		if g.bad {
			want = byte(mqtt.TopicFilterInvalid)
			if l.version != mqtt.V5 {
				want = byte(mqtt.UnspecifiedError)
			}
		}
		if !g.bad && l.denied(r, g, a.Codes[i]) {
			d.book.drop(g)
			continue
		}
		if a.Codes[i] != want {
			l.fail("protocol", "SUBACK with code %#x for %q with QoS %d", a.Codes[i], g.filter, g.qos)
		}
		g.acked, granted = stamp, true
	}
	if l.durable && !l.endsSession && (granted || a.Type == mqtt.UNSUBACK) {
		// An UNSUBACK may come because its subscription was never written.
		d.exp, d.kept, d.zombie = surely, d.kept || granted, false
	}
}

// denied tells whether a code of SUBACK says that rules forbid a subscription,
// and fails if that, or the opposite, cannot be.
func (l *link) denied(r *request, g *grant, code byte) bool {
	ever, always := l.d.allowed(r.sent, func(rules []rule) bool { return maySubscribe(rules, g.filter) })
	no := byte(mqtt.NotAuthorized)
	if l.version != mqtt.V5 {
		no = byte(mqtt.UnspecifiedError)
	}
	if code == no && always || code < 3 && !ever {
		l.fail("rules", "SUBACK with code %#x for %q, which is allowed now or then: %v, always: %v", code, g.filter, ever, always)
	}
	return code == no
}

// sharers counts the subscriptions to share groups that match p, of all devices.
func (w *World) sharers(p *pub) (n int) {
	for _, d := range w.devices {
		for _, g := range d.book.grants {
			if g.shared && matches(g.filter, p.topic) {
				n++
			}
		}
	}
	return n
}
