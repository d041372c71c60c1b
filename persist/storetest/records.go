package storetest

import (
	"fmt"
	"strings"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// A released message is forgotten, its sequence number stays until it is dequeued.
func testRelease(r *rig) {
	id := r.session("a")
	for range 3 {
		r.durable(enqueue(id, r.message("t", "x"), 2))
	}
	r.durable(release(id, 2))
	e := r.queue(id)[2]
	if !e.Released || e.Msg != nil || e.QoS != 2 {
		r.t.Fatalf("released entry: %+v", e)
	}
	r.crash()
	r.compare(r.model)
	r.group(release(id, 1))
	if e := r.queue(id)[1]; !e.Released || e.Msg != nil {
		r.t.Fatalf("entry with a pending release: %+v", e)
	}
	r.durable(release(id, 2), dequeue(id, 2))
	r.crash()
	if e, ok := r.queue(id)[2]; ok {
		r.t.Fatalf("dequeued entry: %+v", e)
	}
}

func testSubscriptions(r *rig) {
	id := r.session("a")
	put := func(s persist.Subscription) persist.Op {
		return persist.Op{Kind: persist.OpPutSubscription, ID: id, Sub: &s}
	}
	r.durable(
		put(persist.Subscription{Filter: "a/+/#", ID: 268435455, QoS: 2, NoLocal: true, RetainHandling: 2}),
		put(persist.Subscription{Filter: "$share/g/a", QoS: 1, RetainAsPublished: true, RetainHandling: 1}),
		put(persist.Subscription{Filter: "b"}),
		put(persist.Subscription{Filter: "c"}),
	)
	r.crash()
	r.compare(r.model)
	r.durable(put(persist.Subscription{Filter: "b", QoS: 1, ID: 3}))
	r.durable(persist.Op{Kind: persist.OpDeleteSubscription, ID: id, Sub: &persist.Subscription{Filter: "c"}})
	r.durable( // the last op of a group on a filter counts
		put(persist.Subscription{Filter: "d", QoS: 1}),
		persist.Op{Kind: persist.OpDeleteSubscription, ID: id, Sub: &persist.Subscription{Filter: "d"}},
		persist.Op{Kind: persist.OpDeleteSubscription, ID: id, Sub: &persist.Subscription{Filter: "e"}},
		put(persist.Subscription{Filter: "e", QoS: 2}),
	)
	r.crash()
	r.compare(r.model)
	if n := len(r.image.Sessions[0].Subscriptions); n != 4 {
		r.t.Fatalf("%d subscriptions", n)
	}
}

func testInbound(r *rig) {
	id := r.session("a")
	in := func(kind persist.OpKind, p uint16) persist.Op { return persist.Op{Kind: kind, ID: id, PacketID: p} }
	r.durable(in(persist.OpPutInbound, 1), in(persist.OpPutInbound, 65535), in(persist.OpPutInbound, 300))
	r.durable(in(persist.OpPutInbound, 300), in(persist.OpDeleteInbound, 1), in(persist.OpDeleteInbound, 9))
	r.crash()
	r.compare(r.model)
	r.durable(in(persist.OpPutInbound, 7), in(persist.OpDeleteInbound, 7), in(persist.OpDeleteInbound, 300), in(persist.OpPutInbound, 300))
	r.crash()
	r.compare(r.model)
}

func testSessionReplaced(r *rig) {
	id := r.session("a")
	r.durable(enqueue(id, r.message("t", "x"), 1))
	r.durable(persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{
		ID: id, ClientID: "a", Version: mqtt.V311, ExpirySeconds: persist.NoExpiry,
	}})
	r.crash()
	r.compare(r.model)
	if s := r.image.Sessions[0]; s.ExpirySeconds != persist.NoExpiry || s.QueuedBytes != 2 {
		r.t.Fatalf("%+v", s)
	}
}

// OpDeleteSession removes the session with all it has, and later ops have no effect.
func testDeleteSession(r *rig) {
	a, b := r.session("a"), r.session("b")
	m := r.message("t", strings.Repeat("shared", 50))
	for _, id := range []uint64{a, b} {
		r.durable(
			persist.Op{Kind: persist.OpPutSubscription, ID: id, Sub: &persist.Subscription{Filter: "f"}},
			persist.Op{Kind: persist.OpPutInbound, ID: id, PacketID: 3},
		)
	}
	r.durable(enqueue(a, m, 1), enqueue(b, m, 1))
	r.durable(persist.Op{Kind: persist.OpDeleteSession, ID: a})
	r.crash()
	r.compare(r.model)
	tok, ops := r.group(enqueue(a, m, 1), dequeue(a, 1))
	if !r.isSettled(tok) || ops[0].Seq != 0 {
		r.t.Fatal("an op on a deleted session had an effect")
	}
	if f := r.fetch(a, 1, 10, 1000); len(f.Entries) != 0 {
		r.t.Fatalf("queue of a deleted session: %+v", f)
	}
	if e := r.queue(b)[1]; e.Msg == nil || string(e.Msg.Payload) != string(m.Payload) {
		r.t.Fatalf("the message of the other session: %+v", e)
	}
}

