package session

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/platform/mono"
)

// DESIGN. The model of the outbound side is the world around one session: a
// store that commits when it likes and can lose what it has not committed, mail
// that arrives in any order, a client that acknowledges in any order and loses its
// connection. It knows nothing of windows and queues, but what a client must
// see: each message, QoS 2 once, in order, with the right DUP and packet id, no
// more under way than the receive maximum. And at the end, nothing is left.

// stored is a message in the model's store.
type stored struct {
	seq      uint64
	prio     bool
	qos      mqtt.QoS
	name     string
	onDisk   bool
	released bool // PUBREC came
	relDisk  bool // and that is on disk
	gone     bool // dequeued, perhaps not yet on disk
}

// subscriber is the world around the session.
type subscriber struct {
	r       *rand.Rand
	limits  Limits
	s       *Session
	fx      Effects
	batch   persist.Batch
	now     mono.Time
	blocked bool
	crashed bool // at least once

	queue   []*stored
	tails   [2]uint64 // of the lanes
	disk    [2]uint64 // tails as the disk knows them
	lanes   int       // that are used
	mail    []*stored
	fetches []persist.FetchRequest
	tokens  []persist.Token

	c      subClient
	counts map[string]int
	ids    map[string]uint16
	qos    map[string]mqtt.QoS
}

// subClient is the client's side. open and newest are those of the connection.
type subClient struct {
	rmax   int
	open   []uint16 // PUBLISH came, not acknowledged or not complete; QoS 2 with PUBREL is in half
	half   []uint16 // PUBREL came, PUBCOMP not sent
	kind   map[uint16]mqtt.QoS
	newest [2]uint64
	held   map[uint16]bool // QoS 2 ids accepted and not released: survives the connection
	rec    map[uint16]bool // PUBREC sent on this connection
}

func newSubscriber(seed uint64) *subscriber {
	b := &subscriber{
		r: rand.New(rand.NewPCG(seed, 3)), limits: DefaultLimits(), now: 1, tails: [2]uint64{1, 1}, lanes: 1 + int(seed%2),
		counts: make(map[string]int), ids: make(map[string]uint16), qos: make(map[string]mqtt.QoS),
	}
	b.c.held = make(map[uint16]bool)
	if seed%3 == 0 {
		b.tails[0] = normalIDs - uint64(b.r.IntN(30))
	}
	b.limits.Priority = seed%4 == 1 // the lane works without rules, too
	b.s = New(7, "sub", 1, &b.limits)
	b.s.rewind(b.tails[0], b.tails[0])
	if b.lanes == 2 && seed%5 < 2 {
		b.tails[1] = priorityIDs - uint64(b.r.IntN(30))
		b.s.priorityLane().rewind(b.tails[1], b.tails[1])
	}
	b.disk = b.tails
	b.begin()
	b.connect()
	return b
}

func (b *subscriber) begin() {
	b.batch.Reset()
	b.fx = Effects{Batch: &b.batch, Blocked: b.blocked, Waiting: b.fx.Waiting}
}

func (b *subscriber) connect() {
	b.c.rmax = 1 + b.r.IntN(12)
	b.c.open, b.c.half, b.c.newest = nil, nil, [2]uint64{}
	b.c.kind, b.c.rec = make(map[uint16]mqtt.QoS), make(map[uint16]bool)
	c := mqtt.Connect{Version: mqtt.V5}
	c.Props.SessionExpirySeconds = 100
	c.Props.ReceiveMax = uint16(b.c.rmax)
	b.s.Attach(&b.fx, &c, &Admission{}, true, b.now)
}

// publish puts a message into the queue and the mail.
func (b *subscriber) publish() {
	m := &stored{prio: b.r.IntN(b.lanes) > 0, qos: mqtt.QoS(1 + b.r.IntN(2)), name: strconv.Itoa(len(b.qos))}
	tail := &b.tails[laneIndex(m.prio)]
	m.seq = *tail
	*tail++
	b.queue = append(b.queue, m)
	b.mail = append(b.mail, m)
	b.qos[m.name] = m.qos
}

