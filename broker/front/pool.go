package front

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/broker/wire"
)

// DESIGN. What takes long must not run on a worker: TLS handshakes, which block
// on their peers, and password hashing, which computes. Both run here, on
// goroutines that are started for a job, take the next from a queue when it is
// done and end when the queue is empty: an idle pool has none, and however many peers
// come at once after a power cut there are never more than the two limits
// say. Who finds the queue full is told so at once (ErrBusy) and may refuse his peer.
//
// Slow peers must not keep others out. While somebody waits for a slot, handshakes
// whose peers let us wait longer than Patience are cut, the longest waiting
// first, one for each who waits; see relieve. While slots are free, a slow peer has
// all the time until its deadline.

// PoolOptions bound a Pool. The zero value means the defaults.
type PoolOptions struct {
	// HandshakesMax is how many handshakes may be under way. 0: 64, which costs about 2 MiB.
	HandshakesMax int

	// HashersMax is how many jobs given to Do run at the same time. 0: as many as
	// there are CPUs for the process.
	HashersMax int

	// WaitingMax is how many handshakes, and how many jobs, may wait for their turn. A waiting
	// handshake holds a descriptor. 0: 1024.
	WaitingMax int

	// Patience is how long a peer may let a handshake wait, all pauses of one flight
	// together, while others wait for its slot. 0: 1 s, several round trips of
	// a bad mobile link.
	Patience time.Duration
}

func (o PoolOptions) withDefaults() PoolOptions {
	if o.HandshakesMax <= 0 {
		o.HandshakesMax = 64
	}
	if o.HashersMax <= 0 {
		o.HashersMax = max(1, runtime.GOMAXPROCS(0))
	}
	if o.WaitingMax <= 0 {
		o.WaitingMax = 1024
	}
	if o.Patience <= 0 {
		o.Patience = time.Second
	}
	return o
}

var (
	// ErrBusy refuses a job because too many wait already.
	ErrBusy = errors.New("too many wait for a TLS handshake or a password check")

	// ErrSlow ends a handshake whose peer was slow while others waited for its slot.
	ErrSlow = errors.New("TLS handshake: the peer was slow and others were waiting")

	// ErrLate ends a handshake whose deadline passed before or during it.
	ErrLate = errors.New("TLS handshake: not finished in time")

	// ErrClosed ends what is unfinished when the pool is closed, and refuses what comes later.
	ErrClosed = errors.New("the broker is stopping")
)

// Handshake is a TLS handshake to be done. All but Prefix is required.
type Handshake struct {
	// FD is the connection, non-blocking. It stays the caller's, who must not use
	// it and must have taken it from his poller until Done: the pool works on a duplicate, which
	// keeps the connection open should the caller close FD before.
	FD int

	Prefix   []byte // read from the connection already; copied when Pool.Handshake returns nil
	Config   *tls.Config
	Deadline time.Time // of the whole, waiting for a slot included

	// Done is called once, on a goroutine of the pool, when the duplicate is closed. It must not block. t is
	// detached, and nil if err is not.
	Done func(t *wire.TLS, err error)
}

// PoolStats count since the start, but for Running and Waiting.
type PoolStats struct {
	HandshakesDone    int64 // good ones
	HandshakesResumed int64 // of them, those with a session ticket
	HandshakesFailed  int64 // ended by the peer, by TLS, by a deadline, by the pool's end
	HandshakesCut     int64 // of them, those that failed with ErrSlow
	HandshakesRefused int64 // ErrBusy
	HandshakesRunning int
	HandshakesWaiting int

	JobsDone    int64
	JobsRefused int64
	JobsRunning int
	JobsWaiting int
}

// Pool does what takes long, on a bounded number of goroutines. Its methods may
// be called from any goroutine and do not block, but for Close.
type Pool struct {
	opt PoolOptions
	wg  sync.WaitGroup // handshakes, hashers, the function of timer

	mu      sync.Mutex // guards what follows; nobody is called with it held
	closed  bool
	waiting queue[*task]
	running map[*task]struct{}
	timer   *time.Timer // for relieve; nil: not set
	jobs    queue[func()]
	hashers int
	stats   PoolStats // but for Running and Waiting
}

// NewPool returns a pool without a goroutine. It is to be closed.
func NewPool(o PoolOptions) *Pool {
	return &Pool{opt: o.withDefaults(), running: map[*task]struct{}{}}
}

