package bridge

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sluice/broker/mqtt"
)

// DESIGN. paho believes what the upstream says: it allocates as many bytes as a
// fixed header announces, indexes by the number of codes in a SUBACK, takes an
// unknown CONNACK code for success and any acknowledgement with the right id
// for the right one. guard stands between the socket and paho and lets only
// such packets through as a 3.1.1 server may send to this client, none larger
// than the cap. It looks at the fixed header, and at the body where that is 2
// or 3 bytes; everything else passes unread.
//
// guard also owns the end of the connection: the first error, whoever has
// it, closes the socket and is what every later Read and Write returns. paho
// takes "use of closed network connection" for a sign that it closed the
// connection itself and keeps quiet about it, so that text must not reach it.
//
// Writing only appends to a buffer (writer.go). That spares system calls, and it
// keeps paho from hanging: a Publish or a ping that waits for a stuck
// socket would wait for minutes, beyond the end of the link.

// guardBufferBytes is the read buffer: paho reads headers byte by byte.
const guardBufferBytes = 4 << 10

var errUplinkClosed = errors.New("uplink closed by the bridge")

type guard struct {
	net.Conn          // TLS on top, if any
	raw      net.Conn // the socket, to close without waiting for a TLS farewell
	out      *writer
	maxBytes int

	// These belong to paho's reading goroutine.
	in      *bufio.Reader
	left    int    // bytes of the current packet not handed out yet
	greeted bool   // CONNACK has passed
	five    *gate5 // nil: 3.1.1

	ended chan struct{} // closed when the writing goroutine has returned

	subacks atomic.Int32 // how many SUBACKs are due: none is, once messages flow

	dead chan struct{} // closed by fail
	mu   sync.Mutex
	err  error // the first; nil: alive
}

// newGuard starts a goroutine, which ends with the connection. moved is called
// for each step forward in the middle of a long write.
func newGuard(conn, raw net.Conn, maxBytes int, writeTimeout time.Duration, moved func()) *guard {
	g := &guard{Conn: conn, raw: raw, maxBytes: maxBytes, in: bufio.NewReaderSize(conn, guardBufferBytes), ended: make(chan struct{}), dead: make(chan struct{})}
	g.out = newWriter(conn, writeTimeout, func(err error) { g.fail(err) }, moved)
	go g.write()
	return g
}

// write is the goroutine. After a Close it lets the upstream close first: a
// socket that is closed while there is something to read is reset, and what
// we wrote last, acknowledgements and DISCONNECT, is thrown away.
func (g *guard) write() {
	defer close(g.ended)
	g.out.run()
	closeWrite(g.raw)
	_ = g.Conn.SetReadDeadline(time.Now().Add(quiesce)) // the reader then calls fail
}

// closeWrite says that nothing more will be sent.
func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// Read hands out at most the rest of one packet.
func (g *guard) Read(p []byte) (int, error) {
	if g.five != nil {
		n, err := g.five.read(p)
		if err != nil {
			return 0, g.fail(err)
		}
		return n, nil
	}
	if g.left == 0 {
		n, err := g.admit()
		if err != nil {
			return 0, g.fail(err)
		}
		g.left = n
	}
	n, err := g.in.Read(p[:min(len(p), g.left)])
	g.left -= n
	if err != nil {
		return n, g.fail(err)
	}
	return n, nil
}

// admit looks at the head of the next packet and returns its size.
func (g *guard) admit() (int, error) {
	for want := 2; ; want++ {
		b, err := g.in.Peek(want)
		if err != nil {
			return 0, err
		}
		h, n, err := mqtt.ParseHeader(b, g.maxBytes)
		if err != nil {
			return 0, fmt.Errorf("packet from the upstream refused: %w", err)
		}
		if n == 0 {
			continue // at most 5 rounds: ParseHeader refuses a longer header
		}
		size := n + h.Remaining
		if h.Remaining <= 3 {
			if b, err = g.in.Peek(size); err != nil {
				return 0, err
			}
			return size, g.check(h, b[n:])
		}
		return size, g.check(h, nil)
	}
}

// check refuses what the upstream has no business to send. body is nil if it
// is longer than 3 bytes.
func (g *guard) check(h mqtt.Header, body []byte) error {
	bad := func(why string) error {
		return fmt.Errorf("packet from the upstream refused: type %d, %d bytes: %s", h.Type, h.Remaining, why)
	}
	if g.greeted != (h.Type != mqtt.CONNACK) {
		return bad("CONNACK comes first and once")
	}
	switch h.Type {
	case mqtt.CONNACK:
		if len(body) != 2 || body[1] > 5 {
			return bad("malformed, or a return code that 3.1.1 does not know")
		}
		g.greeted = true
	case mqtt.PUBLISH:
		if h.Flags&0b0110 > 0b0010 {
			return bad("QoS above the one subscribed")
		}
	case mqtt.PUBACK:
		if len(body) != 2 {
			return bad("malformed")
		}
	case mqtt.SUBACK:
		if len(body) != 3 {
			return bad("one code was due, for one filter")
		}
		if g.subacks.Add(-1) < 0 {
			return bad("none was due")
		}
	case mqtt.PINGRESP:
		if h.Remaining != 0 {
			return bad("malformed")
		}
	default:
		return bad("not for this client")
	}
	return nil
}

// Write takes over all of p.
func (g *guard) Write(p []byte) (int, error) {
	g.mu.Lock()
	err := g.err
	g.mu.Unlock()
	if err != nil {
		return 0, err
	}
	g.out.end(append(g.out.begin(), p...))
	return len(p), nil
}

// SetDeadline is what paho sets around the handshake. The writer has its own
// deadline, so this one is for reading only; paho sets no other.
func (g *guard) SetDeadline(t time.Time) error { return g.Conn.SetReadDeadline(t) }

// SetWriteDeadline does nothing: see SetDeadline.
func (g *guard) SetWriteDeadline(time.Time) error { return nil }

// Close is for paho. What it has written before still leaves, if the socket
// takes it and nobody calls fail earlier. The socket itself is closed by fail,
// which whoever made the guard calls in the end.
func (g *guard) Close() error {
	g.out.finish()
	return nil
}

// fail ends the connection at once and returns the error it ended with, which
// is err if it was the first. It may be called from any goroutine and does
// not block.
func (g *guard) fail(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
		g.out.kill()
		close(g.dead)
		_ = g.raw.Close()
	}
	return g.err
}
