package e2e

import (
	"fmt"
	"strings"
	"testing"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// bridged is a gateway with a bridge to a mosquitto, over a link that can fail.
type bridged struct {
	*broker
	cloud  *rig.Cloud
	link   *rig.Link
	ledger *rig.Ledger // of what arrives in the cloud
}

const outRoute = "[[bridge.route]]\ndirection = \"out\"\nfilter = \"sensors/#\"\nremote_prefix = \"site/7/\"\n"

// bridge makes one. early, if not nil, may break the link before the gateway
// starts. Subscribed in the cloud is site/7/#, by a session that outlives the
// cloud's restart.
func bridge(t testing.TB, config string, early func(*rig.Link)) *bridged {
	t.Helper()
	x := &bridged{cloud: mosquitto(t), ledger: rig.NewLedger()}
	link, err := rig.NewLink(x.cloud.Addr())
	must(t, err)
	t.Cleanup(link.Close)
	x.link = link
	sub := subscribed(t, x.cloud.Addr(), rig.ClientOptions{ID: "cloud subscriber", OnMessage: func(p *mqtt.Publish) {
		if strings.HasPrefix(string(p.Topic), "site/7/sensors/") { // renamed; the rest is counted as lost
			x.ledger.ArrivedPayload(p.Payload)
		}
	}}, 1, "site/7/#")
	keep(t, sub, x.cloud.Addr)
	if early != nil {
		early(link)
	}
	x.broker = start(t, "[[bridge]]\nname = \"cloud\"\naddress = \"tcp://"+link.Addr()+"\"\n"+
		"reconnect_min = \"20ms\"\nreconnect_max = \"200ms\"\nconnect_timeout = \"2s\"\nkeepalive = \"5s\"\n"+config)
	return x
}

// through waits until a message goes all the way: the bridge is up.
func (x *bridged) through() {
	x.t.Helper()
	probe := connected(x.t, x.Addr(), rig.ClientOptions{ID: "probe", Clean: true})
	before := x.ledger.Sum().Arrived
	must(x.t, probe.Publish("sensors/probe", rig.Payload(name("probe", before), 0, 0), 1, false, 0))
	eventually(x.t, patience, "the bridge is up", func() bool { return x.ledger.Sum().Arrived > before })
	probe.Disconnect()
}

const bridgeMessages = 4000

// traffic publishes bridgeMessages messages at the gateway.
func (x *bridged) traffic() *stream {
	x.t.Helper()
	return x.stream(x.ledger, "sensors/t", bridgeMessages, 1, rig.ClientOptions{Clean: true})
}

// arrived requires that everything has come, in order.
func (x *bridged) arrived() {
	x.t.Helper()
	settled(x.t, x.ledger, 2*patience, acked(bridgeMessages), ordered)
}

func TestBridgeWithoutOutage(t *testing.T) {
	t.Parallel()
	x := bridge(t, outRoute, nil)
	x.through()
	x.traffic().wait()
	x.arrived()
	if n := x.ledger.Sum().Duplicates; n > 0 {
		t.Errorf("%d duplicates although nothing failed", n)
	}
}

func TestBridgeOutageAtStart(t *testing.T) {
	t.Parallel()
	for how, fail := range map[string]func(*rig.Link){"refused": (*rig.Link).Refuse, "blackhole": (*rig.Link).Blackhole} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			x := bridge(t, outRoute, fail)
			x.traffic().wait()
			must(t, x.link.Restore())
			x.arrived()
		})
	}
}

func TestBridgeOutageMidStream(t *testing.T) {
	t.Parallel()
	for how, fail := range map[string]func(*rig.Link){
		"refused":   (*rig.Link).Refuse,
		"cut":       (*rig.Link).Cut,
		"reset":     (*rig.Link).Reset,
		"blackhole": (*rig.Link).Blackhole,
		// The old connection is never heard of again, new ones would work: the
		// bridge must find out by itself.
		"stalled": (*rig.Link).Stall,
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			x := bridge(t, outRoute, nil)
			x.through()
			s := x.traffic()
			s.acked(bridgeMessages / 4)
			fail(x.link)
			s.acked(bridgeMessages * 3 / 4)
			must(t, x.link.Restore())
			s.wait()
			x.arrived()
		})
	}
}

// TestBridgeKillDuringOutage: what was acknowledged while the uplink was down
// comes although the gateway was killed before it came back.
func TestBridgeKillDuringOutage(t *testing.T) {
	t.Parallel()
	x := bridge(t, outRoute, nil)
	x.through()
	s := x.traffic()
	s.acked(bridgeMessages / 5)
	x.link.Refuse()
	s.acked(bridgeMessages * 2 / 5)
	x.kill()
	x.start()
	s.acked(bridgeMessages * 3 / 5)
	x.kill()
	x.start()
	s.wait()
	x.kill()
	must(t, x.link.Restore())
	x.start()
	x.arrived()
}

// TestBridgeKillWhileDraining kills the gateway while the backlog leaves.
func TestBridgeKillWhileDraining(t *testing.T) {
	t.Parallel()
	x := bridge(t, outRoute, (*rig.Link).Refuse)
	x.traffic().wait()
	must(t, x.link.Restore())
	for _, at := range []int{1, bridgeMessages / 2} {
		eventually(t, patience, "the backlog leaves", func() bool { return x.ledger.Sum().Arrived >= at })
		x.kill()
		x.start()
	}
	x.arrived()
}

