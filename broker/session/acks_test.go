package session

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// owed is an acknowledgement that the model expects.
type owed struct {
	kind    mqtt.Type
	id      uint16
	reason  mqtt.Reason
	settled bool // nothing of it is missing but those before it
}

// peer is a well-behaved MQTT 5 client that publishes, and what it is owed.
type peer struct {
	r      *rand.Rand
	s      *Session
	fx     Effects
	batch  persist.Batch
	owed   []owed
	tokens []persist.Token // not settled, of any connection
	free   []uint16        // packet ids that may be used for something new
	recs   []uint16        // QoS 2: PUBREC came, PUBREL to be sent
	resend []uint16        // QoS 2: sent on an earlier connection, no PUBREC
	routed int
}

func newPeer(seed uint64) *peer {
	p := &peer{r: rand.New(rand.NewPCG(seed, 2))}
	limits := DefaultLimits()
	p.s = New(7, "peer", uint64(p.r.IntN(2)), &limits)
	for id := uint16(1); id <= 40; id++ {
		p.free = append(p.free, id)
	}
	p.connect()
	return p
}

func (p *peer) begin() { p.fx = Effects{Batch: &p.batch, Waiting: p.fx.Waiting} }

func (p *peer) connect() {
	p.begin()
	c := mqtt.Connect{Version: mqtt.V5}
	c.Props.SessionExpirySeconds = 100
	p.s.Attach(&p.fx, &c, &Admission{}, true, 1)
	p.batch.Reset()
}

func (p *peer) takeID() (id uint16, ok bool) {
	if len(p.free) == 0 {
		return 0, false
	}
	i := p.r.IntN(len(p.free))
	id = p.free[i]
	p.free[i] = p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	return id, true
}

func (p *peer) publish() error {
	id, ok := p.takeID()
	if !ok {
		return nil
	}
	m := mqtt.Publish{Topic: []byte("t"), QoS: mqtt.QoS(1 + p.r.IntN(2)), PacketID: id}
	p.begin()
	if !p.s.OnPublish(&p.fx, &m) {
		return fmt.Errorf("new packet id %d is not routed", id)
	}
	p.routed++
	kind := mqtt.PUBACK
	if m.QoS == 2 {
		kind = mqtt.PUBREC
	}
	if p.r.IntN(2) == 0 || m.QoS == 2 && p.s.Durable != 0 {
		p.s.Begin(&p.fx, &m)
		p.batch.End()
		p.wait(kind, id)
		return nil
	}
	p.s.Ack(&p.fx, &m, mqtt.Success)
	p.owed = append(p.owed, owed{kind: kind, id: id, settled: true})
	return nil
}

// wait notes an acknowledgement that waits for the store.
func (p *peer) wait(kind mqtt.Type, id uint16) {
	p.owed = append(p.owed, owed{kind: kind, id: id})
	p.tokens = append(p.tokens, p.s.token(kind, id))
}

// again sends a QoS 2 message again that was sent on an earlier connection.
func (p *peer) again() error {
	if len(p.resend) == 0 {
		return nil
	}
	id := p.resend[0]
	p.resend = p.resend[1:]
	m := mqtt.Publish{Topic: []byte("t"), QoS: 2, Dup: true, PacketID: id}
	stored, known := p.s.received[id]
	p.begin()
	if p.s.OnPublish(&p.fx, &m) == known {
		return fmt.Errorf("packet id %d, known %v: routed %v", id, known, !known)
	}
	if known {
		p.owed = append(p.owed, owed{kind: mqtt.PUBREC, id: id, settled: stored})
		return nil
	}
	p.s.Begin(&p.fx, &m)
	p.batch.End()
	p.wait(mqtt.PUBREC, id)
	return nil
}

func (p *peer) release() {
	if len(p.recs) == 0 {
		return
	}
	id := p.recs[0]
	p.recs = p.recs[1:]
	p.begin()
	p.s.OnPubrel(&p.fx, &mqtt.Ack{PacketID: id})
	if p.s.Durable != 0 {
		p.wait(mqtt.PUBCOMP, id)
	} else {
		p.owed = append(p.owed, owed{kind: mqtt.PUBCOMP, id: id, settled: true})
	}
}

func (p *peer) subscribe() {
	id, ok := p.takeID()
	if !ok {
		return
	}
	m := mqtt.Subscribe{PacketID: id, Filters: []mqtt.SubscribeFilter{{Filter: []byte("a"), QoS: 1}}}
	p.begin()
	p.s.OnSubscribe(&p.fx, &m, nil)
	if p.s.Durable != 0 {
		p.wait(mqtt.SUBACK, id)
	} else {
		p.owed = append(p.owed, owed{kind: mqtt.SUBACK, id: id, settled: true})
	}
}

