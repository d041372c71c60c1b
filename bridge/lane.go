package bridge

import (
	"slices"
	"sync/atomic"
	"time"

	"sluice/broker/mqtt"

	"go.uber.org/zap"
)

// DESIGN. A lane is one queue on one link: the connection to its local session,
// and what was taken from there and is not acknowledged. Three goroutines in a
// row, of which the one in the middle serves all lanes of the link (out.go):
//
//	local reader  take: copy, remap, wait for room    -> items
//	sender        by the schedule                     -> pending
//	settler       settle: receipt done -> local PUBACK
//
// Everything of a queue goes through the row in the order of arrival, also what
// is not sent at all, so the upstream sees each topic in order, and the local
// PUBACKs leave in the order of the PUBLISHes [MQTT-4.6.0-2]. A message with
// several targets is acknowledged with its last one. Lanes do not wait for each
// other but in the schedule.
//
// The one rule: puback is called in settle, after a receipt of QoS 1 is done
// without an error, or with a refusal that will not pass (refused.go), and nowhere
// else.
type lane struct {
	link  *link
	flow  *outFlow
	queue *queueState
	index int // in the schedule

	local   *local // nil until attached
	leaving atomic.Bool

	budget   *budget
	items    chan *outItem   // never full: see newLane
	pending  chan outPending // never full: each element holds a place in the window
	progress progress

	head *outItem // the sender's: what goes next
	at   int      // and which of its targets
}

// outItem is one message taken from a local session.
type outItem struct {
	id      uint16 // of the local PUBLISH; 0: QoS 0
	retain  bool
	payload []byte
	props   []byte // as in message, like the next two
	expires bool
	seconds uint32        // at the time of taken
	taken   time.Duration // age of the link
	targets []target      // none: to be acknowledged only
	held    int           // bytes taken from the budget
}

// left returns the seconds that a message has left when it leaves. One that has
// just expired is sent with the shortest expiry: the upstream decides.
func (it *outItem) left(now time.Duration) uint32 {
	return uint32(max(int64(it.seconds)-int64((now-it.taken)/time.Second), 1))
}

// outPending is one publish under way.
type outPending struct {
	receipt receipt // nil: there was nothing to send
	message *message
	route   int
	last    *outItem // the item, if this is its last target
}

func newLane(f *outFlow, q *queueState, index, bytesMax int) *lane {
	n := f.link.opts.InflightMax
	return &lane{
		link: f.link, flow: f, queue: q, index: index,
		budget: newBudget(n, bytesMax, nil),
		// Within its limits the budget lets n items in; beyond them only QoS 1,
		// of which the session's window allows n.
		items:   make(chan *outItem, 2*n),
		pending: make(chan outPending, n),
	}
}

// take is called by the local reader for each PUBLISH.
func (l *lane) take(p *mqtt.Publish) {
	select {
	case <-l.flow.stop:
		return // not acknowledged: it comes again at the next attachment
	default:
	}
	c := l.link.counters
	c.received.Add(1)
	l.queue.received.Add(1)
	if p.QoS > 1 {
		l.link.fail(errLocalQoS)
		return
	}
	it := &outItem{id: p.PacketID, retain: p.Retain, targets: l.targets(p)}
	if len(it.targets) == 0 && it.id == 0 {
		return
	}
	if len(it.targets) > 0 {
		it.held = len(p.Topic) + len(p.Payload) + len(p.Props)
	}
	if !l.budget.acquire(it.held, it.id != 0) {
		if it.id == 0 {
			c.droppedQoS0.Add(1)
		}
		return
	}
	if len(it.targets) > 0 {
		it.payload = append(make([]byte, 0, len(p.Payload)), p.Payload...)
		if l.flow.version == mqtt.V5 {
			it.props = crossing(mqtt.AppendForwardProps(nil, p))
			it.expires, it.seconds, it.taken = p.HasMessageExpiry, p.ExpirySeconds, l.link.age()
		}
	}
	select {
	case l.items <- it:
		l.flow.kick()
	default:
		l.budget.release(it.held)
		l.link.fail(errLocalWindow)
	}
}

