package bridge

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"

	"go.uber.org/zap"
)

// Whatever a bridge promises it promises in both versions.
func TestEverythingInMQTT5(t *testing.T) {
	testProtocol = Protocol5
	defer func() { testProtocol = Protocol311 }()
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"receipts", TestReceiptsAreHonest},
		{"random losses", TestLinkLossAtRandomMoments},
		{"queueing", TestMessagesQueueUntilTheUplinkComes},
		{"no acknowledgements", TestUpstreamThatNeverAcknowledgesIsRedialled},
		{"one missing", TestOnePubackMissingIsEnough},
		{"reconnects", TestThousandReconnects},
		{"goroutines", TestGoroutinesDoNotGrowWithTraffic},
		{"retain and QoS", TestRetainAndQoSGoUp},
		{"fan out", TestFanOutIsAcknowledgedWithItsLastCopy},
		{"close under load", TestCloseUnderLoadDrains},
		{"close and downlink", TestCloseTakesNoNewDownlink},
		{"drain timeout", TestCloseDoesNotWaitLongerThanDrainTimeout},
		{"close while dialling", TestCloseWhileDialling},
		{"polite close", TestCloseWithABacklogIsPolite},
		{"downlink order", TestDownlinkInOrder},
		{"downlink waits", TestDownlinkWaitsForTheLocalPuback},
		{"local silence", TestLocalBrokerThatNeverAcknowledgesIsReattached},
		{"local refusals", TestLocalRefusals},
		{"downlink too large", TestDownlinkTooLargeForTheLocalBroker},
		{"refused subscription", TestRefusedSubscriptionIsAState},
		{"both directions full", TestBothDirectionsFull},
		{"flapping", TestFlappingInBothDirections},
		{"kept session", TestUpstreamSessionIsKept},
		{"payload limit", TestPayloadLimit},
		{"inflight bytes", TestInflightBytesAreBounded},
		{"QoS 0", TestQoS0IsNotKept},
		{"queues over losses", TestQueuesOverLinkLoss},
		{"queues do not echo", TestQueuesDoNotEcho},
		{"notifications", TestNotifications},
		{"TLS", TestOverTLS},
		{"slow link", TestSlowLinkIsNotStuck},
		{"cap", TestPacketCapEndsTheLink},
		{"failover", TestFailoverLosesNothing},
		{"ping", TestPingGetsIn},
		{"mosquitto with cuts", TestMosquittoWithCuts},
		{"mosquitto outage", TestMosquittoOutage},
		{"mosquitto both ways", TestMosquittoBothWays},
	} {
		t.Run(c.name, c.test)
	}
}

// v5Bridge is a bridge up in MQTT 5.
func v5Bridge(t *testing.T, set func(*Options), routes ...Route) (*fakeLocal, *fakeUpstream, *Bridge) {
	t.Helper()
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	o := testOptions(local, up.addr(), routes...)
	o.Protocol = Protocol5
	if set != nil {
		set(&o)
	}
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	return local, up, b
}

// wire is properties as in a packet: payload format, content type, response topic,
// correlation data, user properties in an order and with a name twice.
const wire = "\x01\x01" + "\x03\x00\x04text" + "\x08\x00\x03r/t" + "\x09\x00\x02\x00\xff" +
	"\x26\x00\x01b\x00\x012" + "\x26\x00\x01a\x00\x011" + "\x26\x00\x01b\x00\x013"

