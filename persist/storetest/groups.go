package storetest

import (
	"slices"
	"sync"

	"sluice/broker/mqtt"
	"sluice/persist"
)

func testEmptyStore(r *rig) {
	if len(r.image.Sessions) != 0 || len(r.image.Retained) != 0 {
		r.t.Fatalf("a new store has %+v", r.image)
	}
}

// A group without ops settles at once.
func testEmptyGroup(r *rig) {
	tok, _ := r.group()
	if !r.isSettled(tok) {
		r.t.Fatal("not settled when Submit returned")
	}
}

// A group with only ops that have no effect settles at once, and an enqueue to
// an unknown queue gives sequence number 0.
func testUnknownQueue(r *rig) {
	id := r.st.NewSessionID()
	sub := &persist.Subscription{Filter: "a"}
	tok, ops := r.group(
		enqueue(id, r.message("a", "x"), 1), dequeue(id, 1), release(id, 1),
		persist.Op{Kind: persist.OpAttach, ID: id}, persist.Op{Kind: persist.OpDetach, ID: id},
		persist.Op{Kind: persist.OpPutSubscription, ID: id, Sub: sub}, persist.Op{Kind: persist.OpDeleteSubscription, ID: id, Sub: sub},
		persist.Op{Kind: persist.OpPutInbound, ID: id, PacketID: 1}, persist.Op{Kind: persist.OpDeleteInbound, ID: id, PacketID: 1},
		persist.Op{Kind: persist.OpDeleteSession, ID: id},
	)
	if !r.isSettled(tok) || ops[0].Seq != 0 {
		r.t.Fatalf("settled %v, sequence number %d", r.isSettled(tok), ops[0].Seq)
	}
}

// Settlements go to the owner of the batch.
func testOwner(r *rig) {
	id := r.session("a")
	want := make(map[persist.Token]int)
	for owner := range 4 {
		var b persist.Batch
		b.Owner = owner
		for range 3 {
			tok := r.token()
			want[tok] = owner
			b.Begin(tok)
			b.Enqueue(id, r.message("a", "x"), 1, false, nil)
			b.End()
		}
		r.submit(&b)
	}
	for tok, owner := range want {
		r.await(tok)
		if got := r.settlement(tok).owner; got != owner {
			r.t.Fatalf("settled to %d, submitted by %d", got, owner)
		}
	}
}

// The batch may be used again as soon as Submit returns.
func testBatchAgain(r *rig) {
	id := r.session("a")
	var b persist.Batch
	for i := range 50 {
		b.Reset()
		b.Begin(r.token())
		sub := persist.Subscription{Filter: "f", ID: uint32(i)}
		b.Add(persist.Op{Kind: persist.OpPutSubscription, ID: id, Sub: &sub})
		b.Enqueue(id, r.message("t", "x"), 1, i%2 == 0, []uint32{uint32(i)})
		b.End()
		r.submit(&b)
		b.Ops[0].Sub.ID = 1 << 20 // what the caller does with it now is its own affair
	}
	r.model.sessions[id].subs["f"] = persist.Subscription{Filter: "f", ID: 49}
}

// What a settled group brought is there after a crash.
func testSettledIsDurable(r *rig) {
	id := r.session("a")
	for range 20 {
		r.durable(
			enqueue(id, r.message("t", "payload"), 1),
			persist.Op{Kind: persist.OpPutSubscription, ID: id, Sub: &persist.Subscription{Filter: "x/+", QoS: 1}},
			persist.Op{Kind: persist.OpPutInbound, ID: id, PacketID: 17},
			persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: r.message("r", "retained")}},
		)
	}
	r.crash()
	r.compare(r.model)
}

// After a crash all of a group is there, or nothing of it.
func testGroupIsWhole(r *rig) {
	a, b := r.session("a"), r.session("b")
	before := r.model.clone()
	m := r.message("t", "to both")
	tok, _ := r.group(
		enqueue(a, m, 1), enqueue(b, m, 1),
		persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: m}},
		persist.Op{Kind: persist.OpPutInbound, ID: a, PacketID: 5},
	)
	r.crash()
	got := r.contents().dump()
	if !slices.Equal(got, r.model.dump()) && !slices.Equal(got, before.dump()) {
		r.t.Fatalf("part of a group after a crash:\n%s", lines(got))
	}
	if r.isSettled(tok) && !slices.Equal(got, r.model.dump()) {
		r.t.Fatal("settled, and lost")
	}
	if slices.Equal(got, before.dump()) {
		r.model = before
	}
}

