package front

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/broker/wire"
	"sluice/platform"
)

// peer is a client that may do its handshake with a pool, and what came of it.
type peer struct {
	fd   int // the worker's
	conn net.Conn
	done chan result
}

type result struct {
	layer *wire.TLS
	err   error
}

// newPeer connects a client; both ends are closed with the test.
func newPeer(t testing.TB) *peer {
	t.Helper()
	fd, conn, err := platform.Socketpair()
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	return &peer{fd, conn, make(chan result, 1)}
}

// enter gives the peer to the pool.
func (p *peer) enter(pool *Pool, config *tls.Config, limit time.Duration, prefix ...byte) error {
	return pool.Handshake(Handshake{FD: p.fd, Prefix: prefix, Config: config, Deadline: time.Now().Add(limit),
		Done: func(l *wire.TLS, err error) {
			if (l == nil) == (err == nil) {
				panic(fmt.Sprintf("Done with %v and %v", l, err))
			}
			p.done <- result{l, err}
		}})
}

// result waits for Done.
func (p *peer) result(t testing.TB) result {
	t.Helper()
	select {
	case r := <-p.done:
		return r
	case <-time.After(patience):
		t.Fatal("Done was not called")
		panic("unreachable")
	}
}

func newTestPool(t testing.TB, o PoolOptions) *Pool {
	p := NewPool(o)
	t.Cleanup(p.Close)
	return p
}

// readable waits until fd has something to read.
func readable(t testing.TB, fd int) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, int(patience.Milliseconds())); n != 1 {
		t.Fatalf("nothing comes: %d, %v", n, err)
	}
}

func openFiles(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(all)
}

// The connection goes on under the worker's descriptor, with the bytes that were read before the handshake.
func TestHandshake(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, prefix := range []int{0, 1, 100} {
			t.Run(fmt.Sprint(tls.VersionName(version), " ", prefix), func(t *testing.T) {
				s := newSite(t)
				server, pool := s.tls(t), newTestPool(t, PoolOptions{})
				p := newPeer(t)
				defer platform.CloseFD(p.fd)
				files := openFiles(t)
				c := s.clientConfig()
				c.MaxVersion = version
				client := tls.Client(p.conn, c)
				handshake := make(chan error, 1)
				go func() { handshake <- client.Handshake() }()
				read := make([]byte, prefix)
				if prefix > 0 {
					readable(t, p.fd)
					if n, err := platform.Read(p.fd, read); n != prefix || err != nil {
						t.Fatal(n, err)
					}
				}
				must(t, p.enter(pool, server.Config(), patience, read...))
				r := p.result(t)
				must(t, r.err)
				must(t, <-handshake)
				eventually(t, "the pool's goroutines end", func() bool { return pool.Stats().HandshakesRunning == 0 })
				if now := openFiles(t); now != files {
					t.Errorf("%d files were open, now %d", files, now)
				}
				if flags, err := unix.FcntlInt(uintptr(p.fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
					t.Fatalf("O_NONBLOCK is lost: %#x, %v", flags, err)
				}
				_, err := client.Write([]byte("hello"))
				must(t, err)
				readable(t, p.fd)
				buf := make([]byte, 4096)
				n, err := platform.Read(p.fd, buf)
				must(t, err)
				if got, err := r.layer.In(nil, buf[:n]); string(got) != "hello" || err != nil {
					t.Fatalf("got %q, %v", got, err)
				}
				out, err := r.layer.Out(nil, []byte("goodbye"))
				must(t, err)
				if n, err := platform.Write(p.fd, out); n != len(out) || err != nil {
					t.Fatal(n, err)
				}
				if n, err := client.Read(buf); string(buf[:n]) != "goodbye" || err != nil {
					t.Fatalf("got %q, %v", buf[:n], err)
				}
				if got := pool.Stats(); got != (PoolStats{HandshakesDone: 1}) {
					t.Errorf("statistics %+v", got)
				}
			})
		}
	}
}

func TestHandshakeResumed(t *testing.T) {
	s := newSite(t)
	server, pool, c := s.tls(t), newTestPool(t, PoolOptions{}), s.clientConfig()
	c.MaxVersion = tls.VersionTLS12 // the ticket is a part of the handshake
	for range 3 {
		p := newPeer(t)
		defer platform.CloseFD(p.fd)
		must(t, p.enter(pool, server.Config(), patience))
		must(t, tls.Client(p.conn, c).Handshake())
		must(t, p.result(t).err)
	}
	if got := pool.Stats(); got.HandshakesDone != 3 || got.HandshakesResumed != 2 {
		t.Errorf("statistics %+v", got)
	}
}

