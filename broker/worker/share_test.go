package worker

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"
)

// payloads gives what came with PUBLISH.
func payloads(packets []string) (all []string) {
	for _, p := range packets {
		if _, rest, ok := strings.Cut(p, "="); ok {
			all = append(all, strings.Fields(rest)[0])
		}
	}
	return all
}

// A message that a member of a share group has not acknowledged when its session
// ends goes to another member; one of QoS 2 only if it was not begun [MQTT-4.8.2-5].
func TestShareGroupHandsOn(t *testing.T) {
	type member struct {
		name string
		set  func(*mqtt.Connect)
		ends func(r *rig, d *device)
	}
	gone := func(r *rig, d *device) {
		d.end = io.EOF
		r.run()
	}
	members := []member{
		{"without a store", nil, gone},
		{"of a store, expires", func(c *mqtt.Connect) { c.Clean = false; expiry(c, 2) }, func(r *rig, d *device) {
			gone(r, d)
			r.wait(4 * time.Second)
		}},
		{"of a store, ends at DISCONNECT", durableSession, func(r *rig, d *device) {
			p := mqtt.Disconnect{}
			p.Props.HasSessionExpiry = true
			d.send(mqtt.AppendDisconnect(nil, &p, d.v))
			r.run()
		}},
		{"of a store, begins anew", durableSession, func(r *rig, d *device) {
			gone(r, d)
			r.connect("first", mqtt.V5, nil)
		}},
	}
	for _, m := range members {
		for _, heir := range []string{"none", "durable"} {
			for _, workers := range []int{1, 3} {
				t.Run(fmt.Sprintf("%s, heir %s, %d workers", m.name, heir, workers), func(t *testing.T) {
					r := newRig(t, workers, nil)
					pub := r.connect("pub", mqtt.V5, nil)
					first := r.connect("first", mqtt.V5, func(c *mqtt.Connect) {
						if m.set != nil {
							m.set(c)
						}
						c.Props.ReceiveMax = 4
					})
					first.subscribe("$share/g/t/+:2")
					var want []string
					for i := 1; i <= 10; i++ {
						qos := mqtt.QoS(1 + i%2)
						pub.send(pub.publication("t/x", fmt.Sprint(i), qos, uint16(i)))
						r.run()
						if qos == 2 {
							pub.ack(mqtt.PUBREL, uint16(i))
							r.run()
						}
						if i > 4 || qos == 1 { // the first four are sent
							want = append(want, fmt.Sprint(i))
						}
					}
					if got := payloads(first.read()); len(got) != 4 {
						t.Fatalf("the first member got %v", got)
					}
					second := r.connect("second", mqtt.V5, func(c *mqtt.Connect) {
						if heir == "durable" {
							durableSession(c)
						}
					})
					second.subscribe("$share/g/t/+:2")
					m.ends(r, first)
					r.run()
					if got := payloads(second.read()); fmt.Sprint(got) != fmt.Sprint(want) {
						t.Errorf("the second member got %v, want %v", got, want)
					}
					// What was handed on is not there a second time after a crash.
					if m.set != nil {
						for _, w := range r.ws {
							if len(w.leaving) > 0 {
								t.Error("a session is still leaving")
							}
						}
						if n := r.store.Stats().QueuedMessages; heir == "none" && n != 0 {
							t.Errorf("%d messages are queued for nobody", n)
						}
					}
				})
			}
		}
	}
}

// Who unsubscribes gives up what was not sent to him.
func TestShareGroupUnsubscribe(t *testing.T) {
	r := newRig(t, 2, nil)
	pub := r.connect("pub", mqtt.V5, nil)
	first := r.connect("first", mqtt.V5, func(c *mqtt.Connect) { c.Props.ReceiveMax = 2 })
	first.subscribe("$share/g/t:1")
	for i := 1; i <= 5; i++ {
		pub.send(pub.publication("t", fmt.Sprint(i), 1, uint16(i)))
	}
	r.run()
	second := r.connect("second", mqtt.V5, nil)
	second.subscribe("$share/g/t:1")
	u := mqtt.Unsubscribe{PacketID: 9, Filters: [][]byte{[]byte("$share/g/t")}}
	first.send(mqtt.AppendUnsubscribe(nil, &u, mqtt.V5))
	r.run()
	if got := payloads(second.read()); fmt.Sprint(got) != "[3 4 5]" {
		t.Errorf("handed on: %v", got)
	}
	if n := r.ws[0].stats.Redelivered + r.ws[1].stats.Redelivered; n != 3 {
		t.Errorf("counted %d", n)
	}
}

// Of a share group with members that are away, those that are there get the messages.
func TestShareGroupPrefersWhoIsThere(t *testing.T) {
	r := newRig(t, 2, nil)
	pub := r.connect("pub", mqtt.V5, nil)
	away := r.connect("away", mqtt.V5, durableSession)
	away.subscribe("$share/g/t:1")
	there := r.connect("there", mqtt.V5, nil)
	there.subscribe("$share/g/t:1")
	away.end = io.EOF
	r.run()
	for i := 1; i <= 10; i++ {
		pub.send(pub.publication("t", fmt.Sprint(i), 1, uint16(i)))
	}
	r.run()
	if got := payloads(there.read()); len(got) != 10 {
		t.Errorf("the member that is there got %v", got)
	}
	away = r.connect("away", mqtt.V5, durableSession)
	for i := 1; i <= 10; i++ {
		pub.send(pub.publication("t", fmt.Sprint(i), 1, uint16(i+20)))
	}
	r.run()
	if got := payloads(away.read()); len(got) != 5 {
		t.Errorf("the member that came back got %v of 10", got)
	}
}
