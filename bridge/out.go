package bridge

import (
	"errors"
	"time"

	"sluice/broker/mqtt"

	"go.uber.org/zap"
)

// DESIGN. From the local session to the upstream. Three goroutines in a row:
//
//	local reader  take: copy, remap, wait for room    -> queue
//	sender        send: pace, window, paho Publish    -> pending
//	settler       settle: receipt done -> local PUBACK
//
// Everything goes through the row in the order of arrival, also what is not
// sent at all, so the upstream sees each topic in order, and the local PUBACKs
// leave in the order of the PUBLISHes [MQTT-4.6.0-2]. A message with several
// targets is acknowledged with its last one.
//
// The one rule: puback is called in settle, after a receipt of QoS 1 is done
// without an error, and nowhere else.
type outFlow struct {
	link   *link
	routes []route

	budget  *budget
	queue   chan *outItem   // never full: see newOutFlow
	window  chan struct{}   // one element per publish that is outstanding upstream
	pending chan outPending // never full: each element holds a place in window
	stop    chan struct{}   // closed: send no more (drain)
	stopped chan struct{}   // closed: send has returned

	messages, bytes pace // the sender's
	progress        progress
}

// outItem is one message taken from the local session.
type outItem struct {
	id      uint16 // of the local PUBLISH; 0: QoS 0
	retain  bool
	payload []byte
	targets []target // none: to be acknowledged only
	held    int      // bytes taken from the budget
}

// outPending is one publish under way.
type outPending struct {
	receipt receipt  // nil: there was nothing to send
	last    *outItem // the item, if this is its last target
}

var (
	errLocalWindow = errors.New("the local broker exceeds the receive maximum")
	errLocalQoS    = errors.New("the local broker delivers QoS 2 on a QoS 1 subscription")
	errNoPuback    = errors.New("no PUBACK from the upstream within the progress timeout")
)

func newOutFlow(l *link) *outFlow {
	n := l.opts.InflightMax
	return &outFlow{
		link:   l,
		routes: compile(l.opts.Routes, Out),
		budget: newBudget(n, l.opts.InflightMaxBytes, nil),
		// Within its limits the budget lets n items in; beyond them only QoS 1,
		// of which the session's window allows n.
		queue:    make(chan *outItem, 2*n),
		window:   make(chan struct{}, n),
		pending:  make(chan outPending, n),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
		messages: pace{perSecond: l.opts.OutMaxMessagesPerSecond},
		bytes:    pace{perSecond: l.opts.OutMaxBytesPerSecond},
	}
}

// take is called by the local reader for each PUBLISH.
func (f *outFlow) take(p *mqtt.Publish) {
	select {
	case <-f.stop:
		return // not acknowledged: it comes again at the next attachment
	default:
	}
	c := f.link.counters
	c.received.Add(1)
	if p.QoS > 1 {
		f.link.fail(errLocalQoS)
		return
	}
	it := &outItem{id: p.PacketID, retain: p.Retain}
	name := string(p.Topic)
	if it.targets = targets(nil, f.routes, name); len(it.targets) == 0 {
		c.droppedUnrouted.Add(1)
	} else if f.tooLarge(it.targets, len(p.Payload)) {
		it.targets = nil
		c.droppedTooLarge.Add(1)
		f.link.log.warn("message too large for the upstream", zap.String("topic", name), zap.Int("payload_bytes", len(p.Payload)))
	}
	if len(it.targets) == 0 && it.id == 0 {
		return
	}
	if len(it.targets) > 0 {
		it.held = len(name) + len(p.Payload)
	}
	if !f.budget.acquire(it.held, it.id != 0) {
		if it.id == 0 {
			c.droppedQoS0.Add(1)
		}
		return
	}
	if len(it.targets) > 0 {
		it.payload = append(make([]byte, 0, len(p.Payload)), p.Payload...)
	}
	select {
	case f.queue <- it:
	default:
		f.budget.release(it.held)
		f.link.fail(errLocalWindow)
	}
}

// tooLarge also watches the size that MQTT can express, which a longer name
// on the other side can exceed.
func (f *outFlow) tooLarge(ts []target, payload int) bool {
	if limit := f.link.opts.MaxPayloadBytes; limit > 0 && payload > limit {
		return true
	}
	for _, t := range ts {
		view := mqtt.Publish{Topic: []byte(t.topic), QoS: mqtt.QoS(t.qos), PacketID: 1}
		if mqtt.PublishSize(&view, mqtt.V311)+3+payload > mqtt.PacketBytesMax { // 3: a longer length field
			return true
		}
	}
	return false
}

// send is the sender.
func (f *outFlow) send() {
	defer close(f.stopped)
	for {
		select {
		case it := <-f.queue:
			if !f.sendItem(it) {
				return
			}
		case <-f.stop:
			return
		case <-f.link.done:
			return
		}
	}
}

// sendItem reports false if the sender is to end. What was not sent to every
// target is then not acknowledged.
func (f *outFlow) sendItem(it *outItem) bool {
	if len(it.targets) == 0 {
		if !f.enterWindow() {
			return false
		}
		f.pending <- outPending{last: it}
		return true
	}
	for i, t := range it.targets {
		if !f.wait(len(t.topic)+len(it.payload)) || !f.enterWindow() {
			return false
		}
		qos := t.qos
		if it.id == 0 {
			qos = 0
		}
		if !f.link.up.open() {
			if it.id == 0 {
				f.link.counters.droppedQoS0.Add(1)
			}
			f.link.fail(f.link.up.reason())
			return false
		}
		f.link.counters.sent.Add(1)
		r := f.link.up.publish(t.topic, qos, it.retain, it.payload)
		var last *outItem
		if i == len(it.targets)-1 {
			last = it
		}
		f.pending <- outPending{receipt: r, last: last}
	}
	return true
}

// enterWindow waits until one more publish may be outstanding.
func (f *outFlow) enterWindow() bool {
	select {
	case f.window <- struct{}{}:
		f.progress.begin(f.link.age())
		return true
	case <-f.stop:
	case <-f.link.done:
	}
	return false
}

// wait keeps the pace.
func (f *outFlow) wait(bytes int) bool {
	now := f.link.age()
	d := max(f.messages.next(now, 1), f.bytes.next(now, bytes))
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-f.stop:
	case <-f.link.done:
	}
	return false
}

// settle is the settler.
func (f *outFlow) settle() {
	for {
		select {
		case p := <-f.pending:
			if !f.settleOne(p) {
				return
			}
		case <-f.link.done:
			return
		}
	}
}

func (f *outFlow) settleOne(p outPending) bool {
	if p.receipt != nil {
		select {
		case <-p.receipt.Done():
		case <-f.link.done:
			return false
		}
		if err := p.receipt.Error(); err != nil {
			f.link.fail(err)
			return false
		}
		f.link.counters.acked.Add(1)
	}
	<-f.window
	f.progress.end(f.link.age())
	if p.last != nil {
		f.budget.release(p.last.held)
		if p.last.id != 0 {
			f.link.local.puback(p.last.id)
		}
	}
	return true
}

// idle tells, after stop was closed, whether nothing is outstanding any more.
func (f *outFlow) idle() bool {
	select {
	case <-f.stopped:
		return f.progress.outstanding.Load() == 0
	default:
		return false
	}
}
