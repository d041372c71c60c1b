package e2e

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"

	"sluice/cmd/sluice/e2e/rig"
)

// client5 is a client of the library for MQTT 5.
type client5 struct {
	*paho.Client
	inbox[*paho.Publish]
	t            testing.TB
	connack      *paho.Connack
	disconnected chan byte // the reason code of a DISCONNECT from the broker
}

// paho5 connects one. change may alter what it is before it connects; it must
// give a connection if address is "".
func paho5(t testing.TB, address, id string, change func(*paho.ClientConfig, *paho.Connect)) *client5 {
	t.Helper()
	c, err := tryPaho5(t, address, id, change)
	must(t, err)
	return c
}

// tryPaho5 is paho5 for a client that may be refused; connack says why.
func tryPaho5(t testing.TB, address, id string, change func(*paho.ClientConfig, *paho.Connect)) (c *client5, err error) {
	t.Helper()
	c = &client5{t: t, disconnected: make(chan byte, 1)}
	cfg := paho.ClientConfig{
		PacketTimeout: patience,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			c.put(r.Packet)
			return true, nil
		}},
		OnServerDisconnect: func(d *paho.Disconnect) { c.disconnected <- d.ReasonCode },
		OnClientError:      func(error) {},
	}
	cp := &paho.Connect{ClientID: id, CleanStart: true, KeepAlive: 60, Properties: &paho.ConnectProperties{RequestProblemInfo: true}}
	if change != nil {
		change(&cfg, cp)
	}
	if address != "" {
		cfg.Conn, err = net.Dial("tcp", address)
		must(t, err)
	}
	c.Client = paho.NewClient(cfg)
	if c.connack, err = c.Connect(within(t), cp); err != nil {
		return c, err
	}
	t.Cleanup(func() { _ = c.Disconnect(&paho.Disconnect{}) }) // it may have gone
	return c, nil
}

// durable5 asks for a session that outlives its connection by seconds.
func durable5(seconds uint32) func(*paho.ClientConfig, *paho.Connect) {
	return func(_ *paho.ClientConfig, cp *paho.Connect) {
		cp.CleanStart, cp.Properties.SessionExpiryInterval = false, &seconds
	}
}

// within is a context that lasts as long as a test is patient.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (c *client5) subscribe(id int, options ...paho.SubscribeOptions) {
	c.t.Helper()
	s := &paho.Subscribe{Subscriptions: options}
	if id != 0 {
		s.Properties = &paho.SubscribeProperties{SubscriptionIdentifier: &id}
	}
	_, err := c.Subscribe(within(c.t), s)
	must(c.t, err)
}

func (c *client5) publish(p *paho.Publish) {
	c.t.Helper()
	_, err := c.Publish(within(c.t), p)
	must(c.t, err)
}

// payloads waits for n messages and returns "topic payload" of each.
func (c *client5) payloads(n int) (all []string) {
	c.t.Helper()
	for _, p := range c.await(c.t, n) {
		all = append(all, p.Topic+" "+string(p.Payload))
	}
	return all
}

func TestPaho5Properties(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	for qos := range byte(3) {
		sub := paho5(t, b.Addr(), "sub"+strconv.Itoa(int(qos)), nil)
		sub.subscribe(7, paho.SubscribeOptions{Topic: "p/#", QoS: qos})
		pub := paho5(t, b.Addr(), "pub"+strconv.Itoa(int(qos)), nil)
		utf8, expiry := byte(1), uint32(1000)
		user := paho.UserProperties{{Key: "b", Value: "1"}, {Key: "a", Value: "2"}, {Key: "b", Value: "3"}, {Key: "", Value: ""}, {Key: "a", Value: "2"}}
		pub.publish(&paho.Publish{Topic: "p/1", QoS: qos, Payload: []byte("{}"), Properties: &paho.PublishProperties{
			ContentType: "application/json", ResponseTopic: "answers", CorrelationData: []byte{0, 1, 255},
			PayloadFormat: &utf8, MessageExpiry: &expiry, User: user,
		}})
		m := sub.await(t, 1)[0]
		p := m.Properties
		if m.QoS != qos || p.ContentType != "application/json" || p.ResponseTopic != "answers" ||
			!slices.Equal(p.CorrelationData, []byte{0, 1, 255}) || p.PayloadFormat == nil || *p.PayloadFormat != 1 {
			t.Errorf("QoS %d: got %+v %+v", qos, m, p)
		}
		if !slices.Equal(p.User, user) { // in their order [MQTT-3.3.2-18]
			t.Errorf("user properties: got %v, want %v", p.User, user)
		}
		if p.MessageExpiry == nil || *p.MessageExpiry > expiry || *p.MessageExpiry < expiry-60 {
			t.Errorf("message expiry is not what is left of %d", expiry)
		}
		if p.SubscriptionIdentifier == nil || *p.SubscriptionIdentifier != 7 {
			t.Errorf("subscription identifier is not 7")
		}
	}
}