func laneIndex(prio bool) int {
	if prio {
		return 1
	}
	return 0
}

func (m *stored) queue() uint64 {
	if m.prio {
		return persist.PriorityOf(1)
	}
	return 1
}

func (m *stored) topic() string { return [...]string{"t", "alarm"}[laneIndex(m.prio)] }

func (b *subscriber) deliver() {
	if len(b.mail) == 0 {
		return
	}
	i := b.r.IntN(min(len(b.mail), 1+b.r.IntN(4)))
	m := b.mail[i]
	b.mail = slices.Delete(b.mail, i, i+1)
	d := Delivery{Topic: []byte(m.topic()), Payload: []byte(m.name), Seq: m.seq, QoS: m.qos, Priority: m.prio}
	b.s.Deliver(&b.fx, &d, b.now)
	if d.Msg == nil {
		spoil(d.Topic, d.Payload)
	}
}

// answer answers the oldest fetch as Store.Fetch promises.
func (b *subscriber) answer() {
	if len(b.fetches) == 0 {
		return
	}
	q := b.fetches[0]
	f := persist.Fetched{Tag: q.Tag, Epoch: q.Epoch, Session: q.Session, From: q.From}
	_, prio := persist.OfPriority(q.Session)
	f.Next = b.tails[laneIndex(prio)]
	limit := min(q.MaxMessages, 1+b.r.IntN(5))
	for _, m := range b.queue {
		if m.prio != prio || m.seq < q.From || m.gone {
			continue
		}
		if m.qos == 2 && !m.onDisk {
			if len(f.Entries) == 0 {
				return // it waits for the commit
			}
			f.Next = m.seq
			break
		}
		if len(f.Entries) == limit {
			f.Next = m.seq
			break
		}
		e := persist.Entry{Seq: m.seq, QoS: m.qos, Released: m.released}
		if !m.released {
			e.Msg = mqtt.NewMessage(&mqtt.Publish{Topic: []byte(m.topic()), Payload: []byte(m.name), QoS: m.qos})
		}
		f.Entries = append(f.Entries, e)
	}
	b.fetches = b.fetches[1:]
	b.s.Fetched(&b.fx, &f, b.now)
}

// commit puts everything on disk, and later says so.
func (b *subscriber) commit() {
	b.queue = slices.DeleteFunc(b.queue, func(m *stored) bool { return m.gone })
	for _, m := range b.queue {
		m.onDisk, m.relDisk = true, m.released
	}
	b.disk = b.tails
	for _, t := range b.tokens {
		b.s.Accepted(&b.fx, t, nil)
	}
	b.tokens = nil
}

// crash loses what is not on disk, and the connection. Sequence numbers that
// are not on disk are given again.
func (b *subscriber) crash() {
	b.tails = b.disk
	var im [2]persist.SessionImage
	for i, tail := range b.tails {
		im[i] = persist.SessionImage{Session: persist.Session{ID: 1, ClientID: "sub", ExpirySeconds: 100}, Head: tail, Tail: tail}
	}
	b.queue = slices.DeleteFunc(b.queue, func(m *stored) bool { return !m.onDisk })
	for i := len(b.queue) - 1; i >= 0; i-- {
		m := b.queue[i]
		m.gone, m.released = false, m.relDisk
		im[laneIndex(m.prio)].Head = m.seq
	}
	b.crashed, b.mail, b.fetches, b.tokens = true, nil, nil, nil
	b.fx.Waiting = 0
	b.s = New(8, "sub", 1, &b.limits)
	b.s.Restore(&im[0])
	if b.lanes == 2 {
		b.s.RestorePriority(&im[1])
	}
	b.connect()
}

func (b *subscriber) reconnect() {
	b.s.Detach(&b.fx)
	b.s.Check()
	if b.r.IntN(2) == 0 {
		b.deliver()
	}
	b.connect()
}

