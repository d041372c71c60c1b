package bolt

import (
	"fmt"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
)

func benchStore(tb testing.TB, a *answers) *Store {
	opt := DefaultOptions()
	opt.Path, opt.Events = tb.TempDir(), a
	s, err := Open(opt)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := s.Load(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	var b persist.Batch
	b.Begin(persist.Token{})
	b.Add(persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{ID: s.NewSessionID(), ClientID: "bench"}})
	b.End()
	b.Urgent = true
	s.Submit(&b)
	a.waitSettled(1)
	return s
}

// message makes a message of 150 bytes in all.
func benchMessage(s *Store) *mqtt.Message {
	topic := "plant/7/line/3/temperature"
	return &mqtt.Message{Topic: []byte(topic), Payload: make([]byte, 150-len(topic)), QoS: 1, ID: s.NewMessageID()}
}

// BenchmarkBytesPerMessage writes messages of 150 bytes for one session that
// is away, so many in each commit.
func BenchmarkBytesPerMessage(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a := newAnswers()
			s := benchStore(b, a)
			before, settled := s.Stats(), 1
			for b.Loop() {
				var batch persist.Batch
				for range n {
					batch.Begin(persist.Token{})
					batch.Enqueue(1, benchMessage(s), 1, false, nil)
					batch.End()
				}
				batch.Urgent = true
				s.Submit(&batch)
				settled += n
				a.waitSettled(settled)
			}
			st := s.Stats()
			b.ReportMetric(float64(st.BytesWritten-before.BytesWritten)/float64(settled-1), "B/msg")
			b.ReportMetric(float64(st.FileBytes)/float64(settled-1), "file-B/msg")
			b.ReportMetric(float64(settled-1)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// BenchmarkDurable keeps so many messages in flight, like publishers whose
// windows are full, for a session that is away.
func BenchmarkDurable(b *testing.B) {
	for _, window := range []int{100, 1000} {
		b.Run(fmt.Sprint(window), func(b *testing.B) {
			a := newAnswers()
			s := benchStore(b, a)
			before := s.Stats()
			var batch persist.Batch
			start := time.Now()
			for sent, settled := 0, 0; settled < b.N; {
				batch.Reset()
				for ; sent-settled < window && sent < b.N; sent++ {
					batch.Begin(persist.Token{})
					batch.Enqueue(1, benchMessage(s), 1, false, nil)
					batch.End()
				}
				s.Submit(&batch)
				a.waitSettled(1 + settled + 1)
				a.mu.Lock()
				settled = a.settled - 1
				a.mu.Unlock()
			}
			st := s.Stats()
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "msg/s")
			b.ReportMetric(float64(st.BytesWritten-before.BytesWritten)/float64(b.N), "B/msg")
			b.ReportMetric(float64(b.N)/float64(st.Commits-before.Commits), "msg/commit")
		})
	}
}

// BenchmarkDrain fetches a queue of 100,000 messages and acknowledges them.
func BenchmarkDrain(b *testing.B) {
	a := newAnswers()
	s := benchStore(b, a)
	const queued = 100_000
	var batch persist.Batch
	fill := func() {
		for range queued / 1000 {
			batch.Reset()
			batch.Begin(persist.Token{})
			for range 1000 {
				batch.Enqueue(1, benchMessage(s), 1, false, nil)
			}
			batch.End()
			batch.Urgent = true
			a.mu.Lock()
			n := a.settled
			a.mu.Unlock()
			s.Submit(&batch)
			a.waitSettled(n + 1)
		}
	}
	drained, from := 0, uint64(1)
	var written uint64
	b.ResetTimer()
	for drained < b.N {
		b.StopTimer()
		fill()
		before := s.Stats().BytesWritten
		b.StartTimer()
		for left := queued; left > 0; {
			s.Fetch(persist.FetchRequest{Session: 1, From: from, MaxMessages: 100, MaxBytes: 1 << 20})
			f := a.waitFetched()
			batch.Reset()
			for i := range f.Entries {
				batch.Dequeue(1, f.Entries[i].Seq)
			}
			s.Submit(&batch)
			left -= len(f.Entries)
			drained += len(f.Entries)
			from = f.Next
		}
		b.StopTimer()
		written += s.Stats().BytesWritten - before
		b.StartTimer()
	}
	b.ReportMetric(float64(drained)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(written)/float64(drained), "B/msg")
}

// BenchmarkCancelled is an enqueue and its dequeue within the commit interval.
func BenchmarkCancelled(b *testing.B) {
	a := newAnswers()
	s := benchStore(b, a)
	var batch persist.Batch
	batch.Add(persist.Op{Kind: persist.OpAttach, ID: 1})
	s.Submit(&batch)
	msg := benchMessage(s)
	const turn = 100
	seqs := make([]uint64, 0, turn)
	before := s.Stats().BytesWritten
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += turn {
		batch.Reset()
		for range turn {
			batch.Begin(persist.Token{})
			batch.Enqueue(1, msg, 1, false, nil)
			batch.End()
		}
		s.Submit(&batch)
		seqs = seqs[:0]
		for j := range batch.Ops {
			seqs = append(seqs, batch.Ops[j].Seq)
		}
		batch.Reset()
		for _, seq := range seqs {
			batch.Dequeue(1, seq)
		}
		s.Submit(&batch)
	}
	b.ReportMetric(float64(s.Stats().BytesWritten-before)/float64(b.N), "B/msg")
}
