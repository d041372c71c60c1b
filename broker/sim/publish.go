package sim

import (
	"fmt"
	"slices"

	"sluice/broker/mqtt"
)

// plainTopics are those that any device publishes to. Topics that begin with
// "s/" are for shared subscriptions; "r/<n>" is the retained topic of device n
// and of nobody else, always with the same QoS, so that its last value is
// known: were QoS 1 and 2 mixed, a resend of the one might overtake the other.
var plainTopics = []string{"t/a", "t/b", "t/a/b", "u/a", "t/a/pressure", "t/b/pressure", "u/temperature"}

// publish sends a new message.
func (d *device) publish(l *link) {
	w := d.w
	qos := mqtt.QoS(w.rng.IntN(3))
	if qos > 0 && (len(d.out) >= min(w.cfg.window, l.quota) || len(w.pubs) > publicationsMax) {
		return
	}
	topic := pick(w, plainTopics...)
	retain := w.chance(0.3) && qos == mqtt.QoS(d.n%3)
	switch {
	case retain:
		topic = fmt.Sprintf("r/%d", d.n)
	case w.cfg.shared && w.chance(0.2):
		topic = "s/a"
	}
	d.publishTo(l, topic, qos, retain)
}

// publicationsMax bounds the publications of a run, and with them the time it takes.
const publicationsMax = 1500

func (d *device) publishTo(l *link, topic string, qos mqtt.QoS, retain bool) {
	w := d.w
	p := w.newPub(d, topic, qos)
	p.retain = retain
	if retain && w.chance(0.2) {
		p.clears, p.bytes = true, 0
	}
	if w.chance(w.cfg.large) && !p.clears {
		p.bytes = pick(w, 3000, 20_000, 100_000)
	}
	if l.version == mqtt.V5 {
		p.tag = w.chance(0.3)
		if w.chance(0.05) && !w.cfg.calm {
			p.expirySeconds = uint32(w.between(1, 30))
		}
	}
	p.first, p.sentAt, p.fresh = w.next(), w.now, 1
	w.counts.Published++
	if qos == 0 {
		p.link = l
		d.transmit(l, p, 0, false)
		return
	}
	f := &flight{p: p, pid: d.takePID(), link: l, again: true}
	d.out = append(d.out, f)
	d.transmit(l, p, f.pid, false)
}

// takePID gives a packet id that is not in use.
func (d *device) takePID() uint16 {
	for {
		d.nextPID++
		if int(d.nextPID) > d.w.cfg.pidMax || d.nextPID == 0 {
			d.nextPID = 1
		}
		id := d.nextPID
		if slices.ContainsFunc(d.out, func(f *flight) bool { return f.pid == id }) ||
			d.link != nil && slices.ContainsFunc(d.link.requests, func(r *request) bool { return r.pid == id }) {
			continue
		}
		return id
	}
}

// transmit sends a PUBLISH.
func (d *device) transmit(l *link, p *pub, pid uint16, dup bool) {
	w := d.w
	p.sends++
	if dup && p.life != w.crashes {
		p.relived++
	}
	p.life, p.last = w.crashes, w.next()
	m := mqtt.Publish{Topic: []byte(p.topic), Payload: p.payload(), PacketID: pid, QoS: p.qos, Dup: dup, Retain: p.retain}
	if l.version == mqtt.V5 {
		m.Props = p.tagProps()
		m.ExpirySeconds, m.HasMessageExpiry = p.expirySeconds, p.expirySeconds != 0
		d.alias(l, &m)
	}
	switch p.qos {
	case 1:
		l.wantPuback = append(l.wantPuback, pid)
	case 2:
		l.wantPubrec = append(l.wantPubrec, pid)
	}
	l.send("PUBLISH", p.n, mqtt.AppendPublish(nil, &m, l.version))
	w.note("publish", l.name, int64(pid), int64(p.n), p.topic+[...]string{" q0", " q1", " q2"}[p.qos])
}

// alias may use a topic alias (MQTT5 3.3.2.3.4).
func (d *device) alias(l *link, m *mqtt.Publish) {
	if l.aliasMax == 0 || !d.w.chance(0.5) {
		return
	}
	i := d.w.rng.IntN(l.aliasMax)
	m.TopicAlias = uint16(i + 1)
	if l.aliases[i] == string(m.Topic) {
		m.Topic = nil
		return
	}
	l.aliases[i] = string(m.Topic)
}

// flight finds the publication under way with a packet id.
func (d *device) flight(l *link, a *mqtt.Ack, qos mqtt.QoS, received bool) *flight {
	for _, f := range d.out {
		if f.pid == a.PacketID {
			if f.p.qos != qos || f.received != received || f.link != l {
				break
			}
			return f
		}
	}
	l.fail("protocol", "%v for packet id %d, which does not wait for one", a.Type, a.PacketID)
	return nil
}

func (d *device) complete(f *flight) {
	i := slices.Index(d.out, f)
	d.out = slices.Delete(d.out, i, i+1)
}

// accepted notes what a PUBACK or PUBREC says. It tells whether the message is
// on its way.
func (d *device) accepted(l *link, a *mqtt.Ack, p *pub) bool {
	sure := d.judgeDenied(l, a, p)
	switch {
	case a.Reason == mqtt.QuotaExceeded && d.w.cfg.quota():
		p.refused = true
		return false
	case a.Reason == mqtt.NotAuthorized:
		p.refused = true
		return false
	case !sure:
		return true
	case a.Reason != mqtt.Success && a.Reason != mqtt.NoMatchingSubscribers:
		l.fail("refused", "%v with reason %q for publication %d", a.Type, a.Reason, p.n)
	}
	p.acked = d.w.next()
	d.w.counts.Acked++
	return true
}

func (d *device) onPuback(l *link, a *mqtt.Ack) {
	f := d.flight(l, a, 1, false)
	d.accepted(l, a, f.p)
	d.complete(f)
}

func (d *device) onPubrec(l *link, a *mqtt.Ack) {
	f := d.flight(l, a, 2, false)
	if !d.accepted(l, a, f.p) {
		d.complete(f)
		return
	}
	f.received = true
	l.answers = append(l.answers, answer{mqtt.PUBREL, f.pid, -1})
}

func (d *device) onPubcomp(l *link, a *mqtt.Ack) { d.complete(d.flight(l, a, 2, true)) }

// onPubrel ends a QoS 2 exchange from the broker.
func (d *device) onPubrel(l *link, a *mqtt.Ack) {
	delete(d.book.in2, a.PacketID)
	l.answers = append(l.answers, answer{mqtt.PUBCOMP, a.PacketID, -1})
}
