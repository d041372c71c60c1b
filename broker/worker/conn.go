package worker

import (
	"io"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sluice/broker/mqtt"
	"sluice/broker/wire"
	"sluice/platform/mono"
)

// conn is one connection. It belongs to one worker.
type conn struct {
	fd        int
	slot, gen uint32
	client    *client // nil in the lobby
	layer     wire.Layer
	in        []byte // part of a packet, nil most of the time
	out       []byte // to be written from outOff on, nil most of the time
	outOff    int
	seen      mono.Time     // when bytes came last
	idleMax   time.Duration // longest silence: one and a half keepalives; 0: any. In the lobby: time left for CONNECT
	listener  *listener
	remote    netip.AddrPort
	reason    mqtt.Reason // why it is dying
	outClass  uint8
	touched   bool // in Worker.touched
	dying     bool // in Worker.dying
	wantWrite bool // EPOLLOUT is armed
	paused    bool // not read: its acknowledgements wait, it does not read them, or what it publishes to is congested
	blocked   bool // something was held back because of unsent output
	gone      bool // the peer is gone: nothing more to write
}

// acksMax is the number of acknowledgements that may wait for the store before
// a client is not read any more: far above any client's window, low enough that
// a flood costs little.
const acksMax = 2048

// unsent is how many bytes of output the socket has not taken.
func (c *conn) unsent() int { return len(c.out) - c.outOff }

func (w *Worker) touch(c *conn) {
	if !c.touched {
		c.touched = true
		w.touched = append(w.touched, c)
	}
}

// readable reads once from a connection and works on what came.
func (w *Worker) readable(c *conn, hangup bool) {
	if c.paused && !hangup {
		return
	}
	b := w.room(c)
	n, err := w.net.Read(c.fd, b[len(b):cap(b)])
	if err != nil {
		if err != unix.EAGAIN {
			w.lost(c, err)
		}
		return
	}
	if c.client != nil { // in the lobby, the time for CONNECT runs whatever comes
		c.seen = w.now
	}
	w.turnRead += n
	w.stats.BytesReceived += uint64(n)
	fresh, err := c.layer.In(w.plain[:0], b[len(b):len(b)+n])
	if err != nil {
		w.kill(c, mqtt.MalformedPacket, err.Error())
		return
	}
	data := b[:len(b)+n]
	if _, plain := c.layer.(wire.Plain); !plain {
		data = append(b, fresh...)
	}
	w.posted = false
	used := w.feed(c, data)
	w.keep(c, data[used:])
	w.backpressure(c)
}

// room gives a slice that holds what c has of a packet, with capacity for more:
// the worker's read buffer, unless the packet is a large one.
func (w *Worker) room(c *conn) []byte {
	if len(c.in) <= len(w.buf)/2 {
		return w.buf[:copy(w.buf, c.in)]
	}
	if cap(c.in)-len(c.in) < len(c.in)/2 {
		c.in = append(make([]byte, 0, 2*len(c.in)), c.in...)
	}
	return c.in
}

// keep saves the part of a packet that is left over. It grows with what has
// come, never to what the peer declared.
func (w *Worker) keep(c *conn, rest []byte) {
	switch {
	case len(rest) == 0 || c.dying:
		c.in = nil
	case len(c.in) > len(w.buf)/2 && len(rest) >= len(c.in):
		c.in = rest // read into its own memory
	default:
		c.in = append(c.in[:0:0], rest...)
	}
}

// feed works on all whole packets in data and tells how many bytes they were.
func (w *Worker) feed(c *conn, data []byte) (used int) {
	for used < len(data) && !c.dying {
		limit := w.g.limits.PacketBytesMax
		if c.client == nil {
			limit = min(limit, w.g.opt.ConnectBytesMax)
		}
		h, n, err := mqtt.ParseHeader(data[used:], limit)
		if err != nil {
			w.refuse(c, err)
			return used
		}
		end := used + n + h.Remaining
		if n == 0 || end > len(data) {
			return used
		}
		packet := data[used:end]
		body := data[used+n : end]
		used = end
		if c.client == nil {
			if w.lobby(c, h, body, packet, data[used:]) {
				return len(data) // moved, with all its bytes
			}
			continue
		}
		w.dispatch(c.client, h, body)
	}
	return used
}

// backpressure stops reading from a client while what it sends cannot be taken:
// too many of its acknowledgements wait, it does not read the answers, or a
// worker it publishes to is congested.
func (w *Worker) backpressure(c *conn) {
	if c.dying || c.client == nil || c.paused {
		return
	}
	if c.client.Pending() >= w.bounds.acks {
		w.pause(c)
	} else if w.clogged(c) {
		c.blocked = true
		w.pause(c)
	} else if w.posted && w.pressed {
		w.pause(c)
		w.held = append(w.held, c)
	}
}

