package bridge

import (
	"math/rand/v2"
	"testing"
	"time"
)

func newTestSchedule(window int, o Options, queues ...Queue) *schedule {
	if o.BacklogPercent == 0 {
		o.BacklogPercent = 100
	}
	return newSchedule(window, queues, &o)
}

func TestScheduleIsStrictBetweenPriorities(t *testing.T) {
	s := newTestSchedule(100, Options{}, Queue{Share: 1}, Queue{Priority: 5, Share: 1}, Queue{Priority: 2, Share: 1})
	for _, c := range []struct {
		waiting [3]bool
		want    int
	}{
		{[3]bool{true, true, true}, 1}, {[3]bool{true, false, true}, 2}, {[3]bool{true, false, false}, 0}, {[3]bool{}, -1},
	} {
		for i, w := range c.waiting {
			s.offer(i, w, false)
		}
		if got, wait := s.next(0); got != c.want || wait != 0 {
			t.Errorf("%v: queue %d after %v, want %d", c.waiting, got, wait, c.want)
		}
	}
}

func TestScheduleSharesByWeight(t *testing.T) {
	s := newTestSchedule(1, Options{}, Queue{Share: 1}, Queue{Share: 3})
	sent := [2]int{}
	step := func() int {
		i, _ := s.next(0)
		s.take(i, 0, 100)
		s.free()
		sent[i]++
		return i
	}
	s.offer(0, true, false)
	for range 1000 { // alone: what it sends now is not held against it
		step()
	}
	sent = [2]int{}
	s.offer(1, true, false)
	for range 400 {
		step()
	}
	if sent[0] < 95 || sent[0] > 105 {
		t.Errorf("shares 1 and 3 of 400: %v", sent)
	}
	// Who comes back has no claim on the time that he was away.
	s.offer(0, false, false)
	for range 1000 {
		step()
	}
	sent = [2]int{}
	s.offer(0, true, false)
	for range 40 {
		step()
	}
	if sent[0] > 12 {
		t.Errorf("after a silence, 40 messages went %v", sent)
	}
}

// However much waits below, a higher priority finds a place in the window.
func TestScheduleKeepsPlacesFree(t *testing.T) {
	for _, window := range []int{1, 2, 16, 100, 65535} {
		s := newTestSchedule(window, Options{}, Queue{Share: 1}, Queue{Priority: 1, Share: 1}, Queue{Priority: 9, Share: 1})
		for i := range s.turns {
			s.offer(i, false, false)
			if s.turns[i].places < 1 || s.turns[i].places > window {
				t.Errorf("window %d: queue %d has %d places", window, i, s.turns[i].places)
			}
		}
		for i := range s.turns {
			s.offer(i, true, false)
			n := 0
			for {
				j, _ := s.next(0)
				if j < 0 {
					break
				}
				s.take(j, 0, 1)
				n++
			}
			s.offer(i, false, false)
			if n == 0 && window > 2 {
				t.Errorf("window %d: no place for queue %d", window, i)
			}
		}
		if s.used != window {
			t.Errorf("window %d: the highest priority fills it to %d", window, s.used)
		}
	}
}

func TestSchedulePaces(t *testing.T) {
	s := newTestSchedule(1<<30, Options{OutMaxMessagesPerSecond: 100, BacklogPercent: 20}, Queue{Share: 1}, Queue{Priority: 1, Share: 1})
	s.offer(0, true, true)
	s.offer(1, true, false)
	now, sent := time.Duration(0), [2]int{}
	live := 0.0 // 50 live messages a second
	for now < 100*time.Second {
		s.offer(1, live >= 1, false)
		i, wait := s.next(now)
		if i < 0 {
			if wait <= 0 {
				t.Fatalf("at %v: nothing may go, and nothing will change", now)
			}
			wait = min(wait, time.Millisecond)
			now += wait
			live += 50 * wait.Seconds()
			continue
		}
		if i == 1 {
			live--
		}
		s.take(i, now, 10)
		sent[i]++
	}
	if sent[0] < 1990 || sent[0] > 2050 {
		t.Errorf("the backlog sent %d in 100 s, want 20 per second", sent[0])
	}
	if sent[1] < 4950 {
		t.Errorf("of 5000 live messages %d went", sent[1])
	}
}

// A queue that waits for tokens with a big debt does not delay the highest
// priority by more than that debt, and never takes a token before it.
func TestScheduleGivesTheNextTokenToThePriority(t *testing.T) {
	s := newTestSchedule(1<<30, Options{OutMaxBytesPerSecond: 1000}, Queue{Share: 1}, Queue{Priority: 1, Share: 1})
	r := rand.New(rand.NewPCG(1, 1))
	now := time.Duration(0)
	s.offer(0, true, true)
	for range 2000 {
		alarm := r.IntN(10) == 0
		s.offer(1, alarm, false)
		i, wait := s.next(now)
		switch {
		case i < 0:
			now += max(wait, time.Microsecond)
		case alarm && i != 1:
			t.Fatal("the backlog went before an alarm")
		default:
			s.take(i, now, 1+r.IntN(500))
			s.free()
		}
	}
}

func TestSchedulePanicsOnTooManyPlacesFreed(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	newTestSchedule(1, Options{}, Queue{Share: 1}).free()
}

func TestGauge(t *testing.T) {
	var g gauge
	if g.oldest(time.Hour) != 0 || g.eta() != 0 {
		t.Error("an unused gauge tells something")
	}
	// 10 messages a second come from second 100 on; none leaves until second 1100, then 20 a second.
	entered, left := int64(0), int64(0)
	for s := range 3200 {
		now := time.Duration(s) * time.Second
		if s >= 100 {
			entered += 10
		}
		if s >= 1100 {
			left = min(entered, left+20)
		}
		g.observe(now, Backlog{Messages: entered - left}, left)
		want := time.Duration(0)
		if left < entered {
			want = now - (100*time.Second + time.Duration(left/10)*time.Second)
		}
		if got := g.oldest(now); (got - want).Abs() > max(2*time.Second, want/50) {
			t.Fatalf("at %v the oldest is %v, want %v", now, got, want)
		}
		switch s {
		case 1000:
			if g.eta() >= 0 {
				t.Errorf("eta %v while it grows", g.eta())
			}
		case 1600: // 10000 - 5000 left at a net of 10 a second
			if eta := g.eta(); eta < 480*time.Second || eta > 520*time.Second {
				t.Errorf("eta %v", eta)
			}
			if g.perSec < 19 || g.perSec > 21 {
				t.Errorf("%.1f messages a second", g.perSec)
			}
		case 3000:
			if g.eta() != 0 || g.oldest(now) != 0 {
				t.Errorf("empty: eta %v, oldest %v", g.eta(), g.oldest(now))
			}
		}
		if len(g.marks) > marksMax {
			t.Fatalf("%d marks", len(g.marks))
		}
	}
}
