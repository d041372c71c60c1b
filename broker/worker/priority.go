package worker

import (
	"sluice/broker/session"
	"sluice/persist"
)

// DESIGN. Whether a message has priority follows from its topic. The worker of
// its publisher decides it, once for all receivers, and from then on the delivery
// carries it: a message for a session in the store has its number in one of
// the two queues of the session, so what the rules were when it was queued
// holds until it is delivered.
//
// Each session in the store has a queue for messages with priority as long as
// there are rules. A queue that was left from earlier rules is emptied, and
// goes with its session.

// urgent tells whether messages of a topic have priority.
func (w *Worker) urgent(name []byte) bool {
	return len(w.g.priority) > 0 && w.g.priority.Has(name)
}

// queue is the queue of a session in the store that a target's messages go to.
func (t *target) queue() uint64 {
	if t.urgent {
		return persist.PriorityOf(t.durable)
	}
	return t.durable
}

// deleteSession removes a session and its queues from the store.
func (w *Worker) deleteSession(durable uint64) {
	w.batch.Add(persist.Op{Kind: persist.OpDeleteSession, ID: durable})
	w.batch.Add(persist.Op{Kind: persist.OpDeleteSession, ID: persist.PriorityOf(durable)})
}

// lanesOf parts the sessions that the store kept from the queues for messages
// with priority, which are given by the session they are of. Queues whose
// session is gone are deleted.
func (g *Group) lanesOf(im *persist.Image) (sessions []*persist.SessionImage, lanes map[uint64]*persist.SessionImage) {
	lanes, known := make(map[uint64]*persist.SessionImage), make(map[uint64]bool)
	for i := range im.Sessions {
		si := &im.Sessions[i]
		if of, ok := persist.OfPriority(si.ID); ok {
			lanes[of] = si
		} else {
			sessions = append(sessions, si)
			known[si.ID] = true
		}
	}
	for i := range im.Sessions {
		if of, ok := persist.OfPriority(im.Sessions[i].ID); ok && !known[of] {
			g.workers[0].batch.Add(persist.Op{Kind: persist.OpDeleteSession, ID: im.Sessions[i].ID})
		}
	}
	return sessions, lanes
}

// restoreLane gives a restored session its queue for messages with priority: the
// one that the store kept, or a new one if there are rules now.
func (w *Worker) restoreLane(x *client, im, lane *persist.SessionImage) {
	if lane != nil {
		x.RestorePriority(lane)
	}
	now := im.Session
	now.Queue = x.Limits().Queue.QueueLimits
	if lane == nil && w.g.opt.Limits.Priority || lane != nil && lane.Queue != now.Queue {
		session.AddPriority(&w.batch, &now)
	}
}
