package bolt

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// DESIGN. Tests that need a process of their own start this test binary again,
// with childEnv naming what it is to do.

const (
	childEnv = "SLUICE_BOLT_CHILD"
	dirEnv   = "SLUICE_BOLT_DIR"
)

var children = map[string]func(){
	"publish": childPublish,
	"hold":    childHold,
	"full":    childFull,
}

func child(t *testing.T, what, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+what, dirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// must ends a child.
func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

// report is a line of the publishing child.
type report struct {
	kind         byte // 'S': group settled, 'D': message about to be dequeued
	group        uint32
	session, seq uint64
}

const killSessions = 3

// childPublish publishes to two of three sessions at a time, dequeues now and
// then, and reports, until it is killed.
func childPublish() {
	var mu sync.Mutex
	sent := make(map[uint32][]report)
	put := func(r report) {
		fmt.Printf("%c %d %d %d\n", r.kind, r.group, r.session, r.seq)
	}
	ev := &funcEvents{settled: func(_ int, tokens []persist.Token, err error) {
		must(err)
		mu.Lock()
		defer mu.Unlock()
		for _, t := range tokens {
			for _, r := range sent[t.Index] {
				put(r)
			}
			delete(sent, t.Index)
		}
	}}
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval = os.Getenv(dirEnv), ev, 2*time.Millisecond
	s, err := Open(opt)
	must(err)
	image, err := s.Load()
	must(err)
	var b persist.Batch
	for i := len(image.Sessions); i < killSessions; i++ {
		b.Add(persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{ID: s.NewSessionID(), ClientID: "c"}})
	}
	s.Submit(&b)
	group := uint32(1)
	for _, r := range image.Retained {
		var last uint32
		fmt.Sscanf(string(r.Payload), "%d", &last)
		group = max(group, last+1000) // groups that were not settled leave no gap in what follows
	}
	for ; ; group++ {
		b.Reset()
		m := &mqtt.Message{
			Topic: []byte("t"), ID: s.NewMessageID(),
			Payload: fmt.Appendf(nil, "%d %s", group, bytes.Repeat([]byte("x"), rand.IntN(300))),
		}
		b.Begin(persist.Token{Index: group})
		a := 1 + uint64(rand.IntN(killSessions))
		c := 1 + a%killSessions
		b.Enqueue(a, m, 1, false, nil)
		b.Enqueue(c, m, 1, false, nil)
		b.Add(persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: m}})
		b.End()
		mu.Lock() // the settlement must find what was sent
		s.Submit(&b)
		sent[group] = []report{{'S', group, a, b.Ops[0].Seq}, {'S', group, c, b.Ops[1].Seq}}
		if rand.IntN(3) == 0 && b.Ops[0].Seq > 20 {
			r := report{'D', 0, a, b.Ops[0].Seq - uint64(rand.IntN(20))}
			put(r)
			b.Reset()
			b.Dequeue(r.session, r.seq)
			mu.Unlock()
			s.Submit(&b)
		} else {
			mu.Unlock()
		}
		if group%50 == 0 {
			time.Sleep(time.Millisecond) // so that there are many commits
		}
	}
}

// TestKill kills a publishing process again and again. What it has reported as
// settled must be there, and of each group all or nothing.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	kept := make(map[[2]uint64]uint32) // session, seq -> group: settled and not dequeued
	gone := make(map[[2]uint64]bool)   // dequeued, perhaps
	for round := range 20 {
		cmd := child(t, "publish", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(20+rand.IntN(200))*time.Millisecond, func() { cmd.Process.Kill() })
		lines, lastGroup := 0, uint32(0)
		for sc := bufio.NewScanner(out); sc.Scan(); lines++ {
			var r report
			if n, _ := fmt.Sscanf(sc.Text(), "%c %d %d %d", &r.kind, &r.group, &r.session, &r.seq); n != 4 {
				continue // cut short
			}
			key := [2]uint64{r.session, r.seq}
			if r.kind == 'D' {
				gone[key] = true
				delete(kept, key)
			} else if lastGroup = max(lastGroup, r.group); !gone[key] {
				kept[key] = r.group
			}
		}
		cmd.Wait()
		timer.Stop()
		checkKilled(t, round, dir, kept, gone, lastGroup)
	}
	if len(kept) < 100 {
		t.Fatalf("only %d messages settled in all rounds", len(kept))
	}
}

// checkKilled opens what a killed process left.
func checkKilled(t *testing.T, round int, dir string, kept map[[2]uint64]uint32, gone map[[2]uint64]bool, lastGroup uint32) {
	t.Helper()
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events = dir, a
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.kill() // so that the next process finds the file as it was left
	image, err := s.Load()
	if st := s.Stats(); err != nil || st.Quarantined != "" || st.Skipped != 0 {
		t.Fatalf("round %d: %v, %+v", round, err, st)
	}
	found := make(map[[2]uint64]uint32)
	groups := make(map[uint32]int)
	for _, sess := range image.Sessions {
		for _, e := range fetchAll(s, a, sess.ID) {
			var group uint32
			fmt.Sscanf(string(e.Msg.Payload), "%d", &group)
			found[[2]uint64{sess.ID, e.Seq}] = group
			groups[group]++
		}
		for key := range gone { // sequence numbers that never reached the disk are used again
			if key[0] == sess.ID && key[1] >= sess.Tail {
				delete(gone, key)
			}
		}
	}
	for key, group := range kept {
		if found[key] != group {
			t.Fatalf("round %d: queue %d seq %d was settled with group %d and is %d now", round, key[0], key[1], group, found[key])
		}
	}
	missing := 0
	for _, n := range groups {
		if n == 1 {
			missing++
		}
	}
	if missing > len(gone) {
		t.Fatalf("round %d: %d groups are there in part, with %d messages dequeued", round, missing, len(gone))
	}
	if lastGroup > 0 {
		var last uint32
		fmt.Sscanf(string(image.Retained[0].Payload), "%d", &last)
		if last < lastGroup {
			t.Fatalf("round %d: retained message of group %d, settled was %d", round, last, lastGroup)
		}
	}
}

