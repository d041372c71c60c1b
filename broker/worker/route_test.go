package worker

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/broker/topic"
	"sluice/persist"
)

// wanted is a target as a naive reading of the specification gives it.
type wanted struct {
	session, durable uint64
	qos              mqtt.QoS
	retain, shared   bool
	ids              []uint32
}

// naiveMatch makes of each session's subscriptions one target, and one of each
// shared subscription.
func naiveMatch(subs []topic.Subscription, p *mqtt.Publish, from uint64) (all []wanted) {
	for _, s := range subs {
		if s.NoLocal && s.Subscriber == from {
			continue
		}
		n := wanted{session: s.Subscriber, durable: s.Durable, qos: min(p.QoS, mqtt.QoS(s.QoS)), retain: p.Retain && s.AsPublished, shared: s.Shared()}
		if s.ID != 0 {
			n.ids = []uint32{s.ID}
		}
		i := slices.IndexFunc(all, func(x wanted) bool { return x.session == s.Subscriber && !x.shared })
		if i < 0 || s.Shared() {
			all = append(all, n)
			continue
		}
		x := &all[i]
		x.qos, x.retain, x.ids = max(x.qos, n.qos), x.retain || n.retain, append(x.ids, n.ids...)
	}
	return all
}

func sortWanted(all []wanted) {
	for i := range all {
		slices.Sort(all[i].ids)
	}
	slices.SortFunc(all, func(a, b wanted) int {
		return cmp.Or(cmp.Compare(a.session, b.session), strings.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
}

func TestMatchAgainstModel(t *testing.T) {
	filters := []string{"a/b", "a/+", "+/b", "a/#", "#", "a/b/#", "c", "$share/g/a/b", "$share/h/a/#"}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		rig := newRig(t, 1, nil)
		var matching []topic.Subscription
		groups := make(map[string]bool)
		for session := uint64(1); session <= 6; session++ {
			for _, f := range filters {
				_, _, shared := topic.SplitShare(f)
				// A group has one member here: which member it is, is the index's business.
				if r.IntN(3) > 0 || shared && groups[f] {
					continue
				}
				groups[f] = shared
				s := topic.Subscription{
					Subscriber: session, Durable: session % 2 * 100, ID: r.Uint32N(2) * r.Uint32N(1000), QoS: uint8(r.IntN(3)),
					NoLocal: !shared && r.IntN(3) == 0, AsPublished: r.IntN(2) == 0,
				}
				rig.g.index.Subscribe(f, s)
				if shared {
					s.Marks |= topic.Shared
				}
				if f != "c" {
					matching = append(matching, s)
				}
			}
		}
		w := rig.ws[0]
		for from := range uint64(7) {
			p := mqtt.Publish{Topic: []byte("a/b"), QoS: mqtt.QoS(r.IntN(3)), Retain: r.IntN(2) == 0}
			var got []wanted
			for _, x := range w.match(&publication{p: &p, from: from}) {
				got = append(got, wanted{x.session, x.durable, x.qos, x.retain, x.shared, slices.Clone(x.ids)})
			}
			want := naiveMatch(matching, &p, from)
			sortWanted(got)
			sortWanted(want)
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("seed %d, %+v from %d:\ngot  %+v\nwant %+v", seed, p, from, got, want)
			}
		}
	}
}

func subscribeWith(d *device, id uint32, filters ...mqtt.SubscribeFilter) {
	p := mqtt.Subscribe{PacketID: 3, Filters: filters}
	p.Props.SubscriptionID = id
	d.send(mqtt.AppendSubscribe(nil, &p, d.v))
}

// [MQTT-3.3.4-2] [MQTT-3.3.4-4] [MQTT-3.8.3-3]: overlapping subscriptions,
// on the publisher's worker and on another.
func TestOverlapAndNoLocal(t *testing.T) {
	r := newRig(t, 2, nil)
	for i := range r.ws {
		d := r.connect(r.idOn(i, "a"), mqtt.V5, nil)
		subscribeWith(d, 7, mqtt.SubscribeFilter{Filter: []byte("t/+"), QoS: 0})
		subscribeWith(d, 8, mqtt.SubscribeFilter{Filter: []byte("t/#"), QoS: 2})
		subscribeWith(d, 0, mqtt.SubscribeFilter{Filter: []byte("t/x"), QoS: 1}, mqtt.SubscribeFilter{Filter: []byte("own"), NoLocal: true})
		r.run()
		d.read()
		other := r.connect(r.idOn(0, "other"), mqtt.V5, nil)
		other.send(other.publication("t/x", "1", 1, 1), other.publication("own", "2", 0, 0))
		other.expect("PUBACK 1")
		d.got("t/x=1 qos1 id1 [8 7]", "own=2 qos0")
		d.send(d.publication("own", "3", 0, 0), d.publication("own", "4", 1, 2))
		d.expect("PUBACK 2 0x10")
		d.send(retainedPublication(d, "own", "5", 0))
		subscribeWith(d, 0, mqtt.SubscribeFilter{Filter: []byte("own"), NoLocal: true})
		d.expect("SUBACK 3") // nor a retained one
		d.send(retainedPublication(d, "own", "", 0))
		d.lose()
	}
}

// Each message for a share group goes to one member, in turn (MQTT5 4.8.2).
func TestSharedSubscriptions(t *testing.T) {
	r := newRig(t, 2, nil)
	var members []*device
	for i := range 4 {
		d := r.connect(r.idOn(i%2, fmt.Sprint("member", i)), mqtt.V5, nil)
		d.subscribe("$share/g/t:1")
		members = append(members, d)
	}
	pub := r.connect("pub", mqtt.V5, nil)
	for i := range 40 {
		pub.send(pub.publication("t", fmt.Sprint(i), 1, uint16(i+1)))
	}
	r.run()
	seen := make(map[string]bool)
	for i, d := range members {
		got := d.read()
		if len(got) != 10 {
			t.Errorf("member %d got %d of 40", i, len(got))
		}
		for _, g := range got {
			name, _, _ := strings.Cut(g, " ")
			if seen[name] {
				t.Errorf("%s came twice", name)
			}
			seen[name] = true
		}
	}
}

func retainedPublication(d *device, topic, payload string, qos mqtt.QoS) []byte {
	p := mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, Retain: true}
	if qos > 0 {
		p.PacketID = 1
	}
	return mqtt.AppendPublish(nil, &p, d.v)
}