// OpDeleteSession cancels what is pending for the session.
func testDeleteSessionPending(r *rig) {
	id := r.session("a")
	var toks []persist.Token
	for i := range 10 {
		tok, _ := r.group(
			enqueue(id, r.message("t", "x"), 2),
			persist.Op{Kind: persist.OpPutInbound, ID: id, PacketID: uint16(i + 1)},
			persist.Op{Kind: persist.OpPutSubscription, ID: id, Sub: &persist.Subscription{Filter: fmt.Sprint(i)}},
		)
		toks = append(toks, tok)
	}
	tok, _ := r.group(persist.Op{Kind: persist.OpDeleteSession, ID: id})
	late, _ := r.group(
		enqueue(id, r.message("t", "x"), 1),
		persist.Op{Kind: persist.OpPutInbound, ID: id, PacketID: 3},
	)
	for _, tok := range append(toks, tok, late) {
		r.await(tok)
	}
	r.crash()
	r.compare(r.model)

	never := r.st.NewSessionID() // one that comes and goes
	a, _ := r.group(putSession(never, "short"), enqueue(never, r.message("t", "x"), 1))
	b, _ := r.group(persist.Op{Kind: persist.OpDeleteSession, ID: never})
	r.await(a)
	r.await(b)
}

// A deep queue goes too, and its messages do not come back.
func testDeleteSessionDeep(r *rig) {
	a, b := r.session("a"), r.session("b")
	shared := r.message("t", strings.Repeat("s", 500))
	for range 20 {
		var ops []persist.Op
		for range 250 {
			ops = append(ops, enqueue(a, r.message("t", "x"), 1))
		}
		r.durable(append(ops, enqueue(a, shared, 1), enqueue(b, shared, 1))...)
	}
	r.durable(persist.Op{Kind: persist.OpDeleteSession, ID: a})
	for range 3 {
		r.crash()
		r.compare(r.model)
		r.durable(enqueue(b, r.message("t", "y"), 1))
	}
}

func testRetained(r *rig) {
	put := func(topic, payload string) persist.Op {
		return persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: &mqtt.Message{
			Topic: []byte(topic), Payload: []byte(payload), Props: []byte{1, 1}, QoS: 2, Retain: true, ID: r.st.NewMessageID(),
		}}}
	}
	r.durable(put("b", "1"), put("a", "2"), put("c/d", "3"), put("big", strings.Repeat("x", 9000)))
	r.crash()
	r.compare(r.model)
	r.durable(put("b", "new"), put("big", strings.Repeat("y", 20000)))
	r.durable(persist.Op{Kind: persist.OpDeleteRetained, Entry: persist.Entry{Msg: &mqtt.Message{Topic: []byte("a")}}})
	r.durable(persist.Op{Kind: persist.OpDeleteRetained, Entry: persist.Entry{Msg: &mqtt.Message{Topic: []byte("unknown")}}})
	r.crash()
	r.compare(r.model)
	r.durable(put("b", "new"), put("big", "small now"))
	r.crash()
	r.compare(r.model)
	for i, m := range r.image.Retained {
		if m.ID == 0 && i > 0 {
			r.t.Fatal("retained messages without id")
		}
	}
}

// Updates of a topic coalesce to the last value; the groups of all settle.
func testRetainedCoalesce(r *rig) {
	var toks []persist.Token
	for i := range 50 {
		tok, _ := r.group(persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: r.message("t", fmt.Sprint(i))}})
		toks = append(toks, tok)
	}
	for _, tok := range toks {
		r.await(tok)
	}
	r.crash()
	r.compare(r.model)
}

func testMessageFields(r *rig) {
	id := r.session("a")
	m := &mqtt.Message{
		Topic: []byte("some/topic"), Props: []byte{1, 0, 35, 0, 9}, Payload: []byte{0, 1, 255},
		ID: r.st.NewMessageID(), From: 1<<40 + 5, QoS: 2, Retain: true,
	}
	bare := &mqtt.Message{Topic: []byte("t"), ID: r.st.NewMessageID(), QoS: 1}
	r.durable(
		persist.Op{Kind: persist.OpEnqueue, ID: id, Entry: persist.Entry{Msg: m, QoS: 2, Retain: true, SubIDs: []uint32{1, 268435455}}},
		persist.Op{Kind: persist.OpEnqueue, ID: id, Entry: persist.Entry{Msg: bare, QoS: 1}},
	)
	r.crash()
	r.compare(r.model)
	q := r.queue(id)
	if got := q[1].Msg; got.ID != m.ID || len(q[1].SubIDs) != 2 {
		r.t.Fatalf("%+v", got)
	}
	if got := q[2].Msg; got.ID != bare.ID || len(got.Payload) != 0 || len(got.Props) != 0 || q[2].SubIDs != nil || got.Expires != 0 {
		r.t.Fatalf("%+v", got)
	}
}