// acknowledge lets the client answer something.
func (b *subscriber) acknowledge() {
	if n := len(b.c.half); n > 0 && b.r.IntN(2) == 0 {
		i := b.r.IntN(n)
		id := b.c.half[i]
		b.c.half = slices.Delete(b.c.half, i, i+1)
		b.s.OnPubcomp(&b.fx, &mqtt.Ack{PacketID: id}, b.now)
		return
	}
	if len(b.c.open) == 0 {
		return
	}
	i := b.r.IntN(len(b.c.open))
	id := b.c.open[i]
	if b.c.kind[id] == 1 {
		b.c.open = slices.Delete(b.c.open, i, i+1)
		b.s.OnPuback(&b.fx, &mqtt.Ack{PacketID: id}, b.now)
	} else if !b.c.rec[id] {
		b.c.rec[id] = true
		b.s.OnPubrec(&b.fx, &mqtt.Ack{PacketID: id}, b.now)
	}
}

// read lets the client take what was sent.
func (b *subscriber) read() error {
	for out := b.fx.Send; len(out) > 0; {
		h, n, err := mqtt.ParseHeader(out, 0)
		if err != nil {
			return err
		}
		body := out[n : n+h.Remaining]
		out = out[n+h.Remaining:]
		switch h.Type {
		case mqtt.PUBLISH:
			var p mqtt.Publish
			if err := mqtt.DecodePublish(&p, h.Flags, body, mqtt.V5); err != nil {
				return err
			}
			if err := b.take(&p); err != nil {
				return fmt.Errorf("message %s: %w", p.Payload, err)
			}
		case mqtt.PUBREL:
			id := uint16(body[0])<<8 | uint16(body[1])
			delete(b.c.held, id)
			b.c.open = slices.DeleteFunc(b.c.open, func(x uint16) bool { return x == id })
			if !slices.Contains(b.c.half, id) {
				b.c.half = append(b.c.half, id)
			}
		}
	}
	if b.fx.Close {
		return fmt.Errorf("connection closed: %s", b.fx.Detail)
	}
	return nil
}

// take checks a PUBLISH as the client sees it.
func (b *subscriber) take(p *mqtt.Publish) error {
	name := string(p.Payload)
	seen := b.counts[name] > 0
	switch {
	case b.blocked:
		return fmt.Errorf("sent although the output is blocked")
	case p.QoS != b.qos[name]:
		return fmt.Errorf("QoS %d, want QoS %d", p.QoS, b.qos[name])
	case (string(p.Topic) == "alarm") != (p.PacketID >= priorityIDMin):
		return fmt.Errorf("topic %q with packet id %d of the other lane", p.Topic, p.PacketID)
	case slices.Contains(b.c.open, p.PacketID) || slices.Contains(b.c.half, p.PacketID):
		return fmt.Errorf("packet id %d is in use", p.PacketID)
	case len(b.c.open)+len(b.c.half) >= b.c.rmax:
		return fmt.Errorf("more than %d under way", b.c.rmax)
	case seen && !p.Dup:
		return fmt.Errorf("came again without DUP")
	case p.Dup && !seen && !b.crashed:
		return fmt.Errorf("DUP at the first time")
	case seen && b.ids[name] != p.PacketID:
		return fmt.Errorf("packet id %d, had %d before", p.PacketID, b.ids[name])
	}
	number, _ := strconv.ParseUint(name, 10, 64)
	newest := &b.c.newest[laneIndex(string(p.Topic) == "alarm")]
	if number+1 <= *newest {
		return fmt.Errorf("came after %d", *newest-1)
	}
	*newest = number + 1
	b.c.open = append(b.c.open, p.PacketID)
	b.c.kind[p.PacketID] = p.QoS
	b.ids[name] = p.PacketID
	if p.QoS == 2 {
		if b.c.held[p.PacketID] {
			return nil // it has it already
		}
		b.c.held[p.PacketID] = true
		if seen {
			return fmt.Errorf("QoS 2 twice")
		}
	}
	b.counts[name]++
	return nil
}

