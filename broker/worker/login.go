package worker

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/broker/session"
	"sluice/broker/wire"
)

// DESIGN. Between accept and session a connection goes through stages: the
// header of the PROXY protocol, the TLS handshake, CONNECT, the login. What takes
// long (handshakes, password hashes) runs elsewhere and answers by mail, naming the
// connection by slot and generation: one that died meanwhile is not found. While
// somebody thinks about a connection it is not read, and what came after its CONNECT
// is kept with it. All of this happens on the worker that accepted it, before
// the owner of the client id hears of it: an owner never has a client that is not
// yet let in.

type stage uint8

const (
	stageMQTT    stage = iota
	stageProxy         // its first bytes are a header of the PROXY protocol
	stageHello         // its first bytes are a TLS ClientHello
	stageShaking       // the handshake is under way elsewhere; the poller does not watch the socket
)

// login is a CONNECT that is not decided yet.
type login struct {
	packet   []byte // whole
	rest     []byte // what came after it
	assigned bool
	busy     bool // somebody thinks about it, or it has been slowed down
	method   string
	exchange *auth.Exchange
	slowed   bool             // the guard has made the exchange wait
	data     []byte           // what the client said in it meanwhile
	gone     atomic.Bool      // the connection has died: nobody need think about it
	creds    auth.Credentials // aliases packet
}

// refusedAtDoor is why a connection ends that is one too many of its address.
const refusedAtDoor = mqtt.ConnectionRateExceeded

// handshakeResult is what a handshake has come to.
type handshakeResult struct {
	layer wire.Layer
	user  string // from the client's certificate; "": none
	err   error
}

// arrive takes the first bytes of a connection that does not begin with MQTT.
func (w *Worker) arrive(c *conn, data []byte) {
	if c.extra.stage == stageProxy {
		n, remote, local, err := wire.ParseProxy(data)
		if err != nil {
			w.kill(c, mqtt.MalformedPacket, err.Error())
			return
		}
		if n == 0 {
			c.in = append([]byte(nil), data...)
			return
		}
		if !local {
			c.remote = peerOf(remote)
		}
		data, c.in = data[n:], nil
		c.extra.stage = stageMQTT
		if !w.come(c) {
			return
		}
		if c.listener.Handshake != nil {
			c.extra.stage = stageHello
		} else if c.listener.Layer != nil {
			c.layer = c.listener.Layer(wire.Plain{})
		}
		if len(data) == 0 {
			return
		}
	}
	if c.extra.stage == stageHello {
		w.shake(c, data)
		return
	}
	w.take(c, data[:0], data)
}

// shake has the TLS handshake done for a connection that has sent the first
// bytes of it: who only connects costs nothing.
func (w *Worker) shake(c *conn, hello []byte) {
	c.in = nil
	c.extra.stage = stageShaking
	if err := w.net.Remove(c.fd); err != nil {
		w.lost(c, err)
		return
	}
	slot, gen := c.slot, c.gen
	left := c.seen.Add(c.idleMax).Sub(w.now)
	err := c.listener.Handshake(c.fd, append([]byte(nil), hello...), left, func(l wire.Layer, user string, err error) {
		w.Call(func(w *Worker) { w.shaken(slot, gen, &handshakeResult{l, user, err}) })
	})
	if err != nil {
		w.kill(c, mqtt.ServerBusy, "TLS handshake: "+err.Error())
	}
}

// shaken goes on with a connection after its handshake.
func (w *Worker) shaken(slot, gen uint32, r *handshakeResult) {
	c, ok := w.conns.get(slot, gen)
	if !ok || c.dying {
		return
	}
	switch {
	case r.err != nil:
		w.stats.HandshakesFailed++
		w.kill(c, mqtt.NotAuthorized, "TLS handshake: "+r.err.Error())
		return
	case w.stopping:
		w.kill(c, mqtt.ServerShuttingDown, "")
		return
	}
	if err := w.net.Add(c.fd, connTag(slot, gen), false); err != nil {
		w.lost(c, err)
		return
	}
	w.stats.Handshakes++
	c.extra.stage, c.extra.certUser = stageMQTT, r.user
	if c.layer = r.layer; c.listener.Layer != nil {
		c.layer = c.listener.Layer(r.layer)
	}
	w.take(c, w.buf[:0], nil) // what came with the handshake's last flight
}