// Messages expire by the time for which the store was open; 0 stays never.
func testExpiry(r *rig) {
	id := r.session("a")
	msg := func(after time.Duration) *mqtt.Message {
		m := r.message("t", "x")
		m.Expires = r.now.Load() + int64(after)
		return m
	}
	r.durable(enqueue(id, msg(100*time.Second), 1), enqueue(id, msg(-5*time.Second), 1), enqueue(id, r.message("t", "never"), 1))
	r.now.Add(int64(30 * time.Second)) // the store is open: this counts
	r.durable(enqueue(id, msg(100*time.Second), 1))
	r.durable(persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: msg(50 * time.Second)}})
	left := func(m *mqtt.Message) time.Duration { return time.Duration(m.Expires - r.now.Load()) }
	check := func() {
		r.t.Helper()
		q := r.queue(id)
		for seq, want := range map[uint64]time.Duration{1: 70 * time.Second, 4: 100 * time.Second} {
			if got := left(q[seq].Msg); got < want || got > want+2*time.Second {
				r.t.Fatalf("message %d expires in %v, want %v", seq, got, want)
			}
		}
		if e := q[2].Msg; e.Expires == 0 || left(e) > 0 {
			r.t.Fatalf("a message that had expired does so in %v", left(e))
		}
		if q[3].Msg.Expires != 0 {
			r.t.Fatalf("a message that never expires does in %v", left(q[3].Msg))
		}
	}
	check()
	r.now.Add(-int64(50 * time.Minute)) // a new process: its clock begins anew
	r.crash()
	check()
	if got := left(r.image.Retained[0]); got < 50*time.Second || got > 52*time.Second {
		r.t.Fatalf("retained message expires in %v", got)
	}
	r.now.Add(int64(3 * time.Hour)) // counts only if the store is open, which it is not
	r.st = r.h.Crash()
	r.load()
	check()
}

// Messages longer than a page, with neighbours that come and go.
func testLongMessages(r *rig) {
	id := r.session("a")
	for i, n := range []int{0, 1800, 1890, 1900, 1910, 3790, 3800, 3810, 4096, 70000, 1 << 20, 10} {
		r.durable(enqueue(id, r.message("t", strings.Repeat(string(rune('a'+i)), n)), 1))
	}
	r.crash()
	r.compare(r.model)
	for seq := uint64(2); seq <= 12; seq += 2 {
		r.durable(dequeue(id, seq))
	}
	r.crash()
	r.compare(r.model)
}

// MQTT allows names of 65,535 bytes.
func testLongNames(r *rig) {
	id := r.session(strings.Repeat("client", 10000))
	for _, n := range []int{511, 512, 513, 40000, 65535} {
		long := strings.Repeat("n", n)
		r.durable(
			persist.Op{Kind: persist.OpPutSubscription, ID: id, Sub: &persist.Subscription{Filter: long, QoS: 1}},
			persist.Op{Kind: persist.OpPutSubscription, ID: id, Sub: &persist.Subscription{Filter: long[1:] + "/", QoS: 1}},
			persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: r.message(long, "x")}},
			enqueue(id, r.message(long, "x"), 1),
		)
	}
	r.crash()
	r.compare(r.model)
	long := strings.Repeat("n", 65535)
	r.durable(
		persist.Op{Kind: persist.OpDeleteSubscription, ID: id, Sub: &persist.Subscription{Filter: long}},
		persist.Op{Kind: persist.OpDeleteRetained, Entry: persist.Entry{Msg: &mqtt.Message{Topic: []byte(long)}}},
	)
}

// A message for several sessions stays until the last has dequeued it.
func testShared(r *rig) {
	var ids []uint64
	for range 5 {
		ids = append(ids, r.session("c"))
	}
	for _, n := range []int{10, 1000, 5000} {
		m := r.message("t", strings.Repeat("p", n))
		var ops []persist.Op
		for _, id := range ids {
			ops = append(ops, enqueue(id, m, 1))
		}
		ops = append(ops, persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: m}})
		r.durable(ops...)
	}
	for i, id := range ids {
		r.crash()
		r.compare(r.model)
		if i == 2 { // once more, with what came from the disk
			again := r.queue(ids[4])[2].Msg
			r.durable(enqueue(ids[0], again, 1), enqueue(ids[1], again, 1))
			r.crash()
			r.compare(r.model)
		}
		for seq := range r.queue(id) {
			r.durable(dequeue(id, seq))
		}
	}
	r.durable(persist.Op{Kind: persist.OpDeleteRetained, Entry: persist.Entry{Msg: &mqtt.Message{Topic: []byte("t")}}})
}
