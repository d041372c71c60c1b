package worker

import (
	"slices"
)

// SessionInfo describes a session.
type SessionInfo struct {
	ClientID  string
	Connected bool
	Durable   bool
	Filters   []string
}

// Inspect asks for the sessions whose client id begins with prefix, in the
// order of their ids; the answer comes through the channel, which must have
// room for it.
func (w *Worker) Inspect(prefix string, answer chan<- []SessionInfo) {
	w.Call(func(w *Worker) {
		var all []SessionInfo
		w.clients.each(func(x *client) {
			if len(x.ClientID) < len(prefix) || x.ClientID[:len(prefix)] != prefix {
				return
			}
			i := SessionInfo{ClientID: x.ClientID, Connected: x.conn != nil, Durable: x.Durable != 0}
			for _, s := range x.Subscriptions() {
				i.Filters = append(i.Filters, s.Filter)
			}
			all = append(all, i)
		})
		slices.SortFunc(all, func(a, b SessionInfo) int {
			if a.ClientID < b.ClientID {
				return -1
			}
			return 1
		})
		answer <- all
	})
}

// Mute takes all subscriptions from a session that nobody is connected to:
// nothing more is queued for it, and what is queued stays.
func (g *Group) Mute(clientID string) {
	g.owner([]byte(clientID)).Call(func(w *Worker) {
		x := w.byID[clientID]
		if x == nil || x.conn != nil {
			return
		}
		for _, filter := range x.DropSubscriptions(&w.fx) {
			w.g.index.Unsubscribe(filter, x.ID)
		}
	})
}
