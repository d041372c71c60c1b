package worker

import "sluice/broker/mqtt"

// Announce publishes what the broker itself has to tell, with QoS 0 and
// retained; an empty payload takes it back. It is kept in memory only: after a
// restart it is told anew. The topic must be valid, and neither it nor the
// payload may be changed any more.
func (g *Group) Announce(topic string, payload []byte) {
	g.workers[0].Call(func(w *Worker) {
		p := mqtt.Publish{Topic: []byte(topic), Payload: payload, Retain: true}
		m := publication{p: &p}
		if len(payload) == 0 {
			w.g.retained.Delete(p.Topic)
		} else {
			w.g.retained.Set(m.message(w, false))
		}
		w.route(&m, w.match(&m))
	})
}

// Durable asks for the store's id of a client's session; the answer, 0 if there
// is none, comes through the channel, which must have room for it.
func (g *Group) Durable(clientID string, answer chan<- uint64) {
	g.owner([]byte(clientID)).Call(func(w *Worker) {
		id := uint64(0)
		if x := w.byID[clientID]; x != nil {
			id = x.Durable
		}
		answer <- id
	})
}
