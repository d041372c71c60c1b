package storetest

import (
	"errors"
	"strings"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// A will whose delay is running is there after a crash, until it is deleted;
// time for which the store is closed does not count.
func testWills(r *rig) {
	a, b := r.session("a"), r.session("b")
	will := func(payload string, after time.Duration) *persist.Will {
		m := r.message("w", payload)
		m.QoS, m.Retain, m.From = 2, true, 5
		return &persist.Will{Msg: m, Due: r.now.Load() + int64(after), HasExpiry: true, ExpirySeconds: 30}
	}
	put := func(id uint64, w *persist.Will) persist.Op {
		return persist.Op{Kind: persist.OpPutWill, ID: id, Will: w}
	}
	r.durable(put(a, will("old", time.Minute)), put(b, will("b", time.Hour)))
	r.durable(put(a, will("new", 100*time.Second)))
	r.now.Add(int64(40 * time.Second))
	r.durable(put(b, will(strings.Repeat("long", 5000), time.Hour)))
	r.now.Add(-int64(50 * time.Minute)) // a new process
	r.crash()
	r.compare(r.model)
	w := r.image.Sessions[0].Will
	if left := time.Duration(w.Due - r.now.Load()); left < 60*time.Second || left > 62*time.Second || w.Msg.From != 0 {
		r.t.Fatalf("due in %v, want a minute; from %d", left, w.Msg.From)
	}
	r.durable(persist.Op{Kind: persist.OpDeleteWill, ID: a})
	r.durable(put(b, will("x", 0)), persist.Op{Kind: persist.OpDeleteSession, ID: b})
	r.crash()
	r.compare(r.model)
	none, _ := r.group(put(b, will("no such session", 0)), persist.Op{Kind: persist.OpDeleteWill, ID: b})
	r.await(none)
	gone, _ := r.group(put(a, will("comes", 0)))
	back, _ := r.group(persist.Op{Kind: persist.OpDeleteWill, ID: a})
	r.await(gone)
	r.await(back)
}

// limited makes a session whose queue has limits.
func (r *rig) limited(l persist.QueueLimits) uint64 {
	r.t.Helper()
	id := r.st.NewSessionID()
	r.durable(persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{ID: id, ClientID: "limited", ExpirySeconds: 60, Queue: l}})
	return id
}

// seqs gives what is in a queue, and takes it over into the model.
func (r *rig) seqs(id uint64) (list []uint64) {
	r.t.Helper()
	q := r.queue(id)
	for seq := uint64(1); seq < r.model.sessions[id].tail; seq++ {
		if _, ok := q[seq]; ok {
			list = append(list, seq)
		}
	}
	r.model.sessions[id].queue = q
	return list
}

func (r *rig) want(what string, got []uint64, want ...uint64) {
	r.t.Helper()
	same := len(got) == len(want)
	for i := range got {
		same = same && got[i] == want[i]
	}
	if !same {
		r.t.Fatalf("%s: the queue has %v, want %v", what, got, want)
	}
}

// drops checks the drops of a queue and of the store.
func (r *rig) drops(id uint64, want persist.Drops) {
	r.t.Helper()
	for _, q := range r.st.(persist.Queues).QueueStats(nil) {
		if q.Session == id && !about(q.Drops, want) {
			r.t.Fatalf("drops %+v, want %+v", q.Drops, want)
		}
	}
	if got := r.st.Stats().Drops; !about(got, want) {
		r.t.Fatalf("drops of the store %+v, want %+v", got, want)
	}
}

// about compares counters. Those of a store whose disk fails may say a little less:
// what was dropped before a crash, and had to be dropped again or not, is counted
// with the process in which it happened.
func about(got, want persist.Drops) bool {
	near := func(got, want uint64) bool { return got <= want && (got > 0 || want == 0) && want-got <= 3 }
	return near(got.Oldest, want.Oldest) && near(got.Newest, want.Newest) && near(got.Rejected, want.Rejected) && near(got.Aged, want.Aged)
}

