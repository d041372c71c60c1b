package topic

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"sluice/broker/mqtt"
)

// check returns the first broken invariant, or nil.
func (s *shelf) check() error {
	var last []byte
	for i, c := range s.chunks {
		if len(c) == 0 || len(c) > shelfChunk {
			return fmt.Errorf("chunk %d of %d messages", i, len(c))
		}
		if i > 0 && len(c)+len(s.chunks[i-1]) < shelfMerge {
			return fmt.Errorf("chunks %d and %d have %d messages together", i-1, i, len(c)+len(s.chunks[i-1]))
		}
		for k, m := range c {
			if (i > 0 || k > 0) && bytes.Compare(last, m.Topic) >= 0 {
				return fmt.Errorf("%q stands behind %q", m.Topic, last)
			}
			last = m.Topic
		}
		for _, m := range c[len(c):cap(c)] {
			if m != nil {
				return fmt.Errorf("chunk %d holds on to %q behind its end", i, m.Topic)
			}
		}
	}
	return nil
}

func TestRetainedModel(t *testing.T) {
	for name, w := range worlds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3) {
				retainedRun(t, w, seed, 2000)
			}
		})
	}
}

func retainedRun(t *testing.T, w world, seed uint64, steps int) {
	t.Helper()
	w.groups = nil
	r := rand.New(rand.NewPCG(seed, 2))
	ret, naive := NewRetained(), naiveRetained{}
	growing := true
	for i := range steps {
		if r.IntN(800) == 0 {
			growing = !growing
		}
		topic := w.topic(r)
		old := naive[topic]
		if r.IntN(4) != 0 == growing {
			m := &mqtt.Message{Topic: []byte(topic), Payload: make([]byte, r.IntN(50))}
			naive[topic] = m
			if got := ret.Set(m); got != old {
				t.Fatalf("seed %d, step %d: Set(%q) = %v, want %v", seed, i, topic, got, old)
			}
		} else {
			delete(naive, topic)
			if got := ret.Delete([]byte(topic)); got != old {
				t.Fatalf("seed %d, step %d: Delete(%q) = %v, want %v", seed, i, topic, got, old)
			}
		}
		if i%10 == 0 {
			f := w.filter(r)
			prefix := []*mqtt.Message{nil}
			if got, want := ret.Match(f, prefix), naive.match(f); !slices.Equal(got[1:], want) || got[0] != nil {
				t.Fatalf("seed %d, step %d: Match(%q) gives %s, want %s", seed, i, f, topics(got[1:]), topics(want))
			}
		}
		if i%100 == 0 || i == steps-1 {
			checkRetained(t, ret, naive)
		}
	}
	for topic := range naive {
		ret.Delete([]byte(topic))
	}
	if ret.Len() != 0 || ret.Bytes() != 0 || len(ret.shelf.chunks) != 0 {
		t.Fatalf("seed %d: %d messages, %d bytes, %d chunks left", seed, ret.Len(), ret.Bytes(), len(ret.shelf.chunks))
	}
}

func checkRetained(t *testing.T, r *Retained, naive naiveRetained) {
	t.Helper()
	var all []*mqtt.Message
	var bytes int64
	for _, topic := range slices.Sorted(func(yield func(string) bool) {
		for topic := range naive {
			if !yield(topic) {
				return
			}
		}
	}) {
		all = append(all, naive[topic])
		bytes += messageBytes + int64(len(topic)+len(naive[topic].Payload))
	}
	if got := r.All(nil); !slices.Equal(got, all) {
		t.Fatalf("All() gives %s, want %s", topics(got), topics(all))
	}
	if r.Len() != len(all) || r.Bytes() != bytes {
		t.Fatalf("%d messages of %d bytes, want %d of %d", r.Len(), r.Bytes(), len(all), bytes)
	}
	if err := r.shelf.check(); err != nil {
		t.Fatal(err)
	}
}

func topics(all []*mqtt.Message) (s []string) {
	for _, m := range all {
		s = append(s, string(m.Topic))
	}
	return s
}

// A wildcard goes only where the levels before it lead: messages elsewhere are
// not even looked at, which would panic here. Only the last of a chunk is.
func TestRetainedMatchSkips(t *testing.T) {
	r, _ := retainedSites(50_000)
	for _, c := range r.shelf.chunks {
		if last := c[len(c)-1]; bytes.Compare(last.Topic, []byte("site/499/")) < 0 || bytes.HasPrefix(c[0].Topic, []byte("site/5")) {
			clear(c[:len(c)-1])
		}
	}
	if got := topics(r.Match("site/499/+/7", nil)); len(got) != 1 || got[0] != "site/499/sensor/7" {
		t.Errorf("found %s", got)
	}
	if got := r.Match("site/499/#", nil); len(got) != 100 {
		t.Errorf("found %s", topics(got))
	}
}

func TestGallop(t *testing.T) {
	for n := range 70 {
		for from := range n + 1 {
			for bound := range n + 1 {
				if got, want := gallop(from, n, func(i int) bool { return i < bound }), max(from, bound); got != want {
					t.Fatalf("gallop(%d, %d) to %d = %d", from, n, bound, got)
				}
			}
		}
	}
}

func TestRetainedMemory(t *testing.T) {
	const n = 30_000
	_, all := retainedSites(n)
	rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { all[i], all[j] = all[j], all[i] })
	before := heapBytes()
	r := NewRetained()
	for _, m := range all {
		r.Set(m)
	}
	full := heapBytes() - before
	t.Logf("%d bytes per message beside the message, Bytes() %d per message", full/n, r.Bytes()/n)
	if full/n > 16 {
		t.Errorf("%d bytes per message, want at most 16", full/n)
	}
	for i, m := range all {
		if r.Delete(m.Topic) != m {
			t.Fatalf("%s was not there", m.Topic)
		}
		if i%1000 == 0 || n-i < 300 {
			if err := r.shelf.check(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left := heapBytes() - before; left > full/20 {
		t.Errorf("%d of %d bytes left", left, full)
	}
	runtime.KeepAlive(all)
	runtime.KeepAlive(r)
}

// messageBytes is what a message takes beside its bytes.
func TestRetainedBytesIsHonest(t *testing.T) {
	const n = 20_000
	before := heapBytes()
	r := NewRetained()
	for i := range n {
		buf := fmt.Appendf(nil, "site/%05d/sensor/temperature", i)
		topic := len(buf)
		buf = append(buf, "a payload of 32 bytes, more or less"...)
		r.Set(&mqtt.Message{Topic: buf[:topic:topic], Payload: buf[topic:]})
	}
	heap := heapBytes() - before
	t.Logf("Bytes() %d, heap %d", r.Bytes(), heap)
	if diff := r.Bytes() - heap; diff > heap/5 || diff < -heap/5 {
		t.Errorf("Bytes() %d, heap %d", r.Bytes(), heap)
	}
	runtime.KeepAlive(r)
}
