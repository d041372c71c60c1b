package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sluice/broker/mqtt"

	"go.uber.org/zap"
)

// DESIGN. A link is one life of the connections: first the uplink, then the
// local session of each queue, so that messages leave the sessions only when
// there is somewhere for them to go. Whichever part fails first calls fail, with the
// reason; that closes done and all sockets, which makes everybody else return.
// Nothing is repaired within a link and nothing survives it.
//
// The supervisor's goroutine makes the link (open), watches it (watch) and
// takes it apart (close). close waits for the goroutines of the link.
type link struct {
	opts     *Options
	address  address
	version  mqtt.Version // spoken with the upstream
	counters *counters
	log      *logger

	born  time.Time
	up    upstream // nil until open has dialled
	local *local   // of the first lane, which brings messages in, too; nil until open has attached it
	out   *outFlow
	in    *inFlow

	who         Login       // what the uplink was dialled with
	primaryBack atomic.Bool // the primary address can be reached again
	renew       atomic.Bool // there is a new password

	wg    sync.WaitGroup
	tails *sync.WaitGroup // the Bridge's; see open

	done   chan struct{} // closed by fail
	mu     sync.Mutex
	err    error    // why it ended; nil: alive
	locals []*local // those attached
}

// logger is the Bridge's zap logger with a throttle for what a peer can cause
// again and again.
type logger struct {
	*zap.Logger
	data throttle // about single messages
}

func (l *logger) warn(msg string, fields ...zap.Field) { l.data.warn(l.Logger, msg, fields...) }

// localError is an error of a local session, which no other upstream would cure.
type localError struct {
	session string
	err     error
}

func (e *localError) Error() string { return "local session " + e.session + ": " + e.err.Error() }

func (e *localError) Unwrap() error { return e.err }

var errClosing = errors.New("bridge is closing")

// watchMax is the longest interval between two looks of the watchdog.
const watchMax = time.Second

func newLink(o *Options, at address, version mqtt.Version, queues []*queueState, c *counters, log *logger, tails *sync.WaitGroup) *link {
	l := &link{opts: o, address: at, version: version, counters: c, log: log, tails: tails, born: time.Now(), done: make(chan struct{})}
	l.out = newOutFlow(l, queues)
	l.in = newInFlow(l)
	return l
}

// age is the monotonic time of the link.
func (l *link) age() time.Duration { return time.Since(l.born) }

// fail ends the link; the first reason counts. Any goroutine may call it; it
// does not block.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	close(l.done)
	l.in.budget.close()
	for _, x := range l.out.lanes {
		x.budget.close()
	}
	if l.up != nil {
		l.up.kill(err)
	}
	for _, x := range l.locals {
		x.kill(err)
	}
}

func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// adopt makes a connection known to fail; it reports false if the link has
// failed already.
func (l *link) adopt(up upstream, loc *local) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if up != nil {
		l.up = up
	}
	if loc != nil {
		l.locals = append(l.locals, loc)
	}
	return l.err == nil
}

// open connects both sides, subscribes, and lets messages flow. It returns the
// upstream filters that were refused. After an error the caller calls close.
func (l *link) open(ctx context.Context) (refused []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.opts.ConnectTimeout)
	defer cancel()
	d := dialing{
		opts: l.opts, at: l.address, version: l.version,
		onMessage: l.in.take, onLost: l.fail, moved: func() { l.out.step(l.age()) },
	}
	up, who, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	l.who = who
	if !l.adopt(up, nil) {
		return nil, l.reason()
	}
	if err := l.out.obey(up.limits()); err != nil {
		return nil, err
	}
	for _, x := range l.out.lanes {
		if err := l.attach(ctx, x); err != nil {
			return nil, &localError{x.queue.session, err}
		}
	}
	if refused, err = l.subscribeUpstream(ctx); err != nil {
		return nil, err
	}
	l.notify(notifyUp)
	// When the connection is lost, a Publish that is under way hangs in paho
	// for handoverTimeout, as often as not. The next link does not wait for
	// that: the sender of this one goes as a tail, which touches nothing but
	// its own dead link.
	l.tails.Go(l.out.send)
	for _, x := range l.out.lanes {
		l.wg.Go(x.settle)
	}
	return refused, nil
}

// What is said on Options.ConnectionTopic.
const (
	notifyUp   = "1"
	notifyDown = "0"
)

// notify tells the upstream our state. Nobody waits for its acknowledgement: if
// it is lost, so is the link.
func (l *link) notify(state string) {
	if l.opts.Notifications {
		l.up.publish(&message{topic: l.opts.ConnectionTopic(), payload: []byte(state), qos: 1, retain: true})
	}
}

