package worker

import (
	"math/rand/v2"
	"testing"
	"time"

	"sluice/platform/mono"
)

// wheel is timers with the fake time of a test: what is due must come within
// two ticks of its time, if the worker looks when it is told to.
type wheel struct {
	t *testing.T
	timers
	now  mono.Time
	open map[uint64]mono.Time // timers set and not yet due
	dead map[uint64]bool      // do not stand any more
	late time.Duration        // the latest a timer came
}

func newWheel(t *testing.T, now mono.Time) *wheel {
	w := &wheel{t: t, now: now, open: make(map[uint64]mono.Time), dead: make(map[uint64]bool)}
	w.init(now)
	return w
}

func (w *wheel) set(name uint64, after time.Duration) {
	w.open[name] = w.now.Add(after)
	w.add(w.now.Add(after), timerClient, name)
}

func (w *wheel) advanceTo(now mono.Time) {
	w.now = now
	w.advance(now, func(x timer) bool { return !w.dead[x.name] }, func(x timer) {
		at, ok := w.open[x.name]
		switch {
		case w.dead[x.name]:
			return
		case !ok:
			w.t.Fatalf("timer %d came twice", x.name)
		case at != x.at || x.kind != timerClient:
			w.t.Fatalf("timer %d: %+v", x.name, x)
		case at > now:
			w.t.Fatalf("timer %d came %v early", x.name, at.Sub(now))
		}
		w.late = max(w.late, now.Sub(at))
		delete(w.open, x.name)
	})
}

// sleep does what a worker does that has nothing to do: it looks again when
// the next timer says, or when something else happens at until.
func (w *wheel) sleep(until mono.Time) {
	for {
		next := w.next()
		if (next == 0) != (w.count == 0) {
			w.t.Fatalf("%d timers, the next at %d", w.count, next)
		}
		if next == 0 || next > until {
			w.advanceTo(until)
			return
		}
		w.advanceTo(max(next, w.now))
	}
}

func TestTimersAgainstModel(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 5))
		w := newWheel(t, mono.Time(time.Second)+mono.Time(r.Int64N(int64(time.Hour))))
		name := uint64(0)
		for range 400 {
			for range r.IntN(4) {
				name++
				// Due already, soon, within the wheel, far beyond it.
				spans := []time.Duration{0, time.Millisecond, timerTick, 10 * time.Second, 3 * time.Minute, 2 * time.Hour}
				w.set(name, time.Duration(r.Int64N(int64(spans[r.IntN(len(spans))])+1)))
			}
			if name > 0 && r.IntN(5) == 0 { // nobody wants it any more
				n := 1 + r.Uint64N(name)
				w.dead[n] = true
				delete(w.open, n)
			}
			idle := []time.Duration{0, 10 * time.Millisecond, timerTick, 5 * time.Second, 10 * time.Minute}
			w.sleep(w.now.Add(time.Duration(r.Int64N(int64(idle[r.IntN(len(idle))]) + 1))))
		}
		w.sleep(w.now.Add(3 * time.Hour))
		if len(w.open) > 0 || w.count != 0 {
			t.Fatalf("seed %d: %d timers never came, %d are left", seed, len(w.open), w.count)
		}
		if w.late > 2*timerTick {
			t.Fatalf("seed %d: a timer was %v late", seed, w.late)
		}
	}
}

// A worker that was busy, or slept without timers, finds its place again.
func TestTimersAfterAPause(t *testing.T) {
	w := newWheel(t, mono.Time(time.Second))
	w.set(1, time.Second)
	w.advanceTo(w.now.Add(5 * time.Hour)) // late, but it comes
	if len(w.open) != 0 {
		t.Error("a timer did not come after a long turn")
	}
	w.advanceTo(w.now.Add(24 * time.Hour)) // nothing set
	w.now = w.now.Add(24 * time.Hour)      // and no turn at all
	w.late = 0
	w.set(2, time.Minute)
	w.sleep(w.now.Add(2 * time.Minute))
	if len(w.open) != 0 || w.late > 2*timerTick {
		t.Errorf("after a day of silence: %d open, %v late", len(w.open), w.late)
	}
}

// due may set timers again, also for a time that has passed.
func TestTimersSetAgain(t *testing.T) {
	var x timers
	start := mono.Time(time.Second)
	x.init(start)
	x.add(start.Add(time.Second), timerConn, 1)
	came := 0
	due := func(e timer) {
		if came++; came < 100 {
			x.add(start.Add(time.Duration(came)*20*time.Second), timerConn, e.name)
		}
	}
	always := func(timer) bool { return true }
	for now := start; now < start.Add(2100*time.Second); now = now.Add(10 * time.Second) {
		before := came
		x.advance(now, always, due)
		if came > before+1 {
			t.Fatalf("came %d times at once", came-before)
		}
	}
	if came != 100 || x.count != 0 {
		t.Errorf("came %d times, want 100; %d left", came, x.count)
	}
}

// Clients that come and go with long timers leave no more behind than fits
// into one turn of the wheel.
func TestTimersForgetTheGone(t *testing.T) {
	w := newWheel(t, mono.Time(time.Second))
	most := 0
	for name := uint64(0); name < 10_000; name++ {
		w.set(name, 24*time.Hour)
		w.dead[name] = true
		delete(w.open, name)
		w.advanceTo(w.now.Add(time.Second))
		most = max(most, w.count)
	}
	if want := int(timerSlots*timerTick/time.Second) + 2; most > want {
		t.Errorf("%d timers of clients that are gone, want at most %d", most, want)
	}
}

func BenchmarkTimers(b *testing.B) {
	var x timers
	now := mono.Time(time.Second)
	x.init(now)
	always := func(timer) bool { return true }
	due := func(e timer) { x.add(now.Add(90*time.Second), timerConn, e.name) }
	for i := range 10_000 {
		x.add(now.Add(time.Duration(i)*9*time.Millisecond), timerConn, uint64(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(10 * time.Millisecond)
		x.advance(now, always, due)
	}
}