// A queue that rejects makes the whole group fail, until there is room.
func testReject(r *rig) {
	a, b := r.limited(persist.QueueLimits{Messages: 3, Bytes: 1000}), r.session("b")
	refused := func(ops ...persist.Op) {
		r.t.Helper()
		var batch persist.Batch
		tok := r.token()
		batch.Begin(tok)
		for _, op := range ops {
			batch.Add(op)
		}
		batch.End()
		r.st.Submit(&batch)
		r.mu.Lock()
		defer r.mu.Unlock()
		if s, ok := r.settled[tok]; !ok || !errors.Is(s.err, persist.ErrQueueFull) {
			r.t.Fatalf("settled %v with %v", ok, s.err)
		}
		if f := batch.Refused; len(f) != 1 || f[0].Token != tok || f[0].First != 0 || f[0].End != len(ops) || f[0].Err != persist.ErrQueueFull {
			r.t.Fatalf("refused: %+v", f)
		}
		for i := range batch.Ops {
			if batch.Ops[i].Seq != 0 {
				r.t.Fatalf("op %d has sequence number %d", i, batch.Ops[i].Seq)
			}
		}
	}
	for range 3 {
		r.durable(enqueue(a, r.message("t", "x"), 1))
	}
	m := r.message("t", "both")
	refused(enqueue(b, m, 1), enqueue(a, m, 1), persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: m}})
	r.durable(enqueue(b, m, 1))
	r.reopen()
	refused(enqueue(a, m, 1)) // the limits are stored
	r.durable(dequeue(a, 2))
	r.durable(enqueue(a, m, 1))
	r.durable(dequeue(a, 1), dequeue(a, 3))
	refused(enqueue(a, r.message("t", strings.Repeat("x", 1000)), 1))
	r.durable(enqueue(a, r.message("t", strings.Repeat("x", 900)), 1))
	refused(enqueue(a, r.message("t", strings.Repeat("x", 100)), 1))
	r.want("end", r.seqs(a), 4, 5)
	r.drops(a, persist.Drops{Rejected: 3})
	r.durable(persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{ID: a, ClientID: "limited"}}) // no limits any more
	for range 20 {
		r.durable(enqueue(a, r.message("t", strings.Repeat("x", 100)), 1))
	}
}