// A message dequeued before it is written settles its group.
func testCancelled(r *rig) {
	id := r.session("a")
	r.group(persist.Op{Kind: persist.OpAttach, ID: id})
	for range 200 {
		tok, ops := r.group(enqueue(id, r.message("t", "x"), 1))
		r.group(dequeue(id, ops[0].Seq))
		r.await(tok)
	}
}

// A group waits for its other messages when one has been cancelled.
func testPartlyCancelled(r *rig) {
	a, b := r.session("a"), r.session("b")
	m := r.message("t", "x")
	tok, ops := r.group(enqueue(a, m, 1), enqueue(b, m, 1))
	r.group(dequeue(a, ops[0].Seq))
	r.await(tok)
	r.crash()
	delete(r.model.sessions[a].queue, ops[0].Seq)
	got := r.contents()
	if len(got.sessions[b].queue) != 1 {
		r.t.Fatal("settled, but the other message is not there")
	}
	r.model = got // the dequeue itself may be lost
}

// A dequeue of a written message removes it.
func testDequeueWritten(r *rig) {
	id := r.session("a")
	var seqs []uint64
	for range 10 {
		seqs = append(seqs, r.durable(enqueue(id, r.message("t", "x"), 1))[0].Seq)
	}
	for _, i := range []int{0, 1, 5, 9} {
		r.durable(dequeue(id, seqs[i]))
	}
	r.crash()
	r.compare(r.model)
	if n := len(r.queue(id)); n != 6 {
		r.t.Fatalf("%d messages left", n)
	}
}

// A dequeue of what is not there any more, or not yet, has no effect.
func testDequeueTwice(r *rig) {
	id := r.session("a")
	seq := r.durable(enqueue(id, r.message("t", "x"), 1))[0].Seq
	r.durable(dequeue(id, seq))
	r.durable(dequeue(id, seq))
	r.durable(dequeue(id, seq+1), dequeue(id, 0), release(id, seq), release(id, seq+1))
	r.durable(enqueue(id, r.message("t", "y"), 1))
	if n := len(r.queue(id)); n != 1 {
		r.t.Fatalf("%d messages", n)
	}
}

// Sequence numbers are dense in the order of Submit, whoever submits.
func testSequence(r *rig) {
	id := r.session("a")
	const workers, each = 4, 200
	var wg sync.WaitGroup
	got := make([][]uint64, workers)
	for w := range workers {
		wg.Go(func() {
			for range each {
				var b persist.Batch
				b.Enqueue(id, &mqtt.Message{Topic: []byte("t"), ID: r.st.NewMessageID()}, 1, false, nil)
				b.Enqueue(id, &mqtt.Message{Topic: []byte("t"), ID: r.st.NewMessageID()}, 1, false, nil)
				r.st.Submit(&b)
				got[w] = append(got[w], b.Ops[0].Seq, b.Ops[1].Seq)
			}
		})
	}
	wg.Wait()
	all := slices.Concat(got...)
	slices.Sort(all)
	for i, seq := range all {
		if seq != uint64(i+1) {
			r.t.Fatalf("sequence number %d at place %d", seq, i+1)
		}
	}
	for _, one := range got {
		for i := 0; i < len(one); i += 2 {
			if one[i+1] != one[i]+1 || i > 0 && one[i] <= one[i-1] {
				r.t.Fatalf("a submitter got %v", one)
			}
		}
	}
	var b persist.Batch
	for _, seq := range all {
		b.Dequeue(id, seq)
	}
	r.st.Submit(&b)
	r.model.sessions[id].tail = uint64(len(all) + 1)
}

// Sequence numbers go on after a restart where they were, as far as messages were written.
func testSequenceRestart(r *rig) {
	id := r.session("a")
	for range 5 {
		r.durable(enqueue(id, r.message("t", "x"), 1))
	}
	r.durable(dequeue(id, 1), dequeue(id, 2), dequeue(id, 3), dequeue(id, 4), dequeue(id, 5))
	r.crash()
	if s := r.image.Sessions[0]; s.Tail != 6 || s.Head != 6 {
		r.t.Fatalf("head %d, tail %d; want 6", s.Head, s.Tail)
	}
	if seq := r.durable(enqueue(id, r.message("t", "x"), 1))[0].Seq; seq != 6 {
		r.t.Fatalf("sequence number %d", seq)
	}
}

