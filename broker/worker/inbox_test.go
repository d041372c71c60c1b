package worker

import (
	"sync"
	"sync/atomic"
	"testing"

	"sluice/persist"
)

// sleeper is the worker's side of an inbox with a wake-up like that of a
// poller: it is remembered until somebody waits.
type sleeper struct {
	inbox inbox
	woken chan struct{}
	wakes atomic.Int64
}

func newSleeper() *sleeper {
	s := &sleeper{woken: make(chan struct{}, 1)}
	s.inbox.wake = func() {
		s.wakes.Add(1)
		select {
		case s.woken <- struct{}{}:
		default:
		}
	}
	return s
}

// No mail is lost and none waits while the worker sleeps: every letter is taken
// although the worker waits for nothing but the wake-up.
func TestInboxLosesNothing(t *testing.T) {
	const posters, letters = 4, 5000
	s := newSleeper()
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			for i := range letters {
				switch i % 4 {
				case 0:
					s.inbox.postCall(func(*Worker) {})
				case 1:
					s.inbox.postSettled(settled{})
				case 2:
					s.inbox.postFetched(persist.Fetched{})
				case 3:
					s.inbox.postBundle(new(bundle), p)
				}
			}
		})
	}
	for got := 0; got < posters*letters; {
		if s.inbox.sleep() {
			<-s.woken // a test that hangs here has lost a wake-up
		}
		m, _ := s.inbox.take()
		got += len(m.calls) + len(m.settled) + len(m.fetched) + len(m.bundles)
		s.inbox.giveBack(m)
	}
	wg.Wait()
	if m, _ := s.inbox.take(); !m.empty() {
		t.Error("more mail than was posted")
	}
}

func TestInboxWakesOnlySleepers(t *testing.T) {
	s := newSleeper()
	s.inbox.postCall(nil)
	if s.wakes.Load() != 0 {
		t.Error("a worker that is awake was woken")
	}
	if s.inbox.sleep() {
		t.Error("a worker with mail may sleep")
	}
	m, _ := s.inbox.take()
	s.inbox.giveBack(m)
	if !s.inbox.sleep() {
		t.Fatal("a worker without mail may not sleep")
	}
	s.inbox.postHandover(&handover{})
	s.inbox.postCall(nil)
	if n := s.wakes.Load(); n != 1 {
		t.Errorf("woken %d times for two letters, want once", n)
	}
	if !s.inbox.sleep() {
		m, _ = s.inbox.take()
	}
	if len(m.handovers) != 1 || len(m.calls) != 1 {
		t.Errorf("%d handovers, %d calls", len(m.handovers), len(m.calls))
	}
}

// Whoever posts to an inbox that holds too much is told so, and is named when
// it has been emptied.
func TestInboxCongestion(t *testing.T) {
	s := newSleeper()
	small := &bundle{bytes: make([]byte, congestedBytes/2)}
	if s.inbox.postBundle(small, 1) {
		t.Error("congested by half of the limit")
	}
	if !s.inbox.postBundle(&bundle{bytes: make([]byte, congestedBytes/2), to: make([]bundleTo, 1)}, 2) {
		t.Error("not congested above the limit")
	}
	if !s.inbox.postBundle(new(bundle), 65) { // shares a bit with worker 1
		t.Error("not congested any more")
	}
	m, waiters := s.inbox.take()
	if len(m.bundles) != 3 || waiters != 1<<2|1<<1 {
		t.Errorf("%d bundles, waiters %b", len(m.bundles), waiters)
	}
	s.inbox.giveBack(m)
	if s.inbox.postBundle(small, 1) {
		t.Error("congested although it was emptied")
	}
	if _, waiters = s.inbox.take(); waiters != 0 {
		t.Errorf("waiters %b, and nobody was told to wait", waiters)
	}
}

// What was taken is forgotten: the slices that are used again hold nothing.
func TestInboxForgets(t *testing.T) {
	s := newSleeper()
	for range 2 {
		s.inbox.postBundle(new(bundle), 0)
		s.inbox.postCall(func(*Worker) {})
		s.inbox.postHandover(&handover{})
		s.inbox.postFetched(persist.Fetched{Entries: make([]persist.Entry, 1)})
		s.inbox.postSettled(settled{tokens: make([]persist.Token, 1)})
		m, _ := s.inbox.take()
		s.inbox.giveBack(m)
		if m.bundles[0] != nil || m.calls[0] != nil || m.handovers[0] != nil || m.fetched[0].Entries != nil || m.settled[0].tokens != nil {
			t.Fatal("the inbox keeps mail that was taken")
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		s.inbox.postSettled(settled{})
		m, _ := s.inbox.take()
		s.inbox.giveBack(m)
	}); n != 0 {
		t.Errorf("%v allocations for one letter", n)
	}
}
