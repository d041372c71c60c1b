package sim

import (
	"fmt"
	"time"

	"sluice/broker/mqtt"
	"sluice/platform/mono"
)

// DESIGN. A device is a well-behaved MQTT client with bad luck: its connections
// die at any byte, it comes back while the old one still seems alive, it
// forgets its session or asks for a new one. It keeps its half of the session
// as the specification wants it, and with it the oracle's book. A device acts
// on one connection at a time, but old ones may still be open.

// belief is what a client may know about its session at the broker.
type belief uint8

const (
	surelyNot belief = iota
	maybe
	surely
)

// flight is a publication of QoS 1 or 2 that is not complete.
type flight struct {
	p        *pub
	pid      uint16
	received bool  // QoS 2: PUBREC came
	again    bool  // it was sent before in this session
	link     *link // on which PUBLISH or PUBREL was sent last
}

type device struct {
	w         *World
	n         int
	id        string
	version   mqtt.Version
	keeps     bool   // wants its session to outlive the connection
	asks      uint32 // MQTT 5: for how many seconds
	expiry    uint32 // and for how many it does
	packetMax uint32 // MQTT 5; 0: any
	internal  bool   // connects as a part of Sluice does
	user      string // "": nobody asks
	impostors []*impostor
	slow      bool
	keepUp    time.Duration // keepalive; 0: none

	link    *link
	links   int
	olds    []*sock // connections given up while they seemed open
	retryAt mono.Time

	awayUntil mono.Time // it was turned away; for when the world heals

	// The session. After a CONNECT that was not answered a client may be unable
	// to know which session it will find; then it begins a new one (unsure).
	exp     belief
	blank   bool  // the client has nothing of a session
	since   int64 // stamp of the CONNACK that showed it
	kept    bool  // it is on the disk
	zombie  bool  // one that was ended may come back after a crash: its end is not on the disk
	endedAt int64 // stamp of when the client knew of that end
	unsure  bool
	lastAt  mono.Time // when the last connection certainly still was there
	goneAt  mono.Time // when the broker surely had closed it; 0: unknown

	book    *book
	gens    int
	wants   []grant // what it subscribes to when it has a new session
	out     []*flight
	nextPID uint16
}

func newDevice(w *World, n int) *device {
	d := &device{w: w, n: n, id: fmt.Sprintf("device-%d", n), version: pick(w, mqtt.V311, mqtt.V5),
		keeps: w.chance(0.65), slow: w.chance(w.cfg.slow), asks: 0xFFFFFFFF, book: newBook(0)}
	if d.version != mqtt.V5 && w.cfg.rejects() {
		// It is neither held back nor told, for it empties a queue itself: its connection
		// ends, over and over if the full queue is its own.
		d.keeps = false
	}
	if d.version == mqtt.V5 {
		if w.chance(0.3) {
			d.asks = uint32(w.between(1, 20))
		}
		d.packetMax = pick(w, 0, 0, 0, uint32(300), 5000)
	}
	d.expiry = d.asks
	if c := w.cfg.limits.SessionExpiryMax; c > 0 {
		d.expiry = min(d.expiry, uint32(c/time.Second))
	}
	if w.chance(0.5) {
		d.keepUp = time.Duration(w.between(5, 30)) * time.Second
	}
	if w.chance(0.05) && !(w.cfg.acl && knownBridgeRules) {
		d.internal, d.id = true, fmt.Sprintf("$bridge/%d", n)
	} else if w.cfg.auth {
		d.user = fmt.Sprintf("user-%d", n%users)
	}
	for range w.between(0, 4) {
		d.want(d.newWant())
	}
	if w.cfg.shared && w.chance(0.6) {
		d.want(grant{filter: "$share/g/s/#", qos: mqtt.QoS(w.between(1, 2)), shared: true})
	}
	return d
}

