package sim

import (
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sluice/broker/auth"
	"sluice/broker/worker"
	"sluice/persist"
	"sluice/platform/mono"
)

// DESIGN. host is the machine that the broker runs on: the process (a
// worker.Group with its kernel), which can be killed and started again, and the
// store, of which only what was committed survives. A worker that has gone to
// sleep gets a turn only if its Net was woken, a descriptor is ready or a
// timer is due, as Net.Wait would have it; so a lost wake-up stays lost.

type host struct {
	w      *World
	kernel *kernel
	store  storage
	relay  relay
	group  *worker.Group
	nets   []*vnet
	looked []bool // since the last turn, whether there is something to do
	asleep []bool
	timers []mono.Time // 0: none

	accepted *atomic.Int64 // open connections that came by the listener
	jobs     []job

	up      bool
	bootAt  mono.Time // when it is started again, if not up
	failing bool      // commits fail
	life    int       // how many times it was started
}

// relay passes the store's answers to the group of the process that runs now.
type relay struct{ to persist.Events }

func (r *relay) Settled(owner int, tokens []persist.Token, err error) {
	r.to.Settled(owner, tokens, err)
}

func (r *relay) Fetched(owner int, f persist.Fetched) { r.to.Fetched(owner, f) }

func newHost(w *World) *host {
	h := &host{w: w, kernel: newKernel(w)}
	h.store = w.newStorage(&h.relay)
	h.start()
	return h
}

// start runs the process as broker.Start does.
func (h *host) start() {
	w := h.w
	h.kernel = newKernel(w)
	h.nets, h.looked, h.asleep, h.timers = nil, make([]bool, w.cfg.workers), make([]bool, w.cfg.workers), make([]mono.Time, w.cfg.workers)
	var nets []worker.Net
	for i := range w.cfg.workers {
		v := &vnet{k: h.kernel, id: i}
		h.nets = append(h.nets, v)
		nets = append(nets, v)
	}
	opt := worker.Options{
		Workers: w.cfg.workers, Limits: w.cfg.limits, Priority: w.cfg.priority, ConnectionsMax: w.cfg.connectionsMax,
		ConnectTimeout: w.cfg.connectTimeout, ConnectBytesMax: w.cfg.connectBytes, OutputBytesMax: w.cfg.outputBytes,
		Logger: zap.NewNop(), Now: w.now, Random: w.rng.Uint64, Wall: w.wall, Offload: h.offload, Guard: auth.NewGuard(guardOptions()),
		ConnectionsPerAddressMax: w.cfg.perAddressMax, ConnectsPerSecondMax: w.cfg.connectsPerSecond,
		ConnectsPerSecondPerAddressMax: w.cfg.connectsPerSecondPerAddress,
		MessagesPerSecondMax:           w.cfg.messagesPerSecond, BytesPerSecondMax: w.cfg.bytesPerSecond,
	}
	h.group = worker.NewGroup(opt, nets)
	if w.cfg.auth {
		h.group.SetRules(w.rules())
		if w.cfg.acl {
			w.outdate(w.editions[len(w.editions)-1])
		}
	}
	h.relay.to = h.group
	h.group.SetStore(h.store)
	im, err := h.store.Load()
	if err != nil {
		w.fail("store", "load: %v", err)
	}
	h.group.Restore(im)
	h.accepted = new(atomic.Int64)
	for _, x := range h.group.Workers() {
		if c := &w.cfg; c.tight {
			x.Tighten(c.acks, c.turnBytes, c.mailBytes)
		}
		if err := x.Listen(h.listener(h.accepted)); err != nil {
			w.fail("start", "listen: %v", err)
		}
	}
	h.up = true
	h.life++
	h.jobs = nil
	w.note("start", "host", int64(h.life), int64(len(im.Sessions)), "")
}

// runnable tells whether Net.Wait of a worker would return now.
func (h *host) runnable(i int) bool {
	v := h.nets[i]
	return h.up && !v.closed && (!h.asleep[i] || v.woken || h.timers[i] != 0 && h.timers[i] <= h.w.now || v.isReady())
}

// turn lets one of the runnable workers run. It tells whether there was one.
func (h *host) turn() bool {
	first := h.w.rng.IntN(len(h.nets))
	for k := range h.nets {
		if i := (first + k) % len(h.nets); h.runnable(i) {
			h.run(i)
			return true
		}
	}
	return false
}

// run does one step of a worker: first it looks whether it may sleep, then, if
// not or if something woke it, it does a turn. Others may run in between.
func (h *host) run(i int) {
	v := h.nets[i]
	x := h.group.Workers()[i]
	if !h.looked[i] {
		h.looked[i] = true
		h.asleep[i], h.timers[i] = x.Idle()
		return
	}
	events := v.take()
	h.w.note("turn", workerNames[i], int64(len(events)), 0, "")
	v.woken, h.looked[i], h.asleep[i] = false, false, false
	x.Turn(h.w.now, events)
	if !h.w.opt.Blind {
		x.Check()
	}
}

