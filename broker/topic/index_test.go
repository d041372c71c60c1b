package topic

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"
)

// modelRun does random operations on an Index and on a naive one, and compares
// all that can be seen. It returns the hits of all matches, in order.
func modelRun(t *testing.T, w world, seed uint64, steps int) (all []Subscription) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	x, naive := NewIndex(), naiveIndex{}
	var filters []string // ever subscribed to, so that many operations hit
	var h Hits
	growing := true
	for i := range steps {
		if r.IntN(500) == 0 {
			growing = !growing
		}
		f := w.filter(r)
		if len(filters) > 0 && r.IntN(2) == 0 {
			f = filters[r.IntN(len(filters))]
		}
		s := Subscription{Subscriber: uint64(r.IntN(w.subscribers)), ID: uint32(r.IntN(3)), QoS: uint8(r.IntN(3)), Marks: Marks(r.IntN(2))}
		if r.IntN(4) != 0 == growing {
			filters = append(filters, f)
			if got, want := x.Subscribe(f, s), naive.subscribe(f, s); got != want {
				t.Fatalf("seed %d, step %d: Subscribe(%q, %d) existed: %v, want %v", seed, i, f, s.Subscriber, got, want)
			}
		} else if got, want := x.Unsubscribe(f, s.Subscriber), naive.unsubscribe(f, s.Subscriber); got != want {
			t.Fatalf("seed %d, step %d: Unsubscribe(%q, %d) existed: %v, want %v", seed, i, f, s.Subscriber, got, want)
		}
		if i%3 == 0 {
			topic := w.topic(r)
			x.Match([]byte(topic), &h)
			naive.compare(t, topic, &h)
			all = append(all, h.Subs...)
		}
		if i%50 == 0 || i == steps-1 {
			if x.Len() != naive.len() {
				t.Fatalf("seed %d, step %d: Len() = %d, want %d", seed, i, x.Len(), naive.len())
			}
			if err := x.Check(); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, i, err)
			}
		}
	}
	for _, f := range filters {
		for s := range uint64(w.subscribers) {
			if naive.unsubscribe(f, s) != x.Unsubscribe(f, s) {
				t.Fatalf("seed %d: %d is subscribed to %q in one of the two", seed, s, f)
			}
		}
	}
	if x.Len() != 0 || x.root.bulk.Load() != nil {
		t.Fatalf("seed %d: %d subscriptions left, bulk %v", seed, x.Len(), x.root.bulk.Load())
	}
	return all
}

func TestIndexModel(t *testing.T) {
	for name, w := range worlds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3) {
				modelRun(t, w, seed, 2000)
			}
		})
	}
}

// The simulator replays a run by its seed: the same calls give the same hits
// in the same order.
func TestIndexDeterministic(t *testing.T) {
	for name, w := range worlds {
		if a, b := modelRun(t, w, 7, 1000), modelRun(t, w, 7, 1000); !slices.Equal(a, b) {
			t.Errorf("%s: hits differ between two equal runs", name)
		}
	}
}

// The order is part of what a seed decides, in other processes and on other
// machines too.
func TestHashIsPinned(t *testing.T) {
	for _, c := range []struct {
		level string
		seed  uint64
		want  uint32
	}{
		{"", 0, 0}, {"a", 0, 0xe0a2372d}, {"sensor", 0, 0x724a15dd},
		{"temperature-outside-0001", 0, 0xc1b76d47}, {"sensor", nextSeed, 0x94cee8a0},
	} {
		if got := hashLevel([]byte(c.level), c.seed); got != c.want {
			t.Errorf("hashLevel(%q, %#x) = %#x, want %#x", c.level, c.seed, got, c.want)
		}
	}
}

// No byte of a level may be without influence, whatever its length.
func TestHashUsesAllBytes(t *testing.T) {
	for n := 1; n <= 40; n++ {
		seen := map[uint32]string{}
		for i := range n {
			for bit := range 8 {
				b := make([]byte, n)
				b[i] = 1 << bit
				h := hashLevel(b, 0)
				if other, there := seen[h]; there {
					t.Errorf("%q and %q collide", b, other)
				}
				seen[h] = string(b)
			}
		}
	}
}

func TestSharedTakesTurns(t *testing.T) {
	for _, members := range []int{1, 2, 7, chunkMax, 5 * chunkMax} {
		x := NewIndex()
		for i := range members {
			x.Subscribe("$share/g/a/+", Subscription{Subscriber: uint64(i + 1), QoS: 2})
		}
		count := make([]int, members+1)
		var h Hits
		for range 3 * members {
			x.Match([]byte("a/b"), &h)
			if len(h.Subs) != 1 || !h.Subs[0].Shared() || h.Subs[0].QoS != 2 || h.Overlap {
				t.Fatalf("%d members: hits %v, overlap %v", members, h.Subs, h.Overlap)
			}
			count[h.Subs[0].Subscriber]++
		}
		for i, n := range count[1:] {
			if n != 3 {
				t.Errorf("%d members: %d was hit %d times, want 3", members, i+1, n)
			}
		}
	}
}

