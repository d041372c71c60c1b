package bridge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// DESIGN. The supervisor: one goroutine that makes links one after the other.
// Between two it waits, longer each time, and with jitter, so that a thousand
// gateways do not come back to a restarted cloud in the same second. A link
// that lived for StableAfter resets the wait.

// Bridge carries messages between the local broker and one upstream. All
// methods may be called from any goroutine.
type Bridge struct {
	opts   Options
	log    *logger
	status status
	queues []*queueState

	mu      sync.Mutex
	started bool
	closed  bool

	where  *addresses // the supervisor's, as is speaks
	speaks *protocol

	tails     sync.WaitGroup // senders of lost links, for up to handoverTimeout
	closing   chan struct{}  // closed by Close
	cancel    context.CancelFunc
	ctx       context.Context // ends with Close; for dialling
	ended     chan struct{}   // closed when run has returned
	reported  chan struct{}   // closed when report has
	downLines throttle
}

// New checks the Options and returns a Bridge that does nothing yet.
func New(o Options, log *zap.Logger) (*Bridge, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("bridge %q: %w", o.Name, err)
	}
	o.Routes = slices.Clone(o.Routes)
	o.Queues = slices.Clone(o.Queues)
	b := &Bridge{
		opts:     o,
		log:      &logger{Logger: log.With(zap.String("bridge", o.Name))},
		closing:  make(chan struct{}),
		ended:    make(chan struct{}),
		reported: make(chan struct{}),
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.queues = newQueueStates(&o)
	b.where, b.speaks = newAddresses(&o), newProtocol(o.Protocol)
	b.status.born, b.status.changed = time.Now(), make(chan struct{}, 1)
	b.status.name, b.status.queues = o.Name, b.queues
	b.status.routes, b.status.filters = make([]routeCounters, len(o.Routes)), o.Routes
	b.status.enter(StateStarting)
	return b, nil
}

// Start makes sure that the local session exists with the right subscriptions,
// so that messages queue from now on, and begins to dial the upstream. ctx
// bounds the first part only. An error means that the local broker could not be
// reached or refused; Start may then be tried again.
func (b *Bridge) Start(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.started {
		return fmt.Errorf("bridge %q: already started or closed", b.opts.Name)
	}
	if err := b.prepareSessions(ctx); err != nil {
		err = fmt.Errorf("bridge %q: %w", b.opts.Name, err)
		b.status.failed(err)
		return err
	}
	b.started = true
	go b.run()
	go b.report()
	return nil
}

// Close ends the bridge: it waits up to DrainTimeout for acknowledgements that
// are under way, says goodbye to both sides and waits for all goroutines. The
// local session stays and goes on queueing. It returns nil; further calls do too.
func (b *Bridge) Close() error {
	b.cancel() // first: a Start that is under way holds mu
	b.mu.Lock()
	first, started := !b.closed, b.started
	b.closed = true
	b.mu.Unlock()
	if first {
		close(b.closing)
		if !started {
			close(b.ended)
			close(b.reported)
		}
	}
	<-b.ended
	<-b.reported
	b.tails.Wait()
	b.status.enter(StateStopped)
	return nil
}

// Status returns a snapshot.
func (b *Bridge) Status() Status { return b.status.snapshot() }

func (b *Bridge) run() {
	defer close(b.ended)
	wait := backoff{min: b.opts.ReconnectMin, max: b.opts.ReconnectMax}
	for lost := false; ; {
		if !b.await(lost) {
			b.log.Info("bridge stopped")
			return
		}
		lived, err := b.runLink()
		lost = lost || lived > 0
		if b.leftOnPurpose(err, lived) {
			wait.reset()
			lost = false
			continue
		}
		if errors.Is(err, errClosing) || b.ctx.Err() != nil {
			b.log.Info("bridge stopped")
			return
		}
		if errors.Is(err, errOtherProtocol) {
			b.pause(wait.short())
			continue
		}
		held := lived >= b.opts.StableAfter
		if held {
			wait.reset()
		}
		d := wait.short()
		failed := b.where.current()
		if ours(err) || b.where.lost(held) {
			d = wait.next()
		}
		b.down(failed, err, lived, d)
		b.pause(d)
	}
}

