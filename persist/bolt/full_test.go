package bolt

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/persist"
)

// childFull fills a file that may have no more than 8 MiB, drains it, and
// expects that it can be filled again.
func childFull() {
	must(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 8 << 20, Max: 8 << 20}))
	opt := DefaultOptions()
	opt.Path, opt.CommitInterval, opt.MaxPendingBytes = os.Getenv(dirEnv), time.Millisecond, 1<<20
	must(fillAndDrain(opt, 3))
	fmt.Println("done")
}

// TestFullDisk runs out of space, and gets it back by draining.
func TestFullDisk(t *testing.T) {
	out, err := child(t, "full", t.TempDir()).Output()
	if err != nil || string(out) != "done\n" {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestFileLimit is the same with the store's own limit.
func TestFileLimit(t *testing.T) {
	opt := DefaultOptions()
	opt.Path, opt.CommitInterval, opt.MaxPendingBytes, opt.MaxFileBytes = t.TempDir(), time.Millisecond, 1<<20, 4<<20
	if err := fillAndDrain(opt, 3); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(opt.Path, fileName))
	if err != nil || info.Size() > opt.MaxFileBytes {
		t.Fatalf("%v, %d bytes", err, info.Size())
	}
}

// fillAndDrain publishes until groups are refused, and then acknowledges half of
// what is on disk: the store must make room, and write the rest, by itself.
func fillAndDrain(opt Options, rounds int) error {
	a := newAnswers()
	opt.Events = a
	s, err := Open(opt)
	if err != nil {
		return err
	}
	defer s.kill()
	if _, err := s.Load(); err != nil {
		return err
	}
	durable(s, a, put(s.NewSessionID()))
	head, tail, sent := uint64(1), uint64(1), 1
	for range rounds {
		for seq := uint64(1); seq != 0; {
			ops := publish(s, enq(1, msg(s, string(make([]byte, 1500)))))
			if seq, sent = ops[0].Seq, sent+1; seq != 0 {
				tail = seq + 1
			}
			if sent > 100_000 {
				return fmt.Errorf("%d messages, and never full", sent)
			}
			if sent%20 == 0 {
				a.waitAnswered(s, sent)
			}
		}
		if s.Stats().Err == nil {
			return fmt.Errorf("refused, and Stats has no error")
		}
		half := (head + tail) / 2
		for head < half {
			s.Fetch(persist.FetchRequest{Session: 1, From: head, MaxMessages: int(min(half-head, 100)), MaxBytes: 1 << 20})
			f := a.waitFetched()
			if f.Err != nil {
				return f.Err
			}
			var b persist.Batch
			for _, e := range f.Entries {
				b.Dequeue(1, e.Seq)
			}
			s.Submit(&b)
			head = f.Next
		}
		for end := time.Now().Add(20 * time.Second); s.Stats().Err != nil || s.Stats().PendingBytes > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				return fmt.Errorf("still failing: %w", s.Stats().Err)
			}
		}
		a.waitSettled(sent) // refused or stored: all know
	}
	if n := len(fetchAll(s, a, 1)); uint64(n) != tail-head {
		return fmt.Errorf("%d messages left, want %d", n, tail-head)
	}
	return nil
}

// publish submits ops as a group.
func publish(s *Store, ops ...persist.Op) []persist.Op {
	var b persist.Batch
	b.Begin(persist.Token{})
	for _, op := range ops {
		b.Add(op)
	}
	b.End()
	s.Submit(&b)
	return b.Ops
}

// waitAnswered waits until n groups are settled, or the store fails.
func (a *answers) waitAnswered(s *Store, n int) {
	for {
		a.mu.Lock()
		done := a.settled >= n
		a.mu.Unlock()
		if done || s.Stats().Err != nil {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
}
