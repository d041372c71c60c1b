package e2e

import (
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

const alarmRoute = "[[bridge.queue]]\nname = \"alarms\"\npriority = 5\n[[bridge.route]]\ndirection = \"out\"\nfilter = \"alarm/#\"\nremote_prefix = \"site/7/\"\nqueue = \"alarms\"\n"

// told keeps the last retained message of each topic.
type told struct {
	mu  sync.Mutex
	now map[string]string
}

func (x *told) on(p *mqtt.Publish) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.now == nil {
		x.now = map[string]string{}
	}
	x.now[string(p.Topic)] = string(p.Payload)
}

func (x *told) is(topic, payload string) func() bool {
	return func() bool {
		x.mu.Lock()
		defer x.mu.Unlock()
		return x.now[topic] == payload
	}
}

// reconfigure replaces text in the configuration and has it read again.
func (b *broker) reconfigure(old, fresh string) string {
	b.t.Helper()
	text, err := os.ReadFile(b.ConfigFile())
	must(b.t, err)
	if !strings.Contains(string(text), old) {
		b.t.Fatalf("%q is not in the configuration", old)
	}
	must(b.t, os.WriteFile(b.ConfigFile(), []byte(strings.Replace(string(text), old, fresh, 1)), 0o600))
	before := len(b.Log())
	must(b.t, b.Signal(syscall.SIGHUP))
	eventually(b.t, patience, "the bridges are changed", func() bool { return strings.Contains(b.Log()[before:], "bridges changed") })
	return b.Log()[before:]
}

// An alarm that is published after an outage's backlog arrives before nearly all of
// it, also over a SIGKILL; the state is told here and there.
func TestBridgeAlarmOvertakesTheBacklog(t *testing.T) {
	t.Parallel()
	var order sync.Mutex
	var before int
	alarmed := false
	x := bridge(t, "client_id = \"gw\"\nnotifications = true\ninflight_max = 50\n"+alarmRoute+outRoute, func(l *rig.Link) { l.Refuse() })
	subscribed(t, x.cloud.Addr(), rig.ClientOptions{ID: "control room", Clean: true, OnMessage: func(p *mqtt.Publish) {
		order.Lock()
		defer order.Unlock()
		if string(p.Topic) == "site/7/alarm/fire" {
			alarmed = true
		} else if !alarmed {
			before++
		}
	}}, 1, "site/7/#")
	var here, there told
	const state = "$SYS/broker/connection/gw/state"
	subscribed(t, x.Addr(), rig.ClientOptions{ID: "watch", Clean: true, OnMessage: here.on}, 0, "$SYS/#")
	subscribed(t, x.cloud.Addr(), rig.ClientOptions{ID: "watch", Clean: true, OnMessage: there.on}, 0, "$SYS/broker/connection/#")
	eventually(t, patience, "it is told here that there is no link", here.is(state, "0"))

	x.traffic().wait()
	pub := connected(t, x.Addr(), rig.ClientOptions{ID: "alarms", Clean: true})
	must(t, pub.Publish("alarm/fire", []byte("fire"), 1, false, 0))
	must(t, pub.Flush(patience))
	eventually(t, patience, "the backlog is told", here.is("$SYS/sluice/bridge/cloud/queue/default/messages", "4000"))
	eventually(t, patience, "the alarm's too", here.is("$SYS/sluice/bridge/cloud/queue/alarms/messages", "1"))
	x.kill()
	x.start()
	must(t, x.link.Restore())
	x.arrived()
	order.Lock()
	if !alarmed || before > 500 {
		t.Errorf("%d messages came before the alarm, alarm: %t", before, alarmed)
	}
	order.Unlock()
	eventually(t, patience, "the cloud is told", there.is(state, "1"))
	x.link.Cut()
	x.link.Refuse()
	eventually(t, patience, "the will tells the cloud", there.is(state, "0"))
}

