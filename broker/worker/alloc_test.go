//go:build !race

// With the race detector sync.Pool forgets things at random, and everything allocates.

package worker

import (
	"fmt"
	"strings"
	"testing"

	"sluice/broker/mqtt"
)

// stream is publishers and subscribers of QoS 0 on a rig whose own work costs
// no allocation.
type stream struct {
	r      *rig
	pub    *device
	subs   []*device
	packet []byte
}

func newStream(t testing.TB, pubWorker int, subWorkers []int, payload int) *stream {
	r := newRig(t, 2, nil)
	s := &stream{r: r, pub: r.connect(r.idOn(pubWorker, "pub"), mqtt.V5, nil)}
	for i, w := range subWorkers {
		d := r.connect(r.idOn(w, fmt.Sprint("sub", i)), mqtt.V5, nil)
		d.subscribe("sensor/+/temperature:0")
		d.out = make([]byte, 0, 1<<20)
		s.subs = append(s.subs, d)
	}
	s.packet = s.pub.publication("sensor/17/temperature", strings.Repeat("x", payload), 0, 0)
	r.raw = true
	return s
}

// send lets n publications through, in one read.
func (s *stream) send(n int) {
	s.pub.in = s.pub.in[:0]
	for range n {
		s.pub.in = append(s.pub.in, s.packet...)
	}
	in := s.pub.in
	for _, w := range s.r.ws {
		w.Turn(s.r.now, s.r.nets[w.id].events())
	}
	for _, w := range s.r.ws { // the mail of the second worker for the first
		w.Turn(s.r.now, nil)
	}
	s.pub.in = in
	for _, d := range s.subs {
		if len(d.out) < n*len(s.packet) {
			s.r.t.Fatalf("%d bytes arrived, want %d", len(d.out), n*len(s.packet))
		}
		d.out = d.out[:0]
	}
}

// A publication of QoS 0 costs no allocation, on one worker or from one to
// another.
func TestPublishAllocates(t *testing.T) {
	for name, subs := range map[string][]int{"same worker": {0}, "other worker": {1}, "three receivers": {0, 1, 1}} {
		s := newStream(t, 0, subs, 100)
		for range 100 { // fill the pools
			s.send(1)
		}
		if n := testing.AllocsPerRun(500, func() { s.send(1) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, x := range []struct {
		name string
		subs []int
	}{{"same", []int{0}}, {"other", []int{1}}, {"fan-out-8", []int{0, 1, 0, 1, 0, 1, 0, 1}}} {
		for _, batch := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/%d-per-turn", x.name, batch), func(b *testing.B) {
				s := newStream(b, 0, x.subs, 100)
				b.ReportAllocs()
				for b.Loop() {
					s.send(batch)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(batch), "ns/msg")
			})
		}
	}
}

// BenchmarkTurn is a turn in which nothing happens.
func BenchmarkTurn(b *testing.B) {
	r := newRig(b, 1, nil)
	r.connect("a", mqtt.V5, func(c *mqtt.Connect) { c.KeepAliveSeconds = 60 })
	b.ReportAllocs()
	for b.Loop() {
		r.ws[0].Turn(r.now, nil)
	}
}
