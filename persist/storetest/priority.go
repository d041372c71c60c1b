package storetest

import "sluice/persist"

// The queue of a session for messages with priority is a queue of its own: it has
// its own numbers and limits, a crash leaves both or neither, and both go
// in one batch.
func testPriority(r *rig) {
	a, b := r.st.NewSessionID(), r.st.NewSessionID()
	pa, pb := persist.PriorityOf(a), persist.PriorityOf(b)
	r.durable(putSession(a, "a"), putSession(pa, "a"), putSession(b, "b"), putSession(pb, "b"))
	r.durable(enqueue(a, r.message("t", "1"), 1), enqueue(pa, r.message("alarm", "2"), 2), enqueue(a, r.message("t", "3"), 2))
	ops := r.durable(enqueue(pa, r.message("alarm", "4"), 1), enqueue(pb, r.message("alarm", "5"), 1))
	if ops[0].Seq != 2 || ops[1].Seq != 1 {
		r.t.Fatalf("sequence numbers %d and %d, want 2 and 1", ops[0].Seq, ops[1].Seq)
	}
	r.durable(dequeue(a, 1), persist.Op{Kind: persist.OpRelease, ID: pa, Seq: 1})
	r.crash()
	r.compare(r.model)
	for id, want := range map[uint64][2]int{a: {1, 2}, pa: {2, 1}, pb: {1, 1}, b: {0, 0}} {
		q := r.queue(id)
		if len(q) != want[0] {
			r.t.Fatalf("queue %x has %d messages, want %d", id, len(q), want[0])
		}
		for seq := range q {
			if int(seq) < want[1] {
				r.t.Fatalf("queue %x has %d", id, seq)
			}
		}
	}
	if e := r.queue(pa)[1]; !e.Released {
		r.t.Fatalf("not released: %+v", e)
	}
	r.durable(persist.Op{Kind: persist.OpDeleteSession, ID: a}, persist.Op{Kind: persist.OpDeleteSession, ID: pa})
	r.durable(persist.Op{Kind: persist.OpDeleteSession, ID: pb})
	r.reopen()
	r.compare(r.model)
	if n := len(r.image.Sessions); n != 1 || r.image.Sessions[0].ID != b {
		r.t.Fatalf("%d sessions are left", n)
	}
}