func TestRetained(t *testing.T) {
	r := newRig(t, 2, nil)
	pub := r.connect(r.idOn(0, "pub"), mqtt.V5, nil)
	live := r.connect(r.idOn(1, "live"), mqtt.V5, nil)
	subscribeWith(live, 0, mqtt.SubscribeFilter{Filter: []byte("r/a")}, mqtt.SubscribeFilter{Filter: []byte("r/b"), RetainAsPublished: true})
	r.run()
	live.read()
	pub.send(retainedPublication(pub, "r/a", "1", 1), retainedPublication(pub, "r/b", "2", 0), retainedPublication(pub, "r/a", "3", 1))
	pub.expect("PUBACK 1", "PUBACK 1")
	live.got("r/a=1 qos0", "r/b=2 qos0 retain", "r/a=3 qos0") // [MQTT-3.3.1-12] [MQTT-3.3.1-13]

	late := r.dial(0, mqtt.V5)
	late.sendConnect(r.idOn(1, "late"), durableSession)
	subscribeWith(late, 5, mqtt.SubscribeFilter{Filter: []byte("r/#"), QoS: 1})
	late.expect("CONNACK 0", "r/b=2 qos0 retain [5]", "r/a=3 qos1 id1 retain [5]", "SUBACK 3")
	late.ack(mqtt.PUBACK, 1)

	// [MQTT-3.3.1-6]: an empty payload removes it, and is delivered like any other.
	pub.send(retainedPublication(pub, "r/a", "", 0))
	pub.expect()
	live.got("r/a= qos0")
	late.got("r/a= qos0 [5]")
	r.restart()
	third := r.connect("third", mqtt.V311, nil)
	third.subscribe("r/#:2")
	third.got()
	third.send(third.publication("x", "", 0, 0))
	if n := r.g.Retained().Len(); n != 1 {
		t.Errorf("%d retained messages after a restart, want 1", n)
	}
}