// After a failure the peer has its alert and the connection is the worker's to close.
func TestHandshakeFails(t *testing.T) {
	s := newSite(t)
	server, pool := s.tls(t), newTestPool(t, PoolOptions{})
	p := newPeer(t)
	defer platform.CloseFD(p.fd)
	files := openFiles(t)
	_, err := p.conn.Write([]byte("\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02id"))
	must(t, err)
	must(t, p.enter(pool, server.Config(), patience))
	if r := p.result(t); r.err == nil {
		t.Fatal("a CONNECT without TLS is taken for a handshake")
	}
	if now := openFiles(t); now != files {
		t.Errorf("%d files were open, now %d", files, now)
	}
	if _, err := platform.Write(p.fd, []byte("more")); err != nil {
		t.Errorf("the connection was shut down: %v", err)
	}
	if got := pool.Stats(); got.HandshakesFailed != 1 {
		t.Errorf("statistics %+v", got)
	}
	if err := (&peer{fd: 1 << 20}).enter(pool, server.Config(), patience); !errors.Is(err, unix.EBADF) {
		t.Errorf("a descriptor that is not open: %v", err)
	}
}

// Who waits for a slot is told as timely as who has one.
func TestHandshakeDeadline(t *testing.T) {
	s := newSite(t)
	server, pool := s.tls(t), newTestPool(t, PoolOptions{HandshakesMax: 1, Patience: time.Hour})
	first, second := newPeer(t), newPeer(t)
	defer platform.CloseFD(first.fd)
	defer platform.CloseFD(second.fd)
	must(t, first.enter(pool, server.Config(), time.Hour))
	must(t, second.enter(pool, server.Config(), 30*time.Millisecond))
	if r := second.result(t); r.err != ErrLate {
		t.Fatalf("waiting: %v", r.err)
	}
	third := newPeer(t)
	defer platform.CloseFD(third.fd)
	pool = newTestPool(t, PoolOptions{HandshakesMax: 1})
	must(t, third.enter(pool, server.Config(), 30*time.Millisecond))
	if r := third.result(t); r.err != ErrLate {
		t.Fatalf("running: %v", r.err)
	}
}

func TestPoolIsBounded(t *testing.T) {
	s := newSite(t)
	server := s.tls(t)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	pool := NewPool(PoolOptions{HandshakesMax: 4, WaitingMax: 16, Patience: time.Hour})
	var peers []*peer
	for i := range 40 {
		p := newPeer(t)
		defer platform.CloseFD(p.fd)
		switch err := p.enter(pool, server.Config(), time.Hour); {
		case i < 20 && err == nil:
			peers = append(peers, p)
		case i >= 20 && err == ErrBusy:
		default:
			t.Fatalf("handshake %d: %v", i, err)
		}
	}
	if now := runtime.NumGoroutine(); now > goroutines+4 {
		t.Errorf("%d goroutines, now %d", goroutines, now)
	}
	if got := pool.Stats(); got != (PoolStats{HandshakesRefused: 20, HandshakesRunning: 4, HandshakesWaiting: 16}) {
		t.Errorf("statistics %+v", got)
	}
	pool.Close()
	for _, p := range peers {
		select {
		case r := <-p.done:
			if r.err != ErrClosed {
				t.Errorf("unfinished: %v", r.err)
			}
		default:
			t.Error("Done was not called before Close returned")
		}
	}
	if now := openFiles(t); now != files+80 {
		t.Errorf("%d files are left open", now-files-80)
	}
	if err := peers[0].enter(pool, server.Config(), patience); err != ErrClosed {
		t.Errorf("after Close: %v", err)
	}
	if got := pool.Stats(); got != (PoolStats{HandshakesFailed: 20, HandshakesRefused: 20}) {
		t.Errorf("statistics %+v", got)
	}
	pool.Close()
}

// For one who waits, the slowest loses its slot, and nobody else.
func TestSlowPeerIsCut(t *testing.T) {
	s := newSite(t)
	server, pool := s.tls(t), newTestPool(t, PoolOptions{HandshakesMax: 2, Patience: 50 * time.Millisecond})
	slowest, slow, good := newPeer(t), newPeer(t), newPeer(t)
	for i, p := range []*peer{slowest, slow, good} {
		defer platform.CloseFD(p.fd)
		must(t, p.enter(pool, server.Config(), time.Hour))
		eventually(t, "the peer is waited for", func() bool { return i == 2 || waitedFor(pool) == i+1 })
	}
	must(t, tls.Client(good.conn, s.clientConfig()).Handshake())
	must(t, good.result(t).err)
	if r := slowest.result(t); r.err != ErrSlow {
		t.Errorf("the slowest: %v", r.err)
	}
	must(t, tls.Client(slow.conn, s.clientConfig()).Handshake())
	if r := slow.result(t); r.err != nil {
		t.Errorf("the other: %v", r.err)
	}
	if got := pool.Stats(); got.HandshakesCut != 1 || got.HandshakesFailed != 1 || got.HandshakesDone != 2 {
		t.Errorf("statistics %+v", got)
	}
}

