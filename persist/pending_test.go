package persist

import (
	"errors"
	"testing"

	"sluice/broker/mqtt"
)

// pendingWith gives a set with sessions 1 to n, on disk and attached.
func pendingWith(limit int64, n uint64) *Pending {
	p := NewPending(limit, 10)
	var b Batch
	for id := uint64(1); id <= n; id++ {
		p.Restore(id, Counters{Tail: 1})
		b.Add(Op{Kind: OpAttach, ID: id})
	}
	p.Submit(&b, 0, nil)
	return p
}

// publish submits one group of enqueues of one message.
func publish(p *Pending, now int64, token uint32, size int, ids ...uint64) ([]Op, []Settlement, Waiting) {
	var b Batch
	b.Begin(Token{Index: token})
	m := &mqtt.Message{Topic: []byte("t"), Payload: make([]byte, size-1)}
	for _, id := range ids {
		b.Enqueue(id, m, 1, false, nil)
	}
	b.End()
	settled, w := p.Submit(&b, now, nil)
	return b.Ops, settled, w
}

func submit(p *Pending, ops ...Op) ([]Settlement, Waiting) {
	var b Batch
	for _, op := range ops {
		b.Add(op)
	}
	return p.Submit(&b, 0, nil)
}

// Beyond the limit, groups with messages are settled with ErrFull, as a whole;
// others are accepted, and everything is again once there is room.
func TestPendingFull(t *testing.T) {
	p := pendingWith(1000, 2)
	if ops, settled, _ := publish(p, 0, 1, 2000, 1, 2); ops[0].Seq != 1 || len(settled) != 0 {
		t.Fatal("refused within the limit")
	}
	ops, settled, _ := publish(p, 0, 2, 10, 1, 2)
	if ops[0].Seq != 0 || ops[1].Seq != 0 || len(settled) != 1 || !errors.Is(settled[0].Err, ErrFull) || settled[0].Tokens[0].Index != 2 {
		t.Fatalf("ops %+v, settled %+v", ops, settled)
	}
	var b Batch
	b.Enqueue(1, &mqtt.Message{}, 1, false, nil) // nobody waits
	b.Begin(Token{Index: 3})
	b.Add(Op{Kind: OpPutInbound, ID: 1, PacketID: 4})
	b.Add(Op{Kind: OpPutSubscription, ID: 1, Sub: &Subscription{Filter: "f"}})
	b.End()
	b.Begin(Token{Index: 4})
	b.Add(Op{Kind: OpPutInbound, ID: 1, PacketID: 5})
	b.Add(Op{Kind: OpPutRetained, Entry: Entry{Msg: &mqtt.Message{Topic: []byte("r")}}})
	b.End()
	settled, _ = p.Submit(&b, 0, nil)
	if b.Ops[0].Seq != 0 || len(settled) != 1 || settled[0].Tokens[0].Index != 4 {
		t.Fatalf("settled %+v", settled)
	}
	w := p.Take()
	if len(w.Queues[0].Enqueue) != 1 || len(w.Queues[0].Inbound) != 1 || len(w.Retained) != 0 {
		t.Fatalf("to be written: %+v", w)
	}
	if ops, _, _ := publish(p, 0, 5, 10, 1); ops[0].Seq != 0 {
		t.Fatal("accepted while the transaction is in progress")
	}
	settled = p.Committed(w, nil, nil)
	if len(settled) != 1 || len(settled[0].Tokens) != 2 {
		t.Fatalf("settled %+v", settled)
	}
	if ops, _, _ := publish(p, 0, 6, 10, 1); ops[0].Seq != 2 {
		t.Fatalf("sequence number %d", ops[0].Seq)
	}
	if st, _, _ := p.Stats(); st.Refused != 4 {
		t.Fatalf("%d refused", st.Refused)
	}
}

// What is pending counts once for each group, and until the whole group is settled.
func TestPendingBytes(t *testing.T) {
	p := pendingWith(0, 3)
	_, _, w := publish(p, 0, 1, 1000, 1, 2, 3)
	if w.Bytes < 1000 || w.Bytes > 1000+3*markBytes {
		t.Fatalf("%d bytes", w.Bytes)
	}
	_, w = submit(p, Op{Kind: OpDequeue, ID: 1, Seq: 1}, Op{Kind: OpDequeue, ID: 2, Seq: 1})
	if w.Bytes < 1000 || w.Groups != 1 || w.Ops != 1 {
		t.Fatalf("%+v", w)
	}
	if _, w = submit(p, Op{Kind: OpDequeue, ID: 3, Seq: 1}); w.Bytes != 0 || w.Groups != 0 || w.Ops != 0 {
		t.Fatalf("%+v", w)
	}
	if p.Take() != nil {
		t.Fatal("there is something to write")
	}
}

