package worker

import (
	"errors"
	"slices"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/platform/mono"
)

// DESIGN. A publication that the store refuses for want of room has no answer in
// MQTT before 5 but silence. So its publisher is held back: it is not read any
// more, what was refused is kept with its store operations, and they are submitted
// again, oldest first, until they are taken; then the acknowledgement leaves as
// always. Receivers without a queue in the store have got the message at the first
// try and do not get it again. Clients of MQTT 5 are told 0x97, unless their class
// says that they are held, too.
//
// What is held is what one read has brought, and it goes with the connection:
// nothing of it was acknowledged, the client sends it again. While a client is
// held its silence is ours, and no keepalive ends it; that it has gone is seen by
// its socket.
//
// The store tells of a refusal twice: by Batch.Refused at once, and by a
// settlement in the next turn's mail, which says nothing new here. A publication
// is submitted again only after its settlement has come, so that none is
// mistaken for that of a later try.
//
// Room comes about when something leaves a queue. The worker that submits this
// nudges those who hold clients; what it cannot see, such as bytes that count
// until the commit, is found by timer.

const (
	holdPauseMin = 50 * time.Millisecond // until the first try by timer; it doubles
	holdPauseMax = time.Second
	holdTries    = 64 // clients that are tried for one nudge
)

// hold is a client that is held back.
type hold struct {
	client *client
	epoch  uint32
	list   []heldPublication
	pause  time.Duration
	at     mono.Time // of its timer; others of the same connection are out of date
	hint   int       // index in list of what is settled next
}

// heldPublication is a group that was refused.
type heldPublication struct {
	token persist.Token
	ops   []persist.Op
	to    []durable // their op counts from the group's first
	told  bool      // the settlement of the last try has come
}

// held gives the hold of a connection, nil if it is not held.
func (w *Worker) heldBy(c *conn) *hold {
	if len(w.holds) == 0 || c.client == nil {
		return nil
	}
	return w.holds[c.client.ID]
}

// takeRefused holds back the publishers of what was refused, if they may be. It is
// called between Submit and Reset.
func (w *Worker) takeRefused() {
	at := 0 // w.durables are in the order of their ops
	for _, r := range w.batch.Refused {
		x, ok := w.client(r.Token.Session)
		if !ok || x.conn == nil || x.conn.dying || x.Epoch != r.Token.Epoch || !x.MayHold() {
			continue
		}
		p := heldPublication{token: r.Token, ops: slices.Clone(w.batch.Ops[r.First:r.End])}
		for ; at < len(w.durables) && w.durables[at].op < r.End; at++ {
			if d := w.durables[at]; d.op >= r.First {
				d.op -= r.First
				p.to = append(p.to, d)
			}
		}
		h := w.holds[x.ID]
		if h == nil {
			h = w.holdBack(x)
		}
		h.list = append(h.list, p)
		w.stats.Held++
	}
}

// holdBack begins to hold a client.
func (w *Worker) holdBack(x *client) *hold {
	h := &hold{client: x, epoch: x.Epoch}
	w.holds[x.ID] = h
	w.holding = append(w.holding, h)
	w.g.holding.Add(1)
	w.hungry.Store(true)
	if x.conn.paused {
		w.arm(x.conn)
	} else {
		w.pause(x.conn)
	}
	w.tryLater(h, holdPauseMin)
	return h
}

func (w *Worker) tryLater(h *hold, pause time.Duration) {
	h.pause = min(pause, holdPauseMax)
	h.at = w.now.Add(h.pause)
	w.timers.add(h.at, timerHold, h.client.conn.name())
}

// unhold forgets a hold.
func (w *Worker) unhold(h *hold) {
	delete(w.holds, h.client.ID)
	w.holding = slices.DeleteFunc(w.holding, func(x *hold) bool { return x == h })
	w.g.holding.Add(-1)
}

// dropHold forgets what is held of a client whose connection has ended. Of what
// is not settled yet the session learns by mail.
func (w *Worker) dropHold(x *client) {
	h := w.holds[x.ID]
	if h == nil {
		return
	}
	w.unhold(h)
	for i := range h.list {
		if p := &h.list[i]; p.told {
			x.Accepted(&w.fx, p.token, persist.ErrQueueFull)
		}
	}
}

// holdsBack tells whether a settlement is that of a publication which is held, so
// that its session need not know.
func (w *Worker) holdsBack(t persist.Token, err error) bool {
	h := w.holds[t.Session]
	if h == nil || h.epoch != t.Epoch || !errors.Is(err, persist.ErrFull) && !errors.Is(err, persist.ErrQueueFull) {
		return false
	}
	for n := range h.list {
		i := (h.hint + n) % len(h.list)
		if p := &h.list[i]; p.token == t && !p.told {
			p.told = true
			h.hint = i + 1
			return true
		}
	}
	return false
}

