package worker

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sluice/broker/mqtt"
	"sluice/broker/session"
	"sluice/broker/topic"
	"sluice/persist"
	"sluice/platform"
	"sluice/platform/mono"
)

// readBytes is the size of a worker's read buffer, and so the most that is read
// from one connection at once.
const readBytes = 64 << 10

// turnBytesMax is how much a turn reads; what sockets have beyond it waits for
// the next turn, after mail and timers. It bounds what a turn can put into
// outboxes.
const turnBytesMax = 1 << 20

// Worker runs its connections and sessions. All fields but inbox belong to the
// goroutine that runs it.
type Worker struct {
	id    int
	g     *Group
	net   Net
	log   *zap.Logger
	inbox inbox

	now       mono.Time
	events    []platform.Event
	unread    []platform.Event // of events, not yet looked at: the turn was full
	conns     table[*conn]
	clients   table[*client]
	byID      map[string]*client
	listeners []*listener
	timers    timers
	bounds    bounds
	leaving   map[uint64]*leaving  // by the id of the session that was
	debts     map[string]rate      // of clients that have gone, by client id; see owe
	expiries  map[uint64]mono.Time // when the identities of connections end, by name; few have one
	holds     map[uint64]*hold     // by session id
	holding   []*hold              // the same, those first that were not tried for longest
	hungry    atomic.Bool          // some are held, and no nudge is on its way; any worker

	// of the turn
	fx       session.Effects
	batch    persist.Batch
	durables []durable
	fetches  []persist.FetchRequest
	out      []*bundle // by target worker
	touched  []*conn
	dying    []*conn
	turnRead int
	pressed  bool    // a worker we post to is congested
	posted   bool    // the connection being read has given something to another worker
	held     []*conn // not read until the congestion is over
	again    bool    // what is being submitted was refused before
	drained  []*conn // their output was over its limit and has been written since
	stopping bool
	stopped  bool

	// scratch
	buf      []byte
	plain    []byte
	props    []byte
	routed   []uint32 // by worker: index+1 of the message being routed in its outbox
	hits     topic.Hits
	merged   []target
	ids      []uint32
	grants   []session.Grant
	gone     []string
	retained []*mqtt.Message
	pub      mqtt.Publish
	willPub  mqtt.Publish
	connect  mqtt.Connect
	admitted session.Admission
	ack      mqtt.Ack
	sub      mqtt.Subscribe
	unsub    mqtt.Unsubscribe
	disc     mqtt.Disconnect
	chunks   chunks
	logged   logLimit

	stats Stats
}

func newWorker(g *Group, id int, n Net) *Worker {
	w := &Worker{
		id: id, g: g, net: n, log: g.log.With(zap.Int("worker", id)),
		events: make([]platform.Event, 256),
		byID:   make(map[string]*client), expiries: make(map[uint64]mono.Time), leaving: make(map[uint64]*leaving), debts: make(map[string]rate),
		holds:  make(map[uint64]*hold),
		buf:    make([]byte, readBytes),
		bounds: bounds{acks: acksMax, turnBytes: turnBytesMax},
	}
	w.inbox.wake = n.Wake
	w.batch.Owner = id
	w.fx.Batch = &w.batch
	w.now = g.opt.Now
	w.timers.init(w.now)
	return w
}

// Run works until Stop. It is the worker's goroutine.
func (w *Worker) Run() error {
	for !w.stopped {
		deadline := w.now // a poll
		if w.idle() {
			deadline = w.timers.next()
		}
		n, _, err := w.net.Wait(w.events, deadline)
		if err != nil {
			return err
		}
		w.Turn(mono.Now(), w.events[:n])
	}
	m, _ := w.inbox.take()
	for _, h := range m.handovers { // on their way when we stopped
		w.leave(h.conn)
		w.drop(h.conn.fd, h.conn.listener)
	}
	return w.net.Close()
}

// idle tells whether the worker has nothing to do but wait.
func (w *Worker) idle() bool {
	return len(w.unread) == 0 && len(w.dying) == 0 && len(w.drained) == 0 && w.inbox.sleep()
}

// Idle is idle for the simulator, which also wants to know when a timer is due
// (0: none).
func (w *Worker) Idle() (idle bool, timer mono.Time) { return w.idle(), w.timers.next() }

// Turn does one turn: see the package comment.
func (w *Worker) Turn(now mono.Time, events []platform.Event) {
	w.now = now
	w.turnRead = 0
	w.resumeDrained()
	w.readEvents(events)
	w.takeMail()
	w.timers.advance(w.now, w.timerStands, w.timerDue)
	w.settle()
}

// Call runs f on the worker's goroutine and does not wait for it.
func (w *Worker) Call(f func(*Worker)) { w.inbox.postCall(f) }