// settle settles any of the groups, not the oldest first.
func (p *peer) settle() {
	if len(p.tokens) == 0 {
		p.begin()
		return
	}
	i := p.r.IntN(len(p.tokens))
	t := p.tokens[i]
	p.tokens = append(p.tokens[:i], p.tokens[i+1:]...)
	kind, id := mqtt.Type(t.Index>>16), uint16(t.Index)
	var err error
	if p.r.IntN(8) == 0 && (kind == mqtt.PUBACK || kind == mqtt.PUBREC) {
		err = errors.New("full")
	}
	p.begin()
	p.s.Accepted(&p.fx, t, err)
	if t.Epoch != p.s.Epoch && kind != mqtt.PUBREC {
		return
	}
	for i := range p.owed {
		if o := &p.owed[i]; o.kind == kind && o.id == id && !o.settled {
			o.settled = true
			if err != nil {
				o.reason = mqtt.QuotaExceeded
			}
			return
		}
	}
}

// reconnect loses the connection: what is owed is not owed any more.
func (p *peer) reconnect() {
	if p.begin(); p.s.Durable == 0 {
		return // its session would end
	}
	p.s.Detach(&p.fx)
	p.s.Check()
	for _, o := range p.owed {
		switch o.kind {
		case mqtt.PUBREC:
			p.resend = append(p.resend, o.id)
		case mqtt.PUBCOMP:
			p.recs = append(p.recs, o.id) // PUBREL again
		default:
			p.free = append(p.free, o.id)
		}
	}
	p.owed = nil
	p.connect()
}

// receive checks what the session sent against what is owed.
func (p *peer) receive() error {
	for b := p.fx.Send; len(b) > 0; {
		h, n, err := mqtt.ParseHeader(b, 0)
		if err != nil {
			return err
		}
		body := b[n : n+h.Remaining]
		b = b[n+h.Remaining:]
		if h.Type == mqtt.CONNACK {
			continue
		}
		if len(p.owed) == 0 || !p.owed[0].settled {
			return fmt.Errorf("%s too early", h.Type)
		}
		o := p.owed[0]
		p.owed = p.owed[1:]
		id, r := uint16(body[0])<<8|uint16(body[1]), mqtt.Success
		if len(body) > 2 && h.Type != mqtt.SUBACK {
			r = mqtt.Reason(body[2])
		}
		if h.Type != o.kind || id != o.id || r != o.reason {
			return fmt.Errorf("%s %d (%s), want %s %d (%s)", h.Type, id, r, o.kind, o.id, o.reason)
		}
		if o.kind == mqtt.PUBREC && o.reason == mqtt.Success {
			p.recs = append(p.recs, id)
		} else {
			p.free = append(p.free, id)
		}
	}
	if len(p.owed) > 0 && p.owed[0].settled {
		return fmt.Errorf("%s %d has nothing to wait for and does not leave", p.owed[0].kind, p.owed[0].id)
	}
	if p.fx.Close {
		return fmt.Errorf("connection closed: %s", p.fx.Detail)
	}
	return nil
}

func (p *peer) step() error {
	switch n := p.r.IntN(20); {
	case n < 8:
		if err := p.publish(); err != nil {
			return err
		}
	case n < 10:
		p.release()
	case n < 11:
		p.subscribe()
	case n < 13:
		if err := p.again(); err != nil {
			return err
		}
	case n < 14 && p.r.IntN(10) == 0:
		p.reconnect()
	default:
		p.settle()
	}
	if err := p.receive(); err != nil {
		return err
	}
	p.s.Check()
	if p.fx.Waiting != len(p.owed) {
		return fmt.Errorf("%d acknowledgements wait, want %d", p.fx.Waiting, len(p.owed))
	}
	p.batch.Reset()
	p.begin()
	return nil
}

func TestAcknowledgementsAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		p := newPeer(seed)
		for i := range 1000 {
			if err := p.step(); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, i, err)
			}
		}
		for i := 0; len(p.tokens) > 0; i++ {
			p.settle()
			if err := p.receive(); err != nil {
				t.Fatalf("seed %d, settling: %v", seed, err)
			}
		}
		if len(p.owed) > 0 || p.s.Pending() > 0 {
			t.Fatalf("seed %d: all is settled, and %d acknowledgements wait", seed, len(p.owed))
		}
		if p.routed < 50 {
			t.Fatalf("seed %d: only %d messages: the model tests nothing", seed, p.routed)
		}
	}
}