// The same subscriber with the same filter, plain and in two groups, has three
// subscriptions (MQTT5 4.8.2).
func TestSharedBesidePlain(t *testing.T) {
	x := NewIndex()
	for _, f := range []string{"a", "$share/g/a", "$share/h/a"} {
		if x.Subscribe(f, Subscription{Subscriber: 1}) {
			t.Errorf("%s existed", f)
		}
	}
	var h Hits
	if x.Match([]byte("a"), &h); len(h.Subs) != 3 || !h.Overlap {
		t.Errorf("hits %v, overlap %v", h.Subs, h.Overlap)
	}
	if !x.Unsubscribe("$share/g/a", 1) || x.Unsubscribe("$share/g/a", 1) || x.Len() != 2 {
		t.Errorf("unsubscribed from $share/g/a: %d left", x.Len())
	}
}

// The order of subscribers at one filter, and the chunks they are in, for
// subscribers that come rising, falling and at random.
func TestRosterOrders(t *testing.T) {
	const n = 20 * chunkMax
	for name, order := range map[string]func(i int) uint64{
		"rising":  func(i int) uint64 { return uint64(i) },
		"falling": func(i int) uint64 { return uint64(n - i) },
		"random":  func(i int) uint64 { return uint64(i+1) * 0x9E3779B97F4A7C15 },
	} {
		var r *roster
		for i := range n {
			var existed bool
			if r, existed = r.put(Subscription{Subscriber: order(i)}); existed {
				t.Fatalf("%s: %d existed", name, order(i))
			}
		}
		if k, err := r.check(); err != nil || k != n {
			t.Fatalf("%s: %d subscriptions, %v", name, k, err)
		}
		if got := len(r.many); name != "random" && got > 2*n/chunkMax || name == "rising" && got != n/chunkMax {
			t.Errorf("%s: %d chunks for %d subscriptions", name, got, n)
		}
		for i := range n {
			var existed bool
			if r, existed = r.remove(order(i * 7 % n)); !existed {
				t.Fatalf("%s: %d was not there", name, order(i*7%n))
			}
			if r == nil {
				continue
			}
			if k, err := r.check(); err != nil || k != int64(n-1-i) {
				t.Fatalf("%s: %d subscriptions after removing %d of %d: %v", name, k, i+1, n, err)
			}
			if len(r.many) > 1+3*(n-i)/chunkMerge {
				t.Fatalf("%s: %d chunks for %d subscriptions", name, len(r.many), n-1-i)
			}
		}
		if r != nil {
			t.Errorf("%s: something is left", name)
		}
	}
}

// Levels chosen to collide must not make a table slow.
func TestTableReseedsUnderFlood(t *testing.T) {
	const flood = 3000
	x := NewIndex()
	var levels []string
	for i := 0; len(levels) < flood; i++ {
		if l := strconv.Itoa(i); tableHash([]byte(l), 0)>>24 == 7 {
			levels = append(levels, l)
			x.Subscribe("a/"+l, Subscription{Subscriber: 1})
		}
	}
	if err := x.Check(); err != nil {
		t.Fatal(err)
	}
	table := x.root.get([]byte("a")).bulk.Load().table.Load()
	if table.seed == 0 {
		t.Error("not reseeded")
	}
	for _, l := range levels {
		n := x.root.get([]byte("a")).get([]byte(l))
		if p := table.probes(n); p > probesMax {
			t.Fatalf("%s is found after %d slots", l, p)
		}
	}
	var h Hits
	for _, l := range levels {
		if x.Match([]byte("a/"+l), &h); len(h.Subs) != 1 {
			t.Fatalf("a/%s: hits %v", l, h.Subs)
		}
		if !x.Unsubscribe("a/"+l, 1) {
			t.Fatalf("a/%s is not there", l)
		}
	}
	if x.root.bulk.Load() != nil {
		t.Error("something is left")
	}
}