// credentials are what a connection shows of itself. They alias p.
func credentials(c *conn, p *mqtt.Connect) auth.Credentials {
	cr := auth.Credentials{
		ClientID: string(p.ClientID), Username: string(p.Username), HasUsername: p.HasUsername,
		Password: p.Password, HasPassword: p.HasPassword,
		Remote: c.remote.addr(), Anonymous: c.listener.Anonymous,
	}
	if c.extra != nil {
		cr.CertificateUser = c.extra.certUser
	}
	return cr
}

// authenticate finds out who a CONNECT comes from. It tells whether the
// connection has left the lobby's hands for now: rest is then taken care of.
func (w *Worker) authenticate(c *conn, p *mqtt.Connect, packet, rest []byte, assigned bool) (moved bool) {
	rules := w.g.rules.Load()
	if rules == nil || c.listener.internal {
		if p.Props.AuthMethod != nil {
			w.connack(c, p, mqtt.BadAuthenticationMethod, "unknown authentication method")
			return false
		}
		w.admitted = session.Admission{Assigned: assigned}
		return w.admit(c, p, packet, rest, &w.admitted)
	}
	if p.Props.AuthMethod == nil {
		// Nothing secret is shown, so nothing can be guessed.
		if cr := credentials(c, p); rules.Cheap(&cr) {
			id, err := rules.Authenticate(&cr, w.g.opt.Wall())
			if err != nil {
				w.loginFailed(c, p, "", err)
				return false
			}
			return w.admit(c, p, packet, rest, w.admission(id, p, assigned))
		}
	}
	wait, ok := time.Duration(0), true
	if p.Props.AuthMethod == nil { // otherwise the exchange tells who it is
		wait, ok = w.g.guard.Check(c.remote.addr(), string(p.Username), w.now)
	}
	if !ok {
		w.tooManyFailures(c, p)
		return false
	}
	l := &login{assigned: assigned, packet: append([]byte(nil), packet...)}
	if c.extra == nil {
		c.extra = &extra{}
	}
	c.extra.login = l
	w.reread(c, p)
	l.creds = credentials(c, p)
	if p.Props.AuthMethod != nil {
		return w.beginExchange(c, p, rest)
	}
	w.ponder(c, rest)
	if wait > 0 {
		w.timers.add(w.now.Add(wait), timerLogin, c.name())
	} else {
		w.offload(c)
	}
	return true
}

// ponder stops reading from a connection while its login is thought about.
func (w *Worker) ponder(c *conn, rest []byte) {
	l := c.extra.login
	l.rest = append([]byte(nil), rest...)
	l.busy, c.paused = true, true
	w.arm(c)
}

func (w *Worker) tooManyFailures(c *conn, p *mqtt.Connect) {
	w.stats.LoginsRefused++
	w.connack(c, p, mqtt.ConnectionRateExceeded, "too many failed logins")
}

// reread decodes the CONNECT of a login again, so that p aliases what the login
// keeps. It has been decoded before, and so cannot fail.
func (w *Worker) reread(c *conn, p *mqtt.Connect) {
	l := c.extra.login
	id := string(p.ClientID)
	if l.creds.ClientID != "" {
		id = l.creds.ClientID
	}
	h, n, err := mqtt.ParseHeader(l.packet, len(l.packet))
	if err == nil {
		err = mqtt.DecodeConnect(p, l.packet[n:n+h.Remaining])
	}
	if err != nil {
		panic("BUG: a CONNECT cannot be decoded again: " + err.Error())
	}
	if l.assigned {
		p.ClientID = []byte(id)
	}
}

// verdict is what a login has come to.
type verdict struct {
	id       *auth.Identity
	err      error
	refused  bool // without trying
	failures int  // to be logged; 0: nothing is
}

