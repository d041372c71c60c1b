package sim

import (
	"fmt"
	"slices"
	"strings"

	"sluice/broker/mqtt"
	"sluice/platform/mono"
)

// DESIGN. After the chaos the world heals: no more faults, what hangs is cut,
// everybody connects. Then the broker owes what it has promised, and nothing of
// that needs time to pass, but for wills that wait and listeners that rest after
// an accept failed. So when nothing can move any more and something is still
// missing, it is lost or stuck, whatever a timer might repair later: a lost
// wake-up shows here. In the end all sessions are ended, and nothing may be
// left of anything.

func (w *World) heal() {
	w.healing = true
	w.note("heal", "world", 0, 0, "")
	h := w.host
	h.failCommits(false)
	if !h.up {
		h.start()
	}
	for _, s := range w.socks {
		if l, ok := s.end.(*link); s.silent || ok && l.dead || !ok {
			s.silent = false
			s.abort()
		}
	}
	w.drain()
	for _, d := range w.devices {
		for qos := range 3 {
			d.publishTo(d.link, pick(w, plainTopics...), mqtt.QoS(qos), false)
		}
	}
	w.drain()
	w.probe(mqtt.V311)
	w.probe(mqtt.V5)
	w.end()
}

// drain lets everything happen that can, until all that was promised is there.
func (w *World) drain() {
	w.drainUntil(func() string {
		for _, s := range w.socks {
			if s.gone && !s.closed {
				return "stuck: " + s.end.String() + " has gone, and the broker has not closed the connection"
			}
		}
		for _, d := range w.devices {
			if s := d.lacks(); s != "" {
				return s
			}
		}
		if why := w.missing(); why != "" || !w.cfg.throttles() {
			return why
		}
		return w.queued() // acknowledgements wait until the client is read again
	})
	w.counts.Required += w.required()
	if why := w.queued(); why != "" {
		w.fail("leak", "%s", why)
	}
}

// queued says what the store holds although everything is delivered.
func (w *World) queued() string {
	if st := w.host.store.Stats(); st.QueuedMessages != 0 {
		return fmt.Sprintf("leak: everything is delivered, and the store holds %d messages", st.QueuedMessages)
	}
	return ""
}

// drainUntil lets everything happen that can, until lacks gives "".
func (w *World) drainUntil(lacks func() string) {
	until := w.now.Add(w.cfg.patience())
	for range 2_000_000 {
		if w.busy() {
			w.now++
			continue
		}
		what := lacks()
		if what == "" {
			return
		}
		at := w.nextTime()
		if at == 0 || at > until {
			kind, _, _ := strings.Cut(what, ":")
			w.fail(kind, "nothing moves any more, and %s", what)
		}
		w.now = max(w.now, at)
	}
	w.fail("livelock", "the world does not come to rest")
}

// nextTime is when a worker, or a device that was turned away, goes on; 0: never.
func (w *World) nextTime() mono.Time {
	at := w.host.nextTimer()
	for _, d := range w.devices {
		if d.link == nil && d.awayUntil > w.now && (at == 0 || d.awayUntil < at) {
			at = d.awayUntil
		}
	}
	return at
}

// busy lets one thing happen. It tells whether there was any.
func (w *World) busy() bool {
	first := w.rng.IntN(4)
	for k := range 4 {
		did := false
		switch (first + k) % 4 {
		case 0:
			did = w.host.turn()
		case 1:
			did = w.move()
		case 2:
			did = w.host.commit() || w.host.fetch() || w.host.work()
		case 3:
			did = w.tend()
		}
		if did {
			return true
		}
	}
	return false
}

// tend lets the devices do what they owe.
func (w *World) tend() bool {
	for _, d := range w.devices {
		if d.tend() {
			return true
		}
	}
	return false
}

func (d *device) tend() bool {
	l := d.link
	switch {
	case l == nil:
		if d.w.ending && d.exp == surelyNot && !d.unsure && !d.zombie {
			return false
		}
		if d.awayUntil > d.w.now {
			return false
		}
		d.connect()
		return d.link != nil
	case !l.connected || l.bye:
		return false
	case len(l.answers) > 0:
		l.flush(0)
		return true
	case d.w.ending || l.durable != d.keeps:
		d.leave(l)
		return true
	case l.keepAlive > 0 && d.w.now.Sub(l.lastSent) > l.keepAlive/2:
		l.ping()
		return true
	}
	return false
}

