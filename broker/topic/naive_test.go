package topic

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice/broker/mqtt"
)

// naiveMatch is MQTT5 4.7 word by word; filter is not a shared one.
func naiveMatch(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	for i := range f {
		switch {
		case f[i] == "#":
			return true
		case i == len(t):
			return false
		case f[i] != "+" && f[i] != t[i]:
			return false
		case i == len(t)-1 && i == len(f)-2 && f[i+1] == "#":
			return true
		}
	}
	return len(f) == len(t)
}

// naiveIndex is an Index as one would write it on a napkin.
type naiveIndex map[string]map[uint64]Subscription

func (x naiveIndex) subscribe(filter string, s Subscription) (existed bool) {
	if x[filter] == nil {
		x[filter] = map[uint64]Subscription{}
	}
	_, shared := shareName(filter)
	s.Marks = marks(shared)
	_, existed = x[filter][s.Subscriber]
	x[filter][s.Subscriber] = s
	return existed
}

func shareName(filter string) (group string, shared bool) {
	group, _, shared = SplitShare(filter)
	return group, shared
}

func (x naiveIndex) unsubscribe(filter string, subscriber uint64) (existed bool) {
	_, existed = x[filter][subscriber]
	delete(x[filter], subscriber)
	if len(x[filter]) == 0 {
		delete(x, filter)
	}
	return existed
}

func (x naiveIndex) len() (n int) {
	for _, subs := range x {
		n += len(subs)
	}
	return n
}

// compare tells what is wrong with the hits for topic.
func (x naiveIndex) compare(t *testing.T, topic string, h *Hits) {
	t.Helper()
	var plain []Subscription
	var groups []map[uint64]Subscription
	sources := 0
	for _, filter := range slices.Sorted(maps.Keys(x)) {
		_, rest, shared := SplitShare(filter)
		if !naiveMatch(rest, topic) {
			continue
		}
		sources++
		if shared {
			groups = append(groups, x[filter])
			continue
		}
		plain = slices.AppendSeq(plain, maps.Values(x[filter]))
	}
	var got, gotShared []Subscription
	for _, s := range h.Subs {
		if s.Shared() {
			gotShared = append(gotShared, s)
		} else {
			got = append(got, s)
		}
	}
	slices.SortFunc(plain, bySubscription)
	slices.SortFunc(got, bySubscription)
	if !slices.Equal(plain, got) {
		t.Fatalf("topic %q: hits %v, want %v", topic, got, plain)
	}
	if len(gotShared) != len(groups) || !assign(gotShared, groups) {
		t.Fatalf("topic %q: shared hits %v, want one of each of %v", topic, gotShared, groups)
	}
	if h.Overlap != (sources > 1) {
		t.Fatalf("topic %q: overlap %v with %d sources", topic, h.Overlap, sources)
	}
}

// assign tells whether the hits can be distributed over the groups.
func assign(hits []Subscription, groups []map[uint64]Subscription) bool {
	if len(hits) == 0 {
		return true
	}
	for i, g := range groups {
		if s, ok := g[hits[0].Subscriber]; ok && s == hits[0] && assign(hits[1:], slices.Delete(slices.Clone(groups), i, i+1)) {
			return true
		}
	}
	return false
}

func bySubscription(a, b Subscription) int {
	return cmp.Or(cmp.Compare(a.Subscriber, b.Subscriber), cmp.Compare(a.ID, b.ID), cmp.Compare(a.QoS, b.QoS))
}

// naiveRetained maps topics to messages.
type naiveRetained map[string]*mqtt.Message

func (r naiveRetained) match(filter string) (all []*mqtt.Message) {
	for _, topic := range slices.Sorted(maps.Keys(r)) {
		if naiveMatch(filter, topic) {
			all = append(all, r[topic])
		}
	}
	return all
}

// world says what random names and filters are made of. Few levels make many
// overlaps; many make tables grow.
type world struct {
	levels      []string
	depth       int // most levels of a name
	subscribers int
	groups      []string
}

func (w *world) topic(r *rand.Rand) string {
	for {
		all := make([]string, 1+r.IntN(w.depth))
		for i := range all {
			all[i] = w.levels[r.IntN(len(w.levels))]
		}
		if s := strings.Join(all, "/"); s != "" {
			return s
		}
	}
}

func (w *world) filter(r *rand.Rand) string {
	all := strings.Split(w.topic(r), "/")
	for i := range all {
		if r.IntN(4) == 0 {
			all[i] = "+"
		}
	}
	if r.IntN(4) == 0 {
		all[len(all)-1] = "#"
	}
	f := strings.Join(all, "/")
	if len(w.groups) > 0 && r.IntN(4) == 0 {
		f = "$share/" + w.groups[r.IntN(len(w.groups))] + "/" + f
	}
	return f
}

func numbered(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = prefix + string(rune('a'+i%26)) + strings.Repeat("x", i/26)
	}
	return all
}

// worlds for the model checks. The levels around '/' in byte order ("-", "0",
// " ") are there for Retained.
var worlds = map[string]world{
	"tiny":   {[]string{"a", "b", "", "$SYS"}, 4, 4, []string{"g", "h"}},
	"edges":  {[]string{"a", "a-", "a0", "a b", "", "$", "$SYS", "-", "0", "ä"}, 3, 8, []string{"g"}},
	"broad":  {append(numbered("", 300), "$SYS", ""), 2, 50, []string{"g", "h", "i"}},
	"crowd":  {[]string{"a", "b"}, 1, 400, []string{"g"}},
	"deep":   {[]string{"a", ""}, 12, 5, nil},
	"longer": {append(numbered("a-level-longer-than-a-node-can-inline-", 40), "a", ""), 3, 10, nil},
}

func marks(shared bool) Marks {
	if shared {
		return Shared
	}
	return 0
}
