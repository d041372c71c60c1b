package worker

import (
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sluice/broker/mqtt"
	"sluice/broker/session"
	"sluice/broker/wire"
)

// DESIGN. The lobby is where connections are before CONNECT: on the worker that
// accepted them, with little memory and little time. Each worker accepts for
// itself, from listening sockets that all share.

// Listener is a listening socket for the workers.
type Listener struct {
	FD             int
	Address        string        // for the log
	ConnectionsMax int           // 0: no limit of its own
	Open           *atomic.Int64 // connections that came by it, of all workers
	Anonymous      bool          // lets in who does not say who he is
	Proxy          bool          // connections begin with a header of the PROXY protocol

	// Handshake does the TLS handshake of a connection whose first bytes are
	// hello, within the time left, and calls done, once, from any goroutine. The
	// descriptor stays the worker's. nil: no TLS.
	Handshake func(fd int, hello []byte, left time.Duration, done func(layer wire.Layer, certUser string, err error)) error
	// Layer makes what lies above TLS or the socket. nil: MQTT itself.
	Layer func(below wire.Layer) wire.Layer
}

type listener struct {
	Listener
	internal bool
	open     bool
	paused   bool
}

// acceptMax is how many connections are accepted in a row from one listener: a
// storm of them does not keep a turn from its other work.
const acceptMax = 64

// internalListener stands for the connections that Sluice makes to itself.
var internalListener = &listener{internal: true, Listener: Listener{Address: "internal", Open: new(atomic.Int64)}}

// Listen adds a listening socket. The socket stays the caller's, who closes it
// after the workers have stopped.
func (w *Worker) Listen(l Listener) error {
	i := len(w.listeners)
	if err := w.net.AddListener(l.FD, listenerTag|connTag(uint32(i), 0)); err != nil {
		return err
	}
	w.listeners = append(w.listeners, &listener{Listener: l, open: true})
	return nil
}

// closeListeners stops accepting.
func (w *Worker) closeListeners() {
	for _, l := range w.listeners {
		if l.open && !l.paused {
			_ = w.net.Remove(l.FD) // it is open and registered: cannot fail
		}
		l.open = false
	}
}

func (w *Worker) accept(l *listener) {
	if !l.open || l.paused {
		return
	}
	for range acceptMax {
		if wait := w.g.door.open(w.now); wait > 0 {
			w.restListener(l, wait)
			return
		}
		fd, remote, err := w.net.Accept(l.FD)
		switch err {
		case nil:
			w.welcome(fd, remote, l)
		case unix.EAGAIN:
			return
		case unix.ECONNABORTED, unix.EINTR, unix.EPROTO:
		default:
			w.pauseListener(l, err)
			return
		}
	}
}

// pauseListener: without descriptors or memory an accept fails until somebody
// leaves, and the listener would make every turn try again.
func (w *Worker) pauseListener(l *listener, err error) {
	w.restListener(l, acceptPause)
	w.log.Warn("cannot accept connections; trying again in a second. Raise the limit of open files (LimitNOFILE) or lower limits.connections_max",
		zap.String("listener", l.Address), zap.Error(err))
}

// restListener leaves new connections to the kernel for a while.
func (w *Worker) restListener(l *listener, d time.Duration) {
	l.paused = true
	_ = w.net.Remove(l.FD)
	w.timers.add(w.now.Add(d), timerListeners, 0)
}

func (w *Worker) resumeListeners() {
	for i, l := range w.listeners {
		if !l.paused || !l.open {
			continue
		}
		l.paused = false
		if err := w.net.AddListener(l.FD, listenerTag|connTag(uint32(i), 0)); err != nil {
			w.pauseListener(l, err)
		}
	}
}

// Enter brings a connection that Sluice makes to itself into the lobby. It may
// be called from any goroutine.
func (w *Worker) Enter(fd int) {
	w.Call(func(w *Worker) { w.welcome(fd, netip.AddrPort{}, internalListener) })
}

