package bridge

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eventually polls cond until it holds; patience is far above what is needed.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// testProtocol is what testOptions say; see TestEverythingInMQTT5.
var testProtocol = Protocol311

// testOptions are impatient.
func testOptions(local *fakeLocal, upstream string, routes ...Route) Options {
	o := Defaults()
	o.Name = "t"
	o.Address = upstream
	o.Routes = routes
	o.ClientID = "gateway"
	o.ReconnectMin = time.Millisecond
	o.ReconnectMax = 20 * time.Millisecond
	o.ProgressTimeout = 20 * time.Second
	o.Protocol = testProtocol
	if local != nil {
		o.DialLocal = local.dial
	}
	return o
}

var outAll = Route{Direction: Out, Filter: "#", RemotePrefix: "up/", QoS: 1}

func startBridge(t *testing.T, o Options) *Bridge {
	t.Helper()
	return startLogged(t, o, zap.NewNop())
}

func startLogged(t *testing.T, o Options, log *zap.Logger) *Bridge {
	t.Helper()
	b, err := New(o, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func inState(b *Bridge, state string) func() bool {
	return func() bool { return b.Status().State == state }
}

// oracle fails the test when the bridge acknowledges locally what the upstream
// has not acknowledged.
func oracle(t *testing.T, local *fakeLocal, up *fakeUpstream) {
	local.onPuback = func(m *localMsg) {
		up.mu.Lock()
		defer up.mu.Unlock()
		if !up.acked[m.payload] {
			t.Errorf("%s acknowledged locally before the upstream's PUBACK", m.payload)
		}
	}
}

// expectOrder checks that each topic has all n messages, first arrivals in order.
func expectOrder(t *testing.T, got map[string][]string, topics, n int) {
	t.Helper()
	for k := range topics {
		name := fmt.Sprintf("up/s/%d", k)
		if len(got[name]) != n {
			t.Errorf("%s: %d of %d messages arrived", name, len(got[name]), n)
			continue
		}
		for i, payload := range got[name] {
			if payload != fmt.Sprintf("%d/%d", k, i) {
				t.Errorf("%s: message %d is %s", name, i, payload)
				break
			}
		}
	}
}

func publishRound(local *fakeLocal, topics, i int) {
	for k := range topics {
		local.publish(fmt.Sprintf("s/%d", k), fmt.Sprintf("%d/%d", k, i), 1, false)
	}
}

func TestMessagesQueueUntilTheUplinkComes(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	up.connackCode = 3
	o := testOptions(local, up.addr(), outAll)
	b := startBridge(t, o)
	eventually(t, "an attempt fails", func() bool { return strings.Contains(strings.ToLower(b.Status().LastError), "server unavailable") })
	for i := range 300 {
		publishRound(local, 3, i)
	}
	local.with(func() {
		if local.attached != 1 {
			t.Errorf("attached locally %d times while there was no uplink; want only Start's", local.attached)
		}
	})
	up.with(func() { up.connackCode = 0 })
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	expectOrder(t, up.messages(), 3, 300)
	if st := b.Status(); st.State != StateUp || st.Acked != 900 || st.Sent != 900 || st.Received != 900 || st.Dropped() != 0 {
		t.Errorf("status %+v", st)
	}
	if local.peak > o.InflightMax {
		t.Errorf("%d in flight, above InflightMax", local.peak)
	}
}

func TestLinkLossAtRandomMoments(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			local, up := newFakeLocal(t), newFakeUpstream(t)
			oracle(t, local, up)
			up.publishFault = func(int, upMsg) fault {
				if r.IntN(100) < 3 {
					return []fault{cutBefore, cutAfter, ackOnlyLost}[r.IntN(3)]
				}
				return noFault
			}
			b := startBridge(t, testOptions(local, up.addr(), outAll))
			const rounds, topics = 400, 3
			for i := range rounds {
				publishRound(local, topics, i)
				if i%100 == 50 {
					local.kick()
				}
				if i%100 == 99 {
					up.cutAll()
				}
			}
			eventually(t, "the session is empty", func() bool { return local.open() == 0 })
			expectOrder(t, up.messages(), topics, rounds)
			if st := b.Status(); st.Reconnects < 3 || st.Dropped() != 0 {
				t.Errorf("status %+v", st)
			}
			local.with(func() {
				if local.dups == 0 {
					t.Error("nothing was sent again: the test did not cut where it hurts")
				}
			})
		})
	}
}

