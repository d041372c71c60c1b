package topic

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"sluice/broker/mqtt"
)

// siteFilters returns "site/<n>/sensor/<m>", 100 sensors per site.
func siteFilters(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = "site/" + strconv.Itoa(i/100) + "/sensor/" + strconv.Itoa(i%100)
	}
	return all
}

func fill(filters []string) *Index {
	x := NewIndex()
	for i, f := range filters {
		x.Subscribe(f, Subscription{Subscriber: uint64(i + 1), QoS: 1})
	}
	return x
}

func benchMatch(b *testing.B, x *Index, topics []string, hits int) {
	b.Helper()
	list := make([][]byte, len(topics))
	for i := range list {
		list[i] = []byte(topics[i])
	}
	var h Hits
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x.Match(list[i*7919%len(list)], &h)
		if len(h.Subs) != hits {
			b.Fatalf("%d hits for %s, want %d", len(h.Subs), list[i%len(list)], hits)
		}
	}
}

func threeLevels(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = "sensor/" + strconv.Itoa(i) + "/temperature"
	}
	return all
}

func BenchmarkMatchExact(b *testing.B) {
	topics := threeLevels(10_000)
	benchMatch(b, fill(topics), topics, 1)
}

func BenchmarkMatchExactSite100k(b *testing.B) {
	topics := siteFilters(100_000)
	benchMatch(b, fill(topics), topics, 1)
}

func BenchmarkMatchMiss(b *testing.B) {
	topics := threeLevels(20_000)
	benchMatch(b, fill(topics[:10_000]), topics[10_000:], 0)
}

func BenchmarkMatchWildcards(b *testing.B) {
	topics := threeLevels(10_000)
	x := fill(topics)
	for i, f := range []string{"#", "sensor/#", "sensor/+/temperature", "+/+/+", "+/+/humidity", "sensor/+/#"} {
		x.Subscribe(f, Subscription{Subscriber: uint64(1_000_000 + i)})
	}
	benchMatch(b, x, topics, 6)
}

func BenchmarkMatchShared(b *testing.B) {
	topics := threeLevels(10_000)
	x := NewIndex()
	for i := range 10 {
		x.Subscribe("$share/consumers/sensor/#", Subscription{Subscriber: uint64(i + 1)})
	}
	benchMatch(b, x, topics, 1)
}

func BenchmarkMatchFanOut1000(b *testing.B) {
	x := NewIndex()
	for i := range 1000 {
		x.Subscribe("news", Subscription{Subscriber: uint64(i + 1)})
	}
	benchMatch(b, x, []string{"news"}, 1000)
}

const benchSubs = 100_000

// BenchmarkSubscribeDistinct and the three that follow report the time of
// benchSubs calls as ns/op; ns/call is per call.
func BenchmarkSubscribeDistinct(b *testing.B) {
	filters := siteFilters(benchSubs)
	for b.Loop() {
		fill(filters)
	}
	perCall(b)
}

func BenchmarkSubscribeChildren(b *testing.B) {
	filters := make([]string, benchSubs)
	for i := range filters {
		filters[i] = "site/" + strconv.Itoa(i)
	}
	for b.Loop() {
		fill(filters)
	}
	perCall(b)
}

func BenchmarkSubscribeOneFilter(b *testing.B) {
	for _, order := range []struct {
		name string
		mul  uint64
	}{{"rising", 1}, {"random", 0x9E3779B97F4A7C15}} {
		b.Run(order.name, func(b *testing.B) {
			for b.Loop() {
				x := NewIndex()
				for i := range uint64(benchSubs) {
					x.Subscribe("news/all", Subscription{Subscriber: i * order.mul})
				}
			}
			perCall(b)
		})
	}
}

func BenchmarkUnsubscribeDistinct(b *testing.B) {
	filters := siteFilters(benchSubs)
	for b.Loop() {
		b.StopTimer()
		x := fill(filters)
		b.StartTimer()
		for i, f := range filters {
			x.Unsubscribe(f, uint64(i+1))
		}
	}
	perCall(b)
}

func BenchmarkUnsubscribeOneFilter(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		x := NewIndex()
		for i := range uint64(benchSubs) {
			x.Subscribe("news/all", Subscription{Subscriber: i})
		}
		b.StartTimer()
		for i := range uint64(benchSubs) {
			x.Unsubscribe("news/all", i*7919%benchSubs)
		}
	}
	perCall(b)
}

func perCall(b *testing.B) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSubs, "ns/call")
}

func retainedSites(n int) (*Retained, []*mqtt.Message) {
	r, all := NewRetained(), make([]*mqtt.Message, n)
	for i, f := range siteFilters(n) {
		all[i] = &mqtt.Message{Topic: []byte(f), Retain: true}
		r.Set(all[i])
	}
	return r, all
}

func BenchmarkRetainedSet(b *testing.B) {
	r, all := retainedSites(100_000)
	for i := 0; b.Loop(); i++ {
		r.Set(all[i*7919%len(all)])
	}
}

func BenchmarkRetainedMatch(b *testing.B) {
	r, _ := retainedSites(100_000)
	for _, m := range []struct {
		filter string
		hits   int
	}{{"site/17/sensor/44", 1}, {"site/17/#", 100}, {"site/+/sensor/7", 1000}, {"+/+/+/7", 1000}, {"#", 100_000}} {
		b.Run(fmt.Sprintf("%s=%d", m.filter, m.hits), func(b *testing.B) {
			var dst []*mqtt.Message
			for b.Loop() {
				if dst = r.Match(m.filter, dst[:0]); len(dst) != m.hits {
					b.Fatalf("%d messages, want %d", len(dst), m.hits)
				}
			}
		})
	}
}

// heapBytes returns the live heap.
func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
