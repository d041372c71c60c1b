package broker

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sluice/broker/auth"
	"sluice/broker/front"
	"sluice/broker/session"
	"sluice/broker/worker"
	"sluice/persist"
	"sluice/platform"
	"sluice/platform/mono"
)

// Options configures a Broker.
type Options struct {
	// Workers is the number of event loops, 1 to 256. Default: the CPUs Go may use.
	Workers int
	// Listeners are opened by Start. None at all is allowed: then only Dial connects.
	Listeners []front.Listener
	// Limits bounds what clients may do.
	Limits session.Limits
	// Classes are sessions whose queues have limits of their own.
	Classes []worker.QueueClass
	// Priority are filters of topics whose messages overtake others on their way
	// to each client. They must be valid, and none of a shared subscription.
	Priority []string
	// ConnectionsMax is the most connections there are at once; more are closed
	// right after accept. At least 1.
	ConnectionsMax int
	// ConnectTimeout is the time a connection has to send its CONNECT.
	ConnectTimeout time.Duration
	// ConnectBytesMax is the largest CONNECT packet: what a peer that nobody
	// knows yet can make us hold.
	ConnectBytesMax int
	// OutputBytesMax is the unsent output of one connection, beyond which
	// messages of QoS 0 are dropped and others wait in the session's queue.
	OutputBytesMax int
	// Rules are who may come in and do what. nil: everybody may do everything.
	Rules *auth.Rules
	// Guard slows and refuses those who guess passwords.
	Guard auth.GuardOptions
	// Pool bounds TLS handshakes and password checks under way.
	Pool front.PoolOptions
	// Of one address (an IPv6 one counts by its /64), and per second; 0: any number.
	ConnectionsPerAddressMax, ConnectsPerSecondMax, ConnectsPerSecondPerAddressMax int
	// What one client may send; beyond it, it is read more slowly. 0: any number.
	MessagesPerSecondMax, BytesPerSecondMax int
	// OpenStore opens the store, which answers to events.
	OpenStore func(events persist.Events) (persist.Store, error)
	// Attach, if not nil, is called by Start when everything runs and before
	// anybody can connect from outside: the place to attach what must see each
	// message, such as bridges. Its error ends Start.
	Attach func(b *Broker) error
	// Logger must be set.
	Logger *zap.Logger
}

// Broker is a running broker.
type Broker struct {
	opt     Options
	log     *zap.Logger
	store   persist.Store
	group   *worker.Group
	pool    *front.Pool
	sockets []*front.Socket
	running sync.WaitGroup
	failed  chan error    // a worker that ended by itself
	broken  chan struct{} // closed when the first one has
	dialed  atomic.Uint32
	stop    sync.Once
	closed  chan struct{} // ends the trimmer
	fail    sync.Once
}

// Start opens the store, restores the sessions, and begins to serve. When it
// returns without error, the listeners accept.
func Start(opt Options) (*Broker, error) {
	b := &Broker{opt: opt, log: opt.Logger, failed: make(chan error, opt.Workers), broken: make(chan struct{}), closed: make(chan struct{})}
	if err := b.start(); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Broker) start() (err error) {
	if b.opt.Guard == (auth.GuardOptions{}) {
		b.opt.Guard = auth.DefaultGuardOptions()
	}
	if err := b.opt.Guard.Validate(); err != nil {
		return err
	}
	if b.sockets, err = front.Open(b.opt.Listeners); err != nil {
		return err
	}
	nets, err := openNets(b.opt.Workers)
	if err != nil {
		return errors.Join(err, front.Close(b.sockets))
	}
	b.pool = front.NewPool(b.opt.Pool)
	b.group = worker.NewGroup(worker.Options{
		Limits: b.opt.Limits, Classes: b.opt.Classes, Priority: b.opt.Priority, ConnectionsMax: b.opt.ConnectionsMax, ConnectTimeout: b.opt.ConnectTimeout,
		ConnectBytesMax: b.opt.ConnectBytesMax, OutputBytesMax: b.opt.OutputBytesMax,
		Logger: b.log, Now: mono.Now(), Random: random, Wall: time.Now,
		Offload: b.pool.Do, Guard: auth.NewGuard(b.opt.Guard),
		ConnectionsPerAddressMax: b.opt.ConnectionsPerAddressMax, ConnectsPerSecondMax: b.opt.ConnectsPerSecondMax,
		ConnectsPerSecondPerAddressMax: b.opt.ConnectsPerSecondPerAddressMax,
		MessagesPerSecondMax:           b.opt.MessagesPerSecondMax, BytesPerSecondMax: b.opt.BytesPerSecondMax,
	}, nets)
	b.group.SetRules(b.opt.Rules)
	if err := b.openStore(); err != nil {
		b.pool.Close()
		return errors.Join(err, closeNets(nets), front.Close(b.sockets))
	}
	for _, w := range b.group.Workers() {
		b.running.Go(func() {
			if err := w.Run(); err != nil {
				b.fail.Do(func() { close(b.broken) })
				b.failed <- err
			}
		})
	}
	b.running.Go(func() { trim(b.closed) })
	if b.opt.Attach != nil {
		err = b.opt.Attach(b)
	}
	if err == nil {
		err = b.listen()
	}
	if err != nil {
		return errors.Join(err, b.Close())
	}
	return nil
}

