package bolt

import (
	"strings"
	"testing"
	"time"

	"sluice/persist"
)

// patient opens a store that does not commit by time within a test.
func patient(t *testing.T, ev persist.Events) *Store {
	t.Helper()
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval = t.TempDir(), ev, time.Hour
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	return s
}

// urgent submits ops as an urgent group and waits for it.
func urgent(s *Store, a *answers, ops ...persist.Op) {
	var b persist.Batch
	b.Begin(persist.Token{})
	for _, op := range ops {
		b.Add(op)
	}
	b.End()
	b.Urgent = true
	a.mu.Lock()
	n := a.settled
	a.mu.Unlock()
	s.Submit(&b)
	a.waitSettled(n + 1)
}

// A commit begins early for a batch that is urgent, for many bytes, and for
// publishers that wait for receivers that are away; and not otherwise.
func TestEarlyCommit(t *testing.T) {
	a := newAnswers()
	s := patient(t, a)
	urgent(s, a, put(1), persist.Op{Kind: persist.OpAttach, ID: 1}, put(2))
	group := func(id uint64, payload int) (seq uint64) {
		var b persist.Batch
		b.Begin(persist.Token{})
		b.Enqueue(id, msg(s, strings.Repeat("x", payload)), 1, false, nil)
		b.End()
		s.Submit(&b)
		return b.Ops[0].Seq
	}
	commits := s.Stats().Commits
	still := func(what string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if s.Stats().Commits != commits {
				t.Fatalf("committed for %s", what)
			}
		}
	}
	next := func(what string) {
		t.Helper()
		eventually(t, "commit for "+what, func() bool { return s.Stats().Commits == commits+1 })
		eventually(t, "end of the commit", func() bool { return s.Stats().PendingBytes == 0 })
		commits++
	}
	for range 100 {
		group(1, 10)
	}
	still("messages that the receiver may acknowledge")
	group(1, 1<<20)
	next("many bytes")
	for range earlyGroups - 1 {
		group(2, 10)
	}
	still("a few publications to a receiver that is away")
	group(2, 10)
	next("publishers that wait")

	group(1, 10)
	still("one message")
	urgent(s, a, put(3))
	next("an urgent batch")
}

// With receivers that acknowledge within the interval nothing is written, even
// though something is pending all the time.
func TestSteadyStateWritesNothing(t *testing.T) {
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval = t.TempDir(), a, 300*time.Millisecond
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	urgent(s, a, put(1), persist.Op{Kind: persist.OpAttach, ID: 1})
	last, total := uint64(0), 0
	for attempt := 0; ; attempt++ {
		before, sent, longest := s.Stats(), 0, time.Duration(0)
		began := time.Now()
		for at := began; at.Sub(began) < 700*time.Millisecond; sent++ {
			var b persist.Batch
			b.Begin(persist.Token{})
			b.Enqueue(1, msg(s, "x"), 1, false, nil)
			b.End()
			if last != 0 {
				b.Dequeue(1, last)
			}
			s.Submit(&b)
			last = b.Ops[0].Seq
			now := time.Now()
			at, longest = now, max(longest, now.Sub(at))
		}
		total += sent
		after := s.Stats()
		if written := after.BytesWritten - before.BytesWritten; written == 0 && after.Commits == before.Commits {
			break
		} else if longest < opt.CommitInterval/2 || attempt == 20 {
			// Else we did not run for so long that a message was old enough to be written.
			t.Fatalf("%d messages: %d bytes written; longest pause %v", sent, written, longest)
		}
	}
	var b persist.Batch
	b.Dequeue(1, last)
	s.Submit(&b)
	if st := s.Stats(); st.Cancelled+st.Commits < uint64(total) {
		t.Errorf("of %d messages %d were cancelled", total, st.Cancelled)
	}
	a.waitSettled(total)
}

// A fetch that waits for a commit is answered after it, whatever else is pending.
func TestFetchAfterCommit(t *testing.T) {
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval = t.TempDir(), a, time.Hour
	var s *Store
	opt.hooks.commit = func(_ bool, write func() error) error {
		var b persist.Batch // keeps the committer from being idle
		b.Add(persist.Op{Kind: persist.OpPutInbound, ID: 1, PacketID: 1})
		s.Submit(&b)
		return write()
	}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	urgent(s, a, put(1), persist.Op{Kind: persist.OpAttach, ID: 1})
	var b persist.Batch
	b.Enqueue(1, msg(s, "x"), 2, false, nil)
	s.Submit(&b)
	s.Fetch(persist.FetchRequest{Session: 1, From: 1, MaxMessages: 1})
	eventually(t, "the fetch to wait", func() bool {
		s.fetcher.mu.Lock()
		defer s.fetcher.mu.Unlock()
		return len(s.fetcher.waiting) == 1
	})
	urgent(s, a, put(2))
	eventually(t, "answer", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.fetched) == 1 && len(a.fetched[0].Entries) == 1
	})
}

// due is asked at moments that are given in ms since the start.
func TestDue(t *testing.T) {
	start := time.Unix(1000, 0)
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	w := func(oldest int, slowed uint64, slow int) persist.Waiting {
		return persist.Waiting{Ops: 1, Oldest: int64(ms(oldest)), Slowed: slowed, SlowGroups: slow}
	}
	var p policy
	for i, x := range []struct {
		at   int
		w    persist.Waiting
		wait time.Duration
		mode mode
	}{
		{10, w(10, 1, 0), ms(50), modeInterval},
		{40, w(10, 5, 0), ms(20), modeInterval},
		{60, w(10, 6, 0), 0, modeBusy},
		{60, w(55, 6, 0), ms(45), modeInterval},       // what was older has been cancelled
		{60, w(55, 7, earlyGroups), ms(1), modeQuiet}, // something has just come
		{61, w(55, 8, earlyGroups), ms(1), modeQuiet}, // and again
		{62, w(55, 8, earlyGroups), 0, modeBusy},      // quiet for a millisecond
		{100, w(55, 9, earlyGroups-1), ms(5), modeInterval},
		{100, persist.Waiting{Ops: 1, Oldest: int64(ms(100)), Slowed: 9, Urgent: true}, 0, modeBusy},
		{100, persist.Waiting{Ops: 1, Oldest: int64(ms(100)), Slowed: 9, Bytes: earlyBytes}, 0, modeBusy},
	} {
		wait, m := p.due(x.w, ms(50), false, start.Add(ms(x.at)), start)
		if wait != x.wait || m != x.mode {
			t.Errorf("%d: wait %v in mode %d, want %v in mode %d", i, wait, m, x.wait, x.mode)
		}
	}
	if wait, _ := p.due(w(100, 9, 0), 0, false, start.Add(ms(100)), start); wait != 0 {
		t.Errorf("without an interval: wait %v", wait)
	}
}
