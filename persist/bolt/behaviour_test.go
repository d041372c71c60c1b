package bolt

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sluice/broker/mqtt"
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
	before := s.Stats()
	last, sent := uint64(0), 0
	for end := time.Now().Add(700 * time.Millisecond); time.Now().Before(end); sent++ {
		var b persist.Batch
		b.Begin(persist.Token{})
		b.Enqueue(1, msg(s, "x"), 1, false, nil)
		b.End()
		if last != 0 {
			b.Dequeue(1, last)
		}
		s.Submit(&b)
		last = b.Ops[0].Seq
	}
	after := s.Stats()
	if after.BytesWritten != before.BytesWritten || after.Cancelled != uint64(sent-1) {
		t.Fatalf("%d messages: %d bytes written, %d cancelled", sent, after.BytesWritten-before.BytesWritten, after.Cancelled)
	}
	a.waitSettled(sent)
}

// A record that stays as it is costs nothing.
func TestSameAgainWritesNothing(t *testing.T) {
	dir := t.TempDir()
	s, a, _ := openAt(t, dir)
	sub := persist.Op{Kind: persist.OpPutSubscription, ID: 1, Sub: &persist.Subscription{Filter: "a/#", QoS: 1}}
	retained := func() persist.Op {
		return persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: msg(s, "same")}}
	}
	durable(s, a, put(1), sub, retained())
	before := s.Stats().BytesWritten
	durable(s, a, put(1), sub, retained(), persist.Op{Kind: persist.OpDequeue, ID: 1, Seq: 5}, persist.Op{Kind: persist.OpDeleteInbound, ID: 1, PacketID: 7})
	if n := s.Stats().BytesWritten - before; n != 0 {
		t.Fatalf("%d bytes written", n)
	}
	s.Close()
}

// A message for many sessions is written once.
func TestPayloadOnce(t *testing.T) {
	s, a, _ := openAt(t, t.TempDir())
	defer s.Close()
	const sessions = 10
	var ops []persist.Op
	for id := uint64(1); id <= sessions; id++ {
		durable(s, a, put(s.NewSessionID()))
	}
	for _, size := range []int{300, 100_000} {
		m := msg(s, strings.Repeat("p", size))
		ops = ops[:0]
		for id := uint64(1); id <= sessions; id++ {
			ops = append(ops, enq(id, m))
		}
		before := s.Stats().BytesWritten
		durable(s, a, ops...)
		if n := s.Stats().BytesWritten - before; n > uint64(size+size/10+40_000) {
			t.Fatalf("%d bytes for %d sessions: %d written", size, sessions, n)
		}
	}
}

