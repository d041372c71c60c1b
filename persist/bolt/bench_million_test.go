package bolt

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
)

const million = 1_000_000

// fillQueue queues n messages of 150 bytes for session 1.
func fillQueue(s *Store, a *answers, n int) {
	var batch persist.Batch
	for left := n; left > 0; {
		batch.Reset()
		batch.Begin(persist.Token{})
		for range min(left, 5000) {
			batch.Enqueue(1, benchMessage(s), 1, false, nil)
			left--
		}
		batch.End()
		batch.Urgent = true
		a.mu.Lock()
		settled := a.settled
		a.mu.Unlock()
		s.Submit(&batch)
		a.waitSettled(settled + 1)
	}
}

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// reopened opens a store as often as the benchmark wants, and tells about time
// and heap.
func reopened(b *testing.B, dir string, clean bool) {
	b.Helper()
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil {
		b.Fatal(err)
	}
	var heap int64
	var s *Store
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		before := heapBytes()
		b.StartTimer()
		opt := DefaultOptions()
		opt.Path, opt.Events = dir, newAnswers()
		if s, err = Open(opt); err != nil {
			b.Fatal(err)
		}
		image, err := s.Load()
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		heap = heapBytes() - before
		runtime.KeepAlive(image)
		if clean {
			s.Close()
		} else {
			s.kill()
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(heap)/1e6, "heap-MB")
	b.ReportMetric(float64(info.Size())/1e6, "file-MB")
}

// BenchmarkStart opens a store with a million messages queued, closed properly
// and not.
func BenchmarkStart(b *testing.B) {
	for _, clean := range []bool{true, false} {
		b.Run(fmt.Sprintf("clean=%v", clean), func(b *testing.B) {
			dir := b.TempDir()
			s, a, _ := openAt(b, dir)
			durable(s, a, put(s.NewSessionID()))
			fillQueue(s, a, million)
			if clean {
				s.Close()
			} else {
				s.kill()
			}
			reopened(b, dir, clean)
		})
	}
}

// BenchmarkStartRetained opens a store with 100,000 retained messages.
func BenchmarkStartRetained(b *testing.B) {
	dir := b.TempDir()
	s, a, _ := openAt(b, dir)
	for i := 0; i < 100_000; i += 1000 {
		var ops []persist.Op
		for j := range 1000 {
			m := &mqtt.Message{Topic: fmt.Appendf(nil, "plant/%d/line/%d/temperature", (i+j)%100, i+j), Payload: make([]byte, 120)}
			ops = append(ops, persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: m}})
		}
		durable(s, a, ops...)
	}
	s.Close()
	reopened(b, dir, true)
}

// BenchmarkDrainMillion fetches and acknowledges a million messages.
func BenchmarkDrainMillion(b *testing.B) {
	for range b.N {
		b.StopTimer()
		a := newAnswers()
		s := benchStore(b, a)
		fillQueue(s, a, million)
		before := s.Stats()
		b.StartTimer()
		start := time.Now()
		var batch persist.Batch
		for from, left := uint64(1), million; left > 0; {
			s.Fetch(persist.FetchRequest{Session: 1, From: from, MaxMessages: 100, MaxBytes: 1 << 20})
			f := a.waitFetched()
			batch.Reset()
			for i := range f.Entries {
				batch.Dequeue(1, f.Entries[i].Seq)
			}
			s.Submit(&batch)
			left -= len(f.Entries)
			from = f.Next
		}
		took := time.Since(start)
		b.StopTimer()
		after := s.Stats()
		b.ReportMetric(million/took.Seconds(), "msg/s")
		b.ReportMetric(float64(after.BytesWritten-before.BytesWritten)/million, "B/msg")
		b.ReportMetric(float64(after.FileBytes)/1e6, "file-MB")
	}
}

// BenchmarkLatency keeps so many messages in flight for a session that is away,
// and measures how long each waits for its acknowledgement.
func BenchmarkLatency(b *testing.B) {
	for _, interval := range []time.Duration{0, 5 * time.Millisecond, 50 * time.Millisecond} {
		for _, window := range []int{1, 20, 100, 1000} {
			b.Run(fmt.Sprintf("interval=%v/window=%d", interval, window), func(b *testing.B) { latency(b, interval, window) })
		}
	}
}

func latency(b *testing.B, interval time.Duration, window int) {
	a := newAnswers()
	room := make(chan struct{}, window)
	var sent []time.Time
	var took []time.Duration
	done := make(chan uint32, window)
	opt := DefaultOptions()
	opt.Path, opt.CommitInterval = b.TempDir(), interval
	opt.Events = &funcEvents{settled: func(owner int, tokens []persist.Token, err error) {
		if owner == 0 {
			a.Settled(owner, tokens, err)
			return
		}
		for _, t := range tokens {
			done <- t.Index
		}
	}}
	s, err := Open(opt)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	urgent(s, a, put(1))
	sent = make([]time.Time, b.N)
	before := s.Stats()
	b.ResetTimer()
	go func() {
		for i := range b.N {
			room <- struct{}{}
			var batch persist.Batch
			batch.Owner = 1
			batch.Begin(persist.Token{Index: uint32(i)})
			batch.Enqueue(1, benchMessage(s), 1, false, nil)
			batch.End()
			sent[i] = time.Now()
			s.Submit(&batch)
		}
	}()
	for range b.N {
		i := <-done
		took = append(took, time.Since(sent[i]))
		<-room
	}
	b.StopTimer()
	slices.Sort(took)
	st := s.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1e3, "p99-ms")
	b.ReportMetric(float64(st.BytesWritten-before.BytesWritten)/float64(b.N), "B/msg")
}