// attach connects a lane to its session. The first lane also brings in what
// the upstream sends.
func (l *link) attach(ctx context.Context, x *lane) error {
	loc, err := attachLocal(ctx, l.opts, x.queue.session)
	if err != nil {
		return err
	}
	x.local = loc
	onPuback := ignorePuback
	if x.index == 0 {
		l.local, onPuback = loc, l.in.puback
	}
	ok := l.adopt(nil, loc)
	if x.index == 0 {
		l.in.open()
		l.wg.Go(l.in.send)
		l.wg.Go(l.in.settle)
	}
	l.wg.Go(func() { x.read(onPuback) })
	switch {
	case !ok:
		loc.kill(l.reason()) // fail came too early to do it
		return l.reason()
	case loc.sessionPresent:
		return nil
	case x.queue.gone: // by itself, and this is a new one
		x.end()
		return nil
	}
	l.log.Warn("local session was gone; what it had queued is lost", zap.String("session", x.queue.session))
	return loc.subscribe(ctx, localSubscriptions(l.opts.Routes, x.queue.Name), l.out.generation)
}

// subscribeUpstream happens before anything is published, so the guard can
// tell a SUBACK from an acknowledgement of a publish.
func (l *link) subscribeUpstream(ctx context.Context) (refused []string, err error) {
	for _, s := range subscriptions(l.in.routes) {
		code, err := l.up.subscribe(ctx, s.filter, s.qos, l.done)
		switch {
		case err != nil && l.reason() != nil:
			return nil, l.reason()
		case err != nil:
			return nil, fmt.Errorf("subscription %q: %w", s.filter, err)
		case code > 2:
			refused = append(refused, s.filter)
			l.log.Warn("upstream refuses a subscription", zap.String("filter", s.filter))
		case code < s.qos:
			l.log.Info("upstream grants a lower QoS", zap.String("filter", s.filter), zap.Uint8("qos", code))
		}
	}
	return refused, nil
}

// watch returns why the link has ended: by itself, or because closing was
// closed, in which case it has been drained.
func (l *link) watch(closing <-chan struct{}) error {
	timeout := l.opts.progressTimeout()
	tick := time.NewTicker(min(timeout/4+time.Millisecond, watchMax))
	defer tick.Stop()
	var pinged time.Duration
	var use use
	for {
		select {
		case <-l.done:
			return l.reason()
		case <-closing:
			l.drain()
			return errClosing
		case <-tick.C:
		}
		now := l.age()
		switch {
		case l.out.stuck(now, timeout):
			l.fail(errNoPuback)
		case l.in.progress.stuck(now, timeout):
			l.fail(errNoLocalPuback)
		case l.local.keepAlive > 0 && now-pinged >= l.local.keepAlive/2:
			pinged = now
			for _, x := range l.out.lanes {
				x.local.ping()
			}
		}
		why := use.over(l, now)
		if why == nil && l.primaryBack.Load() {
			why = errPrimaryBack
		}
		if why == nil && l.renew.Load() {
			why = errRenew
		}
		if why != nil {
			l.drain()
			return why
		}
		for _, x := range l.out.lanes {
			if x.empty() {
				x.leaving.Store(true)
				l.wg.Go(x.end)
			}
		}
	}
}

// drain takes no new messages and waits for the acknowledgements of those under
// way, at most DrainTimeout.
func (l *link) drain() {
	l.in.stopping.Store(true)
	close(l.out.stop)
	for _, x := range l.out.lanes {
		x.budget.close() // a reader that waits for room must see the broker's goodbye
	}
	end := time.NewTimer(l.opts.DrainTimeout)
	defer end.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !l.out.idle() || !l.in.idle() {
		select {
		case <-look.C:
		case <-end.C:
			return
		case <-l.done:
			return
		}
	}
}

// close ends the link, politely if it is alive, and waits for its goroutines
// but the tail. That one and those of paho end soon after by themselves.
func (l *link) close() {
	if l.reason() == nil {
		// The acknowledgements of what was drained are still in the buffers;
		// both calls send them. The uplink first: losing it says nothing,
		// while losing the local session calls fail.
		if l.up != nil {
			l.notify(notifyDown) // a DISCONNECT takes the will back
			l.up.disconnect()
		}
		for _, x := range l.out.lanes {
			if x.local != nil && !x.leaving.Swap(true) {
				x.local.leave()
			}
		}
	}
	l.fail(errClosing)
	if l.up != nil {
		l.up.close()
	}
	for _, x := range l.out.lanes {
		if x.local != nil {
			<-x.local.out.ended
		}
	}
	l.wg.Wait()
}
