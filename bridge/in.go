package bridge

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/broker/mqtt"

	"go.uber.org/zap"
)

// DESIGN. From the upstream to the local broker:
//
//	paho's reader  take: remap, wait for room             -> queue
//	sender         send: window, local PUBLISH            -> settling
//	local reader   puback: marks a publish as answered
//	settler        settle: all answered -> upstream PUBACK
//
// paho's reader also brings the PUBACKs of the out direction. It waits for room
// here, which is backpressure on the upstream, but not for ever: the local
// broker answers, or the watchdog ends the link.
//
// The upstream PUBACKs leave in the order of the messages. The window is the
// smaller of InflightMax and the local broker's receive maximum; a packet id is
// taken from ids and given back when the PUBACK has come, so ids is the window.
//
// The local broker may refuse (MQTT5 3.4.2.1). Reasons that will not pass, such
// as an invalid topic or missing rights, drop the message, counted; anything
// else, a full store above all, is tried again as long as the link lives, and
// the upstream meanwhile keeps the message.
type inFlow struct {
	link   *link
	routes []route
	mark   []byte // property of what we bring in; see brought

	budget   *budget
	queue    chan *inItem // these two never fill up: the budget bounds what is in them
	settling chan *inItem
	ids      chan uint16
	stopping atomic.Bool // take nothing more (drain)

	mu       sync.Mutex
	inflight map[uint16]inPart

	progress progress
}

// inItem is one message of the upstream. The last four fields are guarded by
// inFlow.mu until answered is closed.
type inItem struct {
	msg     inMessage
	targets []target // none: to be acknowledged only
	held    int      // bytes taken from the budget

	parts    int           // targets not answered yet
	refused  []target      // targets to try again
	taken    bool          // the local broker has at least one
	answered chan struct{} // closed when parts becomes 0
}

// inPart is one local publish under way.
type inPart struct {
	item   *inItem
	target target
}

const (
	refusedRetryMin = 500 * time.Millisecond
	refusedRetryMax = 30 * time.Second
)

var errNoLocalPuback = errors.New("no PUBACK from the local broker within the progress timeout")

func newInFlow(l *link) *inFlow {
	n := l.opts.InflightMax
	var mark []byte
	if len(l.out.lanes) > 1 {
		mark = broughtMark(l.opts.Name)
	}
	return &inFlow{
		link:     l,
		mark:     mark,
		routes:   compile(l.opts.Routes, In),
		budget:   newBudget(n, l.opts.InflightMaxBytes, l.out.lanes[0].budget.lift),
		queue:    make(chan *inItem, n),
		settling: make(chan *inItem, n),
		inflight: map[uint16]inPart{},
	}
}

// The first session brings messages in, and gets none of them itself (no
// local). The sessions of other queues would, and could send them back up, to
// be sent down again without end. Therefore what a bridge with several queues
// brings in bears its name in a user property, and they only acknowledge it.
const broughtBy = "sluice-bridge"

// broughtMark is that property as it stands in a packet (MQTT5 2.2.2.2). A name
// has at most 64 bytes.
func broughtMark(name string) []byte {
	const userProperty = 0x26
	return slices.Concat([]byte{userProperty, 0, byte(len(broughtBy))}, []byte(broughtBy), []byte{0, byte(len(name))}, []byte(name))
}

// brought tells whether a message came in by this bridge.
func (f *inFlow) brought(p *mqtt.Publish) bool {
	return f.mark != nil && bytes.Contains(p.Props, f.mark)
}

// open makes the window, once the local connection has told its limit.
func (f *inFlow) open() {
	n := min(f.link.opts.InflightMax, f.link.local.receiveMax)
	f.ids = make(chan uint16, n)
	for id := 1; id <= n; id++ {
		f.ids <- uint16(id)
	}
}

// take is called by paho's reader for each PUBLISH.
func (f *inFlow) take(m inMessage) {
	c := f.link.counters
	c.remoteReceived.Add(1)
	if f.stopping.Load() {
		return // not acknowledged: the upstream knows that we do not have it
	}
	m.props = append(crossing(m.props), f.mark...)
	it := &inItem{msg: m}
	if it.targets = targets(nil, f.routes, m.topic); len(it.targets) == 0 {
		c.droppedUnrouted.Add(1)
	} else {
		it.held = len(m.topic) + len(m.payload) + len(m.props)
	}
	if len(it.targets) == 0 && m.qos == 0 {
		return
	}
	if !f.budget.acquire(it.held, false) {
		return // the link is over
	}
	f.queue <- it
}