// act lets the device do one thing.
func (d *device) act() {
	w, l := d.w, d.link
	switch {
	case l == nil:
		if d.retryAt <= w.now {
			d.connect()
		}
	case !l.connected || l.bye:
		if w.chance(w.cfg.die) {
			d.die()
		}
	default:
		d.work(l)
	}
}

// work is what a connected device does.
func (d *device) work(l *link) {
	w, c := d.w, &d.w.cfg
	l.flush(c.lazy)
	switch x := w.rng.Float64(); {
	case x < 0.40:
		d.publish(l)
	case x < 0.44:
		d.subscribe(l)
	case x < 0.46:
		d.unsubscribe(l)
	case x < 0.52:
		l.ping()
	}
	if l.keepAlive > 0 && w.now.Sub(l.lastSent) > l.keepAlive/2 {
		l.ping()
	}
	switch {
	case w.chance(c.die):
		d.die()
	case w.chance(c.takeover):
		d.abandon()
	case w.chance(c.leave):
		d.leave(l)
	}
}

// die ends the connection from the client's side, one way or another.
func (d *device) die() {
	w, s := d.w, d.link.s
	how := pick(w, "abort", "leave", "cut", "finish", "vanish")
	w.note("die", d.link.name, int64(s.n), int64(len(s.up)), how)
	switch how {
	case "abort":
		s.abort()
	case "leave":
		s.leave()
	case "cut":
		if len(s.up) > 0 {
			s.up = s.up[:w.rng.IntN(len(s.up))]
		}
		s.leave()
	case "finish":
		s.finish()
	case "vanish":
		s.vanish()
	}
	d.drop()
	d.retryAt = w.now.Add(time.Duration(w.between(0, pick(w, 10, 1000, 20000))) * time.Millisecond)
}

// abandon makes the device come back at once, while the old connection still
// is open.
func (d *device) abandon() {
	d.w.note("abandon", d.link.name, int64(d.link.s.n), 0, "")
	d.w.counts.Takeovers++
	d.drop()
	d.retryAt = 0
	d.connect()
}

// drop parts the device from its connection, of which it does not know what
// has arrived.
func (d *device) drop() {
	l := d.link
	l.dead, d.link = true, nil
	d.olds = append(d.olds, l.s)
	d.goneAt = 0
	l.keepAliveExcuse()
	if !l.connected {
		d.unanswered(l)
		return
	}
	switch {
	case l.excuse != 0: // it may have ended long ago
		d.lastAt = l.connectAt
	case l.bye:
		d.lastAt = l.byeAt
	default:
		d.lastAt = d.w.now
	}
	if !l.bye {
		l.lose()
	}
	d.haunted(l)
}

// lose: the connection has ended without a DISCONNECT, so its will must be
// published.
func (l *link) lose() {
	if l.will != nil && l.willDelay == 0 {
		l.will.dies = l.crashes
	}
}

// unanswered notes what a CONNECT without an answer may have done.
func (d *device) unanswered(l *link) {
	switch {
	case l.wrong || l.refused: // nothing
	case l.clean:
		d.unsure = true
	case !l.durable:
	case d.exp == surelyNot:
		d.exp = maybe // a new one, with nothing in it
	case d.exp == maybe && !d.blank, d.expires():
		d.unsure = true // the old one, or a new one
	}
}

func (d *device) expires() bool { return d.expiry != 0xFFFFFFFF }

func (d *device) expiryTime() time.Duration { return time.Duration(d.expiry) * time.Second }

// late tells whether CONNECTs of connections that were given up may still come
// and take over the next; strict: such that do more than resume the session.
func (d *device) late(strict bool) bool {
	open := d.olds[:0]
	for _, s := range d.olds {
		if !s.closed {
			open = append(open, s)
		}
	}
	clear(d.olds[len(open):])
	d.olds = open
	for _, s := range d.olds {
		if l := s.end.(*link); !l.connected && !l.wrong && (!strict || l.clean || !l.durable) {
			return true
		}
	}
	return false
}

