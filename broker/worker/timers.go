package worker

import (
	"time"

	"sluice/broker/mqtt"
	"sluice/platform/mono"
)

// DESIGN. All timers of a worker are in one wheel of slots a quarter of a
// second wide: keepalives, sessions that expire, wills that wait. An entry names a
// connection or a session and says "look at it then"; whoever is looked at
// knows its own deadline and is entered again if that has moved. So a packet
// that puts off a keepalive costs nothing, and nothing is ever taken out of the
// wheel: an entry whose name is out of date is dropped when its time comes, or
// when the wheel has turned once, so that those who come and go leave no more
// behind than one turn's worth.

const (
	timerTick  = 250 * time.Millisecond
	timerSlots = 512 // 128 s; what is farther is looked at on the way
)

type timerKind uint8

const (
	timerConn      timerKind = iota // keepalive
	timerLobby                      // CONNECT overdue
	timerClient                     // session expiry, will delay
	timerListeners                  // accept again
	timerLogin                      // a login that was slowed down goes on
	timerRate                       // read again from who sent too much
	timerIdentity                   // a token has expired
	timerHold                       // submit again what was refused
)

type timer struct {
	at   mono.Time
	name uint64 // slot and generation
	kind timerKind
}

type timers struct {
	slots   [timerSlots][]timer
	done    int64 // tick up to which, and including which, all is done
	count   int
	nextAt  mono.Time // no entry is due before; 0: unknown
	pending []timer
}

func (t *timers) init(now mono.Time) { t.done = tickOf(now) }

func tickOf(at mono.Time) int64 { return int64(at) / int64(timerTick) }

// add enters a timer. It comes due at the first tick that begins after at.
func (t *timers) add(at mono.Time, kind timerKind, name uint64) {
	tick := max(tickOf(at)+1, t.done+1)
	if tick > t.done+timerSlots {
		tick = t.done + timerSlots
	}
	s := &t.slots[tick%timerSlots]
	*s = append(*s, timer{at: at, name: name, kind: kind})
	t.count++
	if due := mono.Time(tick * int64(timerTick)); t.nextAt == 0 || due < t.nextAt {
		t.nextAt = due
	}
}

// next is when advance must be called at the latest; 0: no timer is set.
func (t *timers) next() mono.Time {
	if t.count == 0 {
		return 0
	}
	return t.nextAt
}

// advance calls due for the timers that are due. due may add timers. stands
// tells of a timer that is not due whether it still means something.
func (t *timers) advance(now mono.Time, stands func(timer) bool, due func(timer)) {
	if t.count == 0 {
		t.done, t.nextAt = tickOf(now), 0
		return
	}
	if t.nextAt > now {
		return
	}
	until := tickOf(now)
	for t.count > 0 && t.done < until {
		t.done++
		s := &t.slots[t.done%timerSlots]
		if len(*s) == 0 {
			continue
		}
		t.pending = append(t.pending[:0], *s...)
		*s = (*s)[:0]
		if cap(*s) > 1024 {
			*s = nil
		}
		t.count -= len(t.pending)
		for _, x := range t.pending {
			switch {
			case x.at <= now:
				due(x)
			case stands(x): // it was too far away for the wheel
				t.add(x.at, x.kind, x.name)
			}
		}
	}
	t.done = max(t.done, until)
	t.findNext()
}

func (t *timers) findNext() {
	t.nextAt = 0
	if t.count == 0 {
		return
	}
	for tick := t.done + 1; tick <= t.done+timerSlots; tick++ {
		if len(t.slots[tick%timerSlots]) > 0 {
			t.nextAt = mono.Time(tick * int64(timerTick))
			return
		}
	}
}

// timerStands tells whether a timer that is not due has something to look at.
func (w *Worker) timerStands(t timer) bool {
	switch t.kind {
	case timerConn, timerLobby:
		c, ok := w.conns.get(uint32(t.name), uint32(t.name>>32))
		return ok && (t.kind == timerConn || c.client == nil)
	case timerLogin, timerRate, timerIdentity, timerHold:
		_, ok := w.conns.get(uint32(t.name), uint32(t.name>>32))
		return ok
	case timerClient:
		x, ok := w.client(t.name)
		return ok && x.absence != nil && (t.at == x.absence.expireAt || x.absence.will != nil && t.at == x.absence.willAt)
	}
	return true
}

// timerDue looks at what a timer names.
func (w *Worker) timerDue(t timer) {
	switch t.kind {
	case timerConn:
		if c, ok := w.conns.get(uint32(t.name), uint32(t.name>>32)); ok && !c.dying {
			w.connDue(c, t)
		}
	case timerLobby:
		// However slowly its bytes come.
		if c, ok := w.conns.get(uint32(t.name), uint32(t.name>>32)); ok && !c.dying && c.client == nil {
			w.kill(c, mqtt.KeepAliveTimeout, "no CONNECT in time")
		}
	case timerClient:
		if x, ok := w.client(t.name); ok {
			w.clientDue(x)
		}
	case timerListeners:
		w.resumeListeners()
	case timerLogin, timerRate, timerIdentity, timerHold:
		if c, ok := w.conns.get(uint32(t.name), uint32(t.name>>32)); ok && !c.dying {
			w.lookAgain(c, t)
		}
	}
}

// lookAgain goes on with a connection that waits for nothing but time.
func (w *Worker) lookAgain(c *conn, t timer) {
	switch t.kind {
	case timerLogin:
		if c.extra != nil && c.extra.login != nil && c.client == nil {
			w.goOn(c)
		}
	case timerRate:
		if c.extra != nil {
			c.extra.timed = false
			w.unpause(c)
		}
	case timerHold:
		w.holdDue(c, t)
	case timerIdentity:
		switch at, ok := w.expiries[c.name()]; {
		case !ok: // it was renewed by one that does not expire
		case at > w.now:
			w.timers.add(at, timerIdentity, c.name())
		default:
			w.kick(c, mqtt.NotAuthorized, "the token has expired")
		}
	}
}

// connDue: a connection that was silent for too long ends; one that was not is
// looked at again when it could have been.
func (w *Worker) connDue(c *conn, t timer) {
	if c.idleMax == 0 {
		return
	}
	if at := c.seen.Add(c.idleMax); at > w.now {
		w.timers.add(at, timerConn, t.name)
		return
	}
	if c.paused {
		// It is we who do not read: the silence is ours.
		c.seen = w.now
		w.timers.add(w.now.Add(c.idleMax), timerConn, t.name)
		return
	}
	// After a stall there are more events than a turn takes, and timers come due
	// before all are looked at: what the client has sent may wait unread.
	if w.readable(c, false); c.dying {
		return
	}
	if c.seen == w.now {
		w.timers.add(w.now.Add(c.idleMax), timerConn, t.name)
		return
	}
	w.kick(c, mqtt.KeepAliveTimeout, "keepalive exceeded [MQTT-3.1.2-22]") // and the will goes
}

func (w *Worker) clientDue(x *client) {
	if x.conn != nil {
		return
	}
	if x.expired(w.now) {
		w.endSession(x)
		w.stats.Expired++
		return
	}
	if a := x.absence; a != nil && a.will != nil && a.willAt <= w.now {
		w.publishWill(x, w.callOff(x))
	}
}
