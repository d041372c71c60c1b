package persist

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/broker/mqtt"
)

// run is one run of random steps.
type run struct {
	t    *testing.T
	r    *rand.Rand
	p    *Pending
	m    *model
	d    *modelDisk
	work *Work
	next uint32
	ids  uint64
	gone map[uint64]bool // ids that were deleted: they are not used again
}

func TestPendingModel(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			x := &run{
				t: t, gone: map[uint64]bool{}, r: rand.New(rand.NewPCG(seed, 1)), p: NewPending(0, 1), m: newModel(),
				d: &modelDisk{sessions: map[uint64]*modelSession{}, retained: map[string]*mqtt.Message{}},
			}
			for range 300 {
				x.step()
			}
			x.finish()
		})
	}
}

func (x *run) step() {
	switch n := x.r.IntN(20); {
	case n < 12:
		x.submit()
	case n < 15 && x.work == nil:
		if x.work = x.p.Take(); x.work != nil {
			x.m.take()
		}
	case n < 15:
		x.commit(x.r.IntN(3) > 0)
	case n == 15 && x.work == nil:
		x.free()
	default:
		x.fetch()
	}
	x.checkCounts()
}

func (x *run) commit(ok bool) {
	var err error
	if ok || x.r.IntN(4) == 0 { // a failed sync may have written it all the same
		x.d.apply(x.t, x.work)
	}
	if !ok {
		err = errors.New("disk")
	}
	x.settle(x.p.Committed(x.work, err, nil))
	x.m.committed(ok)
	x.work = nil
	x.checkSettled()
	if ok {
		x.checkDisk()
	}
}

func (x *run) free() {
	w := x.p.TakeFreeing()
	if w == nil {
		return
	}
	if len(w.Puts) > 0 || len(w.Retained) > 0 {
		x.t.Fatal("TakeFreeing gave additions")
	}
	for _, q := range w.Queues {
		if len(q.Enqueue) > 0 || len(q.Subs) > 0 {
			x.t.Fatal("TakeFreeing gave additions")
		}
	}
	var err error
	if x.r.IntN(3) == 0 {
		err = errors.New("disk")
	} else {
		for i := range w.Queues { // a session that is not on disk can have nothing that is to be freed, but its counters may come
			if x.d.sessions[w.Queues[i].Session] == nil {
				w.Queues[i].Session = 0
				x.d.sessions[0] = &modelSession{queue: map[uint64]*Entry{}, subs: map[string]Subscription{}, inbound: map[uint16]bool{}}
			}
		}
		x.d.apply(x.t, w)
		delete(x.d.sessions, 0)
		for _, id := range w.Deletes {
			delete(x.m.deleting, id)
		}
		for _, o := range x.m.ops {
			if o.group < 0 && o.kind == OpDeleteSession && slices.Contains(w.Deletes, o.seq) {
				o.settled = true
			}
		}
	}
	x.settle(x.p.Committed(w, err, nil))
	x.checkSettled()
}

func (x *run) submit() {
	var b Batch
	type placed struct{ op, group int }
	var at []placed
	for range 1 + x.r.IntN(4) {
		group := -1
		if x.r.IntN(3) > 0 {
			x.next++
			b.Begin(Token{Index: x.next})
			group = len(x.m.groups)
			x.m.groups = append(x.m.groups, &modelGroup{token: Token{Index: x.next}})
		}
		for range x.r.IntN(4) {
			at = append(at, placed{b.Add(x.randomOp()), group})
		}
		b.End()
	}
	settled, _ := x.p.Submit(&b, 0, nil)
	for _, pl := range at {
		op := &b.Ops[pl.op]
		if op.Kind == OpEnqueue {
			want := uint64(0)
			if s := x.m.sessions[op.ID]; s != nil {
				want = s.tail
			}
			if op.Seq != want {
				x.t.Fatalf("enqueue to %d got seq %d, want %d", op.ID, op.Seq, want)
			}
		}
		x.m.apply(op, pl.group)
	}
	x.settle(settled)
	x.checkSettled()
}

