package session

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// aliasClient is a client that resolves our aliases.
type aliasClient struct {
	max    uint16
	known  map[uint16]string
	topics []string // as resolved
	set    int      // packets that set an alias
	used   int      // packets without a topic
}

func (c *aliasClient) read(out []byte) error {
	for len(out) > 0 {
		h, n, err := mqtt.ParseHeader(out, 0)
		if err != nil {
			return err
		}
		body := out[n : n+h.Remaining]
		out = out[n+h.Remaining:]
		if h.Type != mqtt.PUBLISH {
			continue
		}
		var p mqtt.Publish
		if err := mqtt.DecodePublish(&p, h.Flags, body, mqtt.V5); err != nil {
			return err
		}
		topic := string(p.Topic)
		switch {
		case p.TopicAlias > c.max:
			return fmt.Errorf("alias %d of at most %d", p.TopicAlias, c.max)
		case p.TopicAlias != 0 && topic != "":
			c.known[p.TopicAlias] = topic
			c.set++
		case p.TopicAlias != 0:
			topic = c.known[p.TopicAlias]
			c.used++
		}
		if topic == "" {
			return fmt.Errorf("alias %d was never set", p.TopicAlias)
		}
		c.topics = append(c.topics, topic)
	}
	return nil
}

// Whatever is delivered, in whatever order and with whatever gaps, a client
// that resolves the aliases sees the topics that were meant.
func TestAliasesResolve(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 11))
		limits := DefaultLimits()
		limits.TopicAliasOutMax = 1 + r.IntN(20)
		batch := persist.Batch{}
		s := New(7, "a", 0, &limits)
		c := mqtt.Connect{Version: mqtt.V5, Clean: true}
		c.Props.TopicAliasMax = uint16(1 + r.IntN(20))
		c.Props.MaxPacketBytes = uint32(r.IntN(3)) * 60
		client := aliasClient{max: min(c.Props.TopicAliasMax, uint16(limits.TopicAliasOutMax)), known: make(map[uint16]string)}
		fx := Effects{Batch: &batch}
		s.Attach(&fx, &c, &Admission{}, false, 1)
		fx.Send = nil
		want := 0
		busy, all := 1+r.IntN(30), 1+r.IntN(300)
		for range 2000 {
			n := r.IntN(busy)
			if r.IntN(4) == 0 {
				n = r.IntN(all)
			}
			topic := fmt.Sprintf("%.*sa/%d", n%40, "plant/with/a/long/name/and/many/levels/in", n)
			fx.Blocked = r.IntN(10) == 0
			before := fx.Sent
			s.Deliver(&fx, &Delivery{Topic: []byte(topic), Payload: make([]byte, r.IntN(60))}, 1)
			if fx.Sent == before {
				if len(fx.Send) > 0 {
					t.Fatalf("seed %d: sent and not counted", seed)
				}
				continue
			}
			if p := uint32(len(fx.Send)); c.Props.MaxPacketBytes != 0 && p > c.Props.MaxPacketBytes {
				t.Fatalf("seed %d: a packet of %d bytes, at most %d are taken", seed, p, c.Props.MaxPacketBytes)
			}
			if err := client.read(fx.Send); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			fx.Send = nil
			if want++; len(client.topics) != want || client.topics[want-1] != topic {
				t.Fatalf("seed %d: %q arrived as %q", seed, topic, client.topics[want-1:])
			}
			if x := s.extra; x != nil && x.aliasesOut != nil {
				x.aliasesOut.check(t)
			}
		}
		if client.used == 0 && busy > aliasTopicMin && busy < 20 { // the first topics are short
			t.Errorf("seed %d: %d busy topics, and no alias was used", seed, busy)
		}
	}
}

func (a *aliasesOut) check(t *testing.T) {
	t.Helper()
	bytes := 0
	for i := range a.slots {
		bytes += cap(a.slots[i].topic)
	}
	if bytes != a.bytes || bytes > aliasOutBytesMax || len(a.slots) > a.max {
		t.Fatalf("%d aliases of %d, %d bytes, counted %d", len(a.slots), a.max, bytes, a.bytes)
	}
}

// More busy topics than aliases must not make all of them take turns.
func TestAliasesDoNotThrash(t *testing.T) {
	limits := DefaultLimits()
	s := New(7, "a", 0, &limits)
	c := mqtt.Connect{Version: mqtt.V5, Clean: true}
	c.Props.TopicAliasMax = 100
	fx := Effects{Batch: &persist.Batch{}}
	s.Attach(&fx, &c, &Admission{}, false, 1)
	client := aliasClient{max: 16, known: make(map[uint16]string)}
	for i := range 100 * 24 {
		s.Deliver(&fx, &Delivery{Topic: fmt.Appendf(nil, "plant/%d/temperature", i%24)}, 1)
	}
	if err := client.read(fx.Send); err != nil {
		t.Fatal(err)
	}
	// The topics come in turn, so that none is remembered until it comes
	// again: 24 are more than aliasSeen. That is the worst case, and costs
	// nothing but the search.
	if client.set != 0 || client.used != 0 {
		t.Errorf("24 topics in turn: %d set, %d used", client.set, client.used)
	}
	s.extra = nil
	client = aliasClient{max: 16, known: make(map[uint16]string)}
	r := rand.New(rand.NewPCG(1, 12))
	fx.Send = nil
	for range 100 * 24 {
		s.Deliver(&fx, &Delivery{Topic: fmt.Appendf(nil, "plant/%d/temperature", r.IntN(24))}, 1)
	}
	if err := client.read(fx.Send); err != nil {
		t.Fatal(err)
	}
	if client.used < 100*24/2 || client.set > 200 {
		t.Errorf("24 topics at random: %d set, %d used of %d", client.set, client.used, 100*24)
	}
}