// targets returns where this lane sends a message; none: nowhere, which is
// counted unless another queue does it.
func (l *lane) targets(p *mqtt.Publish) []target {
	if l.index > 0 && l.link.in.brought(p) {
		return nil
	}
	c, name := l.link.counters, string(p.Topic)
	all := targets(nil, l.flow.routes, name)
	switch {
	case len(all) == 0:
		c.droppedUnrouted.Add(1)
		return nil
	case l.flow.tooLarge(all, p):
		c.droppedTooLarge.Add(1)
		l.link.log.warn("message too large for the upstream", zap.String("topic", name), zap.Int("payload_bytes", len(p.Payload)))
		return nil
	}
	if g := l.flow.generation; g != 0 && slices.Contains(p.SubIDs, g) {
		return slices.DeleteFunc(all, func(t target) bool { return t.queue != l.queue.Name })
	}
	return all
}

// offers tells the schedule what waits. It belongs to the sender.
func (l *lane) offers() (waiting, backlog bool) {
	if l.head == nil {
		select {
		case l.head = <-l.items:
			l.at = 0
		default:
		}
	}
	switch full, low := l.budget.pressure(); {
	case full:
		l.queue.backlogged.Store(true)
	case low:
		l.queue.backlogged.Store(false)
	}
	return l.head != nil, l.queue.backlogged.Load()
}

// size is what the next publish counts for; 0: nothing is to be sent.
func (l *lane) size() int {
	if len(l.head.targets) == 0 {
		return 0
	}
	return len(l.head.targets[l.at].topic) + len(l.head.props) + len(l.head.payload)
}

// send publishes the next target of the head, for which the schedule has booked.
// It reports false if the link is over.
func (l *lane) send() bool {
	it := l.head
	l.progress.begin(l.link.age())
	if len(it.targets) == 0 {
		l.head = nil
		l.pending <- outPending{last: it}
		return true
	}
	t := it.targets[l.at]
	qos := t.qos
	if it.id == 0 {
		qos = 0
	}
	if !l.link.up.open() {
		if it.id == 0 {
			l.link.counters.droppedQoS0.Add(1)
		}
		l.link.fail(l.link.up.reason())
		return false
	}
	p := outPending{route: t.route, message: &message{
		topic: t.topic, payload: it.payload, qos: qos, retain: it.retain && l.flow.retain,
		props: it.props, expires: it.expires, seconds: it.left(l.link.age()),
	}}
	l.publish(&p)
	if l.at++; l.at == len(it.targets) {
		p.last, l.head = it, nil
	}
	l.pending <- p
	return true
}

// publish hands a message to the upstream, for the first time or again.
func (l *lane) publish(p *outPending) {
	l.link.counters.sent.Add(1)
	l.queue.sent.Add(1)
	p.receipt = l.link.up.publish(p.message)
}

// settle is the settler.
func (l *lane) settle() {
	for {
		select {
		case p := <-l.pending:
			if !l.settleOne(p) {
				return
			}
		case <-l.link.done:
			return
		}
	}
}

func (l *lane) settleOne(p outPending) bool {
	if p.receipt != nil {
		taken, ok := l.answered(&p)
		if !ok {
			return false
		}
		if taken {
			l.link.counters.acked.Add(1)
			l.link.counters.by(p.route, len(p.message.payload))
			l.queue.acked.Add(1)
		}
	}
	l.flow.free()
	l.progress.end(l.link.age())
	if p.last != nil {
		l.budget.release(p.last.held)
		if p.last.id != 0 {
			l.queue.settled.Add(1)
			l.local.puback(p.last.id)
		}
	}
	return true
}

// read reads from the local session until its connection ends, which ends the
// link, unless the lane is leaving.
func (l *lane) read(onPuback func(uint16, mqtt.Reason)) {
	err := l.local.read(l.take, onPuback)
	if !l.leaving.Load() {
		l.link.fail(&localError{l.queue.session, err})
	}
}

// empty tells whether nothing is left in the session of a queue that is gone.
func (l *lane) empty() bool {
	ask := l.link.opts.Backlog
	if ask == nil || !l.queue.gone || l.leaving.Load() {
		return false
	}
	b, known := ask(l.queue.session)
	items, _ := l.budget.held()
	return known && b.Messages == 0 && items == 0
}

// end ends an empty session for good.
func (l *lane) end() {
	l.leaving.Store(true)
	l.local.end()
	l.queue.ended.Store(true)
	l.link.log.Info("a queue that is not configured any more is empty; its session has ended", zap.String("session", l.queue.session))
}
