package front

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sluice/broker/wire"
)

// DESIGN. A handshake runs on a duplicate of the descriptor, under the runtime's
// poller, while the original rests with its worker; O_NONBLOCK belongs to what
// both share and is never touched. Its task is the net.Conn that crypto/tls sees, and
// keeps the time that the peer lets us wait, which decides whom to cut:
//   - Only time spent in Read and Write counts, and time since our last flight went out: computing
//     (an RSA signature takes a small ARM core 50 ms and more, times
//     those that want the core too) is not the peer's fault, and a peer that sends
//     single bytes does not start anew with each.
//   - A peer whose bytes are here, but were not read yet for want of a CPU, is spared.

// task is a handshake with its slot, or waiting for one.
type task struct {
	Handshake
	pool *Pool
	fd   int // the duplicate; owned by file once there is one

	// Guarded by pool.mu.
	file   *os.File      // open until the task has left pool.running
	cut    error         // why it is ended before its time: ErrSlow, ErrClosed
	waited time.Duration // for the peer, since our last flight
	since  time.Time     // waiting for the peer right now; zero: not
}

// run does the handshake. If there is an error, the layer is useless.
func (t *task) run() (*wire.TLS, error) {
	if err := t.file.SetDeadline(t.Deadline); err != nil { // not under the runtime's poller: no memory for it
		return nil, err
	}
	t.pool.mu.Lock()
	cut := t.cut
	t.pool.mu.Unlock()
	if cut != nil { // in between SetDeadline may have undone it
		return nil, cut
	}
	layer := wire.NewTLS(t, t.Prefix, t.Config)
	t.Prefix = nil
	// A context that can end would cost a second goroutine.
	if err := layer.Handshake(context.Background()); err != nil {
		return nil, err
	}
	layer.Detach()
	return layer, nil
}

// waits notes that the peer is being waited for.
func (t *task) waits() {
	now := time.Now()
	t.pool.mu.Lock()
	t.since = now
	t.pool.mu.Unlock()
}

// goesOn notes that the peer is not being waited for any more. After a flight of ours (sent) its time starts anew.
func (t *task) goesOn(sent bool) {
	now := time.Now()
	t.pool.mu.Lock()
	t.waited += now.Sub(t.since)
	if sent {
		t.waited = 0
	}
	t.since = time.Time{}
	t.pool.mu.Unlock()
}

// Read reads from the peer.
func (t *task) Read(b []byte) (int, error) {
	t.waits()
	n, err := t.file.Read(b)
	t.goesOn(false)
	return n, err
}

// Write writes to the peer. It can block: on a peer that closed its window.
func (t *task) Write(b []byte) (int, error) {
	t.waits()
	n, err := t.file.Write(b)
	t.goesOn(true)
	return n, err
}

// Close does nothing: the task's slot and descriptor end together, see finish.
func (t *task) Close() error { return nil }

// LocalAddr returns nothing of interest, as does RemoteAddr: crypto/tls does not look at it.
func (t *task) LocalAddr() net.Addr { return &net.UnixAddr{} }

// RemoteAddr returns an empty address.
func (t *task) RemoteAddr() net.Addr { return &net.UnixAddr{} }

// SetDeadline is a part of net.Conn, as are the next two. The deadline is the pool's to set.
func (t *task) SetDeadline(time.Time) error { return errors.ErrUnsupported }

// SetReadDeadline is not supported.
func (t *task) SetReadDeadline(time.Time) error { return errors.ErrUnsupported }

// SetWriteDeadline keeps the handshake's deadline: crypto/tls sets its own for the alert in Close only.
func (t *task) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// ready tells whether bytes of the peer (or its end) are waiting to be read. pool.mu is held, so fd is open.
func (t *task) ready() bool {
	fds := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLIN|unix.POLLHUP|unix.POLLERR) != 0
}

// cut ends a running handshake before its time: its Read or Write fails. mu is held.
func (p *Pool) cut(t *task, why error) {
	if t.cut == nil {
		t.cut = why
		if t.file != nil {
			_ = t.file.SetDeadline(time.Unix(1, 0)) // without a poller it has failed already
		}
	}
}

// relieve cuts slow handshakes in favour of those that wait, and ends the waiting of those
// that are too late. It runs when the timer fires, on a goroutine of its own.
func (p *Pool) relieve() {
	defer p.wg.Done()
	now := time.Now()
	p.mu.Lock()
	if p.timer == nil { // disarmed while it fired
		p.mu.Unlock()
		return
	}
	p.timer = nil
	var late []*task
	// Deadlines are taken to be in the order of coming: who is late behind one who is not is told so when
	// that one's turn comes.
	for t, ok := p.waiting.peek(); ok && !t.Deadline.After(now); t, ok = p.waiting.peek() {
		p.waiting.pop()
		late = append(late, t)
	}
	p.stats.HandshakesFailed += int64(len(late))
	ending := 0
	for t := range p.running {
		if t.cut != nil {
			ending++
		}
	}
	for ; ending < p.waiting.len(); ending++ {
		t := p.slowest(now)
		if t == nil {
			break
		}
		p.cut(t, ErrSlow)
	}
	p.arm()
	p.mu.Unlock()
	abandon(late, ErrLate)
}

// slowest is the handshake to be cut next: of those beyond patience, the one whose peer was waited for longest. mu is held.
func (p *Pool) slowest(now time.Time) *task {
	var worst *task
	for t := range p.running {
		if t.cut != nil || t.since.IsZero() || t.patience(now, p.opt.Patience) > 0 {
			continue
		}
		if worst != nil && t.patience(now, 0) >= worst.patience(now, 0) {
			continue
		}
		if !t.ready() {
			worst = t
		}
	}
	return worst
}

// patience is how much of limit is left for the peer, at now.
func (t *task) patience(now time.Time, limit time.Duration) time.Duration {
	return limit - t.waited - now.Sub(t.since)
}

// relieveMin keeps relieve from being called in a tight loop when a peer beyond patience cannot be cut yet.
const relieveMin = 20 * time.Millisecond

// arm sets the timer, if somebody waits: for when the first running handshake may be beyond patience, or the first
// waiting one too late. mu is held.
func (p *Pool) arm() {
	first, ok := p.waiting.peek()
	if !ok || p.timer != nil || p.closed {
		return
	}
	now := time.Now()
	next := min(p.opt.Patience, first.Deadline.Sub(now))
	for t := range p.running {
		if t.cut == nil && !t.since.IsZero() {
			next = min(next, t.patience(now, p.opt.Patience))
		}
	}
	p.wg.Add(1)
	p.timer = time.AfterFunc(max(next, relieveMin), p.relieve)
}

// disarm stops the timer. mu is held.
func (p *Pool) disarm() {
	if p.timer != nil && p.timer.Stop() {
		p.wg.Done()
	}
	p.timer = nil
}

// abandon ends handshakes that were never begun.
func abandon(ts []*task, why error) {
	for _, t := range ts {
		unix.Close(t.fd)
		t.Done(nil, why)
	}
}