func (x *run) randomOp() Op {
	id := uint64(1)
	if x.ids > 0 {
		id = x.ids - min(x.ids-1, uint64(x.r.IntN(3)))
	}
	msg := func() *mqtt.Message {
		return &mqtt.Message{Topic: fmt.Appendf(nil, "t%d", x.r.IntN(3)), Payload: make([]byte, x.r.IntN(50))}
	}
	seq := func() uint64 {
		s := x.m.sessions[id]
		if s == nil {
			return 1
		}
		return uint64(x.r.IntN(int(s.tail) + 1))
	}
	switch n := x.r.IntN(40); {
	case n < 2:
		if x.r.IntN(2) == 0 || x.ids == 0 || x.gone[x.ids] && !x.m.deleting[x.ids] {
			x.ids++
		}
		return Op{Kind: OpPutSession, Sess: &Session{ID: x.ids, ClientID: fmt.Sprint(x.r.IntN(100))}}
	case n < 3:
		x.gone[id] = true
		return Op{Kind: OpDeleteSession, ID: id}
	case n < 4:
		return Op{Kind: OpAttach, ID: id}
	case n < 5:
		return Op{Kind: OpDetach, ID: id}
	case n < 7:
		return Op{Kind: OpPutSubscription, ID: id, Sub: &Subscription{Filter: fmt.Sprint(x.r.IntN(3)), ID: uint32(x.r.IntN(100))}}
	case n < 8:
		return Op{Kind: OpDeleteSubscription, ID: id, Sub: &Subscription{Filter: fmt.Sprint(x.r.IntN(3))}}
	case n < 20:
		return Op{Kind: OpEnqueue, ID: id, Entry: Entry{Msg: msg(), QoS: mqtt.QoS(1 + x.r.IntN(2)), Retain: x.r.IntN(2) == 0}}
	case n < 32:
		return Op{Kind: OpDequeue, ID: id, Seq: seq()}
	case n < 34:
		return Op{Kind: OpRelease, ID: id, Seq: seq()}
	case n < 36:
		return Op{Kind: OpPutInbound, ID: id, PacketID: uint16(x.r.IntN(4))}
	case n < 37:
		return Op{Kind: OpDeleteInbound, ID: id, PacketID: uint16(x.r.IntN(4))}
	case n < 39:
		return Op{Kind: OpPutRetained, Entry: Entry{Msg: msg()}}
	default:
		return Op{Kind: OpDeleteRetained, Entry: Entry{Msg: msg()}}
	}
}

// settle notes what Pending says is settled.
func (x *run) settle(settled []Settlement) {
	for _, s := range settled {
		if s.Err != nil {
			x.t.Fatalf("settled with %v", s.Err)
		}
		for _, tok := range s.Tokens {
			g := x.m.groups[tok.Index-1]
			if g.told {
				x.t.Fatalf("group %d settled twice", tok.Index)
			}
			g.told = true
		}
	}
}

// checkSettled compares who is settled.
func (x *run) checkSettled() {
	for _, g := range x.m.groups {
		want := true
		for _, o := range g.ops {
			want = want && o.settled
		}
		// A removal of what is already gone may be settled sooner than the model thinks, and later: it has no effect.
		if g.told && !want {
			x.t.Fatalf("group %d settled too early: %v", g.token.Index, x.describe(g))
		}
		if !g.told && want && !x.excused(g) {
			x.t.Fatalf("group %d not settled: %v", g.token.Index, x.describe(g))
		}
	}
}

// excused tells whether the group has an op without effect, for which the set may wait all the same.
func (x *run) excused(g *modelGroup) bool {
	return x.p.Waiting().Ops > 0 || x.work != nil
}

func (x *run) describe(g *modelGroup) (s []string) {
	for _, o := range g.ops {
		s = append(s, fmt.Sprintf("%+v", *o))
	}
	return s
}

// checkDisk compares what is on disk with the model, as far as nothing has come since Take.
func (x *run) checkDisk() {
	if x.p.Waiting().Ops > 0 {
		return
	}
	if got, want := slices.Sorted(maps.Keys(x.d.sessions)), slices.Sorted(maps.Keys(x.m.sessions)); !slices.Equal(got, want) {
		x.t.Fatalf("sessions on disk %v, want %v", got, want)
	}
	for id, want := range x.m.sessions {
		got := x.d.sessions[id]
		if got.rec != want.rec || !maps.Equal(got.subs, want.subs) || !maps.Equal(got.inbound, want.inbound) {
			x.t.Fatalf("session %d on disk %+v, want %+v", id, got, want)
		}
		if !slices.Equal(slices.Sorted(maps.Keys(got.queue)), slices.Sorted(maps.Keys(want.queue))) {
			x.t.Fatalf("queue %d on disk %v, want %v", id, slices.Sorted(maps.Keys(got.queue)), slices.Sorted(maps.Keys(want.queue)))
		}
		for seq, e := range want.queue {
			if g := got.queue[seq]; g.Msg != e.Msg || g.Released != e.Released || g.QoS != e.QoS || g.Retain != e.Retain {
				x.t.Fatalf("entry %d/%d on disk %+v, want %+v", id, seq, g, e)
			}
		}
	}
	if !maps.Equal(x.d.retained, x.m.retained) {
		x.t.Fatalf("retained on disk %v, want %v", x.d.retained, x.m.retained)
	}
}

