package worker

import (
	"cmp"
	"slices"

	"sluice/broker/mqtt"
	"sluice/broker/session"
	"sluice/broker/topic"
	"sluice/persist"
)

// publication is a message being routed: the bytes of the packet it came in,
// and a Message as soon as somebody needs it beyond the turn.
type publication struct {
	p       *mqtt.Publish
	msg     *mqtt.Message
	from    uint64 // session id of the publisher
	expires int64
	urgent  bool           // its topic has priority; set by match, or by who routes it without that
	keep    persist.OpKind // what the store is to do as the message is retained, 0: nothing
}

// message gives the publication as a Message; it is made once for all that
// keep it.
func (m *publication) message(w *Worker, durable bool) *mqtt.Message {
	if m.msg == nil {
		m.msg = mqtt.NewMessage(m.p)
		m.msg.From, m.msg.Expires = m.from, m.expires
		m.msg.QoS, m.msg.Retain = m.p.QoS, m.p.Retain
	}
	if durable && m.msg.ID == 0 {
		m.msg.ID = w.g.store.NewMessageID()
	}
	return m.msg
}

// target is one session that gets a message, with what its matching
// subscriptions make of it.
type target struct {
	session uint64
	durable uint64
	ids     []uint32 // subscription identifiers, part of Worker.ids
	qos     mqtt.QoS
	retain  bool
	shared  bool
	urgent  bool // the message has priority
}

// durable is a delivery whose sequence number the store gives in settle.
type durable struct {
	op     int    // index of its Enqueue in the batch
	seq    uint64 // once submitted; 0: the queue is gone
	target target
	msg    *mqtt.Message
}

// shareAboveBytes is the payload size above which a message that crosses to
// another worker is shared instead of copied into the bundle.
const shareAboveBytes = 8 << 10

// publish takes a PUBLISH from a client through the session's checks to its
// receivers.
func (w *Worker) publish(x *client, p *mqtt.Publish) {
	fx := w.begin(x)
	if !x.OnPublish(fx, p) {
		w.end(x)
		return
	}
	m := publication{p: p, from: x.ID}
	if p.HasMessageExpiry {
		m.expires = session.Expires(w.now, p.ExpirySeconds)
	}
	if p.Retain {
		w.retain(&m)
	}
	targets := w.match(&m)
	waits := false
	if p.QoS > 0 {
		waits = !canaryAckBeforeCommit && (stored(&m, targets) || p.QoS == 2 && x.Durable != 0)
		if waits {
			x.Begin(fx, p)
		} else {
			r := mqtt.Success
			if len(targets) == 0 {
				r = mqtt.NoMatchingSubscribers
			}
			x.Ack(fx, p, r)
		}
	}
	w.end(x)
	w.route(&m, targets)
	if waits {
		w.batch.End()
	}
}

// stored tells whether something of a message of QoS 1 or 2 is for the store.
func stored(m *publication, targets []target) bool {
	if m.keep != 0 {
		return true
	}
	for i := range targets {
		if targets[i].durable != 0 && targets[i].qos > 0 {
			return true
		}
	}
	return false
}

// route sends a message to its targets, and to the store if it is retained.
func (w *Worker) route(m *publication, targets []target) {
	if m.keep != 0 {
		w.batch.Add(persist.Op{Kind: m.keep, Entry: persist.Entry{Msg: m.msg}})
	}
	for i := range targets {
		t := &targets[i]
		if t.durable != 0 && t.qos > 0 {
			w.enqueue(t, m.message(w, true))
		} else {
			w.send(t, m, 0)
		}
	}
	w.endRoute()
}

// send delivers to one target: here, or by mail to its worker.
func (w *Worker) send(t *target, m *publication, seq uint64) {
	o := ownerOf(t.session)
	if o == w.id {
		d := session.Delivery{Topic: m.p.Topic, Payload: m.p.Payload, Props: m.p.Props, Msg: m.msg,
			Seq: seq, SubIDs: t.ids, Expires: m.expires, QoS: t.qos, Retain: t.retain, Shared: t.shared, Priority: t.urgent}
		if m.msg != nil {
			d.Props = m.msg.Props
		} else if m.p.HasHopProps {
			w.props = mqtt.AppendForwardProps(w.props[:0], m.p)
			d.Props = w.props
		}
		w.deliver(t.session, &d)
		return
	}
	b := w.outbox(o)
	if w.routed[o] == 0 {
		if len(m.p.Payload) > shareAboveBytes {
			m.message(w, false)
		}
		w.routed[o] = b.put(m) + 1
	}
	b.add(bundleTo{session: t.session, seq: seq, msg: w.routed[o] - 1, qos: t.qos, retain: t.retain, shared: t.shared, urgent: t.urgent}, t.ids)
	w.posted = true
}

// endRoute forgets which outboxes hold the message of the last route.
func (w *Worker) endRoute() { clear(w.routed) }

func (w *Worker) outbox(o int) *bundle {
	if w.out[o] == nil {
		w.out[o] = bundles.Get().(*bundle)
	}
	return w.out[o]
}

// enqueue puts a message into the queue of a durable session. It is delivered
// in settle, once the store has given it a number.
func (w *Worker) enqueue(t *target, msg *mqtt.Message) {
	ids := slices.Clone(t.ids) // the store keeps it
	d := durable{target: *t, msg: msg}
	d.target.ids = ids
	d.op = w.batch.Enqueue(t.queue(), msg, t.qos, t.retain, ids)
	w.batch.Ops[d.op].Entry.Shared = t.shared
	w.durables = append(w.durables, d)
}