// Retained messages are limited in number and in bytes, replacing one included;
// what does not fit leaves the old one.
func TestRetainedLimits(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.Limits.RetainedMessagesMax, o.Limits.RetainedBytesMax = 3, 2000 })
	pub := r.connect("pub", mqtt.V5, nil)
	check := func(topic string, size int) {
		t.Helper()
		got := r.g.Retained().Match(topic, nil)
		if len(got) != 1 || len(got[0].Payload) != size {
			t.Errorf("%s: %d messages, %v", topic, len(got), got)
		}
	}
	publish := func(topic string, size int, fits bool) {
		t.Helper()
		before := r.sum().RetainedRefused
		pub.send(retainedPublication(pub, topic, strings.Repeat("x", size), 1))
		r.run()
		pub.read()
		if refused := r.sum().RetainedRefused - before; (refused == 0) != fits {
			t.Errorf("%s with %d bytes: %d refused", topic, size, refused)
		}
	}
	publish("a", 100, true)
	publish("b", 100, true)
	publish("c", 100, true)
	publish("d", 1, false)
	publish("a", 5000, false)
	check("a", 100)
	publish("a", 1200, true)
	check("a", 1200)
	publish("b", 1000, false)
	publish("a", 100, true)
	publish("b", 1000, true)
	check("b", 1000)
	if n, bytes := r.g.Retained().Len(), r.g.Retained().Bytes(); n != 3 || bytes > 2000 {
		t.Errorf("%d messages, %d bytes", n, bytes)
	}
	im, err := r.store.Load()
	if err != nil || len(im.Retained) != 3 || len(im.Retained[1].Payload) != 1000 {
		t.Errorf("the store has %d retained messages, %v", len(im.Retained), err)
	}
}

// Whoever subscribes on another worker while a retained message is published
// gets it: as a retained one, or live.
func TestRetainedMeetsSubscribe(t *testing.T) {
	r := newRig(t, 2, nil)
	pub, sub := r.connect(r.idOn(0, "pub"), mqtt.V5, nil), r.connect(r.idOn(1, "sub"), mqtt.V5, nil)
	subscribeWith(sub, 0, mqtt.SubscribeFilter{Filter: []byte("t")})
	// The publisher's worker asks for an id after it has begun to publish, and
	// before the message can be found.
	r.g.SetStore(&interrupted{Store: r.store, meanwhile: func() { r.turn(r.ws[1], r.nets[1].events()) }})
	pub.send(retainedPublication(pub, "t", "x", 0))
	r.turn(r.ws[0], r.nets[0].events())
	sub.expect("SUBACK 3", "t=x qos0")
}

// interrupted is a store that lets something happen, once, when it is asked
// for the id of a message.
type interrupted struct {
	persist.Store
	meanwhile func()
}

func (s *interrupted) NewMessageID() uint64 {
	if s.meanwhile != nil {
		s.meanwhile()
		s.meanwhile = nil
	}
	return s.Store.NewMessageID()
}

// What waits in the store keeps its own subscription identifiers.
func TestIdentifiersInTheStore(t *testing.T) {
	r := newRig(t, 2, nil)
	sub := r.connect(r.idOn(1, "sub"), mqtt.V5, durableSession)
	subscribeWith(sub, 7, mqtt.SubscribeFilter{Filter: []byte("a"), QoS: 1})
	subscribeWith(sub, 9, mqtt.SubscribeFilter{Filter: []byte("b"), QoS: 1})
	sub.lose()
	pub := r.connect(r.idOn(0, "pub"), mqtt.V5, nil)
	pub.send(pub.publication("a", "1", 1, 1), pub.publication("b", "2", 1, 2))
	pub.expect("PUBACK 1", "PUBACK 2")
	sub = r.dial(0, mqtt.V5)
	sub.sendConnect(r.idOn(1, "sub"), durableSession)
	sub.expect("CONNACK 0 present", "a=1 qos1 id1 [7]", "b=2 qos1 id2 [9]")
}

