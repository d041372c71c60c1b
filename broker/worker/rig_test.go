package worker

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"sluice/broker/auth"
	"sluice/broker/session"
	"sluice/persist"
	"sluice/persist/mem"
	"sluice/platform"
	"sluice/platform/mono"
)

// DESIGN. A rig is workers with a network, a clock and a store that do only
// what the test says, all on the test's goroutine. After every turn the worker
// is checked, and its read buffer is overwritten: nothing may live in it.

// rig is a group of workers in a test.
type rig struct {
	t     testing.TB
	opt   Options
	g     *Group
	ws    []*Worker
	nets  []*fakeNet
	store *mem.Store
	now   mono.Time
	socks []*sock // by descriptor; none is used twice
	lazy  bool    // the store commits and answers only when told to
	raw   bool    // without checks: for measuring
	open  atomic.Int64
	jobs  []func() // offloaded, and not yet done
}

// wallStart is the wall clock's time at 0 of the rig's.
var wallStart = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// work does the jobs that were offloaded.
func (r *rig) work() {
	r.t.Helper()
	jobs := r.jobs
	r.jobs = nil
	for _, j := range jobs {
		j()
	}
	r.run()
}

// listenFD is the descriptor of the one listening socket.
const listenFD = 0

func newRig(t testing.TB, workers int, set func(*Options)) *rig {
	r := &rig{t: t, now: mono.Time(time.Second), socks: []*sock{nil}}
	r.opt = Options{
		Limits: session.DefaultLimits(), ConnectionsMax: 10_000, ConnectTimeout: 10 * time.Second,
		ConnectBytesMax: 8192, OutputBytesMax: 64 << 10, Logger: zap.NewNop(), Now: r.now,
		Random: func() uint64 { return uint64(len(r.socks)) * 0x9E3779B97F4A7C15 },
		Wall:   func() time.Time { return wallStart.Add(time.Duration(r.now)) },
		Guard:  auth.NewGuard(auth.DefaultGuardOptions()),
		Offload: func(job func()) error {
			r.jobs = append(r.jobs, job)
			return nil
		},
	}
	if set != nil {
		set(&r.opt)
	}
	r.start(workers)
	r.store = mem.New(mem.Options{Events: r, Manual: true, Now: func() int64 { return int64(r.now) }})
	r.g.SetStore(r.store)
	return r
}

// start makes the workers.
func (r *rig) start(workers int) {
	var nets []Net
	r.nets = nil
	for range workers {
		n := &fakeNet{r: r}
		nets, r.nets = append(nets, n), append(r.nets, n)
	}
	r.opt.Now = r.now
	r.g = NewGroup(r.opt, nets)
	r.ws = r.g.Workers()
	for _, w := range r.ws {
		if err := w.Listen(Listener{FD: listenFD, Address: "test", Open: &r.open}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// restart makes new workers over what the store has committed, as after a
// power cut.
func (r *rig) restart() {
	r.t.Helper()
	r.start(len(r.ws))
	r.store = r.store.Crash()
	r.g.SetStore(r.store)
	im, err := r.store.Load()
	if err != nil {
		r.t.Fatal(err)
	}
	r.g.Restore(im)
}

// Settled and Fetched make the rig the store's persist.Events: its answers go
// to the workers there are.
func (r *rig) Settled(owner int, tokens []persist.Token, err error) { r.g.Settled(owner, tokens, err) }
func (r *rig) Fetched(owner int, f persist.Fetched)                 { r.g.Fetched(owner, f) }

var garbage = bytes.Repeat([]byte{0xDD}, readBytes)

// turn does one turn of a worker.
func (r *rig) turn(w *Worker, events []platform.Event) {
	w.Turn(r.now, events)
	if r.raw {
		return
	}
	copy(w.buf, garbage)
	copy(w.props[:cap(w.props)], garbage)
	w.Check()
}

// run plays until nothing happens any more.
func (r *rig) run() {
	r.t.Helper()
	for range 100_000 {
		if !r.round() {
			return
		}
	}
	r.t.Fatal("the workers do not come to rest")
}

// round gives every worker that has something to do a turn.
func (r *rig) round() (busy bool) {
	for i, w := range r.ws {
		events := r.nets[i].events()
		if idle, _ := w.Idle(); idle && len(events) == 0 {
			continue
		}
		busy = true
		r.turn(w, events)
	}
	if r.lazy {
		return busy
	}
	for r.store.StepFetch() {
		busy = true
	}
	return r.store.Step() || busy
}

// wait lets time pass: workers wake up when they have asked to.
func (r *rig) wait(d time.Duration) {
	r.t.Helper()
	for until := r.now.Add(d); ; {
		next := until
		for _, w := range r.ws {
			if at := w.timers.next(); at != 0 {
				next = min(next, max(at, r.now))
			}
		}
		r.now = next
		for _, w := range r.ws {
			r.turn(w, nil)
		}
		r.run()
		if next == until {
			return
		}
	}
}

// sum gives the counters of all workers.
func (r *rig) sum() (s Stats) {
	for _, w := range r.ws {
		c := w.Counters()
		s.Add(&c)
	}
	return s
}

// idOn gives a client id that belongs to a worker.
func (r *rig) idOn(worker int, name string) string {
	for i := 0; ; i++ {
		if id := fmt.Sprintf("%s-%d", name, i); r.g.owner([]byte(id)) == r.ws[worker] {
			return id
		}
	}
}
