package bridge

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// The states of a Bridge.
const (
	StateStarting   = "starting"   // New was called; Start has not succeeded yet
	StateConnecting = "connecting" // dialling the upstream, attaching locally, subscribing
	StateUp         = "up"         // both sides connected
	StateDegraded   = "degraded"   // as up, but the upstream refused a subscription of an in route: see Status.RefusedFilters
	StateIdle       = "idle"       // no link is wanted: nothing is queued (StartLazy), it was lost (StartOnce), or it is not the time (Options.Active)
	StateDown       = "down"       // waiting to dial again; messages queue in the local session
	StateStopped    = "stopped"    // Close was called
)

// Status is a snapshot of a Bridge. Counters count since New and survive
// reconnects. How much is queued is known to the local sessions, not to us: it
// is there if Options.Backlog is, and some seconds old.
type Status struct {
	Name      string
	State     string    // one of the State constants
	Since     time.Time // when State was entered
	Upstream  string    // the address of the link, or the one that was dialled last; "": none yet
	LastError string    // why the last link ended or could not be made; "": no trouble yet. Without secrets
	LastErrAt time.Time

	RefusedFilters []string // upstream filters refused on this link

	Links      int64 // links that came up
	Reconnects int64 // links that came up after the first

	Received int64 // out: taken from the local session, resent ones included
	Sent     int64 // out: handed to paho; a message with two targets counts twice
	Acked    int64 // out: of Sent, acknowledged upstream, or written if QoS 0

	RemoteReceived int64 // in: messages from the upstream
	LocalAcked     int64 // in: of RemoteReceived, taken over by the local broker, and then acknowledged upstream

	DroppedQoS0     int64 // both: QoS 0, and no connection or no room
	DroppedTooLarge int64 // both: above MaxPayloadBytes, or above what the local broker takes
	DroppedUnrouted int64 // both: no route, or the new name is none
	DroppedRefused  int64 // both: the other side refused for a reason that will not pass

	InflightOut, InflightOutBytes int // taken locally, not acknowledged yet
	InflightIn, InflightInBytes   int // taken from the upstream, not acknowledged yet

	Queues []QueueStatus // the one without a name first
	Routes []RouteStatus // as in Options
}

// RouteStatus counts what went by one route: acknowledged on the other side, or
// written if QoS 0.
type RouteStatus struct {
	Direction Direction
	Filter    string // complete, on the side the messages come from
	Messages  int64
	Bytes     int64 // of payloads
}

// QueueStatus is a snapshot of one queue.
type QueueStatus struct {
	Name       string
	Session    string // client id at the local broker
	Gone       bool   // not configured any more: it is being emptied
	Backlogged bool   // more waits than the window takes

	Received, Sent, Acked int64 // as in Status

	Known     bool          // whether what follows is known
	Messages  int64         // queued or under way
	Bytes     int64         // of those
	Oldest    time.Duration // how long the oldest of them is there; since Start at most
	PerSecond float64       // messages leaving, lately
	ETA       time.Duration // until it is empty if all goes on as it does; negative: it does not become shorter
}

// Backlog is what all queues hold together, and the age of the oldest message.
func (s *Status) Backlog() (b Backlog, oldest time.Duration) {
	for i := range s.Queues {
		q := &s.Queues[i]
		b.Messages, b.Bytes, oldest = b.Messages+q.Messages, b.Bytes+q.Bytes, max(oldest, q.Oldest)
	}
	return b, oldest
}

// Dropped is the sum of all drops.
func (s *Status) Dropped() int64 {
	return s.DroppedQoS0 + s.DroppedTooLarge + s.DroppedUnrouted + s.DroppedRefused
}

// counters are the parts of Status that the data path writes.
type counters struct {
	routes                          []routeCounters // as Options.Routes
	links, received, sent, acked    atomic.Int64
	remoteReceived, localAcked      atomic.Int64
	droppedQoS0, droppedTooLarge    atomic.Int64
	droppedUnrouted, droppedRefused atomic.Int64
}

type routeCounters struct {
	messages, bytes atomic.Int64
}

// by counts a message that went by a route.
func (c *counters) by(route, bytes int) {
	c.routes[route].messages.Add(1)
	c.routes[route].bytes.Add(int64(bytes))
}

// status is what a Bridge knows about itself; all methods may be called from
// any goroutine.
type status struct {
	counters
	born    time.Time     // for the gauges
	changed chan struct{} // one element: there is a new state
	mu      sync.Mutex
	name    string
	queues  []*queueState
	filters []Route // of the counters
	state   string
	since   time.Time
	lastErr string
	errAt   time.Time
	refused []string
	at      string
	link    *link // nil: none
}

func (s *status) enter(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == state {
		return
	}
	s.state, s.since = state, time.Now()
	select {
	case s.changed <- struct{}{}:
	default: // nobody has looked since the last one
	}
	if state != StateDegraded {
		s.refused = nil
	}
}

func (s *status) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastErr, s.errAt = err.Error(), time.Now()
}

func (s *status) setLink(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = l
}

func (s *status) setUpstream(a address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = a.String()
}

func (s *status) setRefused(filters []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = filters
}

func (s *status) snapshot() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Name: s.name, State: s.state, Since: s.since, Upstream: s.at, LastError: s.lastErr, LastErrAt: s.errAt,
		RefusedFilters: append([]string(nil), s.refused...),
		Links:          s.links.Load(), Received: s.received.Load(), Sent: s.sent.Load(), Acked: s.acked.Load(),
		RemoteReceived: s.remoteReceived.Load(), LocalAcked: s.localAcked.Load(),
		DroppedQoS0: s.droppedQoS0.Load(), DroppedTooLarge: s.droppedTooLarge.Load(),
		DroppedUnrouted: s.droppedUnrouted.Load(), DroppedRefused: s.droppedRefused.Load(),
	}
	st.Reconnects = max(st.Links-1, 0)
	for i := range s.routes {
		st.Routes = append(st.Routes, RouteStatus{s.filters[i].Direction, s.filters[i].source(), s.counters.routes[i].messages.Load(), s.counters.routes[i].bytes.Load()})
	}
	for _, q := range living(s.queues) {
		st.Queues = append(st.Queues, q.snapshot(time.Since(s.born)))
	}
	if s.link != nil {
		st.InflightOut, st.InflightOutBytes = s.link.out.held()
		st.InflightIn, st.InflightInBytes = s.link.in.budget.held()
	}
	return st
}

// throttle lets one event per interval through and counts the others, for
// log lines that a misbehaving peer could repeat without end.
type throttle struct {
	mu         sync.Mutex
	last       time.Time
	suppressed int64
}

const throttleInterval = 30 * time.Second

// allow reports whether to log now, and how many were kept back since.
func (t *throttle) allow(now time.Time) (suppressed int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.last.IsZero() && now.Sub(t.last) < throttleInterval {
		t.suppressed++
		return 0, false
	}
	suppressed, t.suppressed, t.last = t.suppressed, 0, now
	return suppressed, true
}

// warn logs through a throttle.
func (t *throttle) warn(log *zap.Logger, msg string, fields ...zap.Field) {
	if n, ok := t.allow(time.Now()); ok {
		log.Warn(msg, append(fields, zap.Int64("suppressed", n))...)
	}
}