// A retained message of an earlier run is nobody's own.
func TestNoLocalAfterRestart(t *testing.T) {
	r := newRig(t, 1, nil)
	pub := r.connect("pub", mqtt.V5, nil)
	pub.send(retainedPublication(pub, "t", "x", 0))
	r.run()
	r.restart()
	other := r.connect("other", mqtt.V5, nil) // has the number that pub had
	subscribeWith(other, 0, mqtt.SubscribeFilter{Filter: []byte("t"), NoLocal: true})
	other.expect("SUBACK 3", "t=x qos0 retain")
}

// Messages expire while they wait in the mail, in a queue, or as retained ones.
func TestMessageExpiry(t *testing.T) {
	r := newRig(t, 2, nil)
	pub := r.connect(r.idOn(0, "pub"), mqtt.V5, nil)
	sub := r.connect(r.idOn(1, "sub"), mqtt.V5, durableSession)
	sub.subscribe("t:1")
	sub.lose()
	for i, seconds := range []uint32{5, 50} {
		p := mqtt.Publish{Topic: []byte("t"), Payload: fmt.Append(nil, seconds), QoS: 1, PacketID: uint16(i + 1), HasMessageExpiry: true, ExpirySeconds: seconds}
		pub.send(mqtt.AppendPublish(nil, &p, mqtt.V5))
	}
	pub.expect("PUBACK 1", "PUBACK 2")
	r.wait(6 * time.Second)
	sub = r.dial(0, mqtt.V5)
	sub.sendConnect(r.idOn(1, "sub"), durableSession)
	sub.expect("CONNACK 0 present", "t=50 qos1 id2")
	if n := r.sum().Dropped.Expired; n != 1 {
		t.Errorf("%d expired", n)
	}
	if n := r.store.Stats().QueuedMessages; n != 1 {
		t.Errorf("%d messages in the store", n)
	}
}

// What the store cannot take is refused, and nothing of it arrives later.
func TestStoreIsFull(t *testing.T) {
	r := newRig(t, 2, nil)
	sub := r.connect(r.idOn(1, "sub"), mqtt.V5, durableSession)
	sub.subscribe("t:1")
	sub.lose()
	pub := r.connect(r.idOn(0, "pub"), mqtt.V5, nil)
	old := r.connect("old", mqtt.V311, nil)
	r.ws[0].g.SetStore(refuser{r.store, r})
	pub.send(pub.publication("t", "x", 1, 1), pub.publication("t", "x", 2, 2), pub.publication("t", "x", 0, 0))
	pub.expect("PUBACK 1 0x97", "PUBREC 2 0x97")
	old.send(old.publication("t", "x", 1, 1))
	old.expect() // MQTT 3.1.1 knows no refusal: it is held back
	if old.closed {
		t.Error("a client of 3.1.1 is sent away")
	}
	r.g.SetStore(r.store)
	pub.send(pub.publication("t", "y", 2, 2))
	pub.expect("PUBREC 2")
	r.wait(holdPauseMax)
	old.expect("PUBACK 1")
}

// refuser is a store without room for messages.
type refuser struct {
	persist.Store
	r *rig
}

func (s refuser) Submit(b *persist.Batch) {
	full := persist.NewPending(1, 0)
	fill := persist.Batch{}
	fill.Add(persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{ID: 1, ClientID: "x"}})
	settled, _ := full.Submit(&fill, 0, nil)
	settled, _ = full.Submit(b, 0, settled)
	for _, x := range settled {
		s.r.Settled(x.Owner, x.Tokens, x.Err)
	}
}