// holdDue tries again by timer.
func (w *Worker) holdDue(c *conn, t timer) {
	h := w.heldBy(c)
	if h == nil || h.at != t.at {
		return
	}
	pause := 2 * h.pause
	if w.tryHold(h) {
		pause = holdPauseMin
	}
	if len(h.list) > 0 {
		w.tryLater(h, pause)
	}
}

// retryHolds tries again because something has left a queue: those in turn who
// have waited longest since their last try.
func (w *Worker) retryHolds() {
	tries := slices.Clone(w.holding[:min(len(w.holding), holdTries)])
	w.holding = append(w.holding[:0], w.holding[len(tries):]...)
	w.holding = append(w.holding, tries...)
	for _, h := range tries {
		w.tryHold(h)
	}
	w.hungry.Store(len(w.holding) > 0)
}

// tryHold submits what is held of a client, up to the first that is refused again.
// It tells whether any was taken.
func (w *Worker) tryHold(h *hold) (progress bool) {
	for len(h.list) > 0 && h.list[0].told && !h.client.conn.dying {
		if !w.submitHeld(&h.list[0]) {
			h.list[0].told = false
			h.hint = 0
			break
		}
		progress = true
		h.list[0] = heldPublication{}
		h.list = h.list[1:]
	}
	if len(h.list) == 0 {
		w.unhold(h)
		c := h.client.conn
		if w.unpause(c); c.paused && !c.dying {
			w.arm(c)
		}
	}
	return progress
}

// submitHeld submits a publication again. It tells whether it was taken.
func (w *Worker) submitHeld(p *heldPublication) bool {
	w.submit() // what the turn has decided so far
	w.batch.Begin(p.token)
	at := make([]int, len(p.ops))
	for i := range p.ops {
		if op := p.ops[i]; w.stands(&op) {
			at[i] = w.batch.Add(op)
		}
	}
	w.batch.End()
	for _, d := range p.to {
		d.op = at[d.op]
		w.durables = append(w.durables, d)
	}
	w.again = true
	taken := w.submit()
	w.again = false
	return taken
}

// stands tells whether an op is still to be done. What came later on a retained
// message's topic, from others, is in the store already.
func (w *Worker) stands(op *persist.Op) bool {
	if op.Kind != persist.OpPutRetained && op.Kind != persist.OpDeleteRetained {
		return true
	}
	now := w.g.retained.Match(string(op.Entry.Msg.Topic), nil)
	if op.Kind == persist.OpDeleteRetained {
		return len(now) == 0
	}
	return len(now) == 1 && now[0] == op.Entry.Msg
}

// nudge tells the workers that hold clients that there may be room, if there may.
func (w *Worker) nudge() {
	if !slices.ContainsFunc(w.batch.Ops, func(op persist.Op) bool {
		switch op.Kind {
		case persist.OpDequeue, persist.OpRelease, persist.OpDeleteSession, persist.OpPutSession:
			return true
		}
		return false
	}) {
		return
	}
	for _, o := range w.g.workers {
		if o.hungry.Load() && o.hungry.Swap(false) {
			o.Call((*Worker).retryHolds)
		}
	}
}

// Owed is how many acknowledgements the store owes: those of clients that are held
// depend on others. It belongs to the worker's goroutine.
func (w *Worker) Owed() int {
	n := w.fx.Waiting
	for _, h := range w.holding {
		n -= h.client.Pending()
	}
	return n
}

// checkHolds is part of Check.
func (w *Worker) checkHolds(bad func(string, ...any)) {
	if len(w.holds) != len(w.holding) {
		bad("%d clients are held, %d in order", len(w.holds), len(w.holding))
	}
	for _, h := range w.holding {
		x := h.client
		switch {
		case w.holds[x.ID] != h || x.conn == nil || x.Epoch != h.epoch:
			bad("session %q is held, and its connection is gone", x.ClientID)
		case !x.conn.paused && !x.conn.dying:
			bad("session %q is held, and read", x.ClientID)
		case len(h.list) == 0 || h.at.Add(2*holdPauseMax) < w.now:
			bad("session %q is held, and nothing will change that: %d publications, timer at %d", x.ClientID, len(h.list), h.at)
		}
		for i := range h.list {
			if k := mqtt.Type(h.list[i].token.Index >> 16); k != mqtt.PUBACK && k != mqtt.PUBREC {
				bad("session %q: a group with %v is held", x.ClientID, k)
			}
		}
	}
}