// What is refused in a batch is in Batch.Refused; what comes behind it does not
// overtake it.
func testRefusals(r *rig) {
	a, b, c := r.limited(persist.QueueLimits{Messages: 3, Bytes: 100}), r.session("b"), r.session("c")
	var batch persist.Batch
	var tokens []persist.Token
	group := func(from uint64, ops ...persist.Op) {
		tok := r.token()
		tok.Session = from
		tokens = append(tokens, tok)
		batch.Begin(tok)
		for _, op := range ops {
			batch.Add(op)
		}
		batch.End()
	}
	big, small, other := r.message("t", strings.Repeat("x", 98)), r.message("t", "x"), r.message("u", "x")
	group(7, enqueue(a, small, 1), enqueue(b, small, 1)) // taken
	group(7, enqueue(b, big, 1), enqueue(a, big, 1))     // too large
	group(7, enqueue(a, other, 1))                       // behind it in a
	group(7, enqueue(b, small, 1))                       // behind it by topic
	group(8, enqueue(b, small, 1))                       // another publisher
	group(7, enqueue(c, r.message("v", "x"), 1))         // another topic and queue
	r.st.Submit(&batch)
	var refused []persist.Token
	for _, x := range batch.Refused {
		refused = append(refused, x.Token)
		for i := x.First; i < x.End; i++ {
			if batch.Ops[i].Seq != 0 || x.Err != persist.ErrQueueFull {
				r.t.Fatalf("op %d has sequence number %d, %v", i, batch.Ops[i].Seq, x.Err)
			}
		}
	}
	if len(refused) != 3 || refused[0] != tokens[1] || refused[1] != tokens[2] || refused[2] != tokens[3] {
		r.t.Fatalf("refused %v of %v", refused, tokens)
	}
	for i := range batch.Ops {
		if batch.Ops[i].Seq != 0 {
			if _, err := r.model.apply(&batch.Ops[i]); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	for _, i := range []int{0, 4, 5} {
		r.await(tokens[i])
	}
	r.want("a", r.seqs(a), 1)
	r.want("b", r.seqs(b), 1, 2)
	r.want("c", r.seqs(c), 1)
	batch.Reset()
	if len(batch.Refused) > 0 {
		r.t.Fatal("refusals are left by Reset")
	}
	r.durable(enqueue(a, small, 1)) // the next batch begins anew
}

// A queue that drops the newest gives no number; the group goes on.
func testDropNewest(r *rig) {
	a, b := r.limited(persist.QueueLimits{Messages: 2, Policy: persist.DropNewest}), r.session("b")
	for range 5 {
		m := r.message("t", "x")
		var batch persist.Batch
		tok := r.token()
		batch.Begin(tok)
		batch.Enqueue(a, m, 1, false, nil)
		batch.Enqueue(b, m, 2, false, nil)
		batch.End()
		r.st.Submit(&batch)
		for i := range batch.Ops {
			if batch.Ops[i].Seq != 0 {
				if _, err := r.model.apply(&batch.Ops[i]); err != nil {
					r.t.Fatal(err)
				}
			}
		}
		r.await(tok)
	}
	r.want("full", r.seqs(a), 1, 2)
	r.want("the other", r.seqs(b), 1, 2, 3, 4, 5)
	r.drops(a, persist.Drops{Newest: 3})
	r.durable(dequeue(a, 1))
	r.durable(enqueue(a, r.message("t", "x"), 1))
	r.want("room again", r.seqs(a), 2, 3)
}

// A queue that drops the oldest takes every message, and numbers vanish from
// its front.
func testDropOldest(r *rig) {
	a := r.limited(persist.QueueLimits{Messages: 4, Bytes: 100, Policy: persist.DropOldest})
	for range 10 {
		r.durable(enqueue(a, r.message("t", "x"), 1))
	}
	r.want("by number", r.seqs(a), 7, 8, 9, 10)
	if f := r.fetch(a, 2, 1, 100); len(f.Entries) != 1 || f.Entries[0].Seq != 7 || f.Next != 8 {
		r.t.Fatalf("fetch over the gap: %+v", f)
	}
	r.durable(enqueue(a, r.message("t", strings.Repeat("x", 94)), 1)) // 95 bytes, and two of 2
	r.want("by bytes", r.seqs(a), 9, 10, 11)
	r.durable(dequeue(a, 7), dequeue(a, 8)) // they are gone: no effect
	r.crash()
	r.compare(r.model)
	if s := r.image.Sessions[0]; s.Head != 9 || s.Tail != 12 || s.QueuedBytes != 99 {
		r.t.Fatalf("%+v", s)
	}
	var ops []persist.Op
	for range 50 {
		ops = append(ops, enqueue(a, r.message("t", "x"), 1))
	}
	r.durable(ops...)
	r.want("more than fit at once", r.seqs(a), 58, 59, 60, 61)
	var big persist.Batch
	big.Enqueue(a, r.message("t", strings.Repeat("x", 100)), 1, false, nil)
	if r.st.Submit(&big); big.Ops[0].Seq != 0 {
		r.t.Fatalf("a message larger than the queue got number %d", big.Ops[0].Seq)
	}
	r.want("none dropped for it", r.seqs(a), 58, 59, 60, 61)
	r.drops(a, persist.Drops{Oldest: 49, Newest: 1})
	if st := r.st.Stats(); st.QueuedMessages != 4 || st.QueuedBytes != 8 {
		r.t.Fatalf("%+v", st)
	}
}

// What the client may have, of QoS 2, is not dropped, nor what is released, nor
// what an attached session holds.
func testDropOldestKeeps(r *rig) {
	a := r.limited(persist.QueueLimits{Messages: 3, Policy: persist.DropOldest})
	add := func(n int, qos mqtt.QoS) {
		r.t.Helper()
		for range n {
			r.durable(enqueue(a, r.message("t", "x"), qos))
		}
	}
	add(3, 2)
	add(1, 2)
	r.want("not given out", r.seqs(a), 2, 3, 4) // now all are
	add(2, 1)
	r.want("QoS 2 given out", r.seqs(a), 2, 3, 4)
	r.durable(release(a, 3))
	r.durable(dequeue(a, 2), dequeue(a, 4))
	add(4, 1)
	r.want("released", r.seqs(a), 3, 9, 10)
	r.durable(persist.Op{Kind: persist.OpAttach, ID: a, Seq: 2})
	add(3, 1)
	r.want("held", r.seqs(a), 3, 9, 13)
	r.durable(persist.Op{Kind: persist.OpDetach, ID: a})
	add(2, 1)
	r.want("not held any more", r.seqs(a), 3, 14, 15)
	r.durable(dequeue(a, 3))
	add(2, 2)
	r.want("both", r.seqs(a), 15, 16, 17)
	r.crash()
	r.compare(r.model)
	add(2, 1)
	r.want("after a crash nobody knows what was given out", r.seqs(a), 16, 17, 19)
}

// Messages that are too old for their queue are not given out, and not kept.
func testAge(r *rig) {
	a, b := r.limited(persist.QueueLimits{AgeSeconds: 60}), r.session("b")
	m := r.message("t", "x")
	r.durable(enqueue(a, m, 1), enqueue(b, m, 1))
	r.now.Add(int64(40 * time.Second))
	r.durable(enqueue(a, m, 1), enqueue(a, m, 1))
	r.now.Add(-int64(50 * time.Minute)) // a new process
	r.crash()
	r.compare(r.model)
	r.now.Add(int64(30 * time.Second))
	r.want("the first is too old", r.seqs(a), 2, 3)
	r.want("no limit", r.seqs(b), 1)
	r.drops(a, persist.Drops{Aged: 1})
	r.now.Add(int64(40 * time.Second))
	r.durable(enqueue(a, m, 1))
	if st := r.st.Stats(); st.QueuedMessages != 2 {
		r.t.Fatalf("%+v", st)
	}
	r.want("all are but the last", r.seqs(a), 4)
	r.drops(a, persist.Drops{Aged: 3})
}

// Shared is stored; From is not.
func testSharedFlag(r *rig) {
	id := r.session("a")
	m := r.message("t", "x")
	m.From = 99
	op := enqueue(id, m, 1)
	op.Entry.Shared = true
	r.durable(op, enqueue(id, m, 1))
	r.crash()
	r.compare(r.model)
	q := r.queue(id)
	if !q[1].Shared || q[2].Shared || q[1].Msg.From != 0 {
		r.t.Fatalf("%+v, from %d", q, q[1].Msg.From)
	}
}

// Each opening has a number of its own.
func testBoot(r *rig) {
	last := r.image.Boot
	for range 3 {
		r.durable(putSession(r.st.NewSessionID(), "c"))
		r.crash()
		if r.image.Boot <= last {
			r.t.Fatalf("boot %d after %d", r.image.Boot, last)
		}
		last = r.image.Boot
	}
}
