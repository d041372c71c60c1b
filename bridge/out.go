package bridge

import (
	"errors"
	"slices"
	"sync"
	"time"

	"sluice/broker/mqtt"
)

// DESIGN. From the local sessions to the upstream: the lanes of a link, and the
// one sender that serves them all, in the order that the schedule says. The
// sender never waits for one lane: it looks at all, sends what may go, and
// sleeps until a lane has something new (kick), a place in the window is free,
// or the pace allows more.
type outFlow struct {
	link       *link
	routes     []route
	generation uint32 // of our subscriptions; 0: none
	lanes      []*lane
	turns      []Queue // as lanes

	// What the upstream takes; valid once it is connected.
	version     mqtt.Version
	packetBytes int
	retain      bool

	mu       sync.Mutex
	schedule *schedule // guarded by mu

	wake    chan struct{} // one element: look again
	stop    chan struct{} // closed: send no more (drain)
	stopped chan struct{} // closed: send has returned
}

var (
	errLocalWindow    = errors.New("the local broker exceeds the receive maximum")
	errLocalQoS       = errors.New("the local broker delivers QoS 2 on a QoS 1 subscription")
	errUpstreamQoS0   = errors.New("the upstream takes QoS 0 only (maximum QoS); what waits here would be lost with the connection: set qos = 0 on the routes if that is acceptable")
	errUpstreamWindow = errors.New("the upstream takes one message at a time (receive maximum), which leaves no place for notifications")
	errNoPuback       = errors.New("no PUBACK from the upstream within the progress timeout")
)

func newOutFlow(l *link, queues []*queueState) *outFlow {
	f := &outFlow{
		link:       l,
		routes:     compile(l.opts.Routes, Out),
		generation: l.opts.generation(),
		wake:       make(chan struct{}, 1),
		stop:       make(chan struct{}),
		stopped:    make(chan struct{}),
	}
	for i, q := range queues {
		f.turns = append(f.turns, q.Queue)
		f.lanes = append(f.lanes, newLane(f, q, i, max(1, l.opts.InflightMaxBytes/len(queues))))
	}
	f.schedule = newSchedule(l.opts.InflightMax, f.turns, l.opts)
	return f
}

// tooLarge also watches the size that MQTT can express, which a longer name
// on the other side can exceed.
func (f *outFlow) tooLarge(ts []target, p *mqtt.Publish) bool {
	if limit := f.link.opts.MaxPayloadBytes; limit > 0 && len(p.Payload) > limit {
		return true
	}
	for _, t := range ts {
		view := mqtt.Publish{
			Topic: []byte(t.topic), QoS: mqtt.QoS(t.qos), PacketID: 1, Payload: p.Payload,
			Props: p.Props, HasHopProps: p.HasHopProps, HasMessageExpiry: p.HasMessageExpiry,
		}
		if mqtt.PublishSize(&view, f.version) > f.packetBytes {
			return true
		}
	}
	return false
}

// obey takes over what the upstream said about itself, before anything is sent. It is an
// error if it cannot take what the routes bring.
func (f *outFlow) obey(l upLimits) error {
	o := f.link.opts
	f.version, f.packetBytes, f.retain = l.version, l.packetBytes, l.retain
	if o.TopicAliases > 0 {
		f.packetBytes -= aliasBytes + 1
	}
	if l.qosMax == 0 && slices.ContainsFunc(f.routes, func(r route) bool { return r.qos > 0 }) {
		return errUpstreamQoS0
	}
	window := l.receiveMax
	if o.Notifications {
		window-- // what is told about us needs a place, too
	}
	if window = min(window, o.InflightMax); window < 1 {
		return errUpstreamWindow
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.schedule = newSchedule(window, f.turns, o)
	return nil
}

// send is the sender.
func (f *outFlow) send() {
	defer close(f.stopped)
	for {
		select {
		case <-f.stop:
			return
		case <-f.link.done:
			return
		default:
		}
		l, wait := f.next()
		if l != nil {
			if !l.send() {
				return
			}
			continue
		}
		if !f.sleep(wait) {
			return
		}
	}
}

// next returns the lane that sends next, booked; or how long to wait, 0 for as
// long as nothing changes.
func (f *outFlow) next() (*lane, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, l := range f.lanes {
		waiting, backlog := l.offers()
		f.schedule.offer(i, waiting, backlog)
	}
	now := f.link.age()
	i, wait := f.schedule.next(now)
	if i < 0 {
		return nil, wait
	}
	f.schedule.take(i, now, f.lanes[i].size())
	return f.lanes[i], 0
}

// sleep reports false if the sender is to end.
func (f *outFlow) sleep(d time.Duration) bool {
	var due <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-f.wake:
	case <-due:
	case <-f.stop:
		return false
	case <-f.link.done:
		return false
	}
	return true
}

// kick makes the sender look again.
func (f *outFlow) kick() {
	select {
	case f.wake <- struct{}{}:
	default: // it will anyway
	}
}

// free gives a place in the window back.
func (f *outFlow) free() {
	f.mu.Lock()
	f.schedule.free()
	f.mu.Unlock()
	f.kick()
}

// step notes that something moved towards the upstream.
func (f *outFlow) step(now time.Duration) {
	for _, l := range f.lanes {
		l.progress.step(now)
	}
}

// stuck tells whether a lane waits in vain.
func (f *outFlow) stuck(now, timeout time.Duration) bool {
	for _, l := range f.lanes {
		if l.progress.stuck(now, timeout) {
			return true
		}
	}
	return false
}

// held is what all lanes hold.
func (f *outFlow) held() (items, bytes int) {
	for _, l := range f.lanes {
		i, b := l.budget.held()
		items, bytes = items+i, bytes+b
	}
	return items, bytes
}

// idle tells, after stop was closed, whether nothing is outstanding any more.
func (f *outFlow) idle() bool {
	select {
	case <-f.stopped:
	default:
		return false
	}
	for _, l := range f.lanes {
		if l.progress.outstanding.Load() > 0 {
			return false
		}
	}
	return true
}
