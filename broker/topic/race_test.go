package topic

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/broker/mqtt"
)

// told makes a subscription whose fields belong together, to find torn ones.
func told(subscriber uint64) Subscription {
	return Subscription{Subscriber: subscriber, Durable: subscriber * 3, ID: uint32(subscriber * 5), QoS: uint8(subscriber % 3)}
}

func (s Subscription) whole() bool {
	want := told(s.Subscriber)
	want.Marks = s.Marks
	return s == want
}

// Subscribers from steady on stay all the time; the others come and go.
const steady = 1_000_000

// While others subscribe and unsubscribe at the same nodes, a Match sees every
// subscription that stands, whole, and nobody twice.
func TestIndexConcurrent(t *testing.T) {
	const writers, readers, rounds = 2, 2, 15
	x := NewIndex()
	// What is expected for each topic. At "crowd" the steady ones are between
	// the others, in many chunks; at "wide" some are few children that become a
	// table; "swap" has one steady subscriber, whose place is in the roster.
	want := map[string][]uint64{"idle": nil}
	stay := func(topic, filter string, subscriber uint64) {
		x.Subscribe(filter, told(subscriber))
		want[topic] = append(want[topic], subscriber)
	}
	x.Subscribe("swap", told(1))
	stay("swap", "swap", steady)
	x.Unsubscribe("swap", 1)
	for i := range uint64(200) {
		stay("crowd", "crowd", steady+i*1000)
	}
	stay("wide/a", "wide/a", steady+1)
	stay("wide/b", "wide/b", steady+2)
	stay("group", "$share/g/group", steady)
	stay("deep/a/b/c", "deep/+/b/#", steady+3)

	var writing, all sync.WaitGroup
	var done atomic.Bool
	for w := range uint64(writers) {
		writing.Go(func() { churn(x, w+1, rounds) })
	}
	for range readers {
		all.Go(func() {
			var h Hits
			for !done.Load() && !t.Failed() {
				for topic, subscribers := range want {
					x.Match([]byte(topic), &h)
					checkHits(t, topic, &h, subscribers)
				}
			}
		})
	}
	writing.Wait()
	done.Store(true)
	all.Wait()
	if err := x.Check(); err != nil {
		t.Error(err)
	}
	n := 0
	for _, subscribers := range want {
		n += len(subscribers)
	}
	if x.Len() != n {
		t.Errorf("%d subscriptions left, want %d", x.Len(), n)
	}
}

// churn subscribes and unsubscribes numbers that belong to writer w alone: some
// below all steady ones, some between them.
func churn(x *Index, w uint64, rounds int) {
	r := rand.New(rand.NewPCG(w, 0))
	type sub struct {
		filter     string
		subscriber uint64
	}
	for range rounds {
		var mine []sub
		for i := range uint64(300) {
			low, among := w*1000+i, steady+i*700+w
			mine = append(mine, sub{"crowd", low}, sub{"crowd", among}, sub{"idle", low},
				sub{fmt.Sprintf("wide/%d-%d", w, i), low})
			if i < 20 {
				mine = append(mine, sub{"swap", low}, sub{"group", low}, sub{"deep/a/b/c", low}, sub{"deep/#", low},
					sub{"$share/g/group", low}, sub{fmt.Sprintf("$share/%d/group", i), low})
			}
		}
		for range 2 {
			r.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			for _, s := range mine {
				x.Subscribe(s.filter, told(s.subscriber))
				if s.filter == "swap" { // in and out quickly, through one and through the roster
					x.Unsubscribe(s.filter, s.subscriber)
					x.Subscribe(s.filter, told(s.subscriber))
				}
			}
		}
		r.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
		for _, s := range mine {
			x.Unsubscribe(s.filter, s.subscriber)
		}
	}
}

func checkHits(t *testing.T, topic string, h *Hits, want []uint64) {
	seen := make(map[uint64]int, len(h.Subs))
	shared := false
	for _, s := range h.Subs {
		if !s.whole() {
			t.Errorf("%s: torn hit %+v", topic, s)
		}
		seen[s.Subscriber]++
		if seen[s.Subscriber] > 1 && !h.Overlap {
			t.Errorf("%s: %d is there twice without overlap", topic, s.Subscriber)
		}
		shared = shared || s.Shared()
	}
	if topic == "group" { // somebody of the group, not necessarily the steady member
		if !shared {
			t.Errorf("%s: no member was hit", topic)
		}
		return
	}
	if i := slices.IndexFunc(want, func(s uint64) bool { return seen[s] == 0 }); i >= 0 {
		t.Errorf("%s: %d was missed", topic, want[i])
	}
}

// Retained under concurrent use: what is set the whole time is always found.
func TestRetainedConcurrent(t *testing.T) {
	r := NewRetained()
	message := func(topic string) *mqtt.Message { return &mqtt.Message{Topic: []byte(topic)} }
	for i := range 300 {
		r.Set(message(fmt.Sprintf("site/%d/state", i)))
	}
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for i := range 3000 {
				topic := fmt.Sprintf("site/%d/w%d", i*7%300, w)
				r.Set(message(topic))
				r.Set(message(fmt.Sprintf("site/%d/state", i%300)))
				r.Delete([]byte(topic))
			}
		})
		wg.Go(func() {
			for range 100 {
				if n := len(r.Match("site/+/state", nil)); n != 300 {
					t.Errorf("%d messages, want 300", n)
				}
				if n := len(r.All(nil)); n < 300 || n != len(r.Match("#", nil)) && n > 302 {
					t.Errorf("%d messages in all", n)
				}
			}
		})
	}
	wg.Wait()
	if r.Len() != 300 {
		t.Errorf("%d messages left", r.Len())
	}
}