func TestUpstreamThatNeverAcknowledgesIsRedialled(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	up.neverAck = true
	o := testOptions(local, up.addr(), outAll)
	o.ProgressTimeout = 100 * time.Millisecond
	o.InflightMax = 16
	b := startBridge(t, o)
	for i := range 50 {
		publishRound(local, 1, i)
	}
	eventually(t, "three links", func() bool { return b.Status().Links >= 3 })
	eventually(t, "the reason", func() bool { return b.Status().LastError == errNoPuback.Error() })
	up.with(func() {
		if up.peak != 16 {
			t.Errorf("%d messages unacknowledged upstream, want the window of 16", up.peak)
		}
		up.neverAck = false
	})
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	expectOrder(t, up.messages(), 1, 50)
}

func TestOnePubackMissingIsEnough(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	swallowed := false
	up.publishFault = func(n int, m upMsg) fault {
		if m.payload == "0/7" && !swallowed {
			swallowed = true
			return swallow
		}
		return noFault
	}
	o := testOptions(local, up.addr(), outAll)
	o.ProgressTimeout = 100 * time.Millisecond
	startBridge(t, o)
	for i := range 20 {
		publishRound(local, 1, i)
	}
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	expectOrder(t, up.messages(), 1, 20)
}

// A thousand links, most of which die while messages are on the way, leave
// neither goroutines (goleak in TestMain, and here) nor descriptors.
func TestThousandReconnects(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	up.publishFault = func(n int, _ upMsg) fault {
		if n < 1000 {
			return cutAfter
		}
		return noFault
	}
	before := goleak.IgnoreCurrent()
	fds := openFDs(t)
	o := testOptions(local, up.addr(), outAll, Route{Direction: In, Filter: "cmd/#", QoS: 1})
	o.ReconnectMax = 2 * time.Millisecond
	b := startBridge(t, o)
	for i := range 1000 {
		publishRound(local, 1, i)
	}
	eventually(t, "1000 reconnects", func() bool { return local.open() == 0 })
	if st := b.Status(); st.Reconnects < 990 {
		t.Errorf("only %d reconnects", st.Reconnects)
	}
	expectOrder(t, up.messages(), 1, 1000)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
	eventually(t, "as many descriptors as before", func() bool { return openFDs(t) <= fds })
}

// With both windows full and a queue behind them there are as many goroutines
// as when nothing happens.
func TestGoroutinesDoNotGrowWithTraffic(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	up.neverAck, local.hold = true, true
	o := testOptions(local, up.addr(), outAll, Route{Direction: In, Filter: "cmd/#", QoS: 1})
	o.DrainTimeout = 0
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	// What starts and ends with a link has to have ended.
	idle := 0
	eventually(t, "calm", func() bool { was := idle; idle = runtime.NumGoroutine(); return was == idle })
	for i := range 1000 {
		publishRound(local, 1, i)
		up.send("cmd/a", fmt.Sprint(i), 1, false)
	}
	eventually(t, "full windows", func() bool {
		st := b.Status()
		return st.InflightOut == 100 && st.InflightIn == 100 && up.count() == 100
	})
	if n := runtime.NumGoroutine(); n > idle {
		t.Errorf("%d goroutines under load, %d idle", n, idle)
	}
	if st := b.Status(); st.Links != 1 {
		t.Errorf("status %+v", st)
	}
}

func openFDs(t *testing.T) int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestRetainAndQoSGoUp(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	b := startBridge(t, testOptions(local, up.addr(),
		Route{Direction: Out, Filter: "a/#", RemotePrefix: "x/", QoS: 1},
		Route{Direction: Out, Filter: "b/#", QoS: 0}))
	eventually(t, "up", inState(b, StateUp))
	eventually(t, "attached", func() bool { local.mu.Lock(); defer local.mu.Unlock(); return local.conn != nil })
	local.publish("a/1", "1", 1, true)
	local.publish("a/2", "2", 0, false)
	local.publish("b/3", "3", 1, false)
	local.publish("a/4", "4", 2, false)
	eventually(t, "four messages", func() bool { return up.count() == 4 && local.open() == 0 })
	want := []upMsg{
		{topic: "x/a/1", payload: "1", qos: 1, retain: true},
		{topic: "x/a/2", payload: "2", qos: 0},
		{topic: "b/3", payload: "3", qos: 0},
		{topic: "x/a/4", payload: "4", qos: 1},
	}
	up.with(func() {
		for i := range want {
			if up.got[i] != want[i] {
				t.Errorf("message %d is %+v, want %+v", i, up.got[i], want[i])
			}
		}
	})
}

