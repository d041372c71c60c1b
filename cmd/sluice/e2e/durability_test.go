package e2e

import (
	"slices"
	"testing"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// away makes a session that is subscribed and not connected, and returns its
// client.
func (b *broker) away(opt rig.ClientOptions, qos mqtt.QoS, filters ...string) *rig.Client {
	b.t.Helper()
	c := subscribed(b.t, b.Addr(), opt, qos, filters...)
	c.Disconnect()
	return c
}

// TestKillWhilePublishing: what was acknowledged before a SIGKILL arrives, in
// order, when the subscriber comes back.
func TestKillWhilePublishing(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	ledger := rig.NewLedger()
	sub := b.away(rig.ClientOptions{ID: "sub", OnMessage: arrive(ledger)}, 1, "stream")
	const n = 10_000
	s := b.stream(ledger, "stream", n, 1, rig.ClientOptions{Clean: true, Window: 100})
	for _, at := range []int{n / 5, n / 2, n * 4 / 5} {
		s.acked(at)
		b.kill()
		b.start()
	}
	s.wait()
	b.kill() // the last acknowledgements mean as much
	b.start()
	present, err := sub.Connect(b.Addr())
	must(t, err)
	if !present {
		t.Error("the session is gone")
	}
	settled(t, ledger, patience, acked(n), ordered)
}

// TestExactlyOnceOverKill: QoS 2 from a durable publisher to a durable
// subscriber; both reconnect after each SIGKILL and go on where they were.
func TestExactlyOnceOverKill(t *testing.T) {
	t.Parallel()
	for _, version := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		t.Run(version.String(), func(t *testing.T) {
			t.Parallel()
			b := start(t, "")
			ledger := rig.NewLedger()
			opt := rig.ClientOptions{ID: "sub", Version: version, ExpirySeconds: 1000, OnMessage: arrive(ledger)}
			sub := b.kept(opt)
			_, err := sub.Subscribe(2, "stream")
			must(t, err)
			const n = 3000
			s := b.stream(ledger, "stream", n, 2, rig.ClientOptions{Version: version, ExpirySeconds: 1000, Window: 50})
			for _, at := range []int{n / 10, n / 3, n / 2, n * 4 / 5} {
				s.acked(at)
				b.kill()
				b.start()
			}
			s.wait()
			settled(t, ledger, patience, acked(n), once, ordered)
		})
	}
}

// TestStopWhilePublishing: SIGTERM in mid-stream; startGateway's stop requires
// that it ends in time and with exit code 0.
func TestStopWhilePublishing(t *testing.T) {
	t.Parallel()
	for qos := range mqtt.QoS(3) {
		if qos == 0 {
			continue
		}
		t.Run(name("qos", int(qos)), func(t *testing.T) {
			t.Parallel()
			b := start(t, "")
			ledger := rig.NewLedger()
			sub := b.away(rig.ClientOptions{ID: "sub", OnMessage: arrive(ledger)}, qos, "stream")
			const n = 4000
			s := b.stream(ledger, "stream", n, qos, rig.ClientOptions{})
			for _, at := range []int{n / 4, n / 2} {
				s.acked(at)
				b.stop()
				b.start()
			}
			s.wait()
			b.stop()
			b.start()
			_, err := sub.Connect(b.Addr())
			must(t, err)
			wants := []want{acked(n), ordered}
			if qos == 2 {
				wants = append(wants, once)
			}
			settled(t, ledger, patience, wants...)
		})
	}
}

