package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/paho"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// withProperties writes all that belongs to a message beside topic and payload; its
// expiry only roughly, since it counts down.
func withProperties(p *paho.Publish) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s qos%d", p.Topic, p.Payload, p.QoS)
	x := p.Properties
	if x.PayloadFormat != nil {
		fmt.Fprintf(&b, " format=%d", *x.PayloadFormat)
	}
	fmt.Fprintf(&b, " type=%q response=%q correlation=%x", x.ContentType, x.ResponseTopic, x.CorrelationData)
	if x.MessageExpiry != nil && *x.MessageExpiry > 3500 && *x.MessageExpiry <= 3600 {
		b.WriteString(" expires within the hour")
	}
	for _, u := range x.User {
		fmt.Fprintf(&b, " %s=%s", u.Key, u.Value)
	}
	return b.String()
}

func fullMessage(topic string) *paho.Publish {
	p := &paho.Publish{QoS: 1, Topic: topic, Payload: []byte("21.5"), Properties: &paho.PublishProperties{
		PayloadFormat: paho.Byte(1), ContentType: "text/plain", ResponseTopic: "answers/7", CorrelationData: []byte{0, 1, 0xFF}, MessageExpiry: paho.Uint32(3600),
	}}
	p.Properties.User.Add("unit", "C").Add("sensor", "1").Add("unit", "again")
	return p
}

const fullProperties = ` 21.5 qos1 format=1 type="text/plain" response="answers/7" correlation=0001ff expires within the hour unit=C sensor=1 unit=again`

// TestBridge5Properties: what MQTT 5 adds to a message crosses in both directions, with
// the protocol set and found out, and does not with 3.1.1.
func TestBridge5Properties(t *testing.T) {
	t.Parallel()
	for protocol, want := range map[string]string{"5": fullProperties, "auto": fullProperties, "3.1.1": ` 21.5 qos1 type="" response="" correlation=`} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			x := bridge(t, "protocol = \""+protocol+"\"\n"+outRoute+"[[bridge.route]]\ndirection = \"in\"\nfilter = \"commands/#\"\n", nil)
			x.through()
			here, there := paho5(t, x.Addr(), "here", nil), paho5(t, x.cloud.Addr(), "there", nil)
			for _, s := range []struct {
				c      *client5
				filter string
			}{{here, "commands/#"}, {there, "site/7/sensors/a"}} {
				_, err := s.c.Subscribe(within(t), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: s.filter, QoS: 1}}})
				must(t, err)
			}
			for _, m := range []struct {
				from, to    *client5
				topic, name string
			}{{here, there, "sensors/a", "site/7/sensors/a"}, {there, here, "commands/a", "commands/a"}} {
				_, err := m.from.Publish(within(t), fullMessage(m.topic))
				must(t, err)
				eventually(t, patience, m.name, func() bool { return len(m.to.sofar()) == 1 })
				if got := withProperties(m.to.sofar()[0]); got != m.name+want {
					t.Errorf("arrived %s\nwanted  %s", got, m.name+want)
				}
			}
		})
	}
}

// TestBridge5Outages: in MQTT 5 nothing is lost either, whatever ends the connection or
// the gateway.
func TestBridge5Outages(t *testing.T) {
	t.Parallel()
	x := bridge(t, "protocol = \"5\"\n"+outRoute, nil)
	x.through()
	s := x.traffic()
	for i, fail := range []func(*rig.Link){(*rig.Link).Cut, (*rig.Link).Reset, (*rig.Link).Blackhole, (*rig.Link).Refuse} {
		s.acked(bridgeMessages * (2*i + 1) / 10)
		fail(x.link)
		s.acked(bridgeMessages * (2*i + 2) / 10)
		if i%2 == 1 {
			x.kill()
			x.start()
		}
		must(t, x.link.Restore())
	}
	s.wait()
	x.arrived()
}

// TestBridge5ToSluice: two of ours, bridged both ways on overlapping topics, tell each
// other everything once.
func TestBridge5ToSluice(t *testing.T) {
	t.Parallel()
	cloud := start(t, "")
	site := start(t, "[[bridge]]\nname = \"cloud\"\nprotocol = \"5\"\naddress = \"tcp://"+cloud.Addr()+"\"\nreconnect_min = \"20ms\"\n"+
		"[[bridge.route]]\ndirection = \"out\"\nfilter = \"both/#\"\n[[bridge.route]]\ndirection = \"in\"\nfilter = \"both/#\"\n")
	var inCloud, onSite inbox[string]
	up := subscribed(t, cloud.Addr(), rig.ClientOptions{ID: "c", Clean: true, OnMessage: func(p *mqtt.Publish) { inCloud.put(received(p)) }}, 1, "both/#")
	down := subscribed(t, site.Addr(), rig.ClientOptions{ID: "s", Clean: true, OnMessage: func(p *mqtt.Publish) { onSite.put(received(p)) }}, 1, "both/#")
	eventually(t, patience, "the bridge is up", func() bool {
		must(t, up.Publish("both/probe", []byte("p"), 1, false, 0))
		return len(onSite.sofar()) > 0
	})
	must(t, up.Publish("both/x", []byte("from the cloud"), 1, false, 0))
	must(t, down.Publish("both/y", []byte("from the site"), 1, false, 0))
	must(t, up.Publish("both/z", []byte("last"), 1, false, 0))
	must(t, down.Publish("both/z", []byte("last here"), 1, false, 0))
	for what, box := range map[string]*inbox[string]{"in the cloud": &inCloud, "on the site": &onSite} {
		eventually(t, patience, what, func() bool {
			return slices.Contains(box.sofar(), "both/z last qos1") && slices.Contains(box.sofar(), "both/z last here qos1")
		})
		seen := map[string]int{}
		for _, m := range box.sofar() {
			if seen[m]++; seen[m] > 1 && !strings.Contains(m, "probe") {
				t.Errorf("%s: %s came %d times", what, m, seen[m])
			}
		}
	}
}
