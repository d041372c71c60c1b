package e2e

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// paho311 connects a client of the library for MQTT 3.1 and 3.1.1.
func paho311(t testing.TB, address, id string, change func(*paho.ClientOptions)) paho.Client {
	t.Helper()
	o := paho.NewClientOptions().AddBroker("tcp://" + address).SetClientID(id).SetAutoReconnect(false).
		SetStore(paho.NewOrderedMemoryStore())
	if change != nil {
		change(o)
	}
	c := paho.NewClient(o)
	complete(t, c.Connect())
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

// complete waits for the end of an operation.
func complete(t testing.TB, token paho.Token) {
	t.Helper()
	if !token.WaitTimeout(patience) {
		t.Fatalf("not complete after %v", patience)
	}
	must(t, token.Error())
}

func line(m paho.Message) string {
	s := fmt.Sprintf("%s %s qos%d", m.Topic(), m.Payload(), m.Qos())
	if m.Retained() {
		s += " retained"
	}
	return s
}

func into(i *inbox[string]) paho.MessageHandler {
	return func(_ paho.Client, m paho.Message) { i.put(line(m)) }
}

func TestPaho311QoS(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	for _, v := range []uint{3, 4} {
		for granted := range byte(3) {
			t.Run(fmt.Sprintf("v%d/qos%d", v, granted), func(t *testing.T) {
				t.Parallel()
				version := func(o *paho.ClientOptions) { o.SetProtocolVersion(v) }
				prefix := fmt.Sprintf("q/%d/%d", v, granted)
				var in inbox[string]
				sub := paho311(t, b.Addr(), "sub-"+prefix[2:], version)
				complete(t, sub.Subscribe(prefix+"/#", granted, into(&in)))
				pub := paho311(t, b.Addr(), "pub-"+prefix[2:], version)
				var want []string
				for sent := range byte(3) { // delivered at the lower of the two [MQTT-3.8.4-8]
					for i := range 20 {
						topic := fmt.Sprintf("%s/%d", prefix, sent)
						complete(t, pub.Publish(topic, sent, false, strconv.Itoa(i)))
						want = append(want, fmt.Sprintf("%s %d qos%d", topic, i, min(sent, granted)))
					}
				}
				same(t, in.await(t, len(want)), want)
			})
		}
	}
}

func TestPaho311Wildcards(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	topics := []string{"site", "site/a", "site/a/temp", "site/b/temp", "site//temp", "/site/a/temp", "$site/a/temp", "other/temp"}
	matches := map[string][]string{
		"site/+/temp": {"site/a/temp", "site/b/temp", "site//temp"},
		"site/#":      {"site", "site/a", "site/a/temp", "site/b/temp", "site//temp"},
		"+/+":         {"site/a", "other/temp"},
		"#":           {"site", "site/a", "site/a/temp", "site/b/temp", "site//temp", "/site/a/temp", "other/temp"},
		"+/a/temp":    {"site/a/temp"}, // not $site [MQTT-4.7.2-1]
		"$site/#":     {"$site/a/temp"},
		"/+/#":        {"/site/a/temp"},
	}
	pub := paho311(t, b.Addr(), "pub", nil)
	inboxes := map[string]*inbox[string]{}
	for filter := range matches {
		in := &inbox[string]{}
		inboxes[filter] = in
		sub := paho311(t, b.Addr(), "sub "+filter, nil)
		complete(t, sub.Subscribe(filter, 1, func(_ paho.Client, m paho.Message) { in.put(m.Topic()) }))
	}
	for _, topic := range topics {
		complete(t, pub.Publish(topic, 1, false, "x"))
	}
	for filter, want := range matches {
		same(t, inboxes[filter].await(t, len(want)), want)
	}
	// Unsubscribed: nothing more comes, and what comes after tells so.
	var in inbox[string]
	sub := paho311(t, b.Addr(), "unsub", nil)
	complete(t, sub.SubscribeMultiple(map[string]byte{"site/a": 1, "site/b": 1}, into(&in)))
	complete(t, sub.Unsubscribe("site/a"))
	complete(t, pub.Publish("site/a", 1, false, "x"))
	complete(t, pub.Publish("site/b", 1, false, "y"))
	same(t, in.await(t, 1), []string{"site/b y qos1"})
}

// TestPaho311Resend cuts the connections of a publisher and of a subscriber with
// persistent sessions in mid-stream. The library sends again what is not
// acknowledged, and nothing may be missing. Not at QoS 2: there version 1.5.1
// sends again under new packet ids what the broker has, whichever broker it is.
// TestResend has QoS 2.
func TestPaho311Resend(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	link, err := rig.NewLink(b.Addr())
	must(t, err)
	t.Cleanup(link.Close)
	persistent := func(o *paho.ClientOptions) {
		o.SetCleanSession(false).SetAutoReconnect(true).SetMaxReconnectInterval(10 * time.Millisecond)
	}
	ledger := rig.NewLedger()
	sub := paho311(t, link.Addr(), "sub", persistent)
	complete(t, sub.Subscribe("source", 1, func(_ paho.Client, m paho.Message) { ledger.ArrivedPayload(m.Payload()) }))
	pub := paho311(t, link.Addr(), "pub", persistent)
	for round := range resends {
		for i := range perResend {
			n := uint64(round*perResend + i)
			must(t, startError(pub.Publish("source", 1, false, rig.Payload("source", n, 64))))
			ledger.Acked("source", n) // the library has it, and must bring it in the end
		}
		before := link.Connections()
		link.Reset()
		eventually(t, patience, "connected again", func() bool {
			return link.Connections() >= before+2 && pub.IsConnectionOpen() && sub.IsConnectionOpen()
		})
	}
	settled(t, ledger, patience, acked(resends*perResend))
}

const resends, perResend = 8, 200

// startError is the error of an operation that could not even begin.
func startError(token paho.Token) error {
	select {
	case <-token.Done():
		return token.Error()
	default:
		return nil
	}
}

// arrive notes messages that rig.Payload made.
func arrive(l *rig.Ledger) func(*mqtt.Publish) {
	return func(p *mqtt.Publish) { l.ArrivedPayload(p.Payload) }
}