// TestRestartKeeps: sessions, subscriptions and retained messages outlive both
// ends of a broker; what a client has ended does not come back.
func TestRestartKeeps(t *testing.T) {
	t.Parallel()
	for end, down := range map[string]func(*broker){"SIGTERM": (*broker).stop, "SIGKILL": (*broker).kill} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			b := start(t, "")
			var in inbox[string]
			note := func(p *mqtt.Publish) { in.put(received(p)) }
			sub := subscribed(t, b.Addr(), rig.ClientOptions{ID: "sub", OnMessage: note}, 2, "a/+", "b/#", "gone/#")
			must(t, sub.Unsubscribe("gone/#"))
			ended := b.away(rig.ClientOptions{ID: "ended"}, 1, "a/#")
			clean := connected(t, b.Addr(), rig.ClientOptions{ID: "ended", Clean: true})
			clean.Disconnect() // ends the session as well [MQTT-3.1.2-6]
			pub := connected(t, b.Addr(), rig.ClientOptions{ID: "pub", Clean: true})
			for _, m := range [][2]string{{"r/1", "old"}, {"r/1", "new"}, {"r/2", "removed"}, {"r/2", ""}, {"r/3", "kept"}} {
				must(t, pub.Publish(m[0], []byte(m[1]), 1, true, 0))
			}
			must(t, pub.Flush(patience))
			sub.Disconnect()

			for range 2 { // the second time from what the first wrote
				down(b)
				b.start()
				present, err := ended.Connect(b.Addr())
				must(t, err)
				if present {
					t.Error("a session that was ended is back")
				}
				ended.Disconnect()
				clean := connected(t, b.Addr(), rig.ClientOptions{ID: "ended", Clean: true})
				clean.Disconnect()

				pub := connected(t, b.Addr(), rig.ClientOptions{ID: "pub2", Clean: true})
				for _, topic := range []string{"a/1", "gone/1", "b/2/3", "c"} {
					must(t, pub.Publish(topic, []byte("after"), 2, false, 0))
				}
				must(t, pub.Flush(patience))
				pub.Disconnect()
				present, err = sub.Connect(b.Addr())
				must(t, err)
				if !present {
					t.Error("the session is gone")
				}
				same(t, in.await(t, 2), []string{"a/1 after qos2", "b/2/3 after qos2"})
				sub.Disconnect()
				in.drain()

				var kept inbox[string]
				subscribed(t, b.Addr(), rig.ClientOptions{ID: "late", Clean: true,
					OnMessage: func(p *mqtt.Publish) { kept.put(received(p)) }}, 1, "r/#").Ping()
				got := kept.await(t, 2)
				slices.Sort(got)
				same(t, got, []string{"r/1 new qos1 retained", "r/3 kept qos1 retained"})
			}
		})
	}
}

// TestUnackedAreSentAgain: messages under way when the broker is killed come
// again, in order, under their packet ids, marked DUP.
func TestUnackedAreSentAgain(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	type arrival struct {
		id      uint16
		dup     bool
		payload string
	}
	var in inbox[arrival]
	sub := subscribed(t, b.Addr(), rig.ClientOptions{ID: "sub", Silent: true,
		OnMessage: func(p *mqtt.Publish) { in.put(arrival{p.PacketID, p.Dup, string(p.Payload)}) }}, 1, "s")
	ledger := rig.NewLedger()
	publish(t, b, ledger, "s", 50, 1)
	first := in.await(t, 50)
	in.drain()
	b.kill()
	b.start()
	_, err := sub.Connect(b.Addr())
	must(t, err)
	for i, m := range in.await(t, 50) {
		if f := first[i]; m.id != f.id || m.payload != f.payload || !m.dup || f.dup {
			t.Fatalf("message %d: first %+v, again %+v", i, f, m)
		}
	}
}

// TestResend cuts the connections of a durable publisher and a durable subscriber
// again and again in mid-stream; the broker stays. Nothing is lost, the order is
// kept, and at QoS 2 nothing comes twice.
func TestResend(t *testing.T) {
	t.Parallel()
	for _, version := range []mqtt.Version{mqtt.V31, mqtt.V311, mqtt.V5} {
		for qos := mqtt.QoS(1); qos <= 2; qos++ {
			t.Run(version.String()+"/"+name("qos", int(qos)), func(t *testing.T) {
				t.Parallel()
				b := start(t, "")
				link, err := rig.NewLink(b.Addr())
				must(t, err)
				t.Cleanup(link.Close)
				ledger := rig.NewLedger()
				sub := subscribed(t, link.Addr(), rig.ClientOptions{ID: "sub", Version: version, ExpirySeconds: 1000, OnMessage: arrive(ledger)}, qos, "s")
				keep(t, sub, link.Addr)
				pub := connected(t, link.Addr(), rig.ClientOptions{ID: "pub", Version: version, ExpirySeconds: 1000, OnAcked: func(tag uint64) { ledger.Acked("s", tag) }})
				keep(t, pub, link.Addr)
				const n = 3000
				s := produce(t, ledger, pub, "s", n, qos)
				for at := 100; at < n; at += 250 {
					s.acked(at)
					if at%500 == 100 {
						link.Cut()
					} else {
						link.Reset()
					}
				}
				s.wait()
				wants := []want{acked(n), ordered}
				if qos == 2 {
					wants = append(wants, once)
				}
				settled(t, ledger, patience, wants...)
			})
		}
	}
}
