package bridge

import (
	"net"
	"sync"
	"time"
)

// DESIGN. A writer lets any goroutine send without waiting for the network:
// packets are appended to a buffer under a mutex, and one goroutine (run) takes
// the whole buffer at a time and writes it. So packets that come while a
// write is on its way leave together, in one system call and one TLS record,
// and nobody holds a lock across I/O.
//
// The buffer has no bound of its own. What goes into it is bounded by the
// budgets (messages) and by the windows (acknowledgements, 4 bytes each).
type writer struct {
	conn    net.Conn
	timeout time.Duration // per chunk: a slow link is not a dead one
	onError func(error)   // called once by run, without mu
	moved   func()        // called by run after each chunk that is followed by more; may be nil

	mu      sync.Mutex
	wake    sync.Cond
	buf     []byte
	closing bool // write what is in buf, then end
	dead    bool // end now

	ended chan struct{} // closed when run has returned
}

const (
	chunkBytes       = 16 << 10 // a full TLS record; with 128 KiB of socket buffer also a visible step forward
	writerKeepBytes  = 32 << 10 // a buffer that a burst has grown beyond this is let go
	sendBufferBytes  = 128 << 10
	writerFirstBytes = 512
)

func newWriter(conn net.Conn, timeout time.Duration, onError func(error), moved func()) *writer {
	w := &writer{conn: conn, timeout: timeout, onError: onError, moved: moved, ended: make(chan struct{})}
	w.wake.L = &w.mu
	return w
}

// begin locks the buffer and returns it, for the caller to append a packet and
// to call end with the result.
func (w *writer) begin() []byte {
	w.mu.Lock()
	if w.buf == nil {
		w.buf = make([]byte, 0, writerFirstBytes)
	}
	return w.buf
}

func (w *writer) end(buf []byte) {
	if !w.closing && !w.dead {
		w.buf = buf
		w.wake.Signal()
	}
	w.mu.Unlock()
}

// finish makes run write what is there and return. Later packets are ignored.
func (w *writer) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closing = true
	w.wake.Signal()
}

// kill makes run return without writing more. The caller closes the connection
// too, for a write that is on its way.
func (w *writer) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	w.wake.Signal()
}

// run writes until finish, kill or an error.
func (w *writer) run() {
	defer close(w.ended)
	var mine []byte
	for {
		if cap(mine) > writerKeepBytes {
			mine = nil
		}
		var ok bool
		if mine, ok = w.take(mine[:0]); !ok {
			return
		}
		if err := w.write(mine); err != nil {
			w.onError(err)
			return
		}
	}
}

// take waits for something to write and exchanges the buffer for spare.
func (w *writer) take(spare []byte) ([]byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.buf) == 0 && !w.closing && !w.dead {
		w.wake.Wait()
	}
	if w.dead || len(w.buf) == 0 {
		return nil, false
	}
	full := w.buf
	w.buf = spare
	return full, true
}

func (w *writer) write(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), chunkBytes)
		if err := w.conn.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
			return err
		}
		if _, err := w.conn.Write(b[:n]); err != nil {
			return err
		}
		if b = b[n:]; len(b) > 0 && w.moved != nil {
			w.moved()
		}
	}
	return nil
}
