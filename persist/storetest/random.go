package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// DESIGN. Random batches, with restarts and crashes in between. A store commits
// everything that is pending at once, so after a crash it must contain the
// state after some batch, as it was in full. For each group that had been
// settled, that state has its ops, or the group was cancelled: then nothing of
// it was left to be written when the store crashed.

// past is the state after each batch since the store was opened.
type past struct {
	after  []*model
	groups []pastGroup
}

type pastGroup struct {
	tok   persist.Token
	batch int // index into after
	ops   []persist.Op
	acted []bool
}

const (
	randomRuns  = 12
	randomSteps = 250
)

func runRandom(t *testing.T, open Opener) {
	for seed := range uint64(randomRuns) {
		t.Run(fmt.Sprintf("Random/%d", seed), func(t *testing.T) {
			r := newRig(t, open)
			rnd := rand.New(rand.NewPCG(seed, 99))
			p := &past{after: []*model{r.model.clone()}}
			for range randomSteps {
				switch n := rnd.IntN(100); {
				case n < 90:
					r.randomBatch(rnd, p)
				case n < 95:
					r.compareFetch(rnd)
				case n < 97:
					r.reopen()
					p = &past{after: []*model{r.model.clone()}}
				default:
					r.randomCrash(p)
					p = &past{after: []*model{r.model.clone()}}
				}
			}
			r.finish()
		})
	}
}

func (r *rig) randomBatch(rnd *rand.Rand, p *past) {
	var b persist.Batch
	var ends []int
	var toks []persist.Token
	for range 1 + rnd.IntN(3) {
		tok := r.token()
		toks = append(toks, tok)
		b.Begin(tok)
		for range rnd.IntN(4) {
			b.Add(r.randomOp(rnd))
		}
		b.End()
		ends = append(ends, len(b.Ops))
	}
	for range rnd.IntN(3) { // and some that nobody waits for
		if s := r.randomSession(rnd); s != 0 {
			b.Dequeue(s, 1+uint64(rnd.IntN(int(r.model.sessions[s].tail))))
		}
	}
	b.Urgent = rnd.IntN(4) == 0
	r.submit(&b)
	p.after = append(p.after, r.model.clone())
	first := 0
	for i, end := range ends {
		p.groups = append(p.groups, pastGroup{toks[i], len(p.after) - 1, slices.Clone(b.Ops[first:end]), slices.Clone(r.acted[first:end])})
		first = end
	}
	if rnd.IntN(5) == 0 {
		r.await(toks[rnd.IntN(len(toks))])
	}
}

// randomSession gives a session of the model, 0 if there is none.
func (r *rig) randomSession(rnd *rand.Rand) uint64 {
	var ids []uint64
	for id := range r.model.sessions {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return 0
	}
	slices.Sort(ids)
	return ids[rnd.IntN(len(ids))]
}

func (r *rig) randomOp(rnd *rand.Rand) persist.Op {
	id := r.randomSession(rnd)
	if id == 0 || rnd.IntN(60) == 0 {
		return putSession(r.st.NewSessionID(), fmt.Sprint(rnd.IntN(100)))
	}
	s := r.model.sessions[id]
	topic := fmt.Sprint("t", rnd.IntN(4))
	sub := &persist.Subscription{Filter: fmt.Sprint("f", rnd.IntN(4)), ID: uint32(rnd.IntN(5)), QoS: mqtt.QoS(rnd.IntN(3))}
	seq := func() uint64 { return 1 + uint64(rnd.IntN(int(s.tail))) }
	size := []int{0, 5, 50, 500, 5000}[rnd.IntN(5)]
	msg := func() *mqtt.Message {
		m := r.message(topic, fmt.Sprint(rnd.Uint64()))
		m.Payload = append(m.Payload, make([]byte, size)...)
		return m
	}
	switch n := rnd.IntN(100); {
	case n < 40:
		return enqueue(id, msg(), mqtt.QoS(1+rnd.IntN(2)))
	case n < 70:
		return dequeue(id, seq())
	case n < 75:
		return release(id, seq())
	case n < 80:
		return persist.Op{Kind: persist.OpPutInbound, ID: id, PacketID: uint16(rnd.IntN(5) + 1)}
	case n < 83:
		return persist.Op{Kind: persist.OpDeleteInbound, ID: id, PacketID: uint16(rnd.IntN(5) + 1)}
	case n < 87:
		return persist.Op{Kind: persist.OpPutSubscription, ID: id, Sub: sub}
	case n < 89:
		return persist.Op{Kind: persist.OpDeleteSubscription, ID: id, Sub: sub}
	case n < 94:
		return persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: msg()}}
	case n < 95:
		return persist.Op{Kind: persist.OpDeleteRetained, Entry: persist.Entry{Msg: msg()}}
	case n < 96:
		return persist.Op{Kind: persist.OpDeleteSession, ID: id}
	case n < 97:
		if rnd.IntN(2) == 0 {
			return persist.Op{Kind: persist.OpDeleteWill, ID: id}
		}
		return persist.Op{Kind: persist.OpPutWill, ID: id, Will: &persist.Will{Msg: msg()}}
	case n < 98:
		return persist.Op{Kind: persist.OpAttach, ID: id}
	default:
		return persist.Op{Kind: persist.OpDetach, ID: id}
	}
}