// leave says goodbye.
func (d *device) leave(l *link) {
	w := d.w
	p := mqtt.Disconnect{}
	if l.version == mqtt.V5 && l.durable && w.chance(0.2) {
		p.Props.HasSessionExpiry = true // 0: the session ends
		d.exp = maybe
	}
	if l.version == mqtt.V5 && l.will != nil && w.chance(0.3) {
		p.Reason = mqtt.DisconnectWithWill
		l.lose()
	}
	l.bye, l.byeAt = true, w.now
	l.endsSession = p.Props.HasSessionExpiry || !l.durable
	l.keepsWill = p.Reason != mqtt.Success
	l.send("DISCONNECT", int(p.Reason), mqtt.AppendDisconnect(nil, &p, l.version))
}

// onEnded: the broker has closed the device's connection, or the process has
// died.
func (d *device) onEnded(l *link, reset bool) {
	w := d.w
	l.dead, d.link = true, nil
	d.retryAt = w.now.Add(time.Duration(w.between(0, 2000)) * time.Millisecond)
	d.goneAt = 0
	if !l.connected {
		d.awayUntil = w.now.Add(time.Duration(w.between(1, 500)) * time.Millisecond)
	}
	switch {
	case !l.connected:
		d.unanswered(l)
	case l.bye && !reset && l.excuse == 0:
		// It has processed the DISCONNECT.
		d.lastAt, d.goneAt = l.byeAt, w.now
		if l.endsSession && d.exp != surelyNot {
			d.exp, d.blank = surelyNot, true
			d.zombie, d.endedAt = true, w.next()
		}
		if l.will != nil && !l.keepsWill {
			if l.will.voided = true; l.will.got {
				w.fail("will", "the will %d of %s was published, although it said goodbye", l.will.n, l.name)
			}
		}
	case !l.bye:
		d.lastAt = l.connectAt
		if l.excuse&restarted == 0 {
			l.lose()
		}
	default:
		d.lastAt = l.connectAt
		d.haunted(l)
	}
}

// haunted: a late CONNECT may have come after the session was ended, and begun an
// empty one.
func (d *device) haunted(l *link) {
	if l.durable && l.endsSession && l.excuse&rival != 0 {
		d.unsure = true
	}
}

// newSession: the broker has begun a new session with the connection l.
func (d *device) newSession(l *link) {
	d.gens++
	d.book, d.blank, d.kept = newBook(d.gens), false, false
	kept := d.out[:0]
	for _, f := range d.out {
		switch {
		case f.link == l:
			kept = append(kept, f)
		case f.received:
		case d.w.chance(0.5):
			f.p.given = true
		default:
			f.p.fresh++
			f.again = false
			kept = append(kept, f)
		}
	}
	clear(d.out[len(kept):])
	d.out = kept
}

// committed: what the client knew of at a stamp is on the disk.
func (d *device) committed(stamp int64) {
	d.kept = d.kept || d.exp == surely && d.since < stamp
	if d.zombie && d.endedAt < stamp {
		d.zombie = false
	}
	d.book.committed(stamp)
}

// crashed: the process is gone, and what was not on the disk.
func (d *device) crashed() {
	if d.link != nil {
		d.link.excuse |= crashed
	}
	d.doubt()
	d.goneAt = 0
	d.book.crashed()
}

// doubt: what the client knew of its session, and was not on the disk, may not
// be so any more.
func (d *device) doubt() {
	if d.exp == surely && !d.kept {
		d.exp = maybe
	}
	if d.zombie { // it may have risen
		d.exp, d.unsure, d.zombie = maybe, true, false
	}
}

// closing: the broker will stop in order.
func (d *device) closing() {
	if d.link != nil {
		d.link.excuse |= restarted
	}
}

// mute takes the subscriptions from the session, if the device is away.
func (d *device) mute() {
	w := d.w
	if d.link != nil {
		return
	}
	w.note("mute", d.id, 0, 0, "")
	stamp := w.next()
	for _, g := range d.book.grants {
		d.book.unsubscribe(g.filter, stamp)
	}
	w.host.group.Mute(d.id)
}