// deliver gives a message to a session of this worker.
func (w *Worker) deliver(id uint64, d *session.Delivery) {
	x, ok := w.client(id)
	if !ok {
		return
	}
	fx := w.begin(x)
	x.Deliver(fx, d, w.now)
	w.end(x)
}

// deliverBundle delivers the mail of another worker.
func (w *Worker) deliverBundle(b *bundle) {
	for i := range b.to {
		d, to := b.delivery(i)
		w.deliver(to, &d)
	}
}

// match finds the targets of a message. The result is valid until the next
// match.
func (w *Worker) match(m *publication) []target {
	w.g.index.Match(m.p.Topic, &w.hits)
	w.merged, w.ids = w.merged[:0], w.ids[:0]
	m.urgent = w.urgent(m.p.Topic)
	if w.hits.Overlap {
		w.mergeHits(m)
		return w.merged
	}
	for i := range w.hits.Subs {
		h := &w.hits.Subs[i]
		if h.NoLocal && h.Subscriber == m.from || h.Marks&topic.Guarded != 0 && !w.g.mayReceive(h.Subscriber, m.p.Topic) { // [MQTT-3.8.3-3]
			continue
		}
		w.merged = append(w.merged, w.target(h, m))
	}
	return w.merged
}

func (w *Worker) target(h *topic.Subscription, m *publication) target {
	t := target{session: h.Subscriber, durable: h.Durable, qos: min(m.p.QoS, mqtt.QoS(h.QoS)),
		retain: m.p.Retain && h.AsPublished, shared: h.Shared(), urgent: m.urgent}
	if h.ID != 0 {
		w.ids = append(w.ids, h.ID)
		t.ids = w.ids[len(w.ids)-1:]
	}
	return t
}

// mergeHits makes one target of all subscriptions of a session that match: the
// highest QoS, all identifiers (MQTT5 3.3.4). Shared subscriptions count apart.
func (w *Worker) mergeHits(m *publication) {
	hits := w.hits.Subs
	slices.SortStableFunc(hits, func(a, b topic.Subscription) int { return cmp.Compare(a.Subscriber, b.Subscriber) })
	open := -1
	for i := range hits {
		h := &hits[i]
		if h.NoLocal && h.Subscriber == m.from || h.Marks&topic.Guarded != 0 && !w.g.mayReceive(h.Subscriber, m.p.Topic) {
			continue
		}
		if h.Shared() || open < 0 || w.merged[open].session != h.Subscriber {
			w.merged = append(w.merged, w.target(h, m))
			if !h.Shared() {
				open = len(w.merged) - 1
			}
			continue
		}
		t := &w.merged[open]
		t.qos = max(t.qos, min(m.p.QoS, mqtt.QoS(h.QoS)))
		t.retain = t.retain || m.p.Retain && h.AsPublished
		if h.ID != 0 {
			start := len(w.ids)
			w.ids = append(append(w.ids, t.ids...), h.ID)
			t.ids = w.ids[start:]
		}
	}
}

// retain keeps or deletes the retained message of a topic. It comes before
// match: who subscribes meanwhile, on another worker, enters the index first
// and looks for retained messages then, so either the match finds the
// subscription or the subscriber finds the message.
func (w *Worker) retain(m *publication) {
	r := w.g.retained
	if len(m.p.Payload) == 0 { // [MQTT-3.3.1-6]
		r.Delete(m.p.Topic)
		m.message(w, false)
		m.keep = persist.OpDeleteRetained
		return
	}
	msg, lim := m.message(w, true), w.g.limits
	old := r.Set(msg)
	grows := old == nil || msg.Size() > old.Size()
	if grows && (r.Len() > lim.RetainedMessagesMax || r.Bytes() > int64(lim.RetainedBytesMax)) {
		if old == nil {
			r.Delete(m.p.Topic)
		} else {
			r.Set(old)
		}
		w.stats.RetainedRefused++
		return
	}
	m.keep = persist.OpPutRetained
}

// sendRetained sends a session the retained messages for a subscription it made.
func (w *Worker) sendRetained(x *client, sub *session.Subscription) {
	w.retained = w.g.retained.Match(sub.Filter, w.retained[:0])
	for _, msg := range w.retained {
		if sub.NoLocal && msg.From == x.ID || x.Guarded && !x.MayReceive(msg.Topic) {
			continue
		}
		t := target{session: x.ID, durable: x.Durable, qos: min(msg.QoS, sub.QoS), retain: true, urgent: w.urgent(msg.Topic)}
		if sub.ID != 0 {
			t.ids = []uint32{sub.ID}
		}
		if t.durable != 0 && t.qos > 0 {
			w.enqueue(&t, msg)
			continue
		}
		d := session.Delivery{Topic: msg.Topic, Props: msg.Props, Payload: msg.Payload, Msg: msg,
			SubIDs: t.ids, Expires: msg.Expires, QoS: t.qos, Retain: true, Priority: t.urgent}
		w.deliver(x.ID, &d)
	}
	clear(w.retained)
}

// publishWill publishes the will of a session.
func (w *Worker) publishWill(x *client, will *session.Will) {
	msg := will.Message(w.now)
	if !x.MayPublish(msg.Topic) { // any more: it was judged when it was left
		w.fx.Denied++
		return
	}
	w.publishMessage(msg, x.ID)
}

// publishMessage publishes a message that no packet brought.
func (w *Worker) publishMessage(msg *mqtt.Message, from uint64) {
	p := &w.willPub
	msg.View(p)
	p.QoS, p.Retain = msg.QoS, msg.Retain
	m := publication{p: p, msg: msg, from: from, expires: msg.Expires}
	msg.From = from
	if p.Retain {
		w.retain(&m)
	}
	w.route(&m, w.match(&m))
	w.stats.Wills++
}
