package worker

import (
	"net/netip"
	"sync/atomic"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sluice/broker/mqtt"
	"sluice/broker/session"
	"sluice/broker/wire"
	"sluice/platform/mono"
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
	l.paused = true
	_ = w.net.Remove(l.FD)
	w.timers.add(w.now.Add(acceptPause), timerListeners, 0)
	w.log.Warn("cannot accept connections; trying again in a second. Raise the limit of open files (LimitNOFILE) or lower limits.connections_max",
		zap.String("listener", l.Address), zap.Error(err))
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
	c := &conn{fd: fd, layer: wire.Plain{}, seen: w.now, idleMax: w.g.opt.ConnectTimeout, listener: l, remote: remote}
	if !w.adopt(c) {
		return
	}
	w.timers.add(w.now.Add(c.idleMax), timerLobby, uint64(c.gen)<<32|uint64(c.slot))
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
		w.drop(c.fd, c.listener)
		return false
	}
	return true
}

// handover is a connection on its way to the worker that owns its client id,
// with its CONNECT and everything read after it.
type handover struct {
	fd       int
	layer    wire.Layer
	data     []byte
	listener *listener
	remote   netip.AddrPort
	seen     mono.Time
}

// lobby takes the first packet of a connection. It tells whether the connection
// has left this worker; then all its bytes went with it.
func (w *Worker) lobby(c *conn, h mqtt.Header, body, packet, rest []byte) (moved bool) {
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
		w.connack(c, p.Version, r, why)
		return false
	}
	assigned := len(p.ClientID) == 0
	if assigned {
		p.ClientID = w.assignID()
	}
	o := w.g.owner(p.ClientID)
	if o == w || assigned {
		w.attach(c, p, &session.Admission{Assigned: assigned})
		return false
	}
	m := &handover{fd: c.fd, layer: c.layer, listener: c.listener, remote: c.remote, seen: c.seen}
	m.data = append(append(make([]byte, 0, len(packet)+len(rest)), packet...), rest...)
	if err := w.net.Remove(c.fd); err != nil {
		w.lost(c, err)
		return false
	}
	w.conns.drop(c.slot)
	c.dying, c.in = true, nil // nothing later in this turn may touch it
	o.inbox.postHandover(m)
	return true
}

// takeOver receives a connection from the lobby of another worker.
func (w *Worker) takeOver(m *handover) {
	c := &conn{fd: m.fd, layer: m.layer, listener: m.listener, remote: m.remote, seen: m.seen, idleMax: w.g.opt.ConnectTimeout}
	if !w.adopt(c) {
		return
	}
	used := w.feed(c, m.data)
	w.keep(c, m.data[used:])
	w.backpressure(c)
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
	v := p.Version
	if v != mqtt.V5 {
		v = mqtt.V311
	}
	w.connack(c, v, e.Reason, err.Error())
}

// connack refuses a CONNECT with a reason.
func (w *Worker) connack(c *conn, v mqtt.Version, r mqtt.Reason, why string) {
	p := mqtt.Connack{Code: byte(r)}
	if v != mqtt.V5 {
		p.Code = r.Connack311()
	}
	c.out = mqtt.AppendConnack(c.out, &p, v)
	w.kill(c, r, why)
}