// Two levels may have the same hash; the level decides.
func TestTableFullCollision(t *testing.T) {
	const a, b = "d11168", "d61325"
	if hashLevel([]byte(a), 0) != hashLevel([]byte(b), 0) {
		t.Fatalf("%s and %s do not collide", a, b)
	}
	x := NewIndex()
	x.Subscribe("c", Subscription{Subscriber: 3})
	x.Subscribe("d", Subscription{Subscriber: 4})
	var h Hits
	for i, level := range []string{a, b} {
		x.Subscribe(level, Subscription{Subscriber: uint64(i)})
		if x.Match([]byte(b), &h); len(h.Subs) != i {
			t.Errorf("%s subscribed: hits for %s %v", level, b, h.Subs)
		}
	}
	x.Unsubscribe(a, 0)
	if x.Match([]byte(a), &h); len(h.Subs) != 0 {
		t.Errorf("hits for %s %v", a, h.Subs)
	}
	if x.Match([]byte(b), &h); len(h.Subs) != 1 || h.Subs[0].Subscriber != 1 {
		t.Errorf("hits for %s %v", b, h.Subs)
	}
}

// What chance gives stays far from probesMax, so that nobody pays for reseeding.
func TestTableProbes(t *testing.T) {
	tbl := newTable(tableMin, 0)
	worst, sum, n := 0, 0, 200_000
	nodes := make([]*node, n)
	for i := range n {
		nodes[i] = &node{level: makeLevel([]byte("device-" + strconv.Itoa(i)))}
		tbl = tbl.add(nodes[i])
	}
	for _, c := range nodes {
		p := tbl.probes(c)
		worst, sum = max(worst, p), sum+p
	}
	load := float64(tbl.live) / float64(len(tbl.hashes))
	t.Logf("load %.2f: longest probe %d, mean %.2f", load, worst, float64(sum)/float64(n))
	if tbl.seed != 0 || worst > probesMax/2 || sum > 3*n {
		t.Errorf("longest probe %d, %d in all for %d children, seed %#x", worst, sum, n, tbl.seed)
	}
}

// A table follows the number of children down, and a child that comes and goes
// does not fill it with tombstones if it need not.
func TestTableShrinks(t *testing.T) {
	tbl := newTable(tableMin, 0)
	nodes := make([]*node, 5000)
	for i := range nodes {
		nodes[i] = &node{level: makeLevel([]byte(strconv.Itoa(i)))}
		tbl = tbl.add(nodes[i])
	}
	for i, n := range nodes {
		at, _ := tbl.slot(n)
		free := tbl.hashes[(at+1)%len(tbl.hashes)].Load() == slotFree
		next := tbl.remove(n)
		if next == tbl && free != (tbl.hashes[at].Load() == slotFree) {
			t.Fatalf("slot %d of %d: tombstone %v although what follows is free: %v", at, len(tbl.hashes), !free, free)
		}
		if next == nil {
			if i != len(nodes)-1 {
				t.Fatalf("table gone with %d children left", len(nodes)-1-i)
			}
			return
		}
		if tbl = next; len(tbl.hashes) > max(tableMin, 8*tbl.live) {
			t.Fatalf("%d slots for %d children", len(tbl.hashes), tbl.live)
		}
	}
	t.Fatal("table is still there")
}

// A gateway counts bytes: those of a subscription, and that nothing is left of
// them when the subscribers have gone.
func TestIndexMemory(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		n        int
		bytesMax int64  // per subscription; the measured value and a tenth
		mul      uint64 // i*mul is the subscriber; decides in which order they come
		filter   func(i int) string
	}{
		{"site/<n>/sensor/<m>", 100_000, 110, 1, func(i int) string { return fmt.Sprintf("site/%d/sensor/%d", i/100, i%100) }},
		{"device/<id>/cmd/#", 30_000, 350, 1, func(i int) string { return fmt.Sprintf("device/%08x/cmd/#", i*7919) }},
		{"one filter", 30_000, 32, 1, func(int) string { return "news/all" }},
		{"one filter, random order", 30_000, 40, 0x9E3779B97F4A7C15, func(int) string { return "news/all" }},
		{"two at each filter", 30_000, 150, 1, func(i int) string { return fmt.Sprintf("site/%d/sensor/%d", i/200, i/2%100) }},
	} {
		n := c.n
		before := heapBytes()
		x := NewIndex()
		for i := range n {
			x.Subscribe(c.filter(i), Subscription{Subscriber: uint64(i) * c.mul})
		}
		full := heapBytes()
		per := (full - before) / int64(n)
		t.Logf("%s: %d bytes per subscription", c.pattern, per)
		if per > c.bytesMax {
			t.Errorf("%s: %d bytes per subscription, want at most %d", c.pattern, per, c.bytesMax)
		}
		if err := x.Check(); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if !x.Unsubscribe(c.filter(i), uint64(i)*c.mul) {
				t.Fatalf("%s: %d was not there", c.pattern, i)
			}
		}
		if left := heapBytes() - before; left > (full-before)/50 {
			t.Errorf("%s: %d of %d bytes left", c.pattern, left, full-before)
		}
		runtime.KeepAlive(x)
	}
}
