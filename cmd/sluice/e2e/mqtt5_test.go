package e2e

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// What the library for MQTT 5 does not show is tested here with clients of our own.

// durable is a client whose session outlives its connection.
func durable(id string, seconds uint32) rig.ClientOptions {
	return rig.ClientOptions{ID: id, Version: mqtt.V5, ExpirySeconds: seconds}
}

// TestOverlappingSubscriptions: each message once or once per subscription, but
// every identifier comes, and at the highest QoS (MQTT5 3.3.4).
func TestOverlappingSubscriptions(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	var ids inbox[uint32]
	var top inbox[mqtt.QoS]
	sub := connected(t, b.Addr(), rig.ClientOptions{ID: "sub", Version: mqtt.V5, Clean: true, OnMessage: func(p *mqtt.Publish) {
		top.put(p.QoS)
		for _, id := range p.SubIDs {
			ids.put(id)
		}
	}})
	for i, f := range []string{"a/b", "a/+", "a/#", "x/#"} {
		s := &mqtt.Subscribe{Filters: []mqtt.SubscribeFilter{{Filter: []byte(f), QoS: mqtt.QoS(i % 3)}}}
		s.Props.SubscriptionID = uint32(100 * (i + 1))
		_, err := sub.SubscribeWith(s)
		must(t, err)
	}
	must(t, sub.Publish("a/b", []byte("x"), 2, false, 0))
	got := ids.await(t, 3)
	slices.Sort(got)
	if !slices.Equal(got, []uint32{100, 200, 300}) {
		t.Errorf("identifiers %v", got)
	}
	if most := slices.Max(top.sofar()); most != 2 {
		t.Errorf("highest QoS %d, want 2", most)
	}
}

// TestReceiveMaxOfClient: never more than so many unacknowledged [MQTT-3.3.4-9].
func TestReceiveMaxOfClient(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	var ids inbox[uint16]
	opt := rig.ClientOptions{ID: "slow", Version: mqtt.V5, Clean: true, Silent: true,
		Connect:   func(p *mqtt.Connect) { p.Props.ReceiveMax = 5 },
		OnMessage: func(p *mqtt.Publish) { ids.put(p.PacketID) }}
	slow := subscribed(t, b.Addr(), opt, 1, "m")
	var others inbox[uint16]
	subscribed(t, b.Addr(), rig.ClientOptions{ID: "other", Clean: true,
		OnMessage: func(p *mqtt.Publish) { others.put(p.PacketID) }}, 1, "m")
	pub := connected(t, b.Addr(), rig.ClientOptions{ID: "pub", Clean: true})
	const n = 20
	for range n {
		must(t, pub.Publish("m", []byte("x"), 1, false, 0))
	}
	others.await(t, n) // so the broker has had its chance to send too much
	for k := range n {
		got := ids.await(t, min(k+5, n))
		if len(got) > k+5 {
			t.Fatalf("%d messages, %d acknowledged, receive maximum 5", len(got), k)
		}
		slow.Ack(got[k])
	}
}

// TestReceiveMaxOfBroker: a client that goes beyond it is disconnected with 0x93.
func TestReceiveMaxOfBroker(t *testing.T) {
	t.Parallel()
	b := start(t, "[limits]\nreceive_max = 10\n")
	c := connected(t, b.Addr(), rig.ClientOptions{ID: "greedy", Version: mqtt.V5, Clean: true, Window: 1000})
	if got := c.Connack().Props.ReceiveMax; got != 10 {
		t.Errorf("CONNACK announces a receive maximum of %d, want 10", got)
	}
	// The rig's client keeps to it; so this one writes QoS 2 without ever
	// releasing, as raw packets.
	w := raw(t, b.Addr(), "rude")
	for id := range uint16(11) {
		w.send(mqtt.AppendPublish(nil, &mqtt.Publish{Topic: []byte("t"), QoS: 2, PacketID: id + 1}, mqtt.V5))
	}
	if reason := w.disconnected(); reason != mqtt.ReceiveMaxExceeded {
		t.Errorf("disconnected with %v", reason)
	}
	must(t, c.Publish("t", nil, 2, false, 0))
	must(t, c.Flush(patience))
}