// When a group is reported settled, a power cut at that moment loses nothing
// of it.
func TestSettledFileIsComplete(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, fileName)
	type copied struct {
		tokens []persist.Token
		file   []byte
	}
	var mu sync.Mutex
	var copies []copied
	opt := DefaultOptions()
	opt.Path, opt.CommitInterval = dir, time.Millisecond
	opt.Events = &funcEvents{settled: func(_ int, tokens []persist.Token, err error) {
		b, rerr := os.ReadFile(file)
		if err != nil || rerr != nil {
			t.Error(err, rerr)
		}
		mu.Lock()
		copies = append(copies, copied{tokens, b})
		mu.Unlock()
	}}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	var b persist.Batch
	b.Add(put(1))
	s.Submit(&b)
	seqs := make(map[uint32]uint64)
	for i := range uint32(60) {
		b.Reset()
		b.Begin(persist.Token{Index: i})
		b.Enqueue(1, msg(s, strings.Repeat("x", int(i)*37)), 1, false, nil)
		b.End()
		s.Submit(&b)
		seqs[i] = b.Ops[0].Seq
		if i%7 == 0 {
			eventually(t, "commit", func() bool { return s.Stats().PendingBytes == 0 })
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	settled := make(map[uint32]bool)
	for _, c := range copies {
		for _, tok := range c.tokens {
			settled[tok.Index] = true
		}
		other := t.TempDir()
		if err := os.WriteFile(filepath.Join(other, fileName), c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		s, a, _ := openAt(t, other)
		have := make(map[uint64]bool)
		for _, e := range fetchAll(s, a, 1) {
			have[e.Seq] = true
		}
		for i := range settled {
			if !have[seqs[i]] {
				t.Fatalf("group %d was settled, and its message is not in the file", i)
			}
		}
		s.kill()
	}
	if len(settled) != 60 || len(copies) < 5 {
		t.Fatalf("%d groups settled in %d commits", len(settled), len(copies))
	}
}

// A deleted session with a deep queue is cleared away bit by bit, also after a
// crash in the middle.
func TestClearGoesOn(t *testing.T) {
	dir := t.TempDir()
	s, a, _ := openAt(t, dir)
	durable(s, a, put(1), put(2))
	shared := msg(s, strings.Repeat("s", 500))
	var ops []persist.Op
	for range 5 * clearBudget {
		ops = append(ops, enq(1, msg(s, "x")))
	}
	durable(s, a, append(ops, enq(1, shared), enq(2, shared))...)
	durable(s, a, persist.Op{Kind: persist.OpDeleteSession, ID: 1})
	s.kill()
	s, a, image := openAt(t, dir)
	if len(image.Sessions) != 1 {
		t.Fatalf("%d sessions", len(image.Sessions))
	}
	eventually(t, "clearing", func() bool {
		return keys(t, s, bucketQueue, 1)+keys(t, s, bucketDead, 1)+keys(t, s, bucketRef, shared.ID) == 0
	})
	if e := fetchAll(s, a, 2); len(e) != 1 || len(e[0].Msg.Payload) != 500 {
		t.Fatalf("the other session has %+v", e)
	}
	durable(s, a, persist.Op{Kind: persist.OpDequeue, ID: 2, Seq: 1})
	if n := keys(t, s, bucketMessage, shared.ID); n != 0 {
		t.Fatalf("%d parts of a message that nobody has", n)
	}
	s.Close()
}

// The file shrinks after it was drained, and the store goes on with it.
func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	s, a, _ := openAt(t, dir)
	durable(s, a, put(1), put(2), enq(2, msg(s, "stays")))
	m := strings.Repeat("x", 1000)
	last := uint64(0)
	for range 14 {
		var ops []persist.Op
		for range 1000 {
			ops = append(ops, enq(1, msg(s, m)))
		}
		done := durable(s, a, ops...)
		last = done[len(done)-1].Seq
	}
	if n := s.Stats().FileBytes; n < 14<<20 {
		t.Fatalf("only %d bytes", n)
	}
	var b persist.Batch
	for seq := uint64(1); seq <= last; seq++ {
		b.Dequeue(1, seq)
	}
	s.Submit(&b)
	eventually(t, "compaction", func() bool { return s.Stats().FileBytes < 1<<20 })
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || info.Size() > 6<<20 {
		t.Fatalf("%v, %d bytes", err, info.Size())
	}
	durable(s, a, enq(1, msg(s, "new")), enq(2, msg(s, "new")))
	if n := len(fetchAll(s, a, 1)) + len(fetchAll(s, a, 2)); n != 3 {
		t.Fatalf("%d messages", n)
	}
	opt := DefaultOptions()
	opt.Path, opt.Events = dir, a
	if _, err := Open(opt); err == nil {
		t.Fatal("the new file is not locked")
	}
	s.kill()
	s, a, _ = openAt(t, dir)
	if n := len(fetchAll(s, a, 1)) + len(fetchAll(s, a, 2)); n != 3 || s.Stats().Quarantined != "" {
		t.Fatalf("%d messages after a crash", n)
	}
	s.Close()
	if left, _ := filepath.Glob(filepath.Join(dir, "*.compact")); len(left) > 0 {
		t.Fatalf("left over: %v", left)
	}
}

// A file that bbolt cannot go on with is opened again.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	s, a, _ := openAt(t, dir)
	durable(s, a, put(1), enq(1, msg(s, "1")))
	eventually(t, "idle committer", func() bool { return mode(s.policy.mode.Load()) == modeIdle })
	s.broken = true // seen by the committer after the next Submit wakes it
	durable(s, a, enq(1, msg(s, "2")))
	if n := len(fetchAll(s, a, 1)); n != 2 {
		t.Fatalf("%d messages", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, a, _ = openAt(t, dir)
	if n := len(fetchAll(s, a, 1)); n != 2 {
		t.Fatalf("%d messages", n)
	}
	s.Close()
}

// While the disk fails, everything is kept, groups with messages are refused
// beyond the limit, and one line is logged at each change.
func TestFailingDisk(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	var mu sync.Mutex
	fails := false
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval, opt.MaxPendingBytes = t.TempDir(), a, time.Millisecond, 10_000
	opt.Logger = zap.New(core)
	opt.hooks.backoff = time.Millisecond
	opt.hooks.commit = func(_ bool, write func() error) error {
		mu.Lock()
		defer mu.Unlock()
		if fails {
			return errors.New("no disk")
		}
		return write()
	}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	durable(s, a, put(1))
	mu.Lock()
	fails = true
	mu.Unlock()
	publish := func() uint64 {
		var b persist.Batch
		b.Begin(persist.Token{})
		b.Enqueue(1, msg(s, strings.Repeat("x", 1000)), 1, false, nil)
		b.Add(persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: &mqtt.Message{Topic: []byte("r")}}})
		b.End()
		s.Submit(&b)
		return b.Ops[0].Seq
	}
	accepted := 0
	for publish() != 0 {
		accepted++
	}
	eventually(t, "several tries", func() bool { return s.Stats().CommitErrors > 3 })
	st := s.Stats()
	if accepted < 5 || accepted > 12 || st.Refused != 1 || st.Err == nil || !strings.Contains(st.Err.Error(), "no disk") || st.PendingBytes < 10_000 {
		t.Fatalf("%d accepted, %+v", accepted, st)
	}
	if a.failed != 1 || a.settled != 2 {
		t.Fatalf("%d groups refused, %d settled", a.failed, a.settled)
	}
	mu.Lock()
	fails = false
	mu.Unlock()
	a.waitSettled(2 + accepted)
	eventually(t, "end of the error", func() bool { return s.Stats().Err == nil })
	if publish() != uint64(accepted+1) {
		t.Fatal("sequence numbers have a gap where groups were refused")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{"store cannot write": 1, "store writes again": 1} {
		n := 0
		for _, e := range logs.All() {
			if strings.HasPrefix(e.Message, text) {
				n++
			}
		}
		if n != want {
			t.Fatalf("%q logged %d times", text, n)
		}
	}
}

// Close says so when it cannot commit.
func TestCloseFails(t *testing.T) {
	opt := DefaultOptions()
	opt.Path, opt.Events = t.TempDir(), newAnswers()
	opt.hooks.commit = func(bool, func() error) error { return errors.New("no disk") }
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	var b persist.Batch
	b.Begin(persist.Token{})
	b.Add(put(1))
	b.End()
	s.Submit(&b)
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "1 groups") {
		t.Fatalf("error %v", err)
	}
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
		wait, m := p.due(x.w, ms(50), start.Add(ms(x.at)), start)
		if wait != x.wait || m != x.mode {
			t.Errorf("%d: wait %v in mode %d, want %v in mode %d", i, wait, m, x.wait, x.mode)
		}
	}
	if wait, _ := p.due(w(100, 9, 0), 0, start.Add(ms(100)), start); wait != 0 {
		t.Errorf("without an interval: wait %v", wait)
	}
}