// With a session that is not clean, what is published in the cloud while the link
// is down comes with the next link, also after a SIGKILL.
func TestBridgeDownlinkOverAnOutage(t *testing.T) {
	t.Parallel()
	x := bridge(t, "clean_session = false\n"+outRoute+"[[bridge.route]]\ndirection = \"in\"\nfilter = \"cmd/#\"\n", nil)
	x.through()
	ledger := rig.NewLedger()
	sub := subscribed(t, x.Addr(), rig.ClientOptions{ID: "machine", OnMessage: arrive(ledger)}, 1, "cmd/#")
	keep(t, sub, x.here)
	x.link.Refuse()
	x.link.Cut()
	pub := connected(t, x.cloud.Addr(), rig.ClientOptions{ID: "operator", Clean: true, OnAcked: func(tag uint64) { ledger.Acked("cmd/a", tag) }})
	publish := func(from, to uint64) {
		for i := from; i < to; i++ {
			must(t, pub.Publish("cmd/a", rig.Payload("cmd/a", i, 50), 1, false, i))
		}
		must(t, pub.Flush(patience))
	}
	publish(0, 500)
	must(t, x.link.Restore())
	settled(t, ledger, patience, acked(500), ordered)
	x.kill()
	publish(500, 1000)
	x.start()
	settled(t, ledger, patience, acked(1000), ordered)
}

// Bridges come, change and go by SIGHUP; the others do not notice.
func TestBridgeReload(t *testing.T) {
	t.Parallel()
	x := bridge(t, outRoute, nil)
	other := mosquitto(t)
	x.through()
	moving := x.stream(x.ledger, "sensors/t", bridgeMessages, 1, rig.ClientOptions{Clean: true})

	second := "[[bridge]]\nname = \"second\"\naddress = \"tcp://" + other.Addr() + "\"\nreconnect_min = \"20ms\"\nreconnect_max = \"200ms\"\n" + alarmRoute
	log := x.reconfigure(outRoute, outRoute+second)
	if !strings.Contains(log, `"added":["second"]`) || !strings.Contains(log, `"untouched":["cloud"]`) {
		t.Errorf("logged: %s", log)
	}
	ledger := rig.NewLedger()
	keep(t, subscribed(t, other.Addr(), rig.ClientOptions{ID: "sub", OnMessage: arrive(ledger)}, 1, "site/7/#"), other.Addr)
	x.stream(ledger, "alarm/t", 1000, 1, rig.ClientOptions{Clean: true, ID: "alarms"}).wait()
	settled(t, ledger, patience, acked(1000), ordered, once)

	// Its queue goes: what waits there arrives all the same, and the session ends.
	must(t, other.Stop(stopMax))
	x.stream(ledger, "alarm/u", 1000, 1, rig.ClientOptions{Clean: true, ID: "alarms"}).wait()
	flat := strings.Replace(strings.Replace(second, "[[bridge.queue]]\nname = \"alarms\"\npriority = 5\n", "", 1), "queue = \"alarms\"\n", "", 1)
	if log = x.reconfigure(second, flat); !strings.Contains(log, `"changed":["second"]`) {
		t.Errorf("logged: %s", log)
	}
	x.stream(ledger, "alarm/v", 1000, 1, rig.ClientOptions{Clean: true, ID: "alarms"}).wait()
	must(t, other.Start())
	settled(t, ledger, patience, acked(3000))
	eventually(t, patience, "the queue's session has ended", func() bool { return strings.Contains(x.Log(), "its session has ended") })

	if log = x.reconfigure(flat, ""); !strings.Contains(log, `"removed":["second"]`) {
		t.Errorf("logged: %s", log)
	}
	moving.wait()
	x.arrived()
	if n := x.ledger.Sum().Duplicates; n > 0 {
		t.Errorf("%d duplicates: the first bridge was disturbed", n)
	}

	// A broken configuration changes nothing.
	text, err := os.ReadFile(x.ConfigFile())
	must(t, err)
	must(t, os.WriteFile(x.ConfigFile(), []byte(strings.Replace(string(text), "direction = \"out\"", "direction = \"up\"", 1)), 0o600))
	must(t, x.Signal(syscall.SIGHUP))
	eventually(t, patience, "it is refused", func() bool { return strings.Contains(x.Log(), "the configuration stays as it was") })
	x.through()
}
