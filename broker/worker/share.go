package worker

import (
	"sluice/broker/mqtt"
	"sluice/broker/session"
	"sluice/broker/topic"
	"sluice/persist"
)

// DESIGN. When a member of a share group goes, what it has not acknowledged is
// for another (MQTT5 4.8.2). A session without a store gives its messages back
// itself. One with a store has them there: when it ends, they are fetched, and each leaves
// its queue in the same batch as it enters another's; then the session's record
// goes. Until then the session is "leaving": no client can find it, and in the store it
// has no time left, so that a restart goes on with it. What a client
// may have begun to receive with QoS 2 goes to nobody else [MQTT-4.8.2-5].

// leaving is a durable session that has ended and whose share groups' messages are
// being handed on.
type leaving struct {
	durable uint64
	filters []string // of its shared subscriptions
	sent    uint64   // QoS 2 below this may have been begun
	next    uint64   // of the queue, to be fetched
	last    uint64   // message handed on last
	by      int      // and after which of filters
	first   *leaving // its queue for messages with priority, which is handed on before; nil: none, or done
}

// leaveStep is how much is handed on at a time.
const (
	leaveMessages = 256
	leaveBytes    = 256 << 10
)

// readdress sends messages of share groups to other members. The one who gave
// them up has left the index.
func (w *Worker) readdress(orphans []session.Orphan) {
	for i := range orphans {
		o := &orphans[i]
		w.redeliver(o.Msg, o.Filter)
	}
}

// redeliver sends a message to a member of a share group, if there is one. It tells
// whether there is.
func (w *Worker) redeliver(msg *mqtt.Message, filter string) bool {
	h, ok := w.g.index.Pick(filter)
	if !ok || h.Marks&topic.Guarded != 0 && !w.g.mayReceive(h.Subscriber, msg.Topic) {
		return false
	}
	if msg.ID == 0 { // other workers may have it too, and one of us will give it an id
		own := *msg
		msg = &own
	}
	p := &w.willPub
	msg.View(p)
	p.QoS, p.Retain = msg.QoS, msg.Retain
	m := publication{p: p, msg: msg, from: msg.From, expires: msg.Expires}
	w.ids = w.ids[:0]
	m.urgent = w.urgent(msg.Topic)
	t := w.target(&h, &m)
	if t.durable != 0 && t.qos > 0 {
		w.enqueue(&t, m.message(w, true))
	} else {
		w.send(&t, &m, 0)
		w.endRoute()
	}
	w.stats.Redelivered++
	return true
}

// abandon removes a session that has ended from the store, after its share groups
// have got what is theirs.
func (w *Worker) abandon(x *client) {
	if x.Durable == 0 {
		return
	}
	low, sent, tail := x.Backlog()
	l := &leaving{durable: x.Durable, sent: sent, next: low}
	if low, sent, tail := x.PriorityBacklog(); low < tail {
		l.first = &leaving{durable: persist.PriorityOf(x.Durable), sent: sent, next: low}
	}
	subs := x.Subscriptions()
	for i := range subs {
		if isShare(subs[i].Filter) {
			l.filters = append(l.filters, subs[i].Filter)
		}
	}
	if len(l.filters) == 0 || low >= tail && l.first == nil {
		w.deleteSession(x.Durable)
		return
	}
	w.batch.Add(persist.Op{Kind: persist.OpPutSession, ID: x.Durable,
		Sess: &persist.Session{ID: x.Durable, ClientID: x.ClientID, Username: x.Username, Version: x.Version}})
	w.leaving[x.ID] = l
	w.fetchLeaving(x.ID, l)
}

// restoreLeaving goes on with a session that was leaving when the broker ended.
// All that it has may have been sent.
func (w *Worker) restoreLeaving(im, lane *persist.SessionImage) {
	slot, gen := w.clients.put(nil)
	w.clients.drop(slot) // only for the name, which nothing else will have
	l := &leaving{durable: im.ID, sent: im.Tail, next: im.Head}
	if lane != nil {
		l.first = &leaving{durable: lane.ID, sent: lane.Tail, next: lane.Head}
	}
	for i := range im.Subscriptions {
		if f := im.Subscriptions[i].Filter; isShare(f) {
			l.filters = append(l.filters, f)
		}
	}
	tag := sessionID(w.id, slot, gen)
	w.leaving[tag] = l
	w.fetchLeaving(tag, l)
}

func isShare(filter string) bool {
	_, _, shared := topic.SplitShare(filter)
	return shared
}

func (w *Worker) fetchLeaving(tag uint64, l *leaving) {
	if l.first != nil {
		l = l.first
	}
	w.fetches = append(w.fetches, persist.FetchRequest{
		Tag: tag, Session: l.durable, From: l.next, MaxMessages: leaveMessages, MaxBytes: leaveBytes,
	})
}

// handOn takes what was fetched of a leaving session.
func (w *Worker) handOn(whole *leaving, f *persist.Fetched) {
	l := whole
	if l.first != nil {
		l = l.first
	}
	for i := range f.Entries {
		e := &f.Entries[i]
		if !e.Shared || e.Msg == nil || e.QoS == 2 && e.Seq < l.sent {
			continue
		}
		// The store does not say by which of several groups a message came. Copies of
		// one message lie together: each is taken for one of another group.
		if e.Msg.ID != l.last {
			l.last, l.by = e.Msg.ID, 0
		}
		for ; l.by < len(whole.filters); l.by++ {
			filter := whole.filters[l.by]
			if _, rest, _ := topic.SplitShare(filter); topic.Matches(rest, e.Msg.Topic) && w.redeliver(e.Msg, filter) {
				w.batch.Dequeue(l.durable, e.Seq)
				l.by++
				break
			}
		}
	}
	if f.Err == nil && f.Next > l.next {
		l.next = f.Next
		w.fetchLeaving(f.Tag, whole)
		return
	}
	if whole.first != nil {
		whole.first = nil
		w.fetchLeaving(f.Tag, whole)
		return
	}
	// Nothing more, or nothing that can be read: then the rest is lost with the session, as
	// it would be without the group.
	delete(w.leaving, f.Tag)
	w.deleteSession(l.durable)
}