func TestBridgeUpstreamRestart(t *testing.T) {
	t.Parallel()
	x := bridge(t, outRoute, nil)
	x.through()
	s := x.traffic()
	for _, at := range []int{bridgeMessages / 4, bridgeMessages / 2} {
		s.acked(at)
		must(t, x.cloud.Stop(patience)) // it keeps its sessions, and so what it acknowledged
		s.acked(at + bridgeMessages/8)
		must(t, x.cloud.Start())
	}
	s.wait()
	x.arrived()
}

// TestBridgeStop: SIGTERM with the bridge at work ends in time, loses nothing.
func TestBridgeStop(t *testing.T) {
	t.Parallel()
	x := bridge(t, outRoute, nil)
	x.through()
	s := x.traffic()
	for _, at := range []int{bridgeMessages / 3, bridgeMessages * 2 / 3} {
		s.acked(at)
		x.stop()
		x.start()
	}
	s.wait()
	x.link.Blackhole()
	x.stop() // it must not wait for an uplink that is dead
	must(t, x.link.Restore())
	x.start()
	x.arrived()
}

// TestBridgePrefixes: both prefixes of both directions.
func TestBridgePrefixes(t *testing.T) {
	t.Parallel()
	x := bridge(t, `
[[bridge.route]]
direction = "out"
filter = "+/temp"
local_prefix = "hall/"
remote_prefix = "site/7/sensors/"
[[bridge.route]]
direction = "in"
filter = "#"
local_prefix = "from-cloud/"
remote_prefix = "commands/7/"
`, nil)
	var here inbox[string]
	local := subscribed(t, x.Addr(), rig.ClientOptions{ID: "local", Clean: true,
		OnMessage: func(p *mqtt.Publish) { here.put(received(p)) }}, 2, "from-cloud/#")
	var there inbox[string]
	remote := subscribed(t, x.cloud.Addr(), rig.ClientOptions{ID: "remote", Clean: true,
		OnMessage: func(p *mqtt.Publish) { there.put(received(p)) }}, 2, "site/#")

	// In: until the bridge is up the cloud keeps nothing for it, so once more until it comes.
	eventually(t, patience, "a command comes", func() bool {
		must(t, remote.Publish("commands/7/start", []byte("early"), 1, false, 0))
		return len(here.sofar()) > 0
	})
	must(t, remote.Publish("commands/8/start", []byte("not ours"), 1, false, 0))
	must(t, remote.Publish("commands/7/a/b", []byte("last"), 1, false, 0))
	eventually(t, patience, "the last command comes", func() bool {
		got := here.sofar()
		return got[len(got)-1] == "from-cloud/a/b last qos1"
	})
	for _, m := range here.sofar() {
		if m != "from-cloud/start early qos1" && m != "from-cloud/a/b last qos1" {
			t.Errorf("came in: %s", m)
		}
	}

	for _, topic := range []string{"hall/oven/temp", "hall/oven/door", "oven/temp", "hall/temp", "hall/hall/temp"} {
		must(t, local.Publish(topic, []byte("x"), 1, false, 0))
	}
	same(t, there.await(t, 2), []string{"site/7/sensors/oven/temp x qos1", "site/7/sensors/hall/temp x qos1"})
}

// TestBridgeEchoesNothing: with the same topics in both directions, and an
// upstream that knows bridges, nothing goes around in circles.
func TestBridgeEchoesNothing(t *testing.T) {
	t.Parallel()
	both := ""
	for _, direction := range []string{"out", "in"} {
		both += fmt.Sprintf("[[bridge.route]]\ndirection = %q\nfilter = \"shared/#\"\n", direction)
	}
	x := bridge(t, "bridge_bit = true\n"+both, nil)
	var here, there inbox[string]
	local := subscribed(t, x.Addr(), rig.ClientOptions{ID: "local", Clean: true,
		OnMessage: func(p *mqtt.Publish) { here.put(string(p.Payload)) }}, 1, "shared/#")
	remote := subscribed(t, x.cloud.Addr(), rig.ClientOptions{ID: "remote", Clean: true,
		OnMessage: func(p *mqtt.Publish) { there.put(string(p.Payload)) }}, 1, "shared/#")
	eventually(t, patience, "the bridge is up", func() bool {
		must(t, remote.Publish("shared/up", []byte("up?"), 1, false, 0))
		return len(here.sofar()) > 0
	})
	// Messages go back and forth in turn: each waits for the one before at the
	// other side, so an echo of an early one has come before the last.
	const turns = 20
	for i := range turns {
		must(t, local.Publish("shared/x", fmt.Append(nil, "local ", i), 1, false, 0))
		there.awaitOne(t, fmt.Sprint("local ", i))
		must(t, remote.Publish("shared/x", fmt.Append(nil, "remote ", i), 1, false, 0))
		here.awaitOne(t, fmt.Sprint("remote ", i))
	}
	for side, in := range map[string]*inbox[string]{"here": &here, "there": &there} {
		counts := map[string]int{}
		for _, m := range in.sofar() {
			counts[m]++
		}
		for m, n := range counts {
			if n != 1 && m != "up?" {
				t.Errorf("%s %d times: %q", side, n, m)
			}
		}
	}
}