// offload has the login judged where it may take long. It counts there, too: many
// attempts at once are judged one after the other, and must not all be judged
// before the first failure counts.
func (w *Worker) offload(c *conn) {
	l, rules, slot, gen := c.extra.login, w.g.rules.Load(), c.slot, c.gen
	creds, wall, guard, addr, now := l.creds, w.g.opt.Wall, w.g.guard, c.remote.addr(), w.now
	err := w.g.opt.Offload(func() {
		if l.gone.Load() { // after a power cut work must not go to who has given up
			return
		}
		var v verdict
		if _, ok := guard.Check(addr, creds.Username, now); !ok {
			v.refused = true
		} else if v.id, v.err = rules.Authenticate(&creds, wall()); isGuess(v.err) {
			if n, log := guard.Failed(addr, creds.Username, now); log {
				v.failures = n
			}
		}
		w.Call(func(w *Worker) { w.judged(slot, gen, &v) })
	})
	if err != nil {
		w.reread(c, &w.connect)
		w.connack(c, &w.connect, mqtt.ServerBusy, "too many logins at once")
	}
}

// judged goes on with a connection whose login has been judged.
func (w *Worker) judged(slot, gen uint32, v *verdict) {
	c, ok := w.conns.get(slot, gen)
	if !ok || c.dying {
		return
	}
	if w.stopping {
		w.kill(c, mqtt.ServerShuttingDown, "")
		return
	}
	c.paused = false
	if w.arm(c); c.dying {
		return
	}
	l, p := c.extra.login, &w.connect
	l.busy = false
	w.reread(c, p)
	switch {
	case v.refused:
		w.tooManyFailures(c, p)
	case v.err != nil:
		w.logFailures(c, p, v.failures, v.err)
		w.stats.LoginsFailed++
		w.connack(c, p, reasonOf(v.err), v.err.Error())
	default:
		if v.id.User == l.creds.Username { // a token for another proves nothing about this one
			w.g.guard.Succeeded(c.remote.addr(), v.id.User)
		}
		w.resume(c, p, w.admission(v.id, p, l.assigned))
	}
}

// isGuess tells whether a refusal is for something secret that was wrong.
func isGuess(err error) bool { return err != nil && reasonOf(err) == mqtt.BadUserNameOrPassword }

func reasonOf(err error) mqtt.Reason {
	if e, ok := err.(*auth.Error); ok {
		return e.Reason
	}
	return mqtt.NotAuthorized
}

// resume lets in a connection that somebody has thought about.
func (w *Worker) resume(c *conn, p *mqtt.Connect, a *session.Admission) {
	l := c.extra.login
	if w.admit(c, p, l.packet, l.rest, a) || c.dying {
		return
	}
	w.posted = false
	used := w.feed(c, l.rest)
	w.keep(c, l.rest[used:])
	w.backpressure(c)
}

// beginExchange begins enhanced authentication (MQTT5 4.12).
func (w *Worker) beginExchange(c *conn, p *mqtt.Connect, rest []byte) (moved bool) {
	l := c.extra.login
	l.method = string(p.Props.AuthMethod)
	var err error
	if l.exchange, err = w.g.rules.Load().Begin(l.method, &l.creds, w.g.opt.Wall()); err != nil {
		w.loginFailed(c, p, "", err)
		return false
	}
	return w.exchange(c, p, p.Props.AuthData, rest)
}

// onLogin takes a packet of a client whose CONNECT is not decided.
func (w *Worker) onLogin(c *conn, h mqtt.Header, body, rest []byte) (moved bool) {
	l := c.extra.login
	switch {
	case l.busy: // it is not read, so the socket has told of its end
		w.kill(c, mqtt.Success, "closed by the client while its login was judged")
		return false
	case h.Type != mqtt.AUTH: // [MQTT-3.1.2-30]
		w.kill(c, mqtt.ProtocolError, h.Type.String()+" before the end of the authentication [MQTT-3.1.2-30]")
		return false
	}
	var a mqtt.Auth
	if err := mqtt.DecodeAuth(&a, body); err != nil {
		w.kill(c, mqtt.MalformedPacket, err.Error())
		return false
	}
	if a.Reason != mqtt.ContinueAuthentication || string(a.Props.AuthMethod) != l.method { // [MQTT-4.12.0-3], [MQTT-4.12.0-5]
		w.kill(c, mqtt.ProtocolError, "AUTH that does not go on with the authentication [MQTT-4.12.0-3]")
		return false
	}
	w.reread(c, &w.connect)
	return w.exchange(c, &w.connect, a.Props.AuthData, rest)
}