func (b *Broker) openStore() error {
	store, err := b.opt.OpenStore(b.group)
	if err != nil {
		return err
	}
	b.store = store
	b.group.SetStore(store)
	began := time.Now()
	im, err := store.Load()
	if err != nil {
		return errors.Join(fmt.Errorf("load the store: %w", err), store.Close())
	}
	b.group.Restore(im)
	b.log.Info("store loaded", zap.Int("sessions", len(im.Sessions)), zap.Int("retained", len(im.Retained)),
		zap.Duration("took", time.Since(began)))
	return nil
}

func openNets(n int) ([]worker.Net, error) {
	var nets []worker.Net
	for range n {
		x, err := worker.NewNet()
		if err != nil {
			return nil, errors.Join(err, closeNets(nets))
		}
		nets = append(nets, x)
	}
	return nets, nil
}

func closeNets(nets []worker.Net) error {
	var errs []error
	for _, n := range nets {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // documented never to fail
	return binary.NativeEndian.Uint64(b[:])
}

// Failed gives the error of a worker that could not go on. The broker must be
// closed then.
func (b *Broker) Failed() <-chan error { return b.failed }

// Addresses gives the addresses that the listeners are bound to, in order.
func (b *Broker) Addresses() []string {
	var a []string
	for _, s := range b.sockets {
		a = append(a, s.Bound)
	}
	return a
}

// Dial connects to the broker from within the process: one end of a pair of
// sockets, the other on a worker like any client's. Only such a connection may
// use client ids that begin with session.InternalPrefix.
func (b *Broker) Dial(context.Context) (net.Conn, error) {
	fd, c, err := platform.Socketpair()
	if err != nil {
		return nil, fmt.Errorf("connect to the broker itself: %w", err)
	}
	ws := b.group.Workers()
	ws[int(b.dialed.Add(1))%len(ws)].Enter(fd)
	return c, nil
}

// Stats gives the counters of all workers together, and those of the store.
func (b *Broker) Stats() (worker.Stats, persist.Stats) {
	var sum worker.Stats
	ws := b.group.Workers()
	answers := make(chan worker.Stats, len(ws))
	for _, w := range ws {
		w.Snapshot(answers)
	}
	for range ws {
		select {
		case s := <-answers:
			sum.Add(&s)
		case <-b.broken:
		}
	}
	return sum, b.store.Stats()
}

// drainMax is how long Close waits for acknowledgements that the store owes:
// some commits of a slow SD card.
const drainMax = 3 * time.Second

// Close stops in order: no new connections, nothing more read; acknowledgements
// that wait for the store leave; MQTT 5 clients are told; connections close;
// the store commits what is left. Sessions that outlive their connections are
// there again at the next Start.
func (b *Broker) Close() (err error) {
	b.stop.Do(func() { err = b.close() })
	return err
}

func (b *Broker) close() error {
	ws := b.group.Workers()
	for _, w := range ws {
		w.Quiesce()
	}
	b.drain(time.Now().Add(drainMax))
	for _, w := range ws {
		w.Stop()
	}
	close(b.closed)
	b.running.Wait()
	b.pool.Close()
	err := b.store.Close()
	return errors.Join(err, front.Close(b.sockets))
}

// drain waits until no acknowledgement waits for the store.
func (b *Broker) drain(until time.Time) {
	for time.Now().Before(until) {
		waiting := 0
		for _, w := range b.group.Workers() {
			answer := make(chan int, 1)
			w.Waiting(answer)
			select {
			case n := <-answer:
				waiting += n
			case <-b.broken:
				return
			}
		}
		if waiting == 0 {
			return
		}
		time.Sleep(drainPoll)
	}
	b.log.Warn("stopping although the store has not taken everything: clients will send it again")
}

// drainPoll is how often drain looks: several times per commit.
const drainPoll = 5 * time.Millisecond

// Sessions describes the sessions whose client id begins with prefix.
func (b *Broker) Sessions(prefix string) []worker.SessionInfo {
	var all []worker.SessionInfo
	for _, w := range b.group.Workers() {
		answer := make(chan []worker.SessionInfo, 1)
		w.Inspect(prefix, answer)
		select {
		case s := <-answer:
			all = append(all, s...)
		case <-b.broken:
		}
	}
	return all
}

// Mute takes all subscriptions from a session that nobody is connected to; what
// is queued for it stays.
func (b *Broker) Mute(clientID string) { b.group.Mute(clientID) }