// fetchAll gives all of a queue.
func fetchAll(s *Store, a *answers, id uint64) (all []persist.Entry) {
	for from := uint64(1); ; {
		s.Fetch(persist.FetchRequest{Session: id, From: from, MaxMessages: 1000, MaxBytes: 1 << 20})
		f := a.waitFetched()
		if len(f.Entries) == 0 {
			return all
		}
		all = append(all, f.Entries...)
		from = f.Next
	}
}

// childHold opens the store, says so, and keeps it until its input ends.
func childHold() {
	opt := DefaultOptions()
	opt.Path, opt.Events = os.Getenv(dirEnv), newAnswers()
	s, err := Open(opt)
	must(err)
	fmt.Println("open")
	bufio.NewReader(os.Stdin).ReadByte()
	must(s.Close())
}

// TestSecondProcess opens a store that another process has open.
func TestSecondProcess(t *testing.T) {
	dir := t.TempDir()
	cmd := child(t, "hold", dir)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("child said %q", line)
	}
	opt := DefaultOptions()
	opt.Path, opt.Events = dir, newAnswers()
	start := time.Now()
	_, err := Open(opt)
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte(filepath.Join(dir, fileName))) {
		t.Fatalf("error %v does not name the file", err)
	}
	if took := time.Since(start); took > 5*time.Second { // a second and what a busy machine adds
		t.Fatalf("took %v", took)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// childFull fills a file that may have no more than 8 MiB, drains it, and
// expects that it can be filled again.
func childFull() {
	must(unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 8 << 20, Max: 8 << 20}))
	opt := DefaultOptions()
	opt.Path, opt.CommitInterval, opt.MaxPendingBytes = os.Getenv(dirEnv), time.Millisecond, 1<<20
	must(fillAndDrain(opt, 2))
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
	if err := fillAndDrain(opt, 2); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(opt.Path, fileName))
	if err != nil || info.Size() > opt.MaxFileBytes {
		t.Fatalf("%v, %d bytes", err, info.Size())
	}
}

// fillAndDrain publishes until groups are refused, then drains the queue: the
// store must write again by itself.
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
	var b persist.Batch
	b.Begin(persist.Token{})
	b.Add(persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{ID: s.NewSessionID()}})
	b.End()
	s.Submit(&b)
	a.waitSettled(1)
	from, sent := uint64(1), 1
	for range rounds {
		refused := false
		for !refused {
			b.Reset()
			b.Begin(persist.Token{})
			b.Enqueue(1, &mqtt.Message{Topic: []byte("t"), Payload: make([]byte, 1500), ID: s.NewMessageID()}, 1, false, nil)
			b.End()
			s.Submit(&b)
			sent++
			if refused = b.Ops[0].Seq == 0; sent > 100_000 {
				return fmt.Errorf("%d messages, and never full", sent)
			}
			if sent%20 == 0 {
				a.waitAnswered(s, sent)
			}
		}
		if s.Stats().Err == nil {
			return fmt.Errorf("refused, and Stats has no error")
		}
		for {
			s.Fetch(persist.FetchRequest{Session: 1, From: from, MaxMessages: 100, MaxBytes: 1 << 20})
			f := a.waitFetched()
			if f.Err != nil {
				return f.Err
			}
			if len(f.Entries) == 0 {
				break
			}
			b.Reset()
			for _, e := range f.Entries {
				b.Dequeue(1, e.Seq)
			}
			s.Submit(&b)
			from = f.Next
		}
		a.waitSettled(sent) // refused or stored or cancelled: all know
		for end := time.Now().Add(20 * time.Second); s.Stats().Err != nil; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				return fmt.Errorf("still failing: %w", s.Stats().Err)
			}
			b.Reset()
			b.Enqueue(1, &mqtt.Message{Topic: []byte("t"), Payload: make([]byte, 10)}, 1, false, nil)
			s.Submit(&b)
		}
	}
	return nil
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

// funcEvents are Events made of functions.
type funcEvents struct {
	settled func(owner int, tokens []persist.Token, err error)
	fetched func(owner int, f persist.Fetched)
}

func (e *funcEvents) Settled(owner int, tokens []persist.Token, err error) {
	if e.settled != nil {
		e.settled(owner, tokens, err)
	}
}

func (e *funcEvents) Fetched(owner int, f persist.Fetched) {
	if e.fetched != nil {
		e.fetched(owner, f)
	}
}