// carryOut does what the session asked of the world.
func (b *subscriber) carryOut() error {
	for i := range b.batch.Ops {
		op := &b.batch.Ops[i]
		if op.Kind != persist.OpDequeue && op.Kind != persist.OpRelease {
			continue
		}
		at := slices.IndexFunc(b.queue, func(m *stored) bool { return m.seq == op.Seq && m.queue() == op.ID })
		if at < 0 {
			return fmt.Errorf("op %d on %d, which is not in the queue", op.Kind, op.Seq)
		}
		m := b.queue[at]
		if op.Kind == persist.OpRelease {
			m.released = true
			b.tokens = append(b.tokens, b.s.token(mqtt.PUBREL, packetID(op.Seq, m.prio)))
			continue
		}
		if b.counts[m.name] == 0 {
			return fmt.Errorf("message %s dequeued, and the client never saw it", m.name)
		}
		m.gone = true
	}
	for _, r := range b.fx.Fetches {
		if slices.ContainsFunc(b.fetches, func(o persist.FetchRequest) bool { return o.Epoch == r.Epoch && o.Session == r.Session }) {
			return fmt.Errorf("two fetches at once")
		}
		b.fetches = append(b.fetches, r)
	}
	return nil
}

func (b *subscriber) step(n int) error {
	b.begin()
	switch {
	case n < 6:
		b.publish()
	case n < 12:
		b.deliver()
	case n < 17:
		b.answer()
	case n < 20:
		b.commit()
	case n < 35:
		b.acknowledge()
	case n < 37:
		if b.blocked = !b.blocked; !b.blocked {
			b.fx.Blocked = false
			b.s.Resume(&b.fx, b.now)
		}
	case b.r.IntN(8) == 0:
		b.reconnect()
	case b.r.IntN(40) == 0:
		b.crash()
	}
	return b.finish()
}

func (b *subscriber) finish() error {
	if err := b.read(); err != nil {
		return err
	}
	if err := b.carryOut(); err != nil {
		return err
	}
	b.s.Check()
	return nil
}

// drain plays on until nothing happens any more.
func (b *subscriber) drain() error {
	b.begin()
	b.blocked, b.fx.Blocked = false, false
	b.s.Resume(&b.fx, b.now)
	if err := b.finish(); err != nil {
		return err
	}
	for range 20000 {
		for _, n := range []int{6, 12, 17, 20, 20, 20} {
			if err := b.step(n); err != nil {
				return err
			}
		}
		if len(b.queue) == 0 && len(b.mail) == 0 && len(b.fetches) == 0 && len(b.tokens) == 0 {
			return nil
		}
	}
	left := 0
	for _, m := range b.queue {
		if !m.gone {
			left++
		}
	}
	return fmt.Errorf("stuck with %d messages: next %d have %d tail %d inflight %d, fetching %v, client has %d open, %d half",
		left, b.s.next, b.s.have, b.s.tail, b.s.window.inflight, b.s.fetching, len(b.c.open), len(b.c.half))
}

func TestOutboundAgainstModel(t *testing.T) {
	for seed := range uint64(150) {
		b := newSubscriber(seed)
		for i := range 1500 {
			if err := b.step(b.r.IntN(38)); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, i, err)
			}
		}
		if err := b.drain(); err != nil {
			t.Fatalf("seed %d, at the end: %v", seed, err)
		}
		for name, qos := range b.qos {
			if n := b.counts[name]; n == 0 && !b.crashed || n > 1 && qos == 2 {
				t.Fatalf("seed %d: message %s of QoS %d came %d times", seed, name, qos, n)
			}
		}
		if len(b.counts) < 50 {
			t.Fatalf("seed %d: only %d messages: the model tests nothing", seed, len(b.counts))
		}
	}
}