func TestPropertiesCrossBothWays(t *testing.T) {
	local, up, _ := v5Bridge(t, nil, outAll, Route{Direction: In, Filter: "down/#", QoS: 1})
	up.with(func() {
		h := up.lastHi
		if h.Version != mqtt.V5 || !h.Clean || h.Props.ReceiveMax != 100 || h.Props.MaxPacketBytes != 1<<20 || h.Props.TopicAliasMax != 0 || h.Props.SessionExpirySeconds != 0 {
			t.Errorf("CONNECT %+v", h)
		}
		if s := up.lastSub; !s.NoLocal || !s.RetainAsPublished {
			t.Errorf("SUBSCRIBE %+v", s)
		}
	})
	mark := string(broughtMark("other"))
	local.publish5(localMsg{topic: "s/0", payload: "x", qos: 1, props: wire + mark, expiry: 60})
	local.publish5(localMsg{topic: "s/0", payload: "y", qos: 1})
	eventually(t, "there", func() bool { return up.count() == 2 })
	up.with(func() {
		// paho writes the expiry second, and what belongs to the hop first or last does not matter
		if m := up.got[0]; m.props != wire[:2]+"\x02\x00\x00\x00\x3c"+wire[2:] || m.expiry != 60 {
			t.Errorf("up: %q, expiry %d", m.props, m.expiry)
		}
		if m := up.got[1]; m.props != "" || m.expiry != 0 {
			t.Errorf("up without properties: %q, %d", m.props, m.expiry)
		}
		f := up.conn
		up.down(f, upMsg{topic: "down/a", payload: "d", qos: 1, retain: true, props: wire + mark, expiry: 30})
		up.down(f, upMsg{topic: "down/b", payload: "e", qos: 0, props: mark + wire})
	})
	eventually(t, "here", func() bool { return len(local.received()) == 2 })
	if m := local.received()[0]; m.props != wire || m.expiry != 30 || !m.retain {
		t.Errorf("down: %+v", m)
	}
	if m := local.received()[1]; m.props != wire || m.expiry != 0 {
		t.Errorf("down: %+v", m)
	}
}

func TestExpiryCountsDown(t *testing.T) {
	it := outItem{expires: true, seconds: 10, taken: time.Minute}
	for waited, want := range map[time.Duration]uint32{0: 10, 999 * time.Millisecond: 10, time.Second: 9, 9 * time.Second: 1, 10 * time.Second: 1, time.Hour: 1, 1 << 62: 1} {
		if got := it.left(time.Minute + waited); got != want {
			t.Errorf("after %v: %d, want %d", waited, got, want)
		}
	}
}

// What does not pass is dropped, counted and acknowledged here; what may pass is sent
// again until it does, in its order, on the same connection.
func TestUpstreamRefusals(t *testing.T) {
	for reason, want := range map[mqtt.Reason]string{
		mqtt.NoMatchingSubscribers:       "taken",
		mqtt.NotAuthorized:               "dropped",
		mqtt.TopicNameInvalid:            "dropped",
		mqtt.PayloadFormatInvalid:        "dropped",
		mqtt.QuotaExceeded:               "again",
		mqtt.UnspecifiedError:            "again",
		mqtt.ImplementationSpecificError: "again",
		mqtt.PacketIDInUse:               "redial",
	} {
		t.Run(reason.String(), func(t *testing.T) {
			local, up := newFakeLocal(t), newFakeUpstream(t)
			oracle(t, local, up)
			if want == "dropped" {
				local.onPuback = nil // the upstream has it not
			}
			once := false
			up.puback = func(_ int, m upMsg) mqtt.Reason {
				if m.payload != "0/1" || once && want != "dropped" {
					return mqtt.Success
				}
				once = true
				return reason
			}
			o := testOptions(local, up.addr(), outAll)
			o.Protocol, o.InflightMax, o.ProgressTimeout = Protocol5, 4, 2*time.Second
			logs, log := observed()
			b := startLogged(t, o, log)
			eventually(t, "up", inState(b, StateUp))
			for i := range 10 {
				publishRound(local, 1, i)
			}
			eventually(t, "the session is empty", func() bool { return local.open() == 0 })
			st := b.Status()
			links, dropped, sent := int64(1), int64(0), int64(10)
			switch want {
			case "dropped":
				dropped = 1
			case "again":
				sent = 11
			case "redial":
				links, sent = 2, st.Sent
			}
			if st.Links != links || st.DroppedRefused != dropped || st.Sent != sent || st.Acked < 10-dropped {
				t.Errorf("%s: %+v", want, st)
			}
			if spoken := logs.FilterLevelExact(zap.WarnLevel).Len() > 0; spoken != (want != "taken") {
				t.Errorf("%s: log %+v", want, logs.All())
			}
			if got := len(up.messages()["up/s/0"]); got != 10 {
				t.Errorf("%d of 10 messages arrived", got)
			}
		})
	}
}