func (w *Worker) pause(c *conn) {
	c.paused = true
	w.stats.Pauses++
	w.arm(c)
}

// unpause reads from a client again once few of its acknowledgements wait and
// it reads what we send.
func (w *Worker) unpause(c *conn) {
	switch {
	case !c.paused || c.dying || w.stopping || c.client.Pending() >= w.bounds.acks/2:
	case w.clogged(c):
		c.blocked = true
	case w.pressed:
		w.held = append(w.held, c)
	default:
		c.paused = false
		w.arm(c)
	}
}

// release reads again from those that waited for a congested worker.
func (w *Worker) release() {
	w.pressed = false
	held := w.held
	w.held = nil
	for _, c := range held {
		w.unpause(c)
	}
}

// arm tells the poller what c waits for.
func (w *Worker) arm(c *conn) {
	if err := w.net.Modify(c.fd, connTag(c.slot, c.gen), !c.paused, c.wantWrite); err != nil {
		w.lost(c, err)
	}
}

// writable writes what a connection has not been able to take before.
func (w *Worker) writable(c *conn) {
	w.flush(c)
	if c.blocked && c.unsent() < w.g.opt.OutputBytesMax/2 {
		w.unblock(c)
	}
}

// unblock goes on with what was held back because of unsent output.
func (w *Worker) unblock(c *conn) {
	c.blocked = false
	if c.dying || c.client == nil {
		return
	}
	fx := w.begin(c.client)
	c.client.Resume(fx, w.now)
	w.end(c.client)
	w.unpause(c)
}

// resumeDrained unblocks the connections whose output was written without
// EPOLLOUT: no event will tell of them.
func (w *Worker) resumeDrained() {
	drained := w.drained
	w.drained = nil
	for _, c := range drained {
		if c.blocked {
			w.unblock(c)
		}
	}
}

// clogged tells whether a connection's unsent output is over its limit, after
// trying to send it if the socket may take it.
func (w *Worker) clogged(c *conn) bool {
	limit := w.g.opt.OutputBytesMax
	if c.unsent() > limit && !c.wantWrite && !c.dying {
		w.flush(c)
	}
	return c.unsent() > limit
}

// flush writes what there is to write, and gives the buffer back when it is empty.
func (w *Worker) flush(c *conn) {
	for c.outOff < len(c.out) && !c.gone {
		b, err := c.layer.Out(nil, c.out[c.outOff:])
		if err != nil {
			w.lost(c, err)
			break
		}
		n, err := w.net.Write(c.fd, b)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			w.lost(c, err)
			break
		}
		w.stats.BytesSent += uint64(n)
		c.outOff += n
		if n < len(b) {
			break
		}
	}
	done := c.outOff == len(c.out) || c.gone
	if done && c.out != nil {
		c.outClass = chunkFor(len(c.out))
		w.chunks.put(c.out)
		c.out, c.outOff = nil, 0
	} else if c.outOff >= len(c.out)/2 {
		c.out = c.out[:copy(c.out, c.out[c.outOff:])]
		c.outOff = 0
	}
	if done && c.blocked && !c.dying {
		w.drained = append(w.drained, c)
	}
	if c.wantWrite == done && !c.dying {
		c.wantWrite = !done
		w.arm(c)
	}
}

// lost ends a connection that the peer or the network ended.
func (w *Worker) lost(c *conn, err error) {
	c.gone = true
	detail := "connection lost: "
	if err == io.EOF {
		w.kill(c, mqtt.Success, "closed by the client without DISCONNECT")
		return
	}
	w.kill(c, mqtt.UnspecifiedError, detail+err.Error())
}

// kill marks a connection to be ended in settle, after its output has been
// written as far as the socket takes it.
func (w *Worker) kill(c *conn, r mqtt.Reason, detail string) {
	if c.dying {
		return
	}
	c.dying, c.reason = true, r
	w.dying = append(w.dying, c)
	if r == mqtt.Success || !w.log.Core().Enabled(zap.InfoLevel) {
		return
	}
	if skipped, ok := w.logged.allow(w.now); ok {
		f := []zap.Field{zap.String("reason", r.String()), zap.String("detail", detail), zap.Stringer("remote", c.remote)}
		if c.client != nil {
			f = append(f, zap.String("client", c.client.ClientID))
		}
		if skipped > 0 {
			f = append(f, zap.Int("lines_skipped", skipped))
		}
		w.log.Info("connection closed", f...)
	}
}

// refuse ends a connection for bytes that are not MQTT as agreed.
func (w *Worker) refuse(c *conn, err error) {
	if c.client == nil {
		w.kill(c, mqtt.MalformedPacket, err.Error())
		return
	}
	fx := w.begin(c.client)
	c.client.Fail(fx, err)
	w.end(c.client)
}
