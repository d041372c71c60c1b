package sim

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"sluice/platform/mono"
)

// World is one run: a broker, its machine, the network and the clients, all
// driven by one generator of random numbers.
type World struct {
	seed uint64
	opt  Options
	rng  *rand.Rand
	cfg  config
	now  mono.Time

	host     *host
	socks    []*sock
	opened   int // connections so far
	devices  []*device
	hostiles []*hostile
	pubs     []*pub // by number
	editions []*edition
	stamp    int64 // counts what clients do and see: the order of the outside
	crashes  int
	healing  bool // no more faults
	ending   bool

	trace  trace
	counts Counts
}

// Counts says what happened in a run, to see that a test tests something.
type Counts struct {
	Published, Acked, Arrived, Required int // messages; Required: those that had to arrive, once per receiver
	Connects, Crashes, Takeovers        int
	Aliased                             int // messages that came with an alias only
	Shaken, Layered                     int // connections with a handshake, with a layer
	Logins, Refused, Impostors          int
	Reloads, Denied                     int
	Events                              int
}

// Add adds o to c.
func (c *Counts) Add(o Counts) {
	c.Published += o.Published
	c.Acked += o.Acked
	c.Arrived += o.Arrived
	c.Required += o.Required
	c.Connects += o.Connects
	c.Crashes += o.Crashes
	c.Takeovers += o.Takeovers
	c.Aliased += o.Aliased
	c.Shaken += o.Shaken
	c.Layered += o.Layered
	c.Logins += o.Logins
	c.Refused += o.Refused
	c.Impostors += o.Impostors
	c.Reloads += o.Reloads
	c.Denied += o.Denied
	c.Events += o.Events
}

// Result is what came of a run.
type Result struct {
	Seed    uint64
	Hash    uint64 // of the whole trace
	Counts  Counts
	Failure *Failure // nil: nothing was wrong
}

// Failure is a violation: something that the broker must never do.
type Failure struct {
	Kind  string // one word
	Text  string
	Trace []string
}

func (f *Failure) String() string {
	return f.Kind + ": " + f.Text
}

// Report is the failure with the end of its trace.
func (r *Result) Report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", strings.Join(r.Failure.Trace, "\n"))
	fmt.Fprintf(&b, "seed %d: %s", r.Seed, r.Failure)
	return b.String()
}

// Options say how to run a seed. They do not change what happens.
type Options struct {
	Events int  // how many events the trace of a failure has at most
	Blind  bool // judge only what can be seen from outside: do not look for broken invariants
}

// Run simulates the world of a seed.
func Run(seed uint64, opt Options) (r *Result) {
	w := &World{seed: seed, rng: rand.New(rand.NewPCG(seed, 0x5356)), now: mono.Time(time.Second), opt: opt}
	w.trace.max = max(opt.Events, 1)
	r = &Result{Seed: seed}
	defer func() {
		if x := recover(); x != nil {
			f, ok := x.(*Failure)
			if !ok {
				f = &Failure{Kind: "panic", Text: fmt.Sprintf("%v\n%s", x, debug.Stack())}
			}
			f.Trace = append(w.trace.lines(), fmt.Sprintf("%+v", w.cfg))
			r.Failure = f
		}
		w.counts.Events = w.trace.n
		r.Hash, r.Counts = w.trace.hash, w.counts
	}()
	w.run()
	return r
}

// fail ends the run.
func (w *World) fail(kind, format string, args ...any) {
	panic(&Failure{Kind: kind, Text: fmt.Sprintf(format, args...)})
}

func (w *World) note(kind, who string, a, b int64, text string) {
	w.trace.add(event{at: w.now, kind: kind, who: who, a: a, b: b, text: text})
}

// next gives the stamp of something that a client does or sees.
func (w *World) next() int64 {
	w.stamp++
	return w.stamp
}

func (w *World) run() {
	w.cfg = w.drawConfig()
	w.host = newHost(w)
	for i := range w.cfg.devices {
		w.devices = append(w.devices, newDevice(w, i))
	}
	for i := range w.cfg.hostiles {
		w.hostiles = append(w.hostiles, newHostile(w, i))
	}
	for range w.cfg.steps {
		w.step()
	}
	w.heal()
}

// step lets one thing happen.
func (w *World) step() {
	c := &w.cfg
	w.now = w.now.Add(1 + time.Duration(w.rng.Int64N(int64(c.tick))))
	h := w.host
	if !h.up && h.bootAt <= w.now {
		h.start()
	}
	switch x := w.rng.Float64(); {
	case x < 0.35:
		if h.up {
			h.turn()
		}
	case x < 0.65:
		w.move()
	default:
		w.act()
	}
	h.work()
	if w.chance(c.commit) {
		h.commit()
	}
	if w.chance(c.fetch) {
		h.fetch()
	}
	w.mishap()
}

// act lets one client do something.
func (w *World) act() {
	n := w.rng.IntN(len(w.devices) + len(w.hostiles))
	if n < len(w.devices) {
		w.devices[n].act()
		return
	}
	w.hostiles[n-len(w.devices)].act()
}

// mishap is what may go wrong with the machine.
func (w *World) mishap() {
	c, h := &w.cfg, w.host
	if w.chance(c.fail) {
		h.failCommits(!h.failing)
	}
	if h.up && w.chance(c.crash) {
		h.crash(w.chance(0.5))
	}
	if h.up && w.chance(c.restart) {
		h.restart()
	}
	if h.up && w.chance(c.mute) {
		w.devices[w.rng.IntN(len(w.devices))].mute()
	}
	if h.up && w.chance(c.reload) {
		h.reload()
	}
	if h.up && w.chance(c.impose) {
		w.devices[w.rng.IntN(len(w.devices))].impose()
	}
	if w.chance(c.jump) {
		w.now = w.now.Add(time.Duration(w.between(100, pick(w, 500, 5000, 40000))) * time.Millisecond)
		w.note("pause", "world", 0, 0, "")
	}
}

// move lets the network move something on one connection. It tells whether
// there was anything to move.
func (w *World) move() bool {
	if len(w.socks) == 0 {
		return false
	}
	first := w.rng.IntN(len(w.socks))
	for k := range w.socks {
		i := (first + k) % len(w.socks)
		s := w.socks[i]
		if s.done() {
			w.socks = append(w.socks[:i], w.socks[i+1:]...)
			return true
		}
		up, down := s.goesUp(), s.goesDown()
		if down && !w.healing && s.end.reluctant() {
			down = false
		}
		switch {
		case !up && !down:
			continue
		case up && (!down || w.chance(0.5)):
			s.moveUp(w)
		default:
			s.moveDown(w)
		}
		return true
	}
	return false
}

// committed is told when everything that clients knew of at a stamp is on the
// disk.
func (w *World) committed(stamp int64) {
	for _, d := range w.devices {
		d.committed(stamp)
	}
}

// crashed is told when the process is gone, and with it what was not on the
// disk.
func (w *World) crashed() {
	w.crashes++
	w.counts.Crashes++
	for _, d := range w.devices {
		d.crashed()
	}
}

// closing is told before an orderly stop.
func (w *World) closing() {
	for _, d := range w.devices {
		d.closing()
	}
}

func (w *World) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// between draws from low to high, both included.
func (w *World) between(low, high int) int { return low + w.rng.IntN(high-low+1) }

func pick[T any](w *World, of ...T) T { return of[w.rng.IntN(len(of))] }