// An upstream that refuses everything for now keeps us waiting: no hammering, no
// redialling, and nothing is lost.
func TestQuotaExceededForAWhile(t *testing.T) {
	local, up, b := v5Bridge(t, func(o *Options) { o.InflightMax, o.ProgressTimeout = 5, time.Second }, outAll)
	refuse := true
	up.with(func() {
		up.puback = func(int, upMsg) mqtt.Reason {
			if refuse {
				return mqtt.QuotaExceeded
			}
			return mqtt.Success
		}
	})
	for i := range 50 {
		publishRound(local, 1, i)
	}
	start := time.Now()
	eventually(t, "longer than the progress timeout", func() bool { return time.Since(start) > 2500*time.Millisecond })
	if n := up.count(); n > 5+6 || b.Status().Links != 1 {
		t.Errorf("%d publishes while everything is refused, %d links", n, b.Status().Links)
	}
	up.with(func() { refuse = false })
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	st := b.Status()
	if got := len(up.messages()["up/s/0"]); got != 50 || st.Dropped() != 0 {
		t.Errorf("%d of 50 messages, %+v", got, st)
	}
}

func TestUpstreamLimits(t *testing.T) {
	t.Run("receive maximum", func(t *testing.T) {
		local, up := newFakeLocal(t), newFakeUpstream(t)
		up.connack, up.neverAck = mqtt.Properties{ReceiveMax: 3}, true
		o := testOptions(local, up.addr(), outAll)
		o.Protocol, o.Notifications = Protocol5, true
		b := startBridge(t, o)
		eventually(t, "up", inState(b, StateUp))
		for i := range 20 {
			publishRound(local, 1, i)
		}
		eventually(t, "the window is full", func() bool { return up.count() == 3 }) // one of them tells our state
		if got := b.Status().InflightOut; got < 2 {
			t.Errorf("%d held", got)
		}
		up.with(func() {
			if up.peak != 3 {
				t.Errorf("%d under way", up.peak)
			}
		})
	})
	t.Run("maximum packet size", func(t *testing.T) {
		local, up := newFakeLocal(t), newFakeUpstream(t)
		up.connack = mqtt.Properties{MaxPacketBytes: 200}
		o := testOptions(local, up.addr(), outAll)
		o.Protocol = Protocol5
		b := startBridge(t, o)
		eventually(t, "up", inState(b, StateUp))
		local.publish("s/0", strings.Repeat("x", 200), 1, false)
		local.publish5(localMsg{topic: "s/0", payload: strings.Repeat("x", 100), qos: 1, props: "\x26\x00\x01k\x00\x5a" + strings.Repeat("v", 90)})
		local.publish("s/0", strings.Repeat("y", 185), 1, false) // 2 + 2 + 6 + 2 + 1 + 185 = 198
		local.publish("s/0", "small", 1, false)
		eventually(t, "the session is empty", func() bool { return local.open() == 0 })
		if st := b.Status(); st.DroppedTooLarge != 2 || up.count() != 2 {
			t.Errorf("%d arrived, %+v", up.count(), st)
		}
	})
	t.Run("no retained messages", func(t *testing.T) {
		local, up := newFakeLocal(t), newFakeUpstream(t)
		up.connack = mqtt.Properties{RetainUnavailable: true}
		o := testOptions(local, up.addr(), outAll)
		o.Protocol = Protocol5
		startBridge(t, o)
		eventually(t, "subscribed", func() bool { return local.subscribes("s/0") })
		local.publish("s/0", "x", 1, true)
		eventually(t, "there", func() bool { return up.count() == 1 })
		if up.got[0].retain {
			t.Error("retained")
		}
	})
	t.Run("no wildcards", func(t *testing.T) {
		local, up := newFakeLocal(t), newFakeUpstream(t)
		up.connack = mqtt.Properties{WildcardUnavailable: true}
		o := testOptions(local, up.addr(), outAll, Route{Direction: In, Filter: "down/#", QoS: 1}, Route{Direction: In, Filter: "down", QoS: 1})
		o.Protocol = Protocol5
		b := startBridge(t, o)
		eventually(t, "degraded", inState(b, StateDegraded))
		if got := fmt.Sprint(b.Status().RefusedFilters); got != "[down/#]" {
			t.Errorf("refused %s", got)
		}
	})
	for name, c := range map[string]struct {
		props mqtt.Properties
		want  string
	}{
		"QoS 0 only":     {mqtt.Properties{HasMaxQoS: true}, "QoS 0 only"},
		"one at a time":  {mqtt.Properties{ReceiveMax: 1}, "no place for notifications"},
		"authentication": {mqtt.Properties{AuthMethod: []byte("SCRAM"), AuthData: []byte{}}, "authentication method"},
	} {
		t.Run(name, func(t *testing.T) {
			local, up := newFakeLocal(t), newFakeUpstream(t)
			up.connack = c.props
			o := testOptions(local, up.addr(), outAll)
			o.Protocol, o.Notifications = Protocol5, true
			b := startBridge(t, o)
			eventually(t, "the error", func() bool { return strings.Contains(b.Status().LastError, c.want) })
			if b.Status().Links != 0 {
				t.Error("up")
			}
		})
	}
}