func TestFanOutIsAcknowledgedWithItsLastCopy(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	swallowed := false
	up.publishFault = func(n int, m upMsg) fault {
		if n == 1 && !swallowed {
			swallowed = true
			return swallow // the first copy is acknowledged, the second never
		}
		return noFault
	}
	o := testOptions(local, up.addr(),
		Route{Direction: Out, Filter: "a", RemotePrefix: "x/", QoS: 1},
		Route{Direction: Out, Filter: "#", RemotePrefix: "y/", QoS: 1},
		Route{Direction: Out, Filter: "+", RemotePrefix: "y/", QoS: 1})
	o.ProgressTimeout = 100 * time.Millisecond
	b := startBridge(t, o)
	local.publish("a", "m", 1, false)
	eventually(t, "acknowledged", func() bool { return local.open() == 0 })
	if b.Status().Links != 2 {
		t.Error("acknowledged on the link whose second copy was not")
	}
	if got := up.messages(); len(got["x/a"]) != 1 || len(got["y/a"]) != 1 || len(got) != 2 {
		t.Errorf("arrived: %v", got)
	}
}

func TestStaleFiltersAreUnsubscribed(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	for _, f := range []string{"old/#", "kept/#"} {
		local.subs[f] = mqtt.SubscribeFilter{}
	}
	o := testOptions(local, up.addr(), Route{Direction: Out, Filter: "kept/#", QoS: 1}, Route{Direction: Out, Filter: "kept/a", QoS: 1}, Route{Direction: Out, Filter: "n", QoS: 0})
	o.Sessions = map[string][]string{"$bridge/t": {"old/#", "kept/#"}, "$bridge/t2/q": {"other"}}
	startBridge(t, o)
	local.with(func() {
		if len(local.subs) != 2 || local.subs["n"].QoS != 0 {
			t.Errorf("subscribed: %v", local.subs)
		}
		if s := local.subs["kept/#"]; s.QoS != 1 || !s.NoLocal || !s.RetainAsPublished || s.RetainHandling != 1 {
			t.Errorf("kept/#: %+v", s)
		}
	})
}

func TestSessionThatIsGoneIsSubscribedAgain(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	logs, log := observed()
	b := startLogged(t, testOptions(local, up.addr(), outAll), log)
	eventually(t, "up", inState(b, StateUp))
	local.with(func() {
		local.exists, local.subs = false, map[string]mqtt.SubscribeFilter{}
		_ = local.conn.Close()
	})
	eventually(t, "subscribed again", func() bool { local.mu.Lock(); defer local.mu.Unlock(); return len(local.subs) == 1 })
	eventually(t, "a warning", func() bool { return logs.FilterMessageSnippet("session was gone").Len() == 1 })
	local.publish("s/0", "0/0", 1, false)
	eventually(t, "the message", func() bool { return up.count() == 1 })
}

// We ask for no keep alive; a broker that insists gets its pings.
func TestImposedKeepAlive(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	local.keepAlive = 1
	b := startBridge(t, testOptions(local, up.addr(), outAll))
	eventually(t, "two pings", func() bool { local.mu.Lock(); defer local.mu.Unlock(); return local.pings >= 2 })
	if st := b.Status(); st.Links != 1 {
		t.Errorf("status %+v", st)
	}
}

func observed() (*observer.ObservedLogs, *zap.Logger) {
	core, logs := observer.New(zapcore.DebugLevel)
	return logs, zap.New(core)
}

// BenchmarkOut is the way of a small message from the local session to the
// upstream and of its acknowledgement back, with the default window.
func BenchmarkOut(b *testing.B) {
	local, up := newFakeLocal(b), newFakeUpstream(b)
	o := testOptions(local, up.addr(), outAll)
	br, err := New(o, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	if err := br.Start(context.Background()); err != nil {
		b.Fatal(err)
	}
	defer br.Close()
	payload := strings.Repeat("x", 150)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		local.publish("s/1", payload, 1, false)
	}
	for br.Status().Acked < int64(b.N) {
		time.Sleep(time.Millisecond)
	}
}