func (w *Worker) readEvents(events []platform.Event) {
	if len(w.unread) > 0 {
		// Old ones first, that nobody starves. While there are any left, new
		// ones are not kept: they are level-triggered and will come again.
		old := w.unread
		w.unread = nil
		if w.handleEvents(old); len(w.unread) > 0 {
			return
		}
	}
	w.handleEvents(events)
}

func (w *Worker) handleEvents(events []platform.Event) {
	for i := range events {
		if w.turnRead >= w.bounds.turnBytes {
			w.unread = append(w.unread, events[i:]...)
			return
		}
		w.event(&events[i])
	}
}

// listenerTag marks the tags of listening sockets; the rest is an index.
const listenerTag platform.Tag = 1 << 63

func connTag(slot, gen uint32) platform.Tag { return platform.Tag(gen)<<32 | platform.Tag(slot) }

func (w *Worker) event(e *platform.Event) {
	if e.Tag&listenerTag != 0 {
		w.accept(w.listeners[int(e.Tag&^listenerTag)])
		return
	}
	c, ok := w.conns.get(uint32(e.Tag), uint32(e.Tag>>32))
	if !ok || c.dying {
		return
	}
	if e.Writable {
		w.writable(c)
	}
	if (e.Readable || e.Hangup) && !c.dying {
		w.readable(c, e.Hangup)
	}
}

func (w *Worker) takeMail() {
	m, waiters := w.inbox.take()
	for i := 0; waiters != 0 && i < len(w.g.workers); i++ {
		if waiters&(1<<(i%64)) != 0 {
			w.g.workers[i].Call((*Worker).release)
		}
	}
	if m.empty() {
		w.inbox.giveBack(m)
		return
	}
	for _, h := range m.handovers {
		w.takeOver(h)
	}
	for i := range m.bundles {
		w.deliverBundle(m.bundles[i])
		m.bundles[i].release()
	}
	for i := range m.settled {
		w.settled(&m.settled[i])
	}
	for i := range m.fetched {
		w.fetchedMail(&m.fetched[i])
	}
	for _, f := range m.calls {
		f(w)
	}
	w.inbox.giveBack(m)
}

// client finds a session by the id that others know it by.
func (w *Worker) client(id uint64) (*client, bool) {
	return w.clients.get(uint32(id), uint32(id>>32)&genMask)
}

func sessionID(worker int, slot, gen uint32) uint64 {
	return uint64(worker)<<56 | uint64(gen)<<32 | uint64(slot)
}

func ownerOf(id uint64) int { return int(id >> 56) }

func (w *Worker) settled(s *settled) {
	for _, t := range s.tokens {
		c, ok := w.client(t.Session)
		if !ok || s.err != nil && w.holdsBack(t, s.err) {
			continue
		}
		fx := w.begin(c)
		c.Accepted(fx, t, s.err)
		w.end(c)
		if c.conn != nil {
			w.unpause(c.conn)
		}
	}
}

func (w *Worker) fetchedMail(f *persist.Fetched) {
	if l := w.leaving[f.Tag]; l != nil {
		w.handOn(l, f)
		return
	}
	c, ok := w.client(f.Tag)
	if !ok {
		return
	}
	fx := w.begin(c)
	c.Fetched(fx, f, w.now)
	w.end(c)
}

// begin readies the effects for an event of a session.
func (w *Worker) begin(c *client) *session.Effects {
	fx := &w.fx
	fx.Close = false
	fx.Send, fx.Blocked = nil, false
	if k := c.conn; k != nil {
		// Nothing follows the packet that closes a connection [MQTT-3.14.4-1].
		fx.Close = k.dying
		fx.Blocked = w.clogged(k) || k.dying
		if k.out == nil {
			k.out = w.chunks.get(k.outClass)
		}
		fx.Send, fx.SendMax = k.out, int(k.outOff)+w.g.opt.OutputBytesMax
	}
	return fx
}

// end carries out the effects.
func (w *Worker) end(c *client) {
	fx := &w.fx
	if k := c.conn; k != nil {
		k.out = fx.Send
		w.touch(k)
		if fx.Blocked {
			k.blocked = true
		}
		if fx.Close {
			w.kill(k, fx.Reason, fx.Detail)
		}
	}
	if len(fx.Fetches) > 0 {
		w.fetches = append(w.fetches, fx.Fetches...)
		fx.Fetches = fx.Fetches[:0]
	}
}

// logLimit lets a few lines a second through, so that a storm of failing
// clients does not fill the log.
type logLimit struct {
	second  mono.Time
	n       int
	skipped int
}

// logsPerSecond is how many lines about clients one worker writes in a second.
const logsPerSecond = 10

func (l *logLimit) allow(now mono.Time) (skipped int, ok bool) {
	if now.Sub(l.second) >= time.Second {
		l.second, l.n = now, 0
	}
	if l.n++; l.n > logsPerSecond {
		l.skipped++
		return 0, false
	}
	skipped, l.skipped = l.skipped, 0
	return skipped, true
}
