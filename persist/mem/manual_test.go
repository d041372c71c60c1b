package mem

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// journal is Events that notes everything in order.
type journal struct{ lines []string }

func (j *journal) Settled(owner int, tokens []persist.Token, err error) {
	for _, t := range tokens {
		j.lines = append(j.lines, fmt.Sprintf("settled %d/%d %v", owner, t.Index, err))
	}
}

func (j *journal) Fetched(owner int, f persist.Fetched) {
	line := fmt.Sprintf("fetched %d/%d next %d:", owner, f.Session, f.Next)
	for _, e := range f.Entries {
		line += fmt.Sprintf(" %d", e.Seq)
	}
	j.lines = append(j.lines, line)
}

// expect compares what was noted since the last call.
func (j *journal) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(j.lines, want) {
		t.Fatalf("%q, want %q", j.lines, want)
	}
	j.lines = nil
}

func publish(s persist.Store, token uint32, id uint64, qos mqtt.QoS) uint64 {
	var b persist.Batch
	b.Begin(persist.Token{Index: token})
	b.Enqueue(id, &mqtt.Message{Topic: []byte("t"), Payload: make([]byte, 100)}, qos, false, nil)
	b.End()
	s.Submit(&b)
	return b.Ops[0].Seq
}

// manual gives a store in manual mode with session 1.
func manual(t *testing.T, limit int64) (*Store, *journal) {
	j := &journal{}
	s := New(Options{Events: j, Manual: true, MaxPendingBytes: limit, Now: func() int64 { return 1 }})
	var b persist.Batch
	b.Add(persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{ID: s.NewSessionID()}})
	s.Submit(&b)
	if !s.Step() {
		t.Fatal("Step does not commit what is pending")
	}
	if s.Step() {
		t.Fatal("Step commits twice")
	}
	return s, j
}

// Nothing happens but in Step and StepFetch.
func TestManual(t *testing.T) {
	s, j := manual(t, 0)
	publish(s, 1, 1, 1)
	publish(s, 2, 1, 2)
	s.Fetch(persist.FetchRequest{Owner: 9, Session: 1, From: 1, MaxMessages: 10, MaxBytes: 1000})
	s.Fetch(persist.FetchRequest{Owner: 8, Session: 1, From: 2, MaxMessages: 10, MaxBytes: 1000})
	j.expect(t)
	for i, want := range []bool{true, true, false} {
		if s.StepFetch() != want {
			t.Fatalf("StepFetch %d did not give %v", i, want)
		}
	}
	j.expect(t, "fetched 9/1 next 2: 1") // the other waits for the commit
	if !s.Step() {
		t.Fatal("nothing to commit")
	}
	j.expect(t, "settled 0/1 <nil>", "settled 0/2 <nil>")
	if !s.StepFetch() {
		t.Fatal("the request that waited is not answered")
	}
	j.expect(t, "fetched 8/1 next 3: 2")
}

// A fetch that waits for a message that is cancelled is answered too.
func TestManualWaitCancelled(t *testing.T) {
	s, j := manual(t, 0)
	seq := publish(s, 1, 1, 2)
	s.Fetch(persist.FetchRequest{Session: 1, From: 1, MaxMessages: 10, MaxBytes: 1000})
	s.StepFetch()
	var b persist.Batch
	b.Dequeue(1, seq)
	s.Submit(&b)
	j.expect(t, "settled 0/1 <nil>")
	if !s.Step() || !s.StepFetch() {
		t.Fatal("nothing to do")
	}
	j.expect(t, "fetched 0/1 next 2:")
	if n := s.Stats().Commits; n != 1 {
		t.Fatalf("%d commits", n)
	}
}

// After Crash there is what was committed.
func TestManualCrash(t *testing.T) {
	s, j := manual(t, 0)
	publish(s, 1, 1, 1)
	s.Step()
	publish(s, 2, 1, 1)
	s = s.Crash()
	j.expect(t, "settled 0/1 <nil>")
	image, err := s.Load()
	if err != nil || len(image.Sessions) != 1 || image.Sessions[0].Head != 1 || image.Sessions[0].Tail != 2 || image.Sessions[0].QueuedBytes != 101 {
		t.Fatalf("%v, %+v", err, image)
	}
	if seq := publish(s, 3, 1, 1); seq != 2 {
		t.Fatalf("sequence number %d", seq)
	}
}

// While commits fail nothing is lost, and what does not fit is refused.
func TestManualFailing(t *testing.T) {
	s, j := manual(t, 300)
	failure := errors.New("disk")
	s.FailCommits(failure)
	publish(s, 1, 1, 1)
	if !s.Step() {
		t.Fatal("nothing to commit")
	}
	if st := s.Stats(); !errors.Is(st.Err, failure) || st.CommitErrors != 1 || st.PendingBytes < 101 {
		t.Fatalf("%+v", st)
	}
	publish(s, 2, 1, 1)
	if seq := publish(s, 3, 1, 1); seq != 0 {
		t.Fatalf("accepted with sequence number %d", seq)
	}
	j.expect(t, "settled 0/3 "+persist.ErrFull.Error())
	s.Step()
	j.expect(t)
	s.FailCommits(nil)
	s.Step()
	j.expect(t, "settled 0/1 <nil>", "settled 0/2 <nil>")
	if st := s.Stats(); st.Err != nil || st.QueuedMessages != 2 || st.Refused != 1 {
		t.Fatalf("%+v", st)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// The same steps give the same events.
func TestManualDeterministic(t *testing.T) {
	run := func() []string {
		s, j := manual(t, 0)
		var b persist.Batch
		for range 20 {
			b.Add(persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{ID: s.NewSessionID()}})
		}
		s.Submit(&b)
		for i := range uint32(200) {
			b.Reset()
			b.Owner = int(i % 3)
			b.Begin(persist.Token{Index: i})
			for id := uint64(1); id <= 20; id += uint64(i%4) + 1 {
				b.Enqueue(id, &mqtt.Message{Topic: []byte("t")}, 1, false, nil)
			}
			b.Add(persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: &mqtt.Message{Topic: fmt.Appendf(nil, "%d", i%7)}}})
			b.End()
			s.Submit(&b)
			if i%10 == 9 {
				s.Step()
				s = s.Crash()
				image, _ := s.Load()
				j.lines = append(j.lines, fmt.Sprintf("%+v", image.Sessions))
			}
			s.Fetch(persist.FetchRequest{Session: uint64(i%20) + 1, From: 1, MaxMessages: 5, MaxBytes: 100})
			s.StepFetch()
		}
		return j.lines
	}
	if a, b := run(), run(); !slices.Equal(a, b) {
		t.Fatal("two runs differ")
	}
}