// waitedFor is how many peers the pool is waiting for.
func waitedFor(pool *Pool) (n int) {
	pool.mu.Lock()
	defer pool.mu.Unlock()
	for t := range pool.running {
		if !t.since.IsZero() {
			n++
		}
	}
	return n
}

// Single bytes do not buy time.
func TestDrippingPeerIsCut(t *testing.T) {
	s := newSite(t)
	server, pool := s.tls(t), newTestPool(t, PoolOptions{HandshakesMax: 1, Patience: 100 * time.Millisecond})
	drip, good := newPeer(t), newPeer(t)
	defer platform.CloseFD(drip.fd)
	defer platform.CloseFD(good.fd)
	must(t, drip.enter(pool, server.Config(), time.Hour))
	must(t, good.enter(pool, server.Config(), time.Hour))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	hello := append([]byte{22, 3, 1, 0x20, 0}, make([]byte, 8192)...)
	for i := 0; ; i++ {
		if _, err := drip.conn.Write(hello[i : i+1]); err != nil {
			t.Fatal(err)
		}
		<-tick.C
		select {
		case r := <-drip.done:
			if r.err != ErrSlow {
				t.Fatal(r.err)
			}
			must(t, tls.Client(good.conn, s.clientConfig()).Handshake())
			return
		default:
		}
		if i == 1000 {
			t.Fatal("it goes on for ever")
		}
	}
}

// While nobody waits, a slow peer has its time.
func TestSlowPeerIsSpared(t *testing.T) {
	s := newSite(t)
	server, pool := s.tls(t), newTestPool(t, PoolOptions{HandshakesMax: 2, Patience: 10 * time.Millisecond})
	slow := newPeer(t)
	defer platform.CloseFD(slow.fd)
	must(t, slow.enter(pool, server.Config(), time.Hour))
	for start := time.Now(); time.Since(start) < 100*time.Millisecond; {
		p := newPeer(t)
		defer platform.CloseFD(p.fd)
		must(t, p.enter(pool, server.Config(), time.Hour))
		must(t, tls.Client(p.conn, s.clientConfig()).Handshake())
		must(t, p.result(t).err)
	}
	must(t, tls.Client(slow.conn, s.clientConfig()).Handshake())
	must(t, slow.result(t).err)
}

// runningTask is a task that has been waiting for its peer, as of now.
func runningTask(t *testing.T, pool *Pool, now time.Time, waiting time.Duration) (*task, *peer) {
	p := newPeer(t)
	task := &task{pool: pool, fd: p.fd, file: os.NewFile(uintptr(p.fd), ""), since: now.Add(-waiting)}
	t.Cleanup(func() { task.file.Close() })
	pool.running[task] = struct{}{}
	return task, p
}

func TestSlowest(t *testing.T) {
	pool, now := NewPool(PoolOptions{Patience: time.Minute}), time.Now()
	expect := func(what string, want *task) {
		t.Helper()
		if got := pool.slowest(now); got != want {
			t.Errorf("%s: found %+v, want %+v", what, got, want)
		}
	}
	computing, _ := runningTask(t, pool, now, 0)
	computing.since = time.Time{}
	runningTask(t, pool, now, 59*time.Second)
	expect("nobody is beyond patience", nil)
	several, p := runningTask(t, pool, now, time.Second)
	several.waited = 3 * time.Minute
	expect("pauses together", several)
	slow, _ := runningTask(t, pool, now, 2*time.Minute)
	expect("the longest", several)
	_, err := p.conn.Write([]byte{22})
	must(t, err)
	expect("bytes that were not read yet", slow)
	slow.cut = ErrSlow
	expect("one that is being cut", nil)

	several.goesOn(false)
	if several.waited < 3*time.Minute+time.Second || !several.since.IsZero() {
		t.Errorf("after a read: waited %v, since %v", several.waited, several.since)
	}
	several.waits()
	several.goesOn(true)
	if several.waited != 0 || !several.since.IsZero() {
		t.Errorf("after a flight: waited %v, since %v", several.waited, several.since)
	}
}

// Of those beyond patience, as many are cut as wait, counting those whose cut is not carried out yet.
func TestRelieveCutsOnePerWaiting(t *testing.T) {
	pool, now := NewPool(PoolOptions{Patience: time.Minute}), time.Now()
	one, _ := runningTask(t, pool, now, 4*time.Minute)
	two, _ := runningTask(t, pool, now, 3*time.Minute)
	three, _ := runningTask(t, pool, now, 2*time.Minute)
	relieve := func(cut ...*task) {
		t.Helper()
		pool.wg.Add(1)
		pool.closed, pool.timer = true, time.NewTimer(time.Hour) // closed: arms no other
		pool.relieve()
		for _, task := range []*task{one, two, three} {
			if want := slices.Contains(cut, task); (task.cut == ErrSlow) != want {
				t.Fatalf("%+v is cut, want %v", task, want)
			}
		}
	}
	relieve()
	pool.waiting.push(&task{Handshake: Handshake{Deadline: now.Add(time.Hour)}})
	relieve(one)
	relieve(one)
	pool.waiting.push(&task{Handshake: Handshake{Deadline: now.Add(time.Hour)}})
	relieve(one, two)
	if _, err := one.file.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("its read: %v", err)
	}
}

