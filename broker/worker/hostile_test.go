package worker

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/broker/mqtt"
	"sluice/broker/session"
)

// randomPacket makes a packet that is mostly right: small ids that collide,
// topics and filters that meet, properties.
func randomPacket(r *rand.Rand, d *device) []byte {
	id := uint16(1 + r.IntN(5))
	topics := []string{"a", "a/b", "", "$SYS/x", "a/+", "#", "$share/g/a", "+/b", "a/#/b"}
	topic := []byte(topics[r.IntN(len(topics))])
	switch n := r.IntN(13); {
	case n < 4:
		p := mqtt.Publish{Topic: topic, Payload: make([]byte, r.IntN(3)*r.IntN(5000)), QoS: mqtt.QoS(r.IntN(3)), Retain: r.IntN(3) == 0, Dup: r.IntN(3) == 0}
		if p.QoS > 0 {
			p.PacketID = id
		}
		if d.v == mqtt.V5 {
			p.TopicAlias = uint16(r.IntN(4) * r.IntN(12))
			if r.IntN(3) == 0 {
				p.HasMessageExpiry, p.ExpirySeconds = true, r.Uint32N(3)
			}
			if r.IntN(40) == 0 {
				p.SubIDs = []uint32{1}
			}
		}
		return mqtt.AppendPublish(nil, &p, d.v)
	case n < 8:
		return mqtt.AppendPuback(nil, mqtt.PUBACK+mqtt.Type(r.IntN(4)), id, mqtt.Reason(r.IntN(2)*0x92), d.v)
	case n < 10:
		p := mqtt.Subscribe{PacketID: id}
		for range 1 + r.IntN(3) {
			p.Filters = append(p.Filters, mqtt.SubscribeFilter{Filter: []byte(topics[r.IntN(len(topics))] + "/x"[:2*r.IntN(2)]), QoS: mqtt.QoS(r.IntN(3)),
				RetainHandling: uint8(r.IntN(3)), RetainAsPublished: r.IntN(2) == 0})
		}
		p.Props.SubscriptionID = r.Uint32N(3)
		return mqtt.AppendSubscribe(nil, &p, d.v)
	case n == 10:
		return mqtt.AppendUnsubscribe(nil, &mqtt.Unsubscribe{PacketID: id, Filters: [][]byte{[]byte("a"), topic}}, d.v)
	case n == 11 && r.IntN(8) == 0:
		x := mqtt.Disconnect{Reason: mqtt.Reason(r.IntN(2) * 4)}
		x.Props.HasSessionExpiry, x.Props.SessionExpirySeconds = r.IntN(2) == 0, r.Uint32N(2)*100
		return mqtt.AppendDisconnect(nil, &x, d.v)
	}
	return mqtt.AppendPingreq(nil)
}

// Whatever clients send, the workers keep their invariants and serve others.
func TestHostileClients(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 8))
		rig := newRig(t, 2, func(o *Options) {
			o.Limits = session.DefaultLimits()
			o.Limits.ReceiveMax, o.Limits.InflightMax, o.Limits.Queue.Messages, o.Limits.SubscriptionsMax = 4, 3, 20, 5
			o.OutputBytesMax = 3000
		})
		good := rig.connect("good", mqtt.V5, nil)
		good.subscribe("good/x:1")
		devices := make([]*device, 5)
		for i := range 400 {
			n := r.IntN(len(devices))
			d := devices[n]
			if d == nil || d.closed {
				d = rig.dial(r.IntN(2), mqtt.V31+mqtt.Version(r.IntN(3)))
				devices[n] = d
				d.sendConnect(fmt.Sprint("evil-", r.IntN(4)), func(c *mqtt.Connect) {
					if r.IntN(3) > 0 {
						durableSession(c)
					}
					c.Props.ReceiveMax, c.Props.MaxPacketBytes = uint16(r.IntN(3)), uint32(r.IntN(2)*200)
					c.HasWill = r.IntN(2) == 0
					c.Will = mqtt.Will{Topic: []byte("a"), QoS: mqtt.QoS(r.IntN(3)), Retain: r.IntN(2) == 0}
				})
			}
			for range r.IntN(6) {
				p := randomPacket(r, d)
				if r.IntN(60) == 0 {
					p[r.IntN(len(p))] ^= 1 << r.IntN(8)
				}
				d.send(p)
			}
			d.room = []int{-1, 0, 100}[r.IntN(3)]
			rig.lazy = r.IntN(3) == 0
			switch {
			case r.IntN(30) == 0:
				d.end = unix.ECONNRESET
			case r.IntN(10) == 0:
				rig.now = rig.now.Add(1e9)
			}
			rig.run()
			d.out = nil
			if i%50 == 0 {
				rig.lazy = false
				good.send(good.publication("good/x", "still", 1, 1))
				rig.run()
				got := good.read()
				if len(got) != 2 {
					t.Fatalf("seed %d, step %d: the good client got %q", seed, i, got)
				}
				good.ack(mqtt.PUBACK, uint16(i/50+1))
			}
		}
		if err := rig.g.index.Check(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}