// fetch compares what a fetch gives with the model.
func (x *run) fetch() {
	id := uint64(1 + x.r.IntN(int(x.ids)+1))
	req := FetchRequest{Session: id, From: uint64(x.r.IntN(10)), MaxMessages: 1 + x.r.IntN(6), MaxBytes: x.r.IntN(200)}
	o, ok := x.p.Overlay(id, req.From, req.MaxMessages)
	s := x.m.sessions[id]
	if ok != (s != nil) {
		x.t.Fatalf("queue %d known: %v, want %v", id, ok, s != nil)
	}
	if !ok {
		return
	}
	f, wait := o.Answer(req, x.d.reader(id, req.From))
	var want []Entry
	bytes, stopped := int64(0), false
	for _, seq := range slices.Sorted(maps.Keys(s.queue)) {
		e := *s.queue[seq]
		if seq < req.From {
			continue
		}
		size := int64(0)
		if e.Msg != nil {
			size = messageBytes(e.Msg)
		}
		if len(want) == req.MaxMessages || len(want) > 0 && bytes+size > int64(req.MaxBytes) {
			stopped = true
			break
		}
		if e.QoS == 2 && (x.d.sessions[id] == nil || x.d.sessions[id].queue[seq] == nil) {
			stopped = true
			if wait != (len(want) == 0) {
				x.t.Fatalf("waits %v for seq %d with %d before it", wait, seq, len(want))
			}
			break
		}
		bytes += size
		want = append(want, e)
	}
	same := slices.EqualFunc(f.Entries, want, func(a, b Entry) bool {
		return a.Seq == b.Seq && a.Msg == b.Msg && a.Released == b.Released && a.QoS == b.QoS && a.Retain == b.Retain
	})
	if !same {
		x.t.Fatalf("fetch %+v gave %+v\nwant %+v", req, f.Entries, want)
	}
	if stopped && !wait && f.Next != next(f) && f.Next < s.tail {
		for seq := next(f); seq < f.Next; seq++ {
			if s.queue[seq] != nil {
				x.t.Fatalf("fetch %+v: Next %d skips %d", req, f.Next, seq)
			}
		}
	}
	if !stopped && len(want) < req.MaxMessages && f.Next != max(s.tail, req.From) {
		x.t.Fatalf("fetch %+v: Next %d, want the tail %d", req, f.Next, s.tail)
	}
}

func next(f Fetched) uint64 {
	if n := len(f.Entries); n > 0 {
		return f.Entries[n-1].Seq + 1
	}
	return f.From
}

// checkCounts checks the figures that must always add up.
func (x *run) checkCounts() {
	w := x.p.Waiting()
	if w.Ops < 0 || w.Bytes < 0 || w.SlowGroups > w.Groups {
		x.t.Fatalf("figures do not add up: %+v", w)
	}
	live := 0
	for a := x.p.ages.first; a != x.p.ages.last; a++ {
		live += int(x.p.ages.live[a%agesMax])
	}
	if live != w.Ops {
		x.t.Fatalf("ages count %d ops, of %d", live, w.Ops)
	}
	if w.Ops == 0 && x.work == nil && (w.Groups != 0 || w.TotalBytes != 0) {
		x.t.Fatalf("nothing is pending, and yet: %+v", w)
	}
}

// finish commits all and checks the end.
func (x *run) finish() {
	if x.work != nil {
		x.commit(true)
	}
	if x.work = x.p.Take(); x.work != nil {
		x.m.take()
		x.commit(true)
	}
	x.checkDisk()
	for _, g := range x.m.groups {
		if !g.told {
			x.t.Fatalf("group %d never settled: %v", g.token.Index, x.describe(g))
		}
	}
	w := x.p.Waiting()
	if w.Ops != 0 || w.Groups != 0 || w.TotalBytes != 0 || w.SlowGroups != 0 {
		x.t.Fatalf("at the end: %+v", w)
	}
	_, depth, bytes := x.p.Stats()
	var wantDepth, wantBytes int64
	for _, s := range x.m.sessions {
		for _, e := range s.queue {
			wantDepth++
			if e.Msg != nil {
				wantBytes += messageBytes(e.Msg)
			}
		}
	}
	if depth != wantDepth || bytes != wantBytes {
		x.t.Fatalf("queued %d messages of %d bytes, want %d of %d", depth, bytes, wantDepth, wantBytes)
	}
	if len(x.p.dirty) != 0 {
		x.t.Fatalf("%d sessions still dirty", len(x.p.dirty))
	}
}