func TestPaho5NoLocal(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	one, two := paho5(t, b.Addr(), "one", nil), paho5(t, b.Addr(), "two", nil)
	one.subscribe(0, paho.SubscribeOptions{Topic: "chat", QoS: 1, NoLocal: true})
	two.subscribe(0, paho.SubscribeOptions{Topic: "chat", QoS: 1})
	one.publish(&paho.Publish{Topic: "chat", QoS: 1, Payload: []byte("from one")})
	two.publish(&paho.Publish{Topic: "chat", QoS: 1, Payload: []byte("from two")})
	same(t, two.payloads(2), []string{"chat from one", "chat from two"})
	same(t, one.payloads(1), []string{"chat from two"}) // [MQTT-3.8.3-3]
}

func TestPaho5RetainHandling(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	pub := paho5(t, b.Addr(), "pub", nil)
	pub.publish(&paho.Publish{Topic: "r/a", QoS: 1, Retain: true, Payload: []byte("kept")})
	// How many retained messages three subscriptions in a row bring (MQTT5 3.8.3.1).
	for handling, counts := range map[byte][]int{0: {1, 1, 1}, 1: {1, 0, 0}, 2: {0, 0, 0}} {
		sub := paho5(t, b.Addr(), name("sub", int(handling)), nil)
		sum := 0
		for i, n := range counts {
			sub.subscribe(0, paho.SubscribeOptions{Topic: "r/#", QoS: 1, RetainHandling: handling, RetainAsPublished: i == 2})
			pub.publish(&paho.Publish{Topic: "r/live", QoS: 1, Retain: true, Payload: []byte{byte('0' + i)}})
			pub.publish(&paho.Publish{Topic: "r/live", QoS: 1, Retain: true})
			sum += n + 2
			got := sub.await(t, sum)[sum-n-2:]
			for k, m := range got {
				wantRetain := k < n || i == 2 // live ones only as published
				wantTopic := "r/live"
				if k < n {
					wantTopic = "r/a"
				}
				if m.Retain != wantRetain || m.Topic != wantTopic {
					t.Errorf("handling %d, subscription %d, message %d: %s retain %v, want %s %v", handling, i, k, m.Topic, m.Retain, wantTopic, wantRetain)
				}
			}
		}
	}
}

func TestPaho5TopicAlias(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	sub := paho5(t, b.Addr(), "sub", nil)
	sub.subscribe(0, paho.SubscribeOptions{Topic: "a/#", QoS: 1})
	pub := paho5(t, b.Addr(), "pub", nil)
	most := *pub.connack.Properties.TopicAliasMaximum
	send := func(topic string, alias uint16, payload string) {
		pub.publish(&paho.Publish{Topic: topic, QoS: 1, Payload: []byte(payload), Properties: &paho.PublishProperties{TopicAlias: &alias}})
	}
	send("a/one", 1, "set")
	send("a/last", most, "set")
	send("", 1, "used")
	send("", most, "used")
	send("a/two", 1, "set anew")
	send("", 1, "used")
	same(t, sub.payloads(6), []string{"a/one set", "a/last set", "a/one used", "a/last used", "a/two set anew", "a/two used"})

	bad := paho5(t, b.Addr(), "bad", nil)
	unknown := uint16(3)
	_, _ = bad.Publish(within(t), &paho.Publish{Payload: []byte("x"), Properties: &paho.PublishProperties{TopicAlias: &unknown}})
	if got := <-bad.disconnected; got != 0x82 { // [MQTT-3.3.2-12]
		t.Errorf("an unknown alias: DISCONNECT 0x%02x, want 0x82", got)
	}
}