// compareFetch compares a queue with the model while things are pending. QoS 2
// messages make it wait for a commit.
func (r *rig) compareFetch(rnd *rand.Rand) {
	r.t.Helper()
	id := r.randomSession(rnd)
	if id == 0 {
		return
	}
	got := r.queue(id)
	want := r.model.sessions[id].queue
	if len(got) != len(want) {
		r.t.Fatalf("queue %d has %d messages, want %d", id, len(got), len(want))
	}
	for seq, e := range want {
		if g, w := dumpEntry(got[seq]), dumpEntry(e); g != w {
			r.t.Fatalf("queue %d has\n\t%s\nwant\n\t%s", id, g, w)
		}
	}
}

func (r *rig) randomCrash(p *past) {
	r.t.Helper()
	r.crash()
	r.mu.Lock()
	settled := make(map[persist.Token]bool)
	for tok := range r.settled {
		settled[tok] = true
	}
	r.mu.Unlock()
	got := r.contents()
	dump := got.dump()
	at := len(p.after) - 1
	for at >= 0 && !slices.Equal(p.after[at].dump(), dump) {
		at--
	}
	if at < 0 {
		r.t.Fatalf("after a crash the store has\n%swhich it never had; last was\n%s", lines(dump), lines(p.after[len(p.after)-1].dump()))
	}
	for _, g := range p.groups {
		if g.batch > at && settled[g.tok] {
			r.mustBeVoid(g, p.after[len(p.after)-1], got)
		}
	}
	r.model = got
}

// mustBeVoid checks that nothing was left of a group that was settled in a
// batch that is not on disk.
func (r *rig) mustBeVoid(g pastGroup, last, disk *model) {
	r.t.Helper()
	for i := range g.ops {
		op := &g.ops[i]
		s := last.sessions[op.ID]
		switch op.Kind {
		case persist.OpAttach, persist.OpDetach:
		case persist.OpDequeue, persist.OpRelease:
			if d := disk.sessions[op.ID]; d != nil && s != nil && g.acted[i] {
				if e, ok := d.queue[op.Seq]; ok && (op.Kind == persist.OpDequeue || !e.Released) {
					r.t.Fatalf("op %d on queue %d seq %d was settled and is lost", op.Kind, op.ID, op.Seq)
				}
			}
		case persist.OpEnqueue:
			if s != nil && op.Seq != 0 {
				if _, ok := s.queue[op.Seq]; ok {
					r.t.Fatalf("queue %d seq %d was settled, is not dequeued, and is lost", op.ID, op.Seq)
				}
			}
		case persist.OpPutSession:
			if last.sessions[op.Sess.ID] != nil {
				r.t.Fatalf("session %d was settled and is lost", op.Sess.ID)
			}
		case persist.OpPutRetained, persist.OpDeleteRetained:
			r.t.Fatalf("retained %s was settled and is lost", op.Entry.Msg.Topic)
		default:
			if s != nil {
				r.t.Fatalf("op %d on session %d was settled and is lost", op.Kind, op.ID)
			}
		}
	}
}