// What aliases cost in memory is bounded, however long the topics are.
func TestAliasBytes(t *testing.T) {
	limits := DefaultLimits()
	s := New(7, "a", 0, &limits)
	c := mqtt.Connect{Version: mqtt.V5, Clean: true}
	c.Props.TopicAliasMax = 100
	fx := Effects{Batch: &persist.Batch{}}
	s.Attach(&fx, &c, &Admission{}, false, 1)
	for i := range 100 {
		topic := bytes.Repeat([]byte{'a' + byte(i%26)}, 100+i*37)
		for range 3 * aliasKeep * 16 {
			s.Deliver(&fx, &Delivery{Topic: topic}, 1)
			s.extra.aliases(t)
		}
		fx.Send = nil
	}
	if a := s.extra.aliasesOut; len(a.slots) < 2 || a.bytes < 1000 {
		t.Errorf("%d aliases with %d bytes", len(a.slots), a.bytes)
	}
}

func (x *extras) aliases(t *testing.T) {
	if x != nil && x.aliasesOut != nil {
		x.aliasesOut.check(t)
	}
}

// Aliases in use cost no allocation, nor do topics that get none.
func TestAliasesAllocate(t *testing.T) {
	limits := DefaultLimits()
	batch := persist.Batch{}
	out := make([]byte, 0, 1<<16)
	s := New(7, "a", 0, &limits)
	c := mqtt.Connect{Version: mqtt.V5, Clean: true}
	c.Props.TopicAliasMax = 4
	s.Attach(&Effects{Batch: &batch}, &c, &Admission{}, false, 1)
	var topics [][]byte
	for i := range 40 {
		topics = append(topics, fmt.Appendf(nil, "plant/%d/temperature", i))
	}
	for _, n := range []int{1, 4, 40} {
		i := 0
		var fx Effects
		deliver := func() {
			for _, qos := range []mqtt.QoS{0, 1} {
				fx = Effects{Batch: &batch, Send: out[:0]}
				d := Delivery{Topic: topics[i*7%n], QoS: qos}
				i++
				s.Deliver(&fx, &d, 1)
			}
			a := mqtt.Ack{PacketID: packetID(s.next-1, false)}
			s.OnPuback(&fx, &a, 1)
		}
		for range 1000 {
			deliver()
		}
		if allocs := testing.AllocsPerRun(1000, deliver); allocs != 0 {
			t.Errorf("%d topics: %v allocations", n, allocs)
		}
	}
}

func BenchmarkDeliverAlias(b *testing.B) {
	limits := DefaultLimits()
	batch := persist.Batch{}
	out := make([]byte, 0, 1<<16)
	for _, max := range []int{0, 16} {
		s := New(7, "a", 0, &limits)
		c := mqtt.Connect{Version: mqtt.V5, Clean: true}
		c.Props.TopicAliasMax = uint16(max)
		s.Attach(&Effects{Batch: &batch}, &c, &Admission{}, false, 1)
		topic, payload := []byte("plant/7/line/3/temperature"), bytes.Repeat([]byte("x"), 100)
		var fx Effects
		b.Run(fmt.Sprintf("max%d", max), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				fx = Effects{Batch: &batch, Send: out[:0]}
				d := Delivery{Topic: topic, Payload: payload}
				s.Deliver(&fx, &d, 1)
			}
		})
	}
}

// A client that changes an alias all the time makes us keep one topic, not
// all of them.
func TestInboundAliasesAllocate(t *testing.T) {
	limits := DefaultLimits()
	s := New(7, "a", 0, &limits)
	fx := Effects{Batch: &persist.Batch{}}
	s.Attach(&fx, &mqtt.Connect{Version: mqtt.V5, Clean: true}, &Admission{}, false, 1)
	p, topic := mqtt.Publish{}, []byte("plant/7")
	n := testing.AllocsPerRun(100, func() {
		p.Topic, p.TopicAlias = topic, 3
		if !s.OnPublish(&fx, &p) {
			t.Fatal("refused")
		}
		p.Topic = nil
		if !s.OnPublish(&fx, &p) || string(p.Topic) != "plant/7" {
			t.Fatal("not resolved")
		}
	})
	if n != 0 || s.extra.aliasBytes != len("plant/7") {
		t.Errorf("%v allocations, %d bytes", n, s.extra.aliasBytes)
	}
}

// Two topics with one hash are two topics.
func TestAliasesCollide(t *testing.T) {
	one, two := []byte("plant/7/temperature"), []byte("plant/8/temperature")
	a := aliasesOut{max: 4, slots: []aliasSlot{{topic: two, hash: topicHash(one)}}}
	if alias, known := a.choose(one); known {
		t.Errorf("%s has the alias %d of %s", one, alias, two)
	}
}