// send is the sender.
func (f *inFlow) send() {
	for {
		select {
		case it := <-f.queue:
			it.targets = f.fitting(it)
			if !f.publish(it, it.targets) {
				return
			}
			f.settling <- it
		case <-f.link.done:
			return
		}
	}
}

// fitting drops what the local broker would disconnect us for.
func (f *inFlow) fitting(it *inItem) []target {
	fit := it.targets[:0]
	for _, t := range it.targets {
		if p := f.packet(it, t); mqtt.PublishSize(&p, mqtt.V5) > f.link.local.maxPacketBytes {
			f.link.counters.droppedTooLarge.Add(1)
			f.link.log.warn("message too large for the local broker", zap.String("topic", t.topic), zap.Int("payload_bytes", len(it.msg.payload)))
			continue
		}
		fit = append(fit, t)
	}
	return fit
}

func (f *inFlow) packet(it *inItem, t target) mqtt.Publish {
	p := mqtt.Publish{
		Topic: []byte(t.topic), Payload: it.msg.payload, Retain: it.msg.retain, Props: it.msg.props,
		QoS: mqtt.QoS(min(it.msg.qos, t.qos)), HasMessageExpiry: it.msg.expires, ExpirySeconds: it.msg.seconds,
	}
	if p.QoS > 0 {
		p.PacketID = 1 // for the size; publish gives it the real one
	}
	return p
}

// publish sends an item to targets and reports false if the link is over. Its
// answered channel is new each time.
func (f *inFlow) publish(it *inItem, ts []target) bool {
	f.mu.Lock()
	it.answered, it.refused, it.parts = make(chan struct{}), nil, 0
	for _, t := range ts {
		if min(it.msg.qos, t.qos) > 0 {
			it.parts++
		} else {
			it.taken = true
			f.link.counters.by(t.route, len(it.msg.payload))
		}
	}
	if it.parts == 0 {
		close(it.answered)
	}
	f.mu.Unlock()

	for _, t := range ts {
		p := f.packet(it, t)
		if p.QoS > 0 {
			select {
			case p.PacketID = <-f.ids:
			case <-f.link.done:
				return false
			}
			f.progress.begin(f.link.age())
			f.mu.Lock()
			f.inflight[p.PacketID] = inPart{it, t}
			f.mu.Unlock()
		}
		f.link.local.publish(&p)
	}
	return true
}

// puback is called by the local reader.
func (f *inFlow) puback(id uint16, reason mqtt.Reason) {
	f.mu.Lock()
	part, ok := f.inflight[id]
	if !ok {
		f.mu.Unlock()
		return // nothing to conclude from it
	}
	delete(f.inflight, id)
	it := part.item
	if reason >= 0x80 {
		f.refuse(part, reason)
	} else {
		it.taken = true
		f.link.counters.by(part.target.route, len(it.msg.payload))
	}
	if it.parts--; it.parts == 0 {
		close(it.answered)
	}
	f.mu.Unlock()
	f.progress.end(f.link.age())
	f.ids <- id // has room: the id came from there
}

// refuse is called with mu held.
func (f *inFlow) refuse(part inPart, reason mqtt.Reason) {
	fields := []zap.Field{zap.String("topic", part.target.topic), zap.Stringer("reason", reason)}
	switch reason {
	case mqtt.NotAuthorized, mqtt.TopicNameInvalid, mqtt.PayloadFormatInvalid, mqtt.PacketTooLarge:
		f.link.counters.droppedRefused.Add(1)
		f.link.log.warn("message from the upstream dropped: the local broker refuses it", fields...)
	default:
		part.item.refused = append(part.item.refused, part.target)
		f.link.log.warn("message from the upstream waits: the local broker refuses it for now", fields...)
	}
}

// settle is the settler.
func (f *inFlow) settle() {
	for {
		select {
		case it := <-f.settling:
			if !f.settleOne(it) {
				return
			}
		case <-f.link.done:
			return
		}
	}
}

func (f *inFlow) settleOne(it *inItem) bool {
	for retry := refusedRetryMin; ; retry = min(2*retry, refusedRetryMax) {
		select {
		case <-it.answered:
		case <-f.link.done:
			return false
		}
		if len(it.refused) == 0 { // answered is closed: nobody writes to it
			break
		}
		timer := time.NewTimer(retry)
		select {
		case <-timer.C:
		case <-f.link.done:
			timer.Stop()
			return false
		}
		if !f.publish(it, it.refused) {
			return false
		}
	}
	if it.msg.qos > 0 {
		it.msg.ack()
	}
	if it.taken {
		f.link.counters.localAcked.Add(1)
	}
	f.budget.release(it.held)
	return true
}

// idle tells whether nothing is held any more.
func (f *inFlow) idle() bool {
	n, _ := f.budget.held()
	return n == 0
}