var workerNames = [...]string{"worker0", "worker1", "worker2", "worker3"}

// nextTimer is when a worker's timer is due; 0: none.
func (h *host) nextTimer() (at mono.Time) {
	for i := range h.timers {
		if h.up && h.timers[i] != 0 && (at == 0 || h.timers[i] < at) {
			at = h.timers[i]
		}
	}
	return at
}

// commit lets the committer work. It tells whether there was anything to do.
func (h *host) commit() bool {
	if !h.up {
		return false
	}
	did, on := h.store.step()
	if did {
		h.w.note("commit", "store", on, 0, "")
	}
	if on != 0 {
		h.w.committed(on)
	}
	return did
}

// fetch lets the fetcher work.
func (h *host) fetch() bool { return h.up && h.store.read() }

var errDisk = errors.New("simulated disk error")

func (h *host) failCommits(fail bool) {
	if fail == h.failing {
		return
	}
	h.failing = fail
	h.w.note("disk", "store", 0, 0, map[bool]string{true: "fails", false: "works"}[fail])
	if fail {
		h.store.failCommits(errDisk)
	} else {
		h.store.failCommits(nil)
	}
}

// crash is kill -9, or a power cut: then the network does not carry what the
// process had written.
func (h *host) crash(power bool) {
	w := h.w
	w.note("crash", "host", int64(h.life), 0, map[bool]string{true: "power cut", false: "killed"}[power])
	h.down(power)
	h.store = h.store.crash()
	w.crashed()
}

// down ends the process: all its connections end.
func (h *host) down(power bool) {
	w := h.w
	h.up = false
	h.bootAt = w.now.Add(time.Duration(w.between(0, 3000)) * time.Millisecond)
	for _, s := range w.socks {
		if s.closed {
			continue
		}
		if power {
			s.tx, s.txReset = nil, true
		}
		s.closed, s.txEnd = true, true
		if len(s.rx) > 0 {
			s.txReset = true
		}
	}
	h.kernel.backlog = nil
}

// restart is an orderly stop, as broker.Close does it.
func (h *host) restart() {
	w := h.w
	w.note("restart", "host", int64(h.life), 0, "")
	w.closing()
	if h.failing {
		h.failCommits(false)
	}
	for _, x := range h.group.Workers() {
		x.Quiesce()
	}
	for h.settle(); h.waiting(); h.settle() {
		if !h.commit() && !h.fetch() {
			w.fail("stuck", "acknowledgements wait for a store that has nothing to do")
		}
	}
	for _, x := range h.group.Workers() {
		x.Stop()
	}
	h.settle()
	if h.kernel.open > 0 {
		w.fail("descriptor", "%d descriptors are open after Stop", h.kernel.open)
	}
	if err := h.store.Close(); err != nil {
		w.fail("store", "close: %v", err)
	}
	w.committed(w.next())
	h.down(false)
	h.store = h.store.crash()
	w.crashed()
}

// settle runs the workers until all sleep, without letting time pass. It tells
// whether any ran.
func (h *host) settle() (ran bool) {
	for range 100_000 {
		if !h.turn() {
			return ran
		}
		ran = true
	}
	h.w.fail("stuck", "the workers do not come to rest")
	return ran
}

// waiting tells whether acknowledgements wait for the store.
func (h *host) waiting() bool {
	n := 0
	for _, x := range h.group.Workers() {
		n += x.Owed()
	}
	return n > 0
}

// checkEmpty is the last look: all clients have gone and have ended their
// sessions, so nothing may be left.
func (h *host) checkEmpty() {
	w := h.w
	sum := worker.Stats{}
	for _, x := range h.group.Workers() {
		s := x.Counters()
		sum.Add(&s)
	}
	if sum.Connections != 0 || sum.Sessions != 0 || sum.AcksWaiting != 0 || h.group.Connections() != 0 {
		w.fail("leak", "at the end: %d connections (%d in the group), %d sessions, %d acknowledgements waiting",
			sum.Connections, h.group.Connections(), sum.Sessions, sum.AcksWaiting)
	}
	if n := h.accepted.Load(); n != 0 {
		w.fail("leak", "at the end: the listener counts %d connections", n)
	}
	if h.kernel.open != 0 {
		w.fail("leak", "at the end: %d descriptors open", h.kernel.open)
	}
	if n := h.group.Index().Len(); n != 0 {
		w.fail("leak", "at the end: %d subscriptions in the index", n)
	}
	if err := h.group.Index().Check(); err != nil {
		w.fail("leak", "at the end: index: %v", err)
	}
	st := h.store.Stats()
	if st.QueuedMessages != 0 || st.QueuedBytes != 0 || st.PendingBytes != 0 {
		w.fail("leak", "at the end: the store holds %d messages of %d bytes, %d bytes pending", st.QueuedMessages, st.QueuedBytes, st.PendingBytes)
	}
	if im, err := h.store.Load(); err != nil || len(im.Sessions) != 0 {
		w.fail("leak", "at the end: the store holds %d sessions, error %v", len(im.Sessions), err)
	}
}