// Handshake starts a handshake or queues it. If it returns an error, Done is not
// called: ErrBusy, ErrClosed, or what the system said to one more descriptor.
func (p *Pool) Handshake(h Handshake) error {
	if h.Config == nil || h.Done == nil || h.Deadline.IsZero() {
		panic(fmt.Sprintf("BUG: incomplete handshake %+v", h))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	free := len(p.running) < p.opt.HandshakesMax
	if !free && p.waiting.len() >= p.opt.WaitingMax {
		p.stats.HandshakesRefused++
		return ErrBusy
	}
	// Duplicated now, not when its turn comes: by then the number can be another connection's. From 3
	// upwards, as a file that the os package takes for the standard output raises SIGPIPE.
	fd, err := unix.FcntlInt(uintptr(h.FD), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("TLS handshake: duplicate of descriptor: %w", err)
	}
	h.Prefix = append([]byte(nil), h.Prefix...)
	t := &task{Handshake: h, pool: p, fd: fd}
	if !free {
		p.waiting.push(t)
		p.arm()
		return nil
	}
	p.running[t] = struct{}{}
	p.wg.Go(func() { p.handshakes(t) })
	return nil
}

// handshakes does t and then those that wait.
func (p *Pool) handshakes(t *task) {
	for t != nil {
		p.open(t)
		layer, err := t.run()
		layer, next, err := p.finish(t, layer, err)
		t.Done(layer, err)
		t = next
	}
}

// open makes the duplicate of t usable under the runtime's poller. From here on t can be cut.
func (p *Pool) open(t *task) {
	f := os.NewFile(uintptr(t.fd), "TLS handshake")
	p.mu.Lock()
	t.file = f
	if p.closed {
		t.cut = ErrClosed
	}
	p.mu.Unlock()
}

// finish closes the duplicate of t, counts the result, and gives t's slot to the
// next one, if there is any.
func (p *Pool) finish(t *task, layer *wire.TLS, err error) (*wire.TLS, *task, error) {
	resumed := err == nil && layer.ConnectionState().DidResume
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, t)
	t.file.Close() // does not shut the connection down, FD is still open
	if err == nil {
		p.stats.HandshakesDone++
		if resumed {
			p.stats.HandshakesResumed++
		}
	} else {
		p.stats.HandshakesFailed++
		switch {
		case t.cut != nil:
			err = t.cut
			if err == ErrSlow {
				p.stats.HandshakesCut++
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = ErrLate
		}
	}
	next, ok := p.waiting.pop()
	if !ok {
		return layer, nil, err
	}
	p.running[next] = struct{}{}
	return layer, next, err
}

// Do runs job on a goroutine of the pool, in its turn. It is for computing, such as
// the hash of a password. If it returns an error, job is not run: ErrBusy, ErrClosed. Jobs
// that have not begun when the pool is closed are dropped.
func (p *Pool) Do(job func()) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return ErrClosed
	case p.hashers < p.opt.HashersMax:
		p.hashers++
		p.wg.Go(func() { p.hash(job) })
	case p.jobs.len() >= p.opt.WaitingMax:
		p.stats.JobsRefused++
		return ErrBusy
	default:
		p.jobs.push(job)
	}
	return nil
}

// hash runs job and then those that wait.
func (p *Pool) hash(job func()) {
	for more := true; more; {
		job()
		p.mu.Lock()
		p.stats.JobsDone++
		if job, more = p.jobs.pop(); !more {
			p.hashers--
		}
		p.mu.Unlock()
	}
}

// Close ends all handshakes, waits for the jobs that run, and for all goroutines. When it
// returns, every Done has been called: those of unfinished handshakes with ErrClosed.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.disarm()
	for t := range p.running {
		p.cut(t, ErrClosed)
	}
	var unbegun []*task
	for t, ok := p.waiting.pop(); ok; t, ok = p.waiting.pop() {
		unbegun = append(unbegun, t)
	}
	for _, ok := p.jobs.pop(); ok; _, ok = p.jobs.pop() {
	}
	p.stats.HandshakesFailed += int64(len(unbegun))
	p.mu.Unlock()
	abandon(unbegun, ErrClosed)
	p.wg.Wait()
}

// Stats tells what the pool has done and does.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.HandshakesRunning, s.HandshakesWaiting = len(p.running), p.waiting.len()
	s.JobsRunning, s.JobsWaiting = p.hashers, p.jobs.len()
	return s
}