func TestSessionExpiry(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	present := func(id string, seconds uint32) bool {
		c := rig.NewClient(durable(id, seconds))
		t.Cleanup(c.Close)
		was, err := c.Connect(b.Addr())
		must(t, err)
		c.Disconnect()
		return was
	}
	for _, seconds := range []uint32{0, 1, 1000, 0xFFFFFFFF} {
		if present(name("expiry", int(seconds)), seconds) {
			t.Errorf("expiry %d: a session before the first connect", seconds)
		}
	}
	pass(2500 * time.Millisecond)
	for seconds, want := range map[uint32]bool{0: false, 1: false, 1000: true, 0xFFFFFFFF: true} {
		if got := present(name("expiry", int(seconds)), seconds); got != want {
			t.Errorf("expiry %d, 2.5 s later: session present is %v, want %v", seconds, got, want)
		}
	}
}

func TestMessageExpiry(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	var in inbox[string]
	var left inbox[uint32]
	opt := durable("away", 1000)
	opt.OnMessage = func(p *mqtt.Publish) {
		in.put(string(p.Payload))
		if p.HasMessageExpiry {
			left.put(p.ExpirySeconds)
		}
	}
	sub := subscribed(t, b.Addr(), opt, 1, "e")
	sub.Disconnect()
	pub := connected(t, b.Addr(), rig.ClientOptions{ID: "pub", Version: mqtt.V5, Clean: true})
	for i, seconds := range []uint32{0, 1, 1, 1000, 1, 0} { // 0: none
		p := &mqtt.Publish{Topic: []byte("e"), QoS: 1, Payload: fmt.Appendf(nil, "%d: %ds", i, seconds),
			HasMessageExpiry: seconds > 0, ExpirySeconds: seconds}
		must(t, pub.Send(p, 0))
	}
	must(t, pub.Flush(patience))
	pass(2500 * time.Millisecond)
	_, err := sub.Connect(b.Addr())
	must(t, err)
	same(t, in.await(t, 3), []string{"0: 0s", "3: 1000s", "5: 0s"}) // [MQTT-3.3.2-5]
	if got := left.await(t, 1)[0]; got > 999 || got < 900 {
		t.Errorf("%d s of 1000 are left after 2.5 s", got) // [MQTT-3.3.2-6]; whole seconds, rounded up twice
	}
}

// TestSharedSubscription: each message to one of the group, and all arrive.
func TestSharedSubscription(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	ledger := rig.NewLedger()
	var share [3]inbox[int]
	for i := range share {
		subscribed(t, b.Addr(), rig.ClientOptions{ID: name("member", i), Version: mqtt.V5, Clean: true, OnMessage: func(p *mqtt.Publish) {
			ledger.ArrivedPayload(p.Payload)
			share[i].put(1)
		}}, 1, "$share/group/work/#")
	}
	publish(t, b, ledger, "work", 600, 1)
	settled(t, ledger, patience, once, acked(600))
	for i := range share {
		if n := len(share[i].sofar()); n < 60 {
			t.Errorf("member %d of 3 got %d of 600 messages", i, n)
		}
	}
}

// TestShutdownTellsClients: MQTT 5 clients get 0x8B when the broker stops.
func TestShutdownTellsClients(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	c := connected(t, b.Addr(), rig.ClientOptions{ID: "c", Version: mqtt.V5, Clean: true})
	b.stop()
	<-c.Lost()
	var d *rig.Disconnected
	if !errors.As(c.Why(), &d) || d.Reason != mqtt.ServerShuttingDown {
		t.Errorf("the connection ended with %v", c.Why())
	}
}

// publish publishes messages 0 to n-1 of a source to the topic of its name, and
// waits for their acknowledgements.
func publish(t testing.TB, b *broker, ledger *rig.Ledger, source string, n int, qos mqtt.QoS) {
	t.Helper()
	pub := connected(t, b.Addr(), rig.ClientOptions{ID: "pub of " + source, Clean: true, OnAcked: func(tag uint64) { ledger.Acked(source, tag) }})
	for i := range uint64(n) {
		must(t, pub.Publish(source, rig.Payload(source, i, 64), qos, false, i))
	}
	must(t, pub.Flush(patience))
	pub.Disconnect()
}
