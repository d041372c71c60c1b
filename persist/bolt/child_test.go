package bolt

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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
	"mounts":  childMounts,
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
	kind         byte // 'S': group settled, 'D': message about to be dequeued (group 0: of an earlier process)
	group        uint32
	session, seq uint64
}

const killSessions = 3

// childPublish publishes to two of three sessions at a time, dequeues now and
// then, and reports, until it is killed.
func childPublish() {
	var mu sync.Mutex
	sent := make(map[uint32][]report)
	placed := make(map[[2]uint64]uint32)
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
		for _, r := range sent[group] {
			placed[[2]uint64{r.session, r.seq}] = group
		}
		if rand.IntN(3) == 0 && b.Ops[0].Seq > 20 {
			r := report{'D', 0, a, b.Ops[0].Seq - uint64(rand.IntN(20))}
			r.group = placed[[2]uint64{r.session, r.seq}]
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

// killed is what is known of the messages of all publishing processes so far.
type killed struct {
	kept    map[[2]uint64]uint32 // session, seq -> group: settled, and not dequeued
	gone    map[[2]uint64]bool   // dequeued, perhaps
	thinned map[uint32]bool      // groups with a message in gone
	found   map[[2]uint64]uint32 // what was on disk after the last round
	last    uint32               // the last group settled
}

// TestKill kills a publishing process again and again. What it has reported as
// settled must be there, and of each group all or nothing.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	k := killed{kept: make(map[[2]uint64]uint32), gone: make(map[[2]uint64]bool), thinned: make(map[uint32]bool)}
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
		for sc := bufio.NewScanner(out); sc.Scan(); {
			var r report
			if n, _ := fmt.Sscanf(sc.Text(), "%c %d %d %d", &r.kind, &r.group, &r.session, &r.seq); n == 4 { // else cut short
				k.note(r)
			}
		}
		cmd.Wait()
		timer.Stop()
		k.check(t, round, dir)
	}
	if len(k.kept) < 100 {
		t.Fatalf("only %d messages settled in all rounds", len(k.kept))
	}
}

func (k *killed) note(r report) {
	key := [2]uint64{r.session, r.seq}
	if r.kind == 'D' {
		k.gone[key] = true
		delete(k.kept, key)
		if r.group == 0 {
			r.group = k.found[key]
		}
		k.thinned[r.group] = true
	} else if k.last = max(k.last, r.group); !k.gone[key] {
		k.kept[key] = r.group
	}
}

// check opens what a killed process left.
func (k *killed) check(t *testing.T, round int, dir string) {
	t.Helper()
	s, a, image := openAt(t, dir)
	defer s.kill() // so that the next process finds the file as it was left
	if st := s.Stats(); st.Quarantined != "" || st.Skipped != 0 {
		t.Fatalf("round %d: %+v", round, st)
	}
	k.found = make(map[[2]uint64]uint32)
	groups := make(map[uint32]int)
	for _, sess := range image.Sessions {
		for _, e := range fetchAll(s, a, sess.ID) {
			var group uint32
			fmt.Sscanf(string(e.Msg.Payload), "%d", &group)
			k.found[[2]uint64{sess.ID, e.Seq}] = group
			groups[group]++
		}
		for key := range k.gone { // sequence numbers that never reached the disk are used again
			if key[0] == sess.ID && key[1] >= sess.Tail {
				delete(k.gone, key)
			}
		}
	}
	for key, group := range k.kept {
		if k.found[key] != group {
			t.Fatalf("round %d: queue %d seq %d was settled with group %d and is %d now", round, key[0], key[1], group, k.found[key])
		}
	}
	for group, n := range groups {
		if n != 2 && !k.thinned[group] {
			t.Fatalf("round %d: %d messages of group %d, and none of it was dequeued", round, n, group)
		}
	}
	if k.last > 0 {
		var last uint32
		fmt.Sscanf(string(image.Retained[0].Payload), "%d", &last)
		if last < k.last {
			t.Fatalf("round %d: retained message of group %d, settled was %d", round, last, k.last)
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
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, fileName)) || !strings.HasSuffix(err.Error(), fmt.Sprint("pid ", cmd.Process.Pid)) {
		t.Fatalf("error %v does not name the file and the process", err)
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