// lacks says what a device still waits for; "" if for nothing.
func (d *device) lacks() string {
	l := d.link
	switch {
	case l == nil || !l.connected || l.bye:
		return "stuck: " + d.id + " is not connected"
	case len(l.requests) > 0:
		return fmt.Sprintf("stuck: %s waits for %v %d", l.name, l.requests[0].kind, l.requests[0].pid)
	case len(d.out) > 0:
		f := d.out[0]
		return fmt.Sprintf("stuck: %s waits for the end of publication %d, packet id %d, PUBREC came: %v", l.name, f.p.n, f.pid, f.received)
	case len(l.pings) > 0:
		return "stuck: " + l.name + " waits for PINGRESP"
	}
	for _, n := range d.book.in2 {
		if !d.mayLose(n) {
			return fmt.Sprintf("stuck: %s waits for PUBREL", l.name)
		}
	}
	return ""
}

// mayLose tells whether a publication may be given up although it was sent: when
// it has expired, or was forbidden, before the client acknowledged it.
func (d *device) mayLose(n int) bool {
	if n < 0 {
		return false
	}
	p := d.w.pubs[n]
	_, always := d.allowedTo(p.first, toRead, p.topic)
	return p.expirySeconds != 0 || !always
}

// missing names a message that had to arrive and did not; "" if there is none.
func (w *World) missing() string {
	for _, p := range w.pubs {
		for _, d := range w.devices {
			if d.book.got[p.n] == nil && d.requires(p) {
				return fmt.Sprintf("lost: publication %d from %s on %q (QoS %d, acknowledged %v, will %v) has not come to %s",
					p.n, p.from.id, p.topic, p.qos, p.acked != 0, p.will, d.link.name)
			}
		}
		if why := w.sharedMissing(p); why != "" {
			return why
		}
	}
	return ""
}

// required counts what had to arrive.
func (w *World) required() (n int) {
	for _, p := range w.pubs {
		for _, d := range w.devices {
			if d.requires(p) {
				n++
			}
		}
	}
	return n
}

// requires tells whether p had to arrive at d by now.
func (d *device) requires(p *pub) bool {
	w := d.w
	if p.clears || p.expirySeconds != 0 || p.first == 0 || d.tooLarge(p) {
		return false
	}
	sent := p.acked != 0
	switch {
	case p.will:
		sent = p.dies == w.crashes && !w.cfg.quota()
	case p.qos == 0:
		sent = p.link == p.from.link
	}
	if sent && (p.will || p.qos == 0) { // a will is judged when it is left, and when it is published
		_, sent = p.from.allowedTo(p.first, toWrite, p.topic)
	}
	if _, may := d.allowedTo(p.first, toRead, p.topic); !sent || !may {
		return false
	}
	if p.qos > 0 && w.cfg.rejects() && !d.link.durable {
		return false // a queue in memory cannot reject: it drops
	}
	if p.qos > 0 && d.book.requires(p, d, 1) {
		return true
	}
	return w.cfg.calm && d.link.begun < p.first && d.book.requires(p, d, 0)
}

// tooLarge tells whether p may exceed the device's maximum packet size.
func (d *device) tooLarge(p *pub) bool {
	const overhead = 150 // bytes of a PUBLISH beside the payload, at most
	return d.packetMax != 0 && p.bytes+overhead > int(d.packetMax)
}

// sharedMissing: of a share group whose members never changed, one must have
// got the message.
func (w *World) sharedMissing(p *pub) string {
	if p.acked == 0 || p.qos == 0 || p.topic != "s/a" || p.expirySeconds != 0 {
		return ""
	}
	members := 0
	for _, d := range w.devices {
		wants := slices.ContainsFunc(d.wants, func(g grant) bool { return g.shared })
		if !wants {
			continue
		}
		_, may := d.allowed(p.first, func(r []rule) bool { return maySubscribe(r, "$share/g/s/#") })
		if members++; d.tooLarge(p) || !may {
			return ""
		}
		if d.book.got[p.n] != nil {
			return ""
		}
		stands := slices.ContainsFunc(d.book.grants, func(g *grant) bool { return g.shared && g.stands(p) })
		if !stands {
			return "" // somebody came later, and the message may have gone with an earlier session
		}
	}
	if members == 0 {
		return ""
	}
	return fmt.Sprintf("lost: publication %d from %s on %q has not come to any member of the share group", p.n, p.from.id, p.topic)
}

// end lets all clients end their sessions and go.
func (w *World) end() {
	w.ending = true
	w.note("end", "world", 0, 0, "")
	for _, d := range w.devices {
		if l := d.link; l != nil {
			d.leave(l)
		}
	}
	w.drainUntil(func() string {
		for _, d := range w.devices {
			if d.link != nil || d.exp != surelyNot || d.unsure || d.zombie {
				return "stuck: " + d.id + " cannot end its session"
			}
		}
		if len(w.socks) > 0 {
			return fmt.Sprintf("stuck: %d connections do not end, one of them %v", len(w.socks), w.socks[0].end)
		}
		return ""
	})
	w.host.checkEmpty()
}
