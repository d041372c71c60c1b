package storetest

import (
	"fmt"
	"strings"

	"sluice/persist"
)

// At most MaxMessages and, beyond the first, MaxBytes of topic, properties and payload.
func testFetchLimits(r *rig) {
	id := r.session("a")
	for i := range 10 {
		op := enqueue(id, r.message("t", strings.Repeat("x", 99)), 1) // 100 bytes
		if i < 5 {
			r.durable(op)
		} else {
			r.group(op)
		}
	}
	for _, x := range []struct {
		from            uint64
		messages, bytes int
		first, n        uint64
	}{
		{1, 3, 10000, 1, 3}, {1, 100, 10000, 1, 10}, {4, 3, 10000, 4, 3}, {6, 100, 10000, 6, 5}, {10, 5, 10000, 10, 1},
		{1, 100, 350, 1, 3}, {1, 100, 99, 1, 1}, {1, 100, 0, 1, 1}, {4, 100, 400, 4, 4}, {0, 2, 10000, 1, 2}, {7, 100, 200, 7, 2},
	} {
		f := r.fetch(id, x.from, x.messages, x.bytes)
		if uint64(len(f.Entries)) != x.n || f.Entries[0].Seq != x.first {
			r.t.Fatalf("%+v gave %d entries, next %d", x, len(f.Entries), f.Next)
		}
		for i, e := range f.Entries {
			if e.Seq != x.first+uint64(i) {
				r.t.Fatalf("%+v: entry %d has sequence number %d", x, i, e.Seq)
			}
		}
		if f.Next != x.first+x.n {
			r.t.Fatalf("%+v: next %d", x, f.Next)
		}
	}
}

// Entries may be empty when there is nothing from From on.
func testFetchNothing(r *rig) {
	id := r.session("a")
	for _, from := range []uint64{0, 1, 2, 1000} {
		if f := r.fetch(id, from, 10, 1000); len(f.Entries) != 0 || f.Next > max(from, 1) {
			r.t.Fatalf("fetch from %d of an empty queue: %+v", from, f)
		}
	}
	if f := r.fetch(r.st.NewSessionID(), 1, 10, 1000); len(f.Entries) != 0 || f.Next != 1 {
		r.t.Fatalf("fetch of an unknown queue: %+v", f)
	}
	r.durable(enqueue(id, r.message("t", "x"), 1))
	r.durable(dequeue(id, 1))
	if f := r.fetch(id, 1, 10, 1000); len(f.Entries) != 0 || f.Next != 2 {
		r.t.Fatalf("fetch from before the tail: %+v", f)
	}
}

// An entry of effective QoS 2 is not given out before it is on disk.
func testFetchQoS2(r *rig) {
	id := r.session("a")
	for round := range uint64(20) {
		from := round*3 + 1
		r.group(enqueue(id, r.message("t", "1"), 1))
		r.group(enqueue(id, r.message("t", "2"), 2))
		r.group(enqueue(id, r.message("t", "3"), 1))
		f := r.fetch(id, from, 10, 1000)
		switch len(f.Entries) {
		case 1: // the answer ends before it
			if f.Entries[0].Seq != from || f.Next != from+1 {
				r.t.Fatalf("%+v", f)
			}
			// It is the first: the answer waits for the commit.
			f = r.fetch(id, from+1, 10, 1000)
			if len(f.Entries) == 0 || f.Entries[0].Seq != from+1 || f.Entries[0].QoS != 2 {
				r.t.Fatalf("%+v", f)
			}
		case 3: // all committed meanwhile
		default:
			r.t.Fatalf("%d entries", len(f.Entries))
		}
		if round%5 == 4 {
			r.crash()
			if _, ok := r.queue(id)[from+1]; !ok {
				r.t.Fatalf("entry %d was given out, and is lost in a crash", from+1)
			}
			r.model = r.contents()
			if tail := r.model.sessions[id].tail; tail < from+3 { // what was not committed: once more
				for ; tail < from+3; tail++ {
					r.durable(enqueue(id, r.message("t", "again"), 1))
				}
			}
		}
	}
}

// What was submitted can be fetched at once, and what was dequeued cannot.
func testFetchPending(r *rig) {
	id := r.session("a")
	for i := range uint64(50) {
		m := r.message("t", fmt.Sprint(i))
		r.group(enqueue(id, m, 1))
		f := r.fetch(id, i+1, 10, 1000)
		if len(f.Entries) != 1 || string(f.Entries[0].Msg.Payload) != fmt.Sprint(i) {
			r.t.Fatalf("%+v", f)
		}
		if i%3 == 0 {
			r.group(dequeue(id, i+1))
			if f := r.fetch(id, i+1, 10, 1000); len(f.Entries) != 0 {
				r.t.Fatalf("dequeued, and fetched: %+v", f)
			}
		}
	}
	if n := len(r.queue(id)); n != 33 {
		r.t.Fatalf("%d messages", n)
	}
}

// Many requests at once are all answered, each to its owner with its tag.
func testFetchMany(r *rig) {
	var ids []uint64
	for range 20 {
		id := r.session("c")
		ids = append(ids, id)
		r.durable(enqueue(id, r.message("t", fmt.Sprint(id)), 1), enqueue(id, r.message("t", fmt.Sprint(id)), 1))
	}
	for round := range 10 {
		for _, id := range ids {
			r.ask(persist.FetchRequest{Owner: 1, Tag: id * 7, Epoch: uint32(round), Session: id, From: 1, MaxMessages: 100, MaxBytes: 1 << 20})
		}
	}
	got := make(map[uint64]int)
	for range 10 * len(ids) {
		f := r.answer()
		if f.Tag != f.Session*7 || len(f.Entries) != 2 || string(f.Entries[0].Msg.Payload) != fmt.Sprint(f.Session) {
			r.t.Fatalf("%+v", f)
		}
		got[f.Session]++
	}
	for _, id := range ids {
		if got[id] != 10 {
			r.t.Fatalf("queue %d answered %d times", id, got[id])
		}
	}
}
