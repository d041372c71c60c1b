package bridge

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"
)

var inCmd = Route{Direction: In, Filter: "cmd/#", LocalPrefix: "cloud/", RemotePrefix: "dev/", QoS: 1}

// inOracle fails the test when the bridge acknowledges upstream what the local
// broker has not acknowledged.
func inOracle(t *testing.T, local *fakeLocal, up *fakeUpstream) {
	taken := map[string]bool{} // guarded by up.mu
	local.onAccepted = func(m *localMsg) {
		up.mu.Lock()
		defer up.mu.Unlock()
		taken[m.payload] = true
	}
	up.onDownAck = func(payload string) {
		if !taken[payload] {
			t.Errorf("%s acknowledged upstream before the local PUBACK", payload)
		}
	}
}

func TestDownlinkInOrder(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	inOracle(t, local, up)
	b := startBridge(t, testOptions(local, up.addr(), inCmd))
	eventually(t, "up", inState(b, StateUp))
	for i := range 500 {
		up.send("dev/cmd/a", fmt.Sprint(i), mqtt.QoS(i%2), i%3 == 0)
	}
	up.send("dev/other", "unrouted", 0, false)
	eventually(t, "all acknowledged", func() bool {
		up.mu.Lock()
		defer up.mu.Unlock()
		return len(up.downAck) == 250 // half of 500 are QoS 1
	})
	got := local.received()
	if len(got) != 500 {
		t.Fatalf("%d of 500 messages arrived", len(got))
	}
	for i, m := range got {
		if m.topic != "cloud/cmd/a" || m.payload != fmt.Sprint(i) || m.qos != mqtt.QoS(i%2) || m.retain != (i%3 == 0) {
			t.Fatalf("message %d is %+v", i, m)
		}
	}
	eventually(t, "the last one", func() bool { return b.Status().DroppedUnrouted == 1 })
	if st := b.Status(); st.RemoteReceived != 501 || st.LocalAcked != 500 || st.DroppedUnrouted != 1 {
		t.Errorf("status %+v", st)
	}
}

func TestDownlinkWaitsForTheLocalPuback(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	inOracle(t, local, up)
	local.hold = true
	local.receiveMax = 6 // the fake checks it
	o := testOptions(local, up.addr(), inCmd)
	o.InflightMax = 10
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	for i := range 30 {
		up.send("dev/cmd/a", fmt.Sprint(i), 1, false)
	}
	eventually(t, "the window is full", func() bool { return len(local.received()) == 6 && b.Status().InflightIn == 10 })
	if st := b.Status(); st.RemoteReceived != 11 { // one waits for room
		t.Errorf("%d taken", st.RemoteReceived)
	}
	up.with(func() {
		if len(up.downAck) != 0 {
			t.Errorf("acknowledged upstream: %v", up.downAck)
		}
	})
	local.letGo()
	eventually(t, "the rest", func() bool {
		up.mu.Lock()
		defer up.mu.Unlock()
		return len(up.downAck) == 30
	})
}

func TestLocalBrokerThatNeverAcknowledgesIsReattached(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	local.hold = true
	o := testOptions(local, up.addr(), inCmd)
	o.ProgressTimeout = 100 * time.Millisecond
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	up.send("dev/cmd/a", "x", 1, false)
	eventually(t, "a new link", func() bool { return b.Status().Links >= 2 })
	if got := b.Status().LastError; got != errNoLocalPuback.Error() {
		t.Errorf("last error %q", got)
	}
}

func TestLocalRefusals(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	inOracle(t, local, up)
	refusals := 2
	local.reason = func(m *localMsg) mqtt.Reason {
		switch {
		case m.payload == "later" && refusals > 0:
			refusals--
			return mqtt.QuotaExceeded
		case m.payload == "never":
			return mqtt.NotAuthorized
		}
		return mqtt.Success
	}
	logs, log := observed()
	b := startLogged(t, testOptions(local, up.addr(), inCmd), log)
	eventually(t, "up", inState(b, StateUp))
	up.send("dev/cmd/a", "later", 1, false)
	up.send("dev/cmd/a", "after", 1, false)
	eventually(t, "both acknowledged", func() bool {
		up.mu.Lock()
		defer up.mu.Unlock()
		return up.downAck["later"] && up.downAck["after"]
	})
	up.with(func() { up.onDownAck = nil }) // this one the local broker never takes
	up.send("dev/cmd/a", "never", 1, false)
	eventually(t, "dropped and acknowledged", func() bool {
		up.mu.Lock()
		defer up.mu.Unlock()
		return up.downAck["never"]
	})
	if st := b.Status(); st.DroppedRefused != 1 || st.LocalAcked != 2 || st.Links != 1 {
		t.Errorf("status %+v", st)
	}
	if n := logs.FilterMessageSnippet("refuses it").Len(); n != 1 {
		t.Errorf("%d lines about refusals; want the first and then silence", n)
	}
}

func TestDownlinkTooLargeForTheLocalBroker(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	local.maxPacket = 100
	b := startBridge(t, testOptions(local, up.addr(), inCmd))
	eventually(t, "up", inState(b, StateUp))
	up.send("dev/cmd/a", strings.Repeat("x", 100), 1, false)
	up.send("dev/cmd/a", "small", 1, false)
	eventually(t, "both acknowledged", func() bool {
		up.mu.Lock()
		defer up.mu.Unlock()
		return len(up.downAck) == 2
	})
	if st := b.Status(); st.DroppedTooLarge != 1 || st.LocalAcked != 1 || len(local.received()) != 1 {
		t.Errorf("status %+v", st)
	}
}

