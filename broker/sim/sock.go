package sim

import (
	"io"
	"net/netip"

	"golang.org/x/sys/unix"

	"sluice/platform/mono"
)

// DESIGN. sock is one TCP connection, seen from both ends. Bytes from the
// client are on their way (up) until the network moves them into the receive
// buffer (rx), as many at a time as it likes. Bytes from the broker are in tx
// until the network hands them to the client.

// endpoint is the client's end of a connection.
type endpoint interface {
	receive(b []byte) // valid during the call
	ended(reset bool) // nothing more will come
	arrived(n int)    // n bytes have reached the broker's host
	reluctant() bool  // hardly reads
	String() string   // for the trace
}

type sock struct {
	n      int // for the trace
	fd     int // 0: not accepted
	end    endpoint
	remote netip.AddrPort // as the kernel has it

	up       []byte
	upEnd    bool // the client has finished sending
	rx       []byte
	rxEnd    bool
	rxBytes  int
	reset    bool // a RST has reached the broker's host
	aborted  bool // it is on its way
	keepData bool // what came before the RST can be read

	tx      []byte
	txEnd   bool // the broker has closed
	txReset bool
	txBytes int

	codes    []*codeEnd // layers, the highest first
	shakes   bool       // begins with a handshake
	unshaken bool       // which has failed

	opened   mono.Time
	withheld bool  // a read was told EAGAIN although there was something
	closed   bool  // by the broker
	closedAt int64 // stamp of that
	gone     bool  // the client has closed: nobody reads tx
	silent   bool  // the client, or the network, has vanished without a word
	over     bool  // the client knows the end
}

// open makes a connection that waits to be accepted.
func (w *World) open(end endpoint) *sock {
	s := w.newSock(end)
	w.prepare(s)
	w.host.kernel.backlog = append(w.host.kernel.backlog, s)
	w.note("open", end.String(), int64(s.n), 0, "")
	return s
}

func (w *World) newSock(end endpoint) *sock {
	w.opened++
	s := &sock{n: w.opened, end: end, rxBytes: w.cfg.rxBytes, txBytes: w.cfg.txBytes, keepData: w.chance(0.5), opened: w.now}
	w.socks = append(w.socks, s)
	return s
}

// send puts bytes on their way, through the client's end of the layers.
func (s *sock) send(w *World, b []byte) {
	for _, e := range s.codes {
		b = e.seal(nil, b, markData)
		if w.chance(0.02) {
			e.asked++
			b = e.seal(b, []byte{signAsk}, markSign)
		}
	}
	s.up = append(s.up, b...)
}

// deliver gives the client bytes that the broker has sent.
func (s *sock) deliver(w *World, b []byte) {
	for i := len(s.codes) - 1; i >= 0; i-- {
		if b = s.codes[i].receive(w, s.end.String(), b); len(b) == 0 {
			return
		}
	}
	s.end.receive(b)
}

func (s *sock) read(w *World, b []byte) (int, error) {
	if s.reset && !(s.keepData && len(s.rx) > 0) {
		return 0, unix.ECONNRESET
	}
	if len(s.rx) == 0 {
		if s.rxEnd {
			return 0, io.EOF
		}
		return 0, unix.EAGAIN
	}
	if w.spurious() {
		s.withheld = true
		return 0, unix.EAGAIN
	}
	n := min(len(b), len(s.rx))
	if w.chance(w.cfg.partial) {
		n = w.between(1, n)
	}
	copy(b, s.rx[:n])
	s.rx = s.rx[n:]
	return n, nil
}

func (s *sock) write(w *World, b []byte) (int, error) {
	if s.reset {
		return 0, unix.EPIPE
	}
	n := min(len(b), s.txBytes-len(s.tx))
	if n == 0 || w.spurious() {
		return 0, unix.EAGAIN
	}
	if w.chance(w.cfg.partial) {
		n = w.between(1, n)
	}
	s.tx = append(s.tx, b[:n]...)
	return n, nil
}

// closeByBroker: what the broker has not read makes the kernel reset the
// connection, and the client then loses what it has not read.
func (s *sock) closeByBroker(w *World) {
	s.closed, s.closedAt = true, w.next()
	if len(s.rx) > 0 && !s.reset {
		s.txReset = true
		if w.chance(0.5) {
			s.tx = nil
		}
	}
	s.txEnd = true
}

// finish is the client's shutdown of its sending half.
func (s *sock) finish() { s.upEnd = true }

// leave is the client's close.
func (s *sock) leave() { s.upEnd, s.gone = true, true }

// abort is a RST by the client, or by what is between it and the broker. What
// is on its way is lost.
func (s *sock) abort() { s.up, s.aborted, s.gone = nil, true, true }

// vanish: from now on nothing moves.
func (s *sock) vanish() { s.silent = true }

// done tells whether nothing can happen on the connection any more.
func (s *sock) done() bool { return s.closed && (s.over || s.gone) }

// goesUp and goesDown tell whether the network has something to move.
func (s *sock) goesUp() bool {
	if s.silent {
		return false
	}
	return s.aborted && !s.reset || s.closed && (len(s.up) > 0) ||
		len(s.up) > 0 && len(s.rx) < s.rxBytes && !s.reset || len(s.up) == 0 && s.upEnd && !s.rxEnd && !s.reset
}

func (s *sock) goesDown() bool {
	if s.silent || s.over {
		return false
	}
	return len(s.tx) > 0 || s.txEnd || s.txReset
}

// moveUp moves something towards the broker.
func (s *sock) moveUp(w *World) {
	switch {
	case s.closed:
		if len(s.up) > 0 { // bytes for a socket that is closed are answered with a RST
			s.up, s.txReset = nil, true
		}
	case s.aborted:
		s.reset = true
		w.note("reset", s.end.String(), int64(s.n), 0, "")
	case len(s.up) > 0:
		n := w.chunk(min(len(s.up), s.rxBytes-len(s.rx)))
		s.rx = append(s.rx, s.up[:n]...)
		if s.up = s.up[n:]; len(s.up) == 0 {
			s.up = nil
		}
		s.end.arrived(n)
	case s.upEnd:
		s.rxEnd = true
	}
}

// moveDown moves something to the client.
func (s *sock) moveDown(w *World) {
	if s.gone {
		if len(s.tx) > 0 && !s.closed {
			s.aborted = true // the host answers with a RST
		}
		s.tx = nil
		s.over = s.closed
		return
	}
	if len(s.tx) > 0 {
		n := w.chunk(len(s.tx))
		b := s.tx[:n]
		if s.tx = s.tx[n:]; len(s.tx) == 0 {
			s.tx = nil
		}
		s.deliver(w, b)
		return
	}
	s.over = true
	s.end.ended(s.txReset)
}

// chunk draws how many of n bytes are moved at once.
func (w *World) chunk(n int) int {
	switch {
	case n <= 1 || w.chance(0.6):
		return n
	case w.chance(0.3):
		return 1
	}
	return w.between(1, n)
}

func (w *World) spurious() bool { return !w.healing && w.chance(w.cfg.spurious) }