// With auto, an upstream that does not speak MQTT 5 is spoken to in 3.1.1, which is
// said once and remembered.
func TestProtocolFallsBack(t *testing.T) {
	for _, how := range []string{"0x84", "0x01", "close"} {
		local, up := newFakeLocal(t), newFakeUpstream(t)
		up.not5 = how
		o := testOptions(local, up.addr(), outAll)
		o.Protocol = ProtocolAuto
		logs, log := observed()
		b := startLogged(t, o, log)
		eventually(t, how+": up", inState(b, StateUp))
		for range 3 {
			links := b.Status().Links
			up.cutAll()
			eventually(t, how+": up again", func() bool { return b.Status().Links > links })
		}
		up.with(func() {
			if up.connects != 5 || up.lastHi.Version != mqtt.V311 {
				t.Errorf("%s: %d CONNECTs, the last with version %d", how, up.connects, up.lastHi.Version)
			}
		})
		if n := logs.FilterMessageSnippet("does not speak MQTT 5").Len(); n != 1 {
			t.Errorf("%s: said %d times", how, n)
		}
	}
}

func TestProtocolStays(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	o := testOptions(local, up.addr(), outAll)
	o.Protocol = ProtocolAuto
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	up.with(func() { up.not5 = "close" }) // a restart that takes a while
	up.cutAll()
	eventually(t, "attempts", func() bool { up.mu.Lock(); defer up.mu.Unlock(); return up.connects > 5 })
	up.with(func() {
		if up.lastHi.Version != mqtt.V5 {
			t.Error("an upstream that spoke MQTT 5 is spoken to in 3.1.1 since it hung up")
		}
		up.not5 = ""
	})
	eventually(t, "up", inState(b, StateUp))
}

// The decisions alone.
func TestProtocolDecisions(t *testing.T) {
	hangUp, other := &stepError{stepMQTT, fmt.Errorf("x: %w", io.EOF)}, &stepError{stepTCP, io.EOF}
	refused := &stepError{stepMQTT, &connackError{version: mqtt.V311, code: 5}}
	for _, c := range []struct {
		protocol Protocol
		errs     []error
		want     mqtt.Version
	}{
		{Protocol5, []error{hangUp, errNot5}, mqtt.V5},
		{Protocol311, []error{hangUp}, mqtt.V311},
		{ProtocolAuto, []error{other}, mqtt.V5},
		{ProtocolAuto, []error{hangUp}, mqtt.V311},
		{ProtocolAuto, []error{hangUp, hangUp}, mqtt.V5},
		{ProtocolAuto, []error{hangUp, refused, hangUp, other}, mqtt.V311},
		{ProtocolAuto, []error{refused, hangUp}, mqtt.V5},
		{ProtocolAuto, []error{nil, errNot5}, mqtt.V311},
	} {
		p := newProtocol(c.protocol)
		for _, err := range c.errs {
			p.dialled(err)
		}
		if p.version != c.want {
			t.Errorf("%s %v: %d, want %d", c.protocol, c.errs, p.version, c.want)
		}
	}
}