// welcome takes a new connection into the lobby.
func (w *Worker) welcome(fd int, remote netip.AddrPort, l *listener) {
	all, here := int(w.g.connections.Add(1)), int(l.Open.Add(1))
	w.stats.Accepted++
	if full := all > w.g.opt.ConnectionsMax || l.ConnectionsMax > 0 && here > l.ConnectionsMax; !l.internal && (full || w.stopping) {
		w.stats.Refused++
		w.drop(fd, l)
		if skipped, ok := w.logged.allow(w.now); ok && !w.stopping {
			w.log.Warn("connection refused: connections_max reached", zap.Int("max", w.g.opt.ConnectionsMax),
				zap.Int("listener_max", l.ConnectionsMax), zap.String("listener", l.Address),
				zap.Stringer("remote", remote), zap.Int("lines_skipped", skipped))
		}
		return
	}
	c := &conn{fd: fd, layer: wire.Plain{}, seen: w.now, idleMax: w.g.opt.ConnectTimeout, listener: l, remote: peerOf(remote)}
	if !w.adopt(c) {
		return
	}
	w.timers.add(w.now.Add(c.idleMax), timerLobby, c.name())
	if !l.internal {
		w.g.door.count(w.now)
	}
	switch {
	case l.Proxy: // who it is turns out later
		c.extra = &extra{stage: stageProxy}
	case !w.come(c):
	case l.Handshake != nil:
		if c.extra == nil {
			c.extra = &extra{}
		}
		c.extra.stage = stageHello
	case l.Layer != nil:
		c.layer = l.Layer(wire.Plain{})
	}
}

// drop closes the descriptor of a connection that has no slot, or had.
func (w *Worker) drop(fd int, l *listener) {
	_ = w.net.CloseFD(fd) // there is nobody to tell
	w.g.connections.Add(-1)
	l.Open.Add(-1)
}

// adopt gives a connection a slot on this worker, and watches it.
func (w *Worker) adopt(c *conn) bool {
	c.slot, c.gen = w.conns.put(c)
	if err := w.net.Add(c.fd, connTag(c.slot, c.gen), false); err != nil {
		w.log.Error("cannot watch a connection", zap.Error(err))
		w.conns.drop(c.slot)
		w.leave(c)
		w.drop(c.fd, c.listener)
		return false
	}
	return true
}

// lobby takes the first packet of a connection. It tells whether the connection
// has left this worker; then all its bytes went with it.
func (w *Worker) lobby(c *conn, h mqtt.Header, body, packet, rest []byte) (moved bool) {
	if c.extra != nil && c.extra.login != nil {
		return w.onLogin(c, h, body, rest)
	}
	if h.Type != mqtt.CONNECT { // [MQTT-3.1.0-1]
		w.kill(c, mqtt.ProtocolError, "first packet is "+h.Type.String()+", not CONNECT [MQTT-3.1.0-1]")
		return false
	}
	p := &w.connect
	if err := mqtt.DecodeConnect(p, body); err != nil {
		w.refuseConnect(c, p, err)
		return false
	}
	if r, why := session.CheckConnect(p, w.g.limits, c.listener.internal); r != mqtt.Success {
		w.connack(c, p, r, why)
		return false
	}
	assigned := len(p.ClientID) == 0
	if assigned {
		p.ClientID = w.assignID()
	}
	return w.authenticate(c, p, packet, rest, assigned)
}

// assignID makes a client id for a client without one, such that this worker
// owns it: 128 random bits, and few more tries (MQTT5 3.1.3.1).
func (w *Worker) assignID() []byte {
	const digits = "0123456789abcdefghijklmnopqrstuv"
	for {
		id := append(make([]byte, 0, 32), "sluice-"...)
		for range 2 {
			for r, i := w.g.opt.Random(), 0; i < 12; r, i = r>>5, i+1 {
				id = append(id, digits[r&31])
			}
		}
		if w.g.owner(id) == w {
			return id
		}
	}
}

// refuseConnect answers a CONNECT that could not be decoded. Only a wrong
// version, and MQTT 5, get an answer; for the rest the specification wants the
// connection closed without one (MQTT3.1.1 3.1.4).
func (w *Worker) refuseConnect(c *conn, p *mqtt.Connect, err error) {
	e, ok := err.(*mqtt.Error)
	if !ok || e.Reason != mqtt.UnsupportedProtocolVersion && p.Version != mqtt.V5 {
		w.kill(c, mqtt.MalformedPacket, err.Error())
		return
	}
	if p.Version != mqtt.V5 {
		p.Version = mqtt.V311
	}
	w.connack(c, p, e.Reason, err.Error())
}

// connack refuses a CONNECT with a reason.
func (w *Worker) connack(c *conn, p *mqtt.Connect, r mqtt.Reason, why string) {
	c.out = session.RefuseConnect(c.out, p.Version, r, why, p)
	w.kill(c, r, why)
}