// A waiting handshake has its connection, whatever becomes of the descriptor's number.
func TestDescriptorIsReused(t *testing.T) {
	s := newSite(t)
	server, pool := s.tls(t), newTestPool(t, PoolOptions{HandshakesMax: 1, Patience: time.Hour})
	first, second := newPeer(t), newPeer(t)
	defer platform.CloseFD(first.fd)
	must(t, first.enter(pool, server.Config(), time.Hour))
	must(t, second.enter(pool, server.Config(), time.Hour))
	platform.CloseFD(second.fd)
	third := newPeer(t)
	defer platform.CloseFD(third.fd)
	if third.fd != second.fd {
		t.Fatalf("descriptor %d was not used again, but %d", second.fd, third.fd)
	}
	first.conn.Close()
	must(t, tls.Client(second.conn, s.clientConfig()).Handshake())
	must(t, second.result(t).err)
}

func TestDo(t *testing.T) {
	pool := NewPool(PoolOptions{HashersMax: 2, WaitingMax: 3})
	goOn, ran := make(chan struct{}), make(chan int, 10)
	for i := range 6 {
		err := pool.Do(func() { <-goOn; ran <- i })
		if want := i == 5; (err == ErrBusy) != want || !want && err != nil {
			t.Fatalf("job %d: %v", i, err)
		}
	}
	if got := pool.Stats(); got != (PoolStats{JobsRefused: 1, JobsRunning: 2, JobsWaiting: 3}) {
		t.Errorf("statistics %+v", got)
	}
	for range 2 {
		goOn <- struct{}{}
	}
	for range 2 {
		if i := <-ran; i > 2 { // of the two that went on, the second may have been the first to come from the queue
			t.Errorf("job %d ran first", i)
		}
	}
	eventually(t, "the next begin", func() bool { return pool.Stats().JobsWaiting == 1 })
	closed := make(chan struct{})
	go func() { pool.Close(); close(closed) }()
	eventually(t, "what waits is dropped", func() bool { return pool.Stats().JobsWaiting == 0 })
	select {
	case <-closed:
		t.Fatal("Close did not wait for a running job")
	default:
	}
	close(goOn)
	<-closed
	if got := len(ran); got != 2 {
		t.Errorf("%d jobs ran after Close began, want the 2 that were running", got)
	}
	if got := pool.Stats(); got != (PoolStats{JobsDone: 4, JobsRefused: 1}) {
		t.Errorf("statistics %+v", got)
	}
	if err := pool.Do(func() {}); err != ErrClosed {
		t.Errorf("after Close: %v", err)
	}
}

func TestPoolDefaults(t *testing.T) {
	want := PoolOptions{HandshakesMax: 64, HashersMax: runtime.GOMAXPROCS(0), WaitingMax: 1024, Patience: time.Second}
	if got := (PoolOptions{}).withDefaults(); got != want {
		t.Errorf("%+v", got)
	}
}

func TestIncompleteHandshake(t *testing.T) {
	defer func() {
		if r, _ := recover().(string); !strings.HasPrefix(r, "BUG: ") {
			t.Errorf("recovered %q", r)
		}
	}()
	NewPool(PoolOptions{}).Handshake(Handshake{FD: 0, Config: new(tls.Config), Done: func(*wire.TLS, error) {}})
}

// The queue against a slice.
func TestQueue(t *testing.T) {
	var q queue[*int]
	var model []*int
	for i := range 5000 {
		if i*7919%13 < 7-i/2500*2 { // grows first, then shrinks
			q.push(&i)
			model = append(model, &i)
		} else if v, ok := q.pop(); ok != (len(model) > 0) || ok && v != model[0] {
			t.Fatalf("step %d: %v, %v", i, v, ok)
		} else if ok {
			model = model[1:]
			if slices.Contains(q.items[:q.first], v) {
				t.Fatalf("step %d: what was taken is kept from the garbage collector", i)
			}
		}
		if v, ok := q.peek(); q.len() != len(model) || ok && v != model[0] {
			t.Fatalf("step %d: %d in it, want %d", i, q.len(), len(model))
		}
	}
	for range model {
		q.pop()
	}
	if q.len() != 0 || q.items != nil {
		t.Error("an empty queue keeps its storage")
	}
}