// Close commits what is pending and reports it settled.
func testClose(r *rig) {
	id := r.session("a")
	var toks []persist.Token
	for range 30 {
		tok, _ := r.group(enqueue(id, r.message("t", "x"), 1))
		toks = append(toks, tok)
	}
	r.reopen()
	for _, tok := range toks {
		if !r.isSettled(tok) {
			r.t.Fatal("not settled by Close")
		}
	}
}

// Ids are never given out twice, as far as they are in use.
func testIDs(r *rig) {
	sessions, messages := make(map[uint64]bool), make(map[uint64]bool)
	for round := range 4 {
		for range 10 {
			sid, mid := r.st.NewSessionID(), r.st.NewMessageID()
			if _, priority := persist.OfPriority(sid); priority || sid == 0 || mid == 0 || sessions[sid] || messages[mid] {
				r.t.Fatalf("id given out again: session %d, message %d", sid, mid)
			}
			sessions[sid], messages[mid] = true, true
			r.durable(putSession(sid, "c"), putSession(persist.PriorityOf(sid), "c"))
			r.durable(enqueue(sid, &mqtt.Message{Topic: []byte("t"), ID: mid}, 1))
		}
		if round%2 == 0 {
			r.crash()
		} else {
			r.reopen()
		}
	}
}

func testStats(r *rig) {
	id := r.session("a")
	r.group(persist.Op{Kind: persist.OpAttach, ID: id})
	r.durable(enqueue(id, r.message("t", "12345"), 1))
	r.durable(enqueue(id, r.message("t", "12345"), 1))
	r.durable(dequeue(id, 1))
	st := r.st.Stats()
	if st.Enqueued != 2 || st.Dequeued != 1 || st.BytesSubmitted != 12 || st.Commits == 0 || st.Err != nil {
		r.t.Fatalf("%+v", st)
	}
	if st.QueuedMessages != 1 || st.QueuedBytes != 6 || st.PendingBytes != 0 {
		r.t.Fatalf("%+v", st)
	}
	r.reopen()
	if st := r.st.Stats(); st.QueuedMessages != 1 || st.QueuedBytes != 6 || st.Enqueued != 0 {
		r.t.Fatalf("%+v", st)
	}
}

// testConcurrent has several owners submit, fetch and dequeue at once; each
// has a queue that only it reads, and all write to all.
func testConcurrent(r *rig) {
	const workers, each = 4, 150
	var ids []uint64
	for range workers {
		ids = append(ids, r.session("c"))
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { r.worker(w, ids, each) })
	}
	wg.Wait()
	r.until("all groups", func() bool { return len(r.settled) >= workers*each })
	r.until("all answers", func() bool { return len(r.fetched) == workers*each })
	r.fetched = nil
	r.st = r.h.Reopen()
	r.load()
	r.model = r.contents()
	for _, s := range r.model.sessions {
		if s.tail != workers*each+1 || len(s.queue) != workers*each-each {
			r.t.Fatalf("tail %d, %d messages", s.tail, len(s.queue))
		}
	}
}

// worker publishes to all queues, and dequeues one message of its own for each.
func (r *rig) worker(w int, ids []uint64, n int) {
	for i := range n {
		var b persist.Batch
		b.Owner = w
		b.Begin(persist.Token{Session: uint64(1000 + w), Index: uint32(i)})
		m := &mqtt.Message{Topic: []byte("t"), Payload: make([]byte, 10*i), ID: r.st.NewMessageID()}
		for _, id := range ids {
			b.Enqueue(id, m, 1, false, nil)
		}
		b.End()
		r.st.Submit(&b)
		b.Reset()
		b.Dequeue(ids[w], uint64(i+1))
		r.st.Submit(&b)
		r.st.Fetch(persist.FetchRequest{Owner: w, Session: ids[w], From: uint64(i), MaxMessages: 10, MaxBytes: 1000})
		r.st.Stats()
	}
}
