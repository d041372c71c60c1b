package bridge

import (
	"sync/atomic"
	"time"
)

// queueState is what a Bridge knows of one of its queues, over all links.
type queueState struct {
	Queue
	session string // client id at the local broker
	gone    bool   // not configured any more: to be emptied, then ended

	ended                 atomic.Bool // gone, and so is its session
	received, sent, acked atomic.Int64
	backlogged            atomic.Bool  // more waits than the window takes; of the last link
	settled               atomic.Int64 // messages that have left the session by us
	gauge                 gauge        // guarded by status.mu
}

func newQueueStates(o *Options) []*queueState {
	var all []*queueState
	for _, q := range o.queues() {
		all = append(all, &queueState{Queue: q, session: o.QueueSession(q.Name)})
	}
	for _, q := range o.retired() {
		all = append(all, &queueState{Queue: q, session: o.QueueSession(q.Name), gone: true})
	}
	return all
}

// living returns those that have not ended.
func living(all []*queueState) []*queueState {
	var some []*queueState
	for _, q := range all {
		if !q.ended.Load() {
			some = append(some, q)
		}
	}
	return some
}

// snapshot is called with status.mu held; now is since the Bridge was made.
func (q *queueState) snapshot(now time.Duration) QueueStatus {
	g := &q.gauge
	return QueueStatus{
		Name: q.Name, Session: q.session, Gone: q.gone, Backlogged: q.backlogged.Load(),
		Received: q.received.Load(), Sent: q.sent.Load(), Acked: q.acked.Load(),
		Known: g.known, Messages: g.depth.Messages, Bytes: g.depth.Bytes,
		Oldest: g.oldest(now), PerSecond: g.perSec, ETA: g.eta(),
	}
}