// exchange goes one step on in enhanced authentication.
func (w *Worker) exchange(c *conn, p *mqtt.Connect, data, rest []byte) (moved bool) {
	l := c.extra.login
	user := l.exchange.User()
	if user != "" {
		wait, ok := w.g.guard.Check(c.remote.addr(), user, w.now)
		if !ok {
			w.tooManyFailures(c, p)
			return false
		}
		if wait > 0 && !l.slowed {
			l.slowed, l.data = true, append([]byte(nil), data...)
			w.ponder(c, rest)
			w.timers.add(w.now.Add(wait), timerLogin, c.name())
			return true
		}
	}
	reply, done, err := l.exchange.Step(data)
	if err != nil {
		w.loginFailed(c, p, user, err)
		return false
	}
	if !done {
		a := mqtt.Auth{Reason: mqtt.ContinueAuthentication}
		a.Props.AuthMethod, a.Props.AuthData = []byte(l.method), reply
		c.out = mqtt.AppendAuth(c.out, &a)
		w.touch(c)
		return false
	}
	id := l.exchange.Identity()
	w.g.guard.Succeeded(c.remote.addr(), id.User)
	adm := w.admission(id, p, l.assigned)
	adm.AuthMethod, adm.AuthData = l.method, reply
	return w.admit(c, p, l.packet, rest, adm)
}

// goOn goes on with a login that was slowed down.
func (w *Worker) goOn(c *conn) {
	l := c.extra.login
	if l.exchange == nil {
		w.offload(c)
		return
	}
	l.busy, c.paused = false, false
	if w.arm(c); c.dying {
		return
	}
	w.reread(c, &w.connect)
	rest := l.rest
	if w.exchange(c, &w.connect, l.data, rest) || c.dying {
		return
	}
	w.posted = false
	used := w.feed(c, rest)
	w.keep(c, rest[used:])
	w.backpressure(c)
}

// loginFailed refuses a CONNECT that did not prove who it comes from. user is who it
// tried to be with something secret; "": it did not try.
func (w *Worker) loginFailed(c *conn, p *mqtt.Connect, user string, err error) {
	w.stats.LoginsFailed++
	if user != "" {
		if n, log := w.g.guard.Failed(c.remote.addr(), user, w.now); log {
			w.logFailures(c, p, n, err)
		}
	}
	w.connack(c, p, reasonOf(err), err.Error())
}

// logFailures writes one line for a burst of them. It does not say what was tried:
// some put the secret where the name belongs.
func (w *Worker) logFailures(c *conn, p *mqtt.Connect, n int, err error) {
	if n > 0 {
		w.log.Warn("login failed", zap.Stringer("remote", c.remote), zap.String("listener", c.listener.Address),
			zap.ByteString("client", p.ClientID), zap.Int("failures", n), zap.Error(err))
	}
}

// admission is how a client is let in. It is the worker's scratch.
func (w *Worker) admission(id *auth.Identity, p *mqtt.Connect, assigned bool) *session.Admission {
	w.admitted = session.Admission{Identity: id, Assigned: assigned, Permit: w.g.rules.Load().Permit(id, string(p.ClientID))}
	return &w.admitted
}

// admit brings a connection to the owner of its client id, which may be us. It
// tells whether it has left this worker.
func (w *Worker) admit(c *conn, p *mqtt.Connect, packet, rest []byte, a *session.Admission) (moved bool) {
	if r, why := session.CheckWill(p, a.Permit, c.listener.internal, w.g.limits); r != mqtt.Success {
		w.connack(c, p, r, why)
		return false
	}
	o := w.g.owner(p.ClientID)
	if o == w || a.Assigned {
		w.attach(c, p, a)
		return false
	}
	m := &handover{conn: c, admission: *a}
	m.data = append(append(make([]byte, 0, len(packet)+len(rest)), packet...), rest...)
	m.packet = len(packet)
	if err := w.net.Remove(c.fd); err != nil {
		w.lost(c, err)
		return false
	}
	// The connection goes on under another name; nothing later in this turn may
	// touch it under this one.
	moving := *c
	m.conn = &moving
	w.conns.drop(c.slot)
	c.dying, c.in, c.out, c.outOff, c.sealed, c.extra = true, nil, nil, 0, 0, nil
	o.inbox.postHandover(m)
	return true
}

