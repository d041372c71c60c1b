package worker

import (
	"time"

	"sluice/broker/mqtt"
)

// DESIGN. A worker stops in three steps. Quiesce: it accepts and reads nothing
// more, but goes on with mail and timers, so that acknowledgements which the
// store owes still leave. Quiet tells when there are none left. Stop: MQTT 5
// clients are told, all connections are closed, their wills are published or, having a delay, kept in the
// store with their sessions, and Run returns. The facade takes all workers through each step before the
// next, because they post to each other.

// Quiesce stops accepting and reading.
func (w *Worker) Quiesce() {
	w.Call(func(w *Worker) {
		w.stopping = true
		w.closeListeners()
		w.conns.each(func(c *conn) {
			if !c.paused && !c.dying && !c.listener.internal {
				c.paused = true
				w.arm(c)
			}
		})
		w.batch.Urgent = true
	})
}

// Waiting asks for the number of acknowledgements of this worker that wait for
// the store, and for nothing else; the answer comes through the channel.
func (w *Worker) Waiting(answer chan<- int) {
	w.Call(func(w *Worker) { answer <- w.Owed() })
}

// Stop closes all connections and makes Run return.
func (w *Worker) Stop() {
	w.Call(func(w *Worker) {
		w.stopping = true
		w.closeListeners()
		w.conns.each(func(c *conn) {
			w.kick(c, mqtt.ServerShuttingDown, "") // no DISCONNECT from the client: its will goes [MQTT-3.1.2-8]
		})
		w.stopped = true
	})
}

// acceptPause is how long a listener rests after accept failed.
const acceptPause = time.Second