func TestDownlinkNamesThatAreNone(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	b := startBridge(t, testOptions(local, up.addr(), inCmd))
	eventually(t, "up", inState(b, StateUp))
	for i, name := range []string{"dev/cmd/\xff", "dev/cmd/+", "dev/cmd/\x00"} {
		up.send(name, fmt.Sprint(i), 1, false)
	}
	up.send("dev/cmd/ok", "ok", 1, false)
	eventually(t, "all acknowledged", func() bool {
		up.mu.Lock()
		defer up.mu.Unlock()
		return len(up.downAck) == 4
	})
	if st := b.Status(); st.DroppedUnrouted != 3 || st.Links != 1 || len(local.received()) != 1 {
		t.Errorf("status %+v", st)
	}
}

func TestRefusedSubscriptionIsAState(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	up.subackCode = 0x80
	logs, log := observed()
	b := startLogged(t, testOptions(local, up.addr(), inCmd, outAll), log)
	eventually(t, "degraded", inState(b, StateDegraded))
	if st := b.Status(); len(st.RefusedFilters) != 1 || st.RefusedFilters[0] != "dev/cmd/#" {
		t.Errorf("status %+v", st)
	}
	if logs.FilterMessage("upstream refuses a subscription").Len() != 1 {
		t.Error("no warning")
	}
	local.publish("s/0", "0/0", 1, false)
	eventually(t, "the other direction works", func() bool { return local.open() == 0 })

	up.with(func() { up.subackCode = 0 })
	up.cutAll()
	eventually(t, "up", inState(b, StateUp))
	if st := b.Status(); len(st.RefusedFilters) != 0 {
		t.Errorf("status %+v", st)
	}
}

// Both directions at once, with budgets far below the load, so that each
// direction waits for the other's acknowledgements (budget.go).
func TestBothDirectionsFull(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	inOracle(t, local, up)
	o := testOptions(local, up.addr(), outAll, inCmd)
	o.InflightMax = 8
	o.InflightMaxBytes = 3000
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	const n = 400
	big := strings.Repeat(".", 990)
	for i := range n {
		local.publish("s/0", fmt.Sprintf("%d%s", i, big), 1, false)
		local.publish("s/0", fmt.Sprintf("zero %d%s", i, big), 0, false)
		up.send("dev/cmd/a", fmt.Sprintf("%d%s", i, big), 1, false)
		up.send("dev/cmd/a", fmt.Sprintf("zero %d%s", i, big), 0, false)
	}
	eventually(t, "everything is acknowledged", func() bool {
		up.mu.Lock()
		defer up.mu.Unlock()
		return len(up.downAck) == n && len(up.acked) == n
	})
	eventually(t, "nothing is held", func() bool {
		st := b.Status()
		return st.InflightIn == 0 && st.InflightOut == 0
	})
	st := b.Status()
	if st.Links != 1 {
		t.Errorf("%d links: %s", st.Links, st.LastError)
	}
	if st.RemoteReceived != 2*n || st.LocalAcked != 2*n {
		t.Errorf("status %+v", st)
	}
	if st.Acked+st.DroppedQoS0 != 2*n {
		t.Errorf("of %d messages %d were sent and %d dropped", 2*n, st.Acked, st.DroppedQoS0)
	}
}

// Random cuts with both directions loaded. Downlink messages are lost with the
// link (clean session), so only the order of the acknowledgements is checked.
func TestFlappingInBothDirections(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	inOracle(t, local, up)
	b := startBridge(t, testOptions(local, up.addr(), outAll, inCmd))
	r := rand.New(rand.NewPCG(5, 5))
	for i := range 600 {
		publishRound(local, 2, i)
		up.send("dev/cmd/a", fmt.Sprint("d", i), 1, false)
		switch r.IntN(40) {
		case 0:
			up.cutAll()
		case 1:
			local.kick()
		case 2:
			links := b.Status().Links
			eventually(t, "a link", func() bool { return b.Status().Links > links || inState(b, StateUp)() })
		}
	}
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	expectOrder(t, up.messages(), 2, 600)
	if st := b.Status(); st.Dropped() != 0 {
		t.Errorf("status %+v", st)
	}
}

// What is published upstream while the link is down comes with the next one, if
// the session is not clean; and a lost link costs nothing in either direction.
func TestUpstreamSessionIsKept(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	inOracle(t, local, up)
	oracle(t, local, up)
	o := testOptions(local, up.addr(), outAll, inCmd)
	o.CleanSession, o.InflightMax = false, 10
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	const n = 300
	for i := range n { // more than our window, and in both directions
		up.send("dev/cmd/a", fmt.Sprint("down ", i), 1, false)
		publishRound(local, 1, i)
		if i%50 == 25 {
			up.cutAll()
		}
	}
	_ = b.Close()
	eventually(t, "nobody is connected", func() bool { up.mu.Lock(); defer up.mu.Unlock(); return up.conn == nil })
	up.send("dev/cmd/a", "while we were away", 1, false)
	startBridge(t, o)
	eventually(t, "everything is here and there", func() bool {
		up.mu.Lock()
		defer up.mu.Unlock()
		return len(up.kept) == 0 && up.downAck["while we were away"]
	})
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	expectOrder(t, up.messages(), 1, n)
	here := map[string]bool{}
	for _, m := range local.received() {
		here[m.payload] = true
	}
	if len(here) != n+1 {
		t.Errorf("%d of %d messages came down", len(here), n+1)
	}
}