// Groups are slow whose messages nobody is likely to dequeue soon.
func TestPendingSlow(t *testing.T) {
	p := pendingWith(0, 2)
	slow := func(want int, what string) {
		t.Helper()
		if w := p.Waiting(); w.SlowGroups != want {
			t.Fatalf("%s: %d slow groups, want %d", what, w.SlowGroups, want)
		}
	}
	publish(p, 0, 1, 10, 1, 2)
	slow(0, "both receivers attached")
	submit(p, Op{Kind: OpDetach, ID: 2})
	slow(1, "one goes")
	publish(p, 0, 2, 10, 2)
	slow(2, "another message for it")
	submit(p, Op{Kind: OpDequeue, ID: 2, Seq: 1})
	slow(1, "dequeued all the same")
	submit(p, Op{Kind: OpAttach, ID: 2})
	slow(0, "it comes back")
	var b Batch
	b.Begin(Token{})
	b.Enqueue(1, &mqtt.Message{}, 2, false, nil)
	b.End()
	p.Submit(&b, 0, nil)
	slow(1, "QoS 2")
	for range SlowDepth - 1 {
		publish(p, 0, 3, 10, 2)
	}
	slow(1, "deep queue")
	publish(p, 0, 4, 10, 2)
	publish(p, 0, 5, 10, 2)
	slow(3, "deeper")
	p.Committed(p.Take(), nil, nil)
	slow(0, "all written")
}

// The oldest is the oldest that is still pending.
func TestPendingOldest(t *testing.T) {
	p := pendingWith(0, 1)
	for now := int64(1000); now < 100_000; now += 100 {
		_, _, w := publish(p, now, 1, 10, 1)
		seq := uint64((now-1000)/100 + 1)
		if want := max(now-100, 1000); w.Oldest < want || w.Oldest > want+10 {
			t.Fatalf("at %d the oldest is of %d", now, w.Oldest)
		}
		if seq > 1 {
			submit(p, Op{Kind: OpDequeue, ID: 1, Seq: seq - 1})
		}
	}
	p = pendingWith(0, 1)
	for now := int64(1000); now < 1_000_000; now += 100 { // nothing is cancelled
		if _, _, w := publish(p, now, 1, 10, 1); w.Oldest != 1000 {
			t.Fatalf("at %d the oldest is of %d", now, w.Oldest)
		}
	}
	w := p.Take()
	if _, _, after := publish(p, 2_000_000, 1, 10, 1); after.Oldest != 2_000_000 {
		t.Fatalf("after Take the oldest is of %d", after.Oldest)
	}
	p.Committed(w, errors.New("disk"), nil)
	if after := p.Waiting(); after.Oldest > 2_000_000 {
		t.Fatalf("after a failure the oldest is of %d", after.Oldest)
	}
}

// Memory is given back when all is settled.
func TestPendingSweep(t *testing.T) {
	p := pendingWith(0, 1000)
	for id := uint64(1); id <= 1000; id++ {
		for range 300 {
			publish(p, 0, 1, 10, id)
		}
		for seq := uint64(1); seq <= 300; seq++ {
			submit(p, Op{Kind: OpDequeue, ID: id, Seq: seq})
		}
	}
	p.Sweep()
	if len(p.dirty) != 0 || len(p.unused) > unusedKept || len(p.groups.all) > groupsKept {
		t.Fatalf("%d dirty, %d unused, %d groups", len(p.dirty), len(p.unused), len(p.groups.all))
	}
	for _, s := range p.live {
		if s.un != nil {
			t.Fatalf("session %d keeps memory", s.id)
		}
	}
}

func TestBugs(t *testing.T) {
	for name, f := range map[string]func(p *Pending){
		"enqueue without message": func(p *Pending) { submit(p, Op{Kind: OpEnqueue, ID: 1, Entry: Entry{QoS: 1}}) },
		"enqueue of QoS 0":        func(p *Pending) { submit(p, Op{Kind: OpEnqueue, ID: 1, Entry: Entry{Msg: &mqtt.Message{}}}) },
		"unknown op":              func(p *Pending) { submit(p, Op{Kind: 99, ID: 1}) },
		"Committed without Take":  func(p *Pending) { p.Committed(nil, nil, nil) },
		"Take twice": func(p *Pending) {
			publish(p, 0, 1, 10, 1)
			p.Take()
			p.Take()
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Fatal("no panic")
				}
			}()
			f(pendingWith(0, 1))
		})
	}
}
