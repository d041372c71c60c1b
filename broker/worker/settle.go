package worker

import (
	"sluice/broker/mqtt"
	"sluice/persist"
)

// settle ends a turn: everything that the turn decided is carried out, in an
// order in which nothing can name what is gone.
func (w *Worker) settle() {
	// Who died leaves first: wills and expired sessions may add to the batch.
	// Submitting may show that a message cannot be delivered, which again adds to it.
	for len(w.dying) > 0 || !w.batch.Empty() {
		w.bury()
		w.submit()
	}
	for _, r := range w.fetches {
		r.Owner = w.id
		w.g.store.Fetch(r)
	}
	w.fetches = w.fetches[:0]
	w.post()
	for _, c := range w.touched {
		c.touched = false
		if c.client != nil || !c.dying {
			w.flush(c)
		}
	}
	clear(w.touched)
	w.touched = w.touched[:0]
}

// bury ends the connections that died in this turn.
func (w *Worker) bury() {
	for len(w.dying) > 0 {
		c := w.dying[len(w.dying)-1]
		w.dying = w.dying[:len(w.dying)-1]
		w.flush(c)
		w.farewell(c)
		if canaryStaleConnection && c.client != nil {
			w.closeFD(c)
			continue
		}
		w.detach(c)
		w.closeFD(c)
		w.conns.drop(c.slot)
		if c.out != nil {
			w.chunks.put(c.out)
		}
		c.in, c.out, c.outOff, c.sealed = nil, nil, 0, 0
	}
}

func (w *Worker) closeFD(c *conn) {
	if !c.gone {
		// Unread input would make the kernel reset the connection, and the
		// peer might never see our last packet.
		_, _ = w.net.Read(c.fd, w.buf)
	}
	w.leave(c)
	w.drop(c.fd, c.listener)
	delete(w.expiries, c.name())
	w.stats.Disconnects++
}

// submit gives the batch to the store, and what it holds for durable sessions
// to them: they learn of a message when it has its number.
// It tells whether the store has refused nothing.
func (w *Worker) submit() (taken bool) {
	if w.batch.Empty() {
		return true
	}
	if canaryDoubleDelivery {
		w.loseDequeues()
	}
	w.g.store.Submit(&w.batch)
	for i := range w.durables {
		d := &w.durables[i]
		d.seq = w.batch.Ops[d.op].Seq
	}
	if taken = len(w.batch.Refused) == 0; !taken && !w.again {
		w.takeRefused()
	}
	if w.g.holding.Load() > 0 {
		w.nudge()
	}
	w.batch.Reset()
	for i := range w.durables {
		d := &w.durables[i]
		if d.seq == 0 {
			continue
		}
		var p mqtt.Publish
		d.msg.View(&p)
		m := publication{p: &p, msg: d.msg, from: d.msg.From, expires: d.msg.Expires}
		w.send(&d.target, &m, d.seq)
		w.endRoute()
	}
	clear(w.durables)
	w.durables = w.durables[:0]
	return taken
}

// loseDequeues is the canary double-delivery.
func (w *Worker) loseDequeues() {
	for i := range w.batch.Ops {
		if w.batch.Ops[i].Kind == persist.OpDequeue {
			w.batch.Ops[i].ID = 0 // no such queue
		}
	}
}

// post sends the outboxes.
func (w *Worker) post() {
	for i, b := range w.out {
		if b == nil {
			continue
		}
		w.out[i] = nil
		if w.g.workers[i].inbox.postBundle(b, w.id) {
			w.pressed = true
		}
	}
}