func TestPaho5Takeover(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	first := paho5(t, b.Addr(), "same id", durable5(100))
	first.subscribe(0, paho.SubscribeOptions{Topic: "t", QoS: 1})
	if first.connack.SessionPresent {
		t.Error("session present at the first connect")
	}
	second := paho5(t, b.Addr(), "same id", durable5(100))
	if got := <-first.disconnected; got != 0x8E {
		t.Errorf("DISCONNECT 0x%02x, want 0x8E", got)
	}
	if !second.connack.SessionPresent {
		t.Error("the second client has not got the first one's session")
	}
	second.publish(&paho.Publish{Topic: "t", QoS: 1, Payload: []byte("x")})
	same(t, second.payloads(1), []string{"t x"})
	if n := len(first.sofar()); n != 0 {
		t.Errorf("the first client got %d messages", n)
	}
	third := paho5(t, b.Addr(), "same id", nil) // clean start
	if third.connack.SessionPresent {
		t.Error("session present after a clean start")
	}
}

func TestPaho5RequestResponse(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	server := paho5(t, b.Addr(), "server", nil)
	server.subscribe(0, paho.SubscribeOptions{Topic: "ask", QoS: 1})
	client := paho5(t, b.Addr(), "client", nil)
	client.subscribe(0, paho.SubscribeOptions{Topic: "answers/client", QoS: 1})
	for i := range 10 {
		client.publish(&paho.Publish{Topic: "ask", QoS: 1, Payload: []byte(strconv.Itoa(i)), Properties: &paho.PublishProperties{
			ResponseTopic: "answers/client", CorrelationData: fmt.Appendf(nil, "request-%d", i),
		}})
		q := server.await(t, i+1)[i]
		server.publish(&paho.Publish{Topic: q.Properties.ResponseTopic, QoS: 1, Payload: append([]byte("re "), q.Payload...),
			Properties: &paho.PublishProperties{CorrelationData: q.Properties.CorrelationData}})
		a := client.await(t, i+1)[i]
		if string(a.Payload) != "re "+strconv.Itoa(i) || string(a.Properties.CorrelationData) != fmt.Sprintf("request-%d", i) {
			t.Errorf("request %d: answer %q for %q", i, a.Payload, a.Properties.CorrelationData)
		}
	}
}

// TestPaho5Resend is TestPaho311Resend for the other library, which keeps the
// session between two clients. At QoS 1 only: version 0.23.0 panics when a
// connection ends while it answers a PUBREC. TestResend has QoS 2.
func TestPaho5Resend(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	link, err := rig.NewLink(b.Addr())
	must(t, err)
	t.Cleanup(link.Close)
	ledger := rig.NewLedger()
	subscribed(t, b.Addr(), rig.ClientOptions{ID: "sub", Version: 5, OnMessage: arrive(ledger)}, 2, "source")
	session := state.NewInMemory()
	for round := range resends {
		pub := paho5(t, link.Addr(), "pub", func(cfg *paho.ClientConfig, cp *paho.Connect) {
			durable5(100)(cfg, cp)
			cfg.Session = session
		})
		if pub.connack.SessionPresent != (round > 0) {
			t.Errorf("round %d: session present is %v", round, pub.connack.SessionPresent)
		}
		for i := range perResend {
			n := uint64(round*perResend + i)
			_, err := pub.PublishWithOptions(within(t), &paho.Publish{Topic: "source", QoS: 1, Payload: rig.Payload("source", n, 64)},
				paho.PublishOptions{Method: paho.PublishMethod_AsyncSend})
			must(t, err)
			ledger.Acked("source", n) // it is in the library's session
		}
		if round < resends-1 {
			link.Reset()
			<-pub.Done()
		}
	}
	settled(t, ledger, patience, acked(resends*perResend))
}

// pass lets real time pass, where that is what is tested: expiry.
func pass(d time.Duration) { <-time.After(d) }
