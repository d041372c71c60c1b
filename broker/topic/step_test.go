//go:build invariants

package topic

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// DESIGN. What can go wrong between a reader and a writer happens in windows of
// a few instructions, which a race between goroutines hardly ever meets. Here
// one goroutine plays both: at each step of a Match it lets the writer do some
// calls, and at each step of the writer it does a Match. The writer's turn
// begins at every step in turn, so that every window is met.

// stage is an index in which some subscriptions, those from steady on, stay.
type stage struct {
	x     *Index
	w     world
	r     *rand.Rand
	naive naiveIndex // the subscriptions that stay
	come  []call     // those that come and go, in or out
	topic string
	hits  Hits
}

type call struct {
	filter string
	sub    Subscription // its ID stands for the filter
}

func newStage(w world, seed uint64) *stage {
	s := &stage{x: NewIndex(), w: w, r: rand.New(rand.NewPCG(seed, 3)), naive: naiveIndex{}}
	var filters []string
	for range 1 + s.r.IntN(8) {
		filters = append(filters, w.filter(s.r))
	}
	for range s.r.IntN(20) {
		filters = append(filters, w.filter(s.r))
		f := filters[s.r.IntN(len(filters))]
		// Some come while the one place of the node is taken by another.
		s.x.Subscribe(f, Subscription{Subscriber: 1})
		sub := Subscription{Subscriber: steady + uint64(s.r.IntN(w.subscribers)), ID: uint32(len(s.naive))}
		s.x.Subscribe(f, sub)
		s.naive.subscribe(f, sub)
		if s.r.IntN(2) == 0 {
			s.x.Unsubscribe(f, 1)
		}
	}
	for range 2 * w.subscribers {
		f := s.r.IntN(len(filters))
		c := call{filters[f], Subscription{Subscriber: uint64(2 + s.r.IntN(w.subscribers))}}
		c.sub.ID = uint32(1000 + slices.Index(filters, c.filter))
		if s.r.IntN(2) == 0 {
			c.sub.Subscriber += 2 * steady
		}
		s.come = append(s.come, c)
		if s.r.IntN(2) == 0 {
			s.x.Subscribe(c.filter, c.sub)
		}
	}
	s.topic = w.topic(s.r)
	return s
}

// write does n calls of the writer.
func (s *stage) write(n int) {
	for range n {
		c := s.come[s.r.IntN(len(s.come))]
		if s.r.IntN(2) == 0 {
			s.x.Subscribe(c.filter, c.sub)
		} else {
			s.x.Unsubscribe(c.filter, c.sub.Subscriber)
		}
	}
}

// check looks at the hits of a Match: those that stay are there, each as often
// as it has matching filters; a member of each group where somebody stays is
// there; and nobody is there twice without overlap.
func (s *stage) check(t *testing.T, topic string, h *Hits) {
	t.Helper()
	type key struct {
		subscriber uint64
		id         uint32
	}
	want, got, seen := map[key]int{}, map[key]int{}, map[uint64]bool{}
	groups := 0
	for f, subs := range s.naive {
		_, rest, shared := SplitShare(f)
		if !naiveMatch(rest, topic) {
			continue
		}
		if shared {
			groups++
			continue
		}
		for _, sub := range subs {
			want[key{sub.Subscriber, sub.ID}]++
		}
	}
	for _, sub := range h.Subs {
		if seen[sub.Subscriber] && !h.Overlap {
			t.Fatalf("topic %q: %d is there twice without overlap: %v", topic, sub.Subscriber, h.Subs)
		}
		seen[sub.Subscriber] = true
		if sub.Shared() {
			groups--
			continue
		}
		k := key{sub.Subscriber, sub.ID}
		if got[k]++; got[k] > 1 && sub.ID >= 1000 {
			t.Fatalf("topic %q: %d is there twice by one filter: %v", topic, sub.Subscriber, h.Subs)
		}
	}
	if groups > 0 {
		t.Fatalf("topic %q: %d groups missed: %v", topic, groups, h.Subs)
	}
	for k, n := range want {
		if got[k] != n {
			t.Fatalf("topic %q: %d with identifier %d is there %d times, want %d: %v", topic, k.subscriber, k.id, got[k], n, h.Subs)
		}
	}
}

// withSteps runs f and calls do at each of its steps, with the number of the
// step; steps within do are not counted.
func withSteps(f func(), do func(k int)) (steps int) {
	onStep = func() {
		hook := onStep
		onStep = nil
		do(steps)
		onStep = hook
		steps++
	}
	defer func() { onStep = nil }()
	f()
	return steps
}

// narrow worlds, so that the writer meets the reader.
var stageWorlds = map[string]world{
	"one":    {[]string{"a"}, 1, 2, []string{"g"}},
	"few":    {[]string{"a", "b", "c", "d"}, 1, 3, []string{"g"}},
	"chunks": {[]string{"a"}, 1, 200, []string{"g"}},
	"broad":  {numbered("", 60), 2, 40, []string{"g", "h"}},
	"tiny":   {[]string{"a", "b", ""}, 3, 3, []string{"g"}},
}

func TestMatchMeetsWriterAtEachStep(t *testing.T) {
	for name, w := range stageWorlds {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(60) {
				steps := 1
				for k := 0; k < steps && k < 50; k++ {
					for _, burst := range []int{1, 3, 30} {
						s := newStage(w, seed)
						s.write(k) // so that equal steps do not meet equal writers
						n := withSteps(func() { s.x.Match([]byte(s.topic), &s.hits) }, func(at int) {
							if at == k || at > k && at < k+20 && burst == 3 {
								s.write(burst)
							}
						})
						steps = max(steps, n)
						s.check(t, s.topic, &s.hits)
					}
				}
			}
		})
	}
}

func TestWriterMeetsMatchAtEachStep(t *testing.T) {
	for name, w := range stageWorlds {
		t.Run(name, func(t *testing.T) {
			met := 0
			for seed := range uint64(100) {
				s := newStage(w, seed)
				met += withSteps(func() { s.write(200) }, func(int) {
					topic := w.topic(s.r)
					s.x.Match([]byte(topic), &s.hits)
					s.check(t, topic, &s.hits)
				})
				if err := s.x.Check(); err != nil {
					t.Fatal(err)
				}
			}
			if met == 0 {
				t.Error("the writer made no step")
			}
		})
	}
}