// ours tells whether a link failed on this side, so that another address is no remedy.
func ours(err error) bool {
	var local *localError
	return errors.As(err, &local) || errors.Is(err, errNoLocalPuback)
}

// leftOnPurpose tells whether a link was left because something else is wanted now,
// which is what the next round of run does.
func (b *Bridge) leftOnPurpose(err error, lived time.Duration) bool {
	upstream, was := zap.Stringer("upstream", b.where.current()), zap.Duration("was_up", lived)
	switch {
	case errors.Is(err, errIdle), errors.Is(err, errInactive):
		b.log.Info("bridge leaves", upstream, zap.Error(err), was)
	case errors.Is(err, errRenew):
		b.log.Info("bridge renews its password", upstream, was)
	case errors.Is(err, errPrimaryBack):
		b.log.Info("bridge returns to its primary address", upstream, was)
		b.where.primaryBack()
	default:
		return false
	}
	return true
}

// pause waits, but not longer than until Close.
func (b *Bridge) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.closing:
	}
}

// runLink makes one link and returns how long it was up and why it ended.
func (b *Bridge) runLink() (lived time.Duration, err error) {
	b.status.enter(StateConnecting)
	l := newLink(&b.opts, b.where.current(), b.speaks.version, living(b.queues), &b.status.counters, b.log, &b.tails)
	b.status.setLink(l)
	b.status.setUpstream(b.where.current())
	defer b.status.setLink(nil)
	defer l.close()
	refused, err := l.open(b.ctx)
	dialled := err
	if l.up != nil {
		dialled = nil // and something else failed after it
	}
	again, found := b.speaks.dialled(dialled)
	if found {
		b.log.Info("the upstream does not speak MQTT 5; from now on it is 3.1.1", zap.Stringer("upstream", b.where.current()))
	}
	if again {
		return 0, fmt.Errorf("%w: %w", errOtherProtocol, err)
	}
	if err != nil {
		return 0, err
	}
	up := time.Now()
	b.up(l, refused)
	l.lookAtPrimary(b.where)
	l.renewal(l.who)
	err = l.watch(b.closing)
	return time.Since(up), err
}

func (b *Bridge) up(l *link, refused []string) {
	b.status.links.Add(1)
	state := StateUp
	if len(refused) > 0 {
		state = StateDegraded
	}
	b.status.enter(state)
	b.status.setRefused(refused)
	b.log.Info("bridge up", zap.Stringer("upstream", b.where.current()), zap.String("state", state), zap.Duration("took", l.age()))
}

// down logs each link that was lost, and attempts that failed as the throttle
// allows.
func (b *Bridge) down(upstream address, err error, lived, retry time.Duration) {
	b.status.failed(err)
	b.status.enter(StateDown)
	suppressed, ok := b.downLines.allow(time.Now())
	if ok || lived > throttleInterval {
		b.log.Warn("bridge down", zap.Stringer("upstream", upstream), zap.Error(err),
			zap.Duration("was_up", lived), zap.Duration("retry_in", retry), zap.Int64("suppressed", suppressed))
	}
}

// backoff gives the waits between links: the limit doubles from 2 x min up to
// max, and each wait is drawn evenly from min to the limit. Full jitter would
// draw from 0, which clouds punish (one CONNECT per second and client id).
type backoff struct {
	min, max time.Duration
	limit    time.Duration // of the last wait; 0: none yet
}

func (b *backoff) next() time.Duration {
	switch {
	case b.limit == 0:
		b.limit = min(2*b.min, b.max)
	case b.limit >= b.max/2:
		b.limit = b.max
	default:
		b.limit *= 2
	}
	return b.min + rand.N(b.limit-b.min+1)
}

// short is the wait before another address is tried.
func (b *backoff) short() time.Duration { return b.min + rand.N(b.min+1) }

func (b *backoff) reset() { b.limit = 0 }