// handover is a connection on its way to the worker that owns its client id,
// with its CONNECT and everything read after it.
type handover struct {
	conn      *conn
	admission session.Admission
	data      []byte
	packet    int // bytes of data that are the CONNECT
}

// takeOver receives a connection from the lobby of another worker.
func (w *Worker) takeOver(m *handover) {
	c := m.conn
	c.touched, c.wantWrite = false, false
	if !w.adopt(c) {
		return
	}
	if c.extra != nil {
		c.extra.login = nil
	}
	if w.stopping {
		w.kill(c, mqtt.ServerShuttingDown, "")
		return
	}
	p := &w.connect
	h, n, err := mqtt.ParseHeader(m.data, m.packet)
	if err == nil {
		err = mqtt.DecodeConnect(p, m.data[n:n+h.Remaining])
	}
	if err != nil {
		panic("BUG: a CONNECT cannot be decoded again: " + err.Error())
	}
	if id := m.admission.Identity; id != nil { // the rules may have changed on the way
		m.admission.Permit = w.g.rules.Load().Permit(id, string(p.ClientID))
		if r, why := session.CheckWill(p, m.admission.Permit, false, w.g.limits); r != mqtt.Success {
			w.connack(c, p, r, why)
			return
		}
	}
	w.attach(c, p, &m.admission)
	if c.unsent() > 0 || c.layer.Pending() {
		w.touch(c)
	}
	rest := m.data[m.packet:]
	w.posted = false
	used := w.feed(c, rest)
	w.keep(c, rest[used:])
	w.backpressure(c)
	if !c.plain() && !c.dying { // an error of the layer in the read that brought it here
		if _, err := c.layer.In(w.plain[:0], nil); err != nil {
			w.broken(c, err)
		}
	}
}

// settleIn leaves a connection that is let in only what it needs beyond the lobby.
func (w *Worker) settleIn(c *conn, x *client) {
	limited := !c.listener.internal && (w.g.opt.MessagesPerSecondMax > 0 || w.g.opt.BytesPerSecondMax > 0)
	if e := c.extra; e != nil {
		e.login, e.certUser = nil, ""
		if !e.counted && !limited {
			c.extra = nil
		}
	} else if limited {
		c.extra = &extra{}
	}
	if limited {
		c.extra.rate = w.debts[x.ClientID]
		delete(w.debts, x.ClientID)
	}
}

// owe keeps the debt of a client that goes: it cannot be left behind with the
// connection. Debts that are over are dropped when there are many.
func (w *Worker) owe(c *conn, x *client) {
	if c.extra == nil || max(c.extra.rate.messages, c.extra.rate.bytes) <= w.now {
		return
	}
	if len(w.debts) >= debtsMax {
		for id, r := range w.debts {
			if max(r.messages, r.bytes) <= w.now {
				delete(w.debts, id)
			}
		}
	}
	if len(w.debts) < debtsMax {
		w.debts[x.ClientID] = c.extra.rate
	}
}

// debtsMax bounds what is kept of clients that have gone.
const debtsMax = 4096

// identityMax keeps the sum with our clock within its range.
const identityMax = 100 * 365 * 24 * time.Hour

// expires notes when the identity of a connection ends.
func (w *Worker) expires(c *conn, id *auth.Identity) {
	if id == nil || id.Expires.IsZero() {
		delete(w.expiries, c.name())
		return
	}
	at := w.now.Add(min(id.Expires.Sub(w.g.opt.Wall()), identityMax))
	w.expiries[c.name()] = at
	w.timers.add(at, timerIdentity, c.name())
}
