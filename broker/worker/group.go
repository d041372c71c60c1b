package worker

import (
	"hash/fnv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sluice/broker/auth"
	"sluice/broker/session"
	"sluice/broker/topic"
	"sluice/persist"
	"sluice/platform/mono"
)

// Options configures a Group.
type Options struct {
	Workers         int // at least 1; at most 256
	Limits          session.Limits
	Priority        []string      // filters of topics whose messages overtake others on their way to each client
	Classes         []QueueClass  // of sessions with queues of their own; the first that matches holds
	ConnectionsMax  int           // in all; more are closed right after accept
	ConnectTimeout  time.Duration // from accept to CONNECT
	ConnectBytesMax int           // size of a CONNECT: what a peer can make us hold before we know it
	OutputBytesMax  int           // unsent output of one connection; beyond it QoS 0 is dropped and the rest waits
	Store           persist.Store
	Logger          *zap.Logger
	Now             mono.Time // when the group is made

	// Random gives 64 random bits: for client ids that the broker assigns.
	Random func() uint64
	// Wall is the wall clock: only tokens and certificates are judged by it.
	Wall func() time.Time
	// Offload runs a job that takes long, elsewhere; an error says that there
	// is too much of it. It is called only when rules are set.
	Offload func(job func()) error
	// Guard slows and refuses those who guess passwords.
	Guard *auth.Guard

	ConnectionsPerAddressMax       int // 0: any number; the same for the rest
	ConnectsPerSecondMax           int
	ConnectsPerSecondPerAddressMax int
	MessagesPerSecondMax           int // from one client
	BytesPerSecondMax              int // the same, of bytes of PUBLISH
}

// Group is the workers of a broker and what they share.
type Group struct {
	opt      Options
	limits   *session.Limits
	classes  []*class
	internal session.Limits // of sessions of Sluice itself that no class names
	priority topic.Set      // Options.Priority
	index    *topic.Index
	retained *topic.Retained
	store    persist.Store
	log      *zap.Logger
	workers  []*Worker

	door    *door
	guard   *auth.Guard
	rules   atomic.Pointer[auth.Rules] // nil: everybody may do everything
	permits sync.Map                   // session id -> *auth.Permit, of those with guarded subscriptions

	connections atomic.Int64 // open, of all workers
	holding     atomic.Int64 // clients that are held back, of all workers
}

// NewGroup makes the workers, each with the Net that nets gives it; they do not
// run yet. SetStore and Restore come before the first of them does.
func NewGroup(opt Options, nets []Net) *Group {
	g := &Group{
		opt: opt, index: topic.NewIndex(), retained: topic.NewRetained(),
		store: opt.Store, log: opt.Logger, guard: opt.Guard, priority: topic.NewSet(opt.Priority),
		door: newDoor(opt.ConnectionsPerAddressMax, opt.ConnectsPerSecondMax, opt.ConnectsPerSecondPerAddressMax),
	}
	g.opt.Limits.Priority = len(opt.Priority) > 0
	g.limits = &g.opt.Limits
	g.setClasses(opt.Classes)
	for i, n := range nets {
		g.workers = append(g.workers, newWorker(g, i, n))
	}
	for _, w := range g.workers {
		w.out = make([]*bundle, len(nets))
		w.routed = make([]uint32, len(nets))
	}
	return g
}

// SetStore sets the store. A store needs to know the group (its Events) and the
// group the store: the group is made first.
func (g *Group) SetStore(s persist.Store) { g.store = s }

// SetRules sets who may come in and do what. Before the workers run it holds for
// what is restored; later it also applies to the clients that are connected.
func (g *Group) SetRules(r *auth.Rules) { g.rules.Store(r) }

// Reload makes the workers judge their sessions by new rules: what a client may
// do is made anew, and subscriptions that are not fully covered any more are
// checked message by message.
func (g *Group) Reload(r *auth.Rules) {
	g.rules.Store(r)
	for _, w := range g.workers {
		w.Call(func(w *Worker) {
			w.clients.each(func(x *client) {
				if !x.Internal {
					w.permit(x, x.permitOf(r))
				}
			})
		})
	}
}

// mayReceive tells whether a session with guarded subscriptions may be sent
// messages of a topic. It may be asked by any worker.
func (g *Group) mayReceive(session uint64, name []byte) bool {
	p, ok := g.permits.Load(session)
	// Not there: the mark is older than rules that cover everything. The session
	// itself looks again.
	return !ok || p.(*auth.Permit).Can(auth.Receive, name)
}

// Workers gives the workers.
func (g *Group) Workers() []*Worker { return g.workers }

// Index gives the subscription index.
func (g *Group) Index() *topic.Index { return g.index }

// Retained gives the retained messages.
func (g *Group) Retained() *topic.Retained { return g.retained }

// Connections is the number of open connections.
func (g *Group) Connections() int { return int(g.connections.Load()) }

// owner is the worker of a client id.
func (g *Group) owner(clientID []byte) *Worker {
	h := fnv.New32a()
	_, _ = h.Write(clientID)                           // cannot fail
	return g.workers[h.Sum32()%uint32(len(g.workers))] // int has 32 bits on ARM
}

// Restore makes the sessions and retained messages that the store kept. It
// must be called after SetStore and before the workers run.
func (g *Group) Restore(im *persist.Image) {
	for _, m := range im.Retained {
		kept := *m
		kept.From = 0 // a session's id means nothing after a restart
		g.retained.Set(&kept)
	}
	sessions, lanes := g.lanesOf(im)
	for _, si := range sessions {
		g.owner([]byte(si.ClientID)).restore(si, lanes[si.ID])
	}
	for _, w := range g.workers {
		w.submit()
	}
}

// Settled implements persist.Events.
func (g *Group) Settled(owner int, tokens []persist.Token, err error) {
	g.workers[owner].inbox.postSettled(settled{tokens, err})
}

// Fetched implements persist.Events.
func (g *Group) Fetched(owner int, f persist.Fetched) {
	g.workers[owner].inbox.postFetched(f)
}
