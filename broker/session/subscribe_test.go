package session

import (
	"testing"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// A packet full of filters would hold up the worker: each is looked for among
// all of the session.
func TestTooManyFiltersInOnePacket(t *testing.T) {
	lim := DefaultLimits()
	lim.SubscriptionsMax = 10
	for _, n := range []int{filtersMax, filtersMax + 1} {
		s := New(1, "a", 0, &lim)
		s.Version, s.connected = mqtt.V5, true
		sub := mqtt.Subscribe{PacketID: 1, Filters: make([]mqtt.SubscribeFilter, n)}
		unsub := mqtt.Unsubscribe{PacketID: 2, Filters: make([][]byte, n)}
		for i := range n {
			sub.Filters[i].Filter, unsub.Filters[i] = []byte{'a' + byte(i%20)}, []byte("x")
		}
		for what, do := range map[string]func(*Effects){
			"SUBSCRIBE":   func(fx *Effects) { s.OnSubscribe(fx, &sub, nil) },
			"UNSUBSCRIBE": func(fx *Effects) { s.OnUnsubscribe(fx, &unsub, nil) },
		} {
			fx := Effects{Batch: &persist.Batch{}}
			do(&fx)
			if closed := n > filtersMax; fx.Close != closed || closed && fx.Reason != mqtt.QuotaExceeded {
				t.Errorf("%s with %d filters: closed %v, reason %v", what, n, fx.Close, fx.Reason)
			}
		}
		if n > filtersMax && len(s.Subscriptions()) != 0 {
			t.Errorf("%d subscriptions made by a packet that is refused", len(s.Subscriptions()))
		}
	}
}
