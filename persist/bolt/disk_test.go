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
		return keys(t, s, bucketQueue, 1)+keys(t, s, bucketRef, shared.ID) == 0
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
	if s.kill(); s.db != nil && s.db.NoSync {
		t.Fatal("the new file is not synced")
	}
	s, a, _ = openAt(t, dir)
	if n := len(fetchAll(s, a, 1)) + len(fetchAll(s, a, 2)); n != 3 || s.Stats().Quarantined != "" {
		t.Fatalf("%d messages after a crash", n)
	}
	s.Close()
	if left, _ := filepath.Glob(filepath.Join(dir, "*.compact")); len(left) > 0 {
		t.Fatalf("left over: %v", left)
	}
}

// A compaction that keeps somebody waiting is given up, and leaves nothing
// behind; messages are accepted, cancelled and fetched all the time.
func TestCompactionGivesWay(t *testing.T) {
	dir := t.TempDir()
	s, a, _ := openAt(t, dir)
	durable(s, a, put(1), put(2), enq(2, msg(s, "stays")))
	for range 30 {
		var ops []persist.Op
		for range 100 {
			ops = append(ops, enq(1, msg(s, strings.Repeat("x", 1000))))
		}
		durable(s, a, ops...)
	}
	eventually(t, "idle committer", func() bool { return mode(s.policy.mode.Load()) == modeIdle })
	asked := 0
	err := s.compact(func() bool { // by this goroutine, while the committer sleeps
		asked++
		if asked == 1 && s.somebodyWaits() {
			t.Error("somebody waits, and nothing is pending")
		}
		s.Fetch(persist.FetchRequest{Session: 2, From: 1, MaxMessages: 1, MaxBytes: 100})
		if f := a.waitFetched(); len(f.Entries) != 1 {
			t.Errorf("%+v", f)
		}
		return asked == 2
	})
	if !errors.Is(err, errGivenUp) || asked != 2 {
		t.Fatalf("%v, asked %d times", err, asked)
	}
	durable(s, a, enq(2, msg(s, "after")))
	s.kill()
	s, a, _ = openAt(t, dir)
	if n, m := len(fetchAll(s, a, 1)), len(fetchAll(s, a, 2)); n != 3000 || m != 2 {
		t.Fatalf("%d and %d messages", n, m)
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

// After a proper Close the list of free pages is in the file.
func TestCloseIsClean(t *testing.T) {
	for _, clean := range []bool{true, false} {
		dir := t.TempDir()
		fill(t, dir, clean)
		f, err := os.Open(filepath.Join(dir, fileName))
		if err != nil {
			t.Fatal(err)
		}
		info, _ := f.Stat()
		if got, err := checkFile(f, info.Size()); err != nil || got != clean {
			t.Fatalf("clean %v, %v; want %v", got, err, clean)
		}
		f.Close()
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
