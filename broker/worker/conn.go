package worker

import (
	"errors"
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
	outOff    int32
	sealed    int32         // with a layer: how much of out has gone through it; the rest is MQTT
	seen      mono.Time     // when bytes came last
	idleMax   time.Duration // longest silence: one and a half keepalives; 0: any. In the lobby: time left for CONNECT
	listener  *listener
	extra     *extra // what only few have; nil: nothing of it
	remote    peer
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
func (c *conn) unsent() int { return len(c.out) - int(c.outOff) }

// name is what timers and other goroutines know the connection by.
func (c *conn) name() uint64 { return uint64(c.gen)<<32 | uint64(c.slot) }

func (c *conn) plain() bool {
	_, ok := c.layer.(wire.Plain)
	return ok
}

// extra is what only connections in the lobby have, and those whose rate is
// limited.
type extra struct {
	stage    stage
	counted  bool   // in the door's book, under address
	timed    bool   // a timer will look at the rate
	certUser string // what the listener takes from the client's certificate
	address  netip.Addr
	login    *login
	rate     rate
}

// peer is an address and a port in 18 bytes, against 32 of netip.AddrPort. The
// zone of a link-local address is not kept. Zero: unknown, or a unix socket.
type peer struct {
	ip   [16]byte
	port uint16
}

func peerOf(a netip.AddrPort) (p peer) {
	if a.IsValid() {
		p = peer{a.Addr().As16(), a.Port()}
	}
	return p
}

func (p peer) addr() netip.Addr {
	if p == (peer{}) {
		return netip.Addr{}
	}
	return netip.AddrFrom16(p.ip).Unmap()
}

func (p peer) String() string {
	if p == (peer{}) {
		return "local"
	}
	return netip.AddrPortFrom(p.addr(), p.port).String()
}

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
	if w.heldBy(c) != nil {
		w.lost(c, errLeft)
		return
	}
	b := w.room(c)
	free := b[len(b):cap(b)]
	if c.client == nil { // what a stranger sends may have to be kept while his login is judged
		free = free[:min(len(free), max(w.g.opt.ConnectBytesMax, strangerBytesMin))]
	}
	if c.client != nil && c.extra != nil { // the more comes at once, the deeper the debt
		free = free[:min(len(free), strangerBytesMin)]
	}
	n, err := w.net.Read(c.fd, free)
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
	if c.extra != nil && c.extra.stage != stageMQTT {
		w.arrive(c, b[:len(b)+n])
		return
	}
	w.take(c, b, b[len(b):len(b)+n])
}

// errLeft ends a connection whose client has gone while it was held back. What it sent
// last is not read.
var errLeft = errors.New("the client left while its messages waited for room in a queue")

// strangerBytesMin is how much is read at once from a connection in the lobby, if
// CONNECT may not be larger: enough for a ClientHello of today.
const strangerBytesMin = 4 << 10

// take works on bytes as they were read. They lie behind b, the part of a
// packet that came before.
func (w *Worker) take(c *conn, b, raw []byte) {
	data := b[:len(b)+len(raw)]
	var broken error
	if !c.plain() {
		if w.plain == nil {
			w.plain = make([]byte, 0, plainBytes)
		}
		var fresh []byte
		fresh, broken = c.layer.In(w.plain[:0], raw)
		data = append(b, fresh...)
		if c.layer.Pending() {
			w.touch(c)
		}
	}
	w.posted = false
	used := w.feed(c, data)
	w.keep(c, data[used:])
	w.backpressure(c)
	if broken != nil && !c.dying {
		w.broken(c, broken)
	}
}

// plainBytes is the room for what a layer makes of one read: as much as was
// read, and the part of a record of TLS that was kept.
const plainBytes = readBytes + 32<<10

// broken ends a connection whose layer cannot go on. The layer says farewell.
func (w *Worker) broken(c *conn, err error) {
	if errors.Is(err, io.EOF) {
		w.kill(c, mqtt.Success, "closed by the client without DISCONNECT")
		return
	}
	w.kill(c, mqtt.MalformedPacket, err.Error())
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
	if c.extra != nil && w.throttle(c) {
		w.pause(c)
	} else if c.client.Pending() >= w.bounds.acks {
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
	case !c.paused || c.dying || w.stopping || c.client == nil || c.client.Pending() >= w.bounds.acks/2 || w.heldBy(c) != nil:
	case c.extra != nil && w.throttle(c):
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
	if c.extra != nil && c.extra.stage == stageShaking {
		return // the poller does not watch it
	}
	var err error
	if w.heldBy(c) != nil {
		err = w.net.AwaitHangup(c.fd, connTag(c.slot, c.gen), c.wantWrite)
	} else {
		err = w.net.Modify(c.fd, connTag(c.slot, c.gen), !c.paused, c.wantWrite)
	}
	if err != nil {
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
	if !c.gone && !c.plain() {
		w.seal(c)
	}
	for int(c.outOff) < len(c.out) && !c.gone {
		b := c.out[c.outOff:]
		n, err := w.net.Write(c.fd, b)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			w.lost(c, err)
			break
		}
		w.stats.BytesSent += uint64(n)
		c.outOff += int32(n)
		if n < len(b) {
			break
		}
	}
	done := int(c.outOff) == len(c.out) || c.gone
	if done && c.out != nil {
		c.outClass = chunkFor(len(c.out))
		w.chunks.put(c.out)
		c.out, c.outOff, c.sealed = nil, 0, 0
	} else if int(c.outOff) >= len(c.out)/2 {
		c.out = c.out[:copy(c.out, c.out[c.outOff:])]
		c.sealed = max(0, c.sealed-c.outOff)
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

// seal takes what is to be sent through the layer.
func (w *Worker) seal(c *conn) {
	if int(c.sealed) == len(c.out) && !c.layer.Pending() {
		return
	}
	old := c.out
	b := append(w.chunks.get(chunkFor(c.unsent()+sealedMoreBytes)), old[c.outOff:c.sealed]...)
	b, err := c.layer.Out(b, old[c.sealed:])
	if old != nil {
		w.chunks.put(old)
	}
	c.out, c.outOff, c.sealed = b, 0, int32(len(b))
	if err != nil {
		w.lost(c, err)
	}
}

// sealedMoreBytes is what a layer adds to a few packets.
const sealedMoreBytes = 64

// farewell tells the peer by the layer's own means that the connection ends.
func (w *Worker) farewell(c *conn) {
	if c.gone || c.plain() || c.unsent() > 0 {
		return
	}
	if b := c.layer.Close(nil); len(b) > 0 {
		_, _ = w.net.Write(c.fd, b) // as far as the socket takes it
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
	if c.extra != nil && c.extra.login != nil {
		c.extra.login.gone.Store(true)
	}
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
