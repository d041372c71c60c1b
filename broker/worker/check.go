package worker

import (
	"fmt"
	"slices"
)

// Check panics if an invariant of the worker, or of one of its sessions, is
// violated. It is for the simulator and for tests, between turns.
func (w *Worker) Check() {
	bad := func(format string, args ...any) {
		panic(fmt.Sprintf("BUG: worker %d: %s", w.id, fmt.Sprintf(format, args...)))
	}
	w.checkTurn(bad)
	waiting, sessions := 0, 0
	w.clients.each(func(x *client) {
		sessions++
		x.Session.Check()
		waiting += x.Pending()
		switch y, ok := w.client(x.ID); {
		case !ok || y != x || ownerOf(x.ID) != w.id:
			bad("session %q is not found by its id %#x", x.ClientID, x.ID)
		case w.byID[x.ClientID] != x:
			bad("session %q is not found by its client id", x.ClientID)
		case x.Connected() != (x.conn != nil):
			bad("session %q: connected %v, connection %p", x.ClientID, x.Connected(), x.conn)
		case x.conn != nil && x.conn.client != x:
			bad("session %q: its connection belongs to another", x.ClientID)
		case x.conn == nil && x.Durable == 0:
			bad("session %q is without a connection and does not outlive it", x.ClientID)
		}
	})
	if waiting != w.fx.Waiting {
		bad("%d acknowledgements wait, counted %d", waiting, w.fx.Waiting)
	}
	if sessions != len(w.byID) || sessions != w.clients.used {
		bad("%d sessions, %d client ids, counted %d", sessions, len(w.byID), w.clients.used)
	}
	w.checkConns(bad)
	w.checkHolds(bad)
}

// checkTurn: a turn leaves nothing behind.
func (w *Worker) checkTurn(bad func(string, ...any)) {
	if !w.batch.Empty() || len(w.durables) > 0 || len(w.fetches) > 0 || len(w.touched) > 0 {
		bad("left behind by settle: batch empty %v, %d durables, %d fetches, %d touched",
			w.batch.Empty(), len(w.durables), len(w.fetches), len(w.touched))
	}
	for i, b := range w.out {
		if b != nil {
			bad("mail for worker %d was not posted", i)
		}
	}
}

func (w *Worker) checkConns(bad func(string, ...any)) {
	conns, dying, clients := 0, 0, 0
	fds := make(map[int]bool)
	w.conns.each(func(c *conn) {
		conns++
		if d, ok := w.conns.get(c.slot, c.gen); !ok || d != c {
			bad("connection %d is not found by slot %d, generation %d", c.fd, c.slot, c.gen)
		}
		if fds[c.fd] {
			bad("two connections have descriptor %d", c.fd)
		}
		fds[c.fd] = true
		if c.dying {
			dying++
		}
		if c.client != nil {
			clients++
			if c.client.conn != c {
				bad("connection %d: its session has another", c.fd)
			}
		}
		if c.paused && !w.stopping && !c.dying && c.client != nil && !(c.extra != nil && c.extra.timed) && c.client.Pending() < w.bounds.acks/2 && !c.blocked && !(w.pressed && slices.Contains(w.held, c)) && w.heldBy(c) == nil {
			bad("connection %d is paused, and nothing will change that", c.fd)
		}
		if c.paused && !w.stopping && !c.dying && c.client == nil && (c.extra == nil || c.extra.login == nil || !c.extra.login.busy) {
			bad("connection %d in the lobby is paused, and nobody thinks about it", c.fd)
		}
		if c.blocked && !c.wantWrite && !c.dying && !slices.Contains(w.drained, c) {
			bad("connection %d holds something back, and nothing will change that", c.fd)
		}
		if c.unsent() > 0 && !c.wantWrite && !c.dying {
			bad("connection %d: %d bytes to write, and nobody waits for room", c.fd, c.unsent())
		}
	})
	if conns != w.conns.used || dying != len(w.dying) {
		bad("%d connections, counted %d; %d dying, %d noted", conns, w.conns.used, dying, len(w.dying))
	}
	connected := 0
	w.clients.each(func(x *client) {
		if x.conn != nil {
			connected++
		}
	})
	if connected != clients {
		bad("%d sessions have a connection, %d connections a session", connected, clients)
	}
}

// bounds are those of a worker that are not options.
type bounds struct {
	acks      int // acksMax
	turnBytes int // turnBytesMax
}

// Tighten lowers bounds, so that the simulator meets them with little traffic:
// acksMax, turnBytesMax and congestedBytes. It must be called before the first
// turn.
func (w *Worker) Tighten(acks, turnBytes, mailBytes int) {
	w.bounds = bounds{acks: acks, turnBytes: turnBytes}
	w.inbox.bytesMax = mailBytes
}
