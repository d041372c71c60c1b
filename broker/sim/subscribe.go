package sim

import (
	"strings"

	"fmt"
	"slices"

	"sluice/broker/mqtt"
)

// newWant draws a subscription.
func (d *device) newWant() grant {
	w := d.w
	filter := pick(w, "t/a", "t/b", "t/+", "t/#", "t/a/#", "+/a", "#", "r/+", "r/#", fmt.Sprintf("r/%d", w.rng.IntN(w.cfg.devices)), "u/#")
	g := grant{filter: filter, qos: mqtt.QoS(w.rng.IntN(3))}
	if d.version == mqtt.V5 {
		g.noLocal, g.rap = w.chance(0.2), w.chance(0.2)
		g.rh = uint8(w.rng.IntN(3))
		if w.chance(0.3) {
			g.id = uint32(w.between(1, 300))
		}
	}
	return g
}

// requestsMax bounds the SUBSCRIBEs and UNSUBSCRIBEs under way, so that packet
// ids do not run out (config.pidMax): together with window, and what a new
// session subscribes to, it must stay below.
const requestsMax = 5

// want makes the device subscribe to g whenever it has a new session.
func (d *device) want(g grant) {
	d.unwant(g.filter)
	d.wants = append(d.wants, g)
}

func (d *device) unwant(filter string) {
	d.wants = slices.DeleteFunc(d.wants, func(o grant) bool { return o.filter == filter })
}

func (d *device) subscribe(l *link) {
	if len(l.requests) >= requestsMax {
		return
	}
	var gs []grant
	for range d.w.between(1, 2) {
		g := d.newWant()
		d.want(g)
		gs = append(gs, g)
	}
	if d.w.chance(0.1) {
		gs = append(gs, grant{filter: strings.Repeat("/", d.w.cfg.limits.TopicLevelsMax), bad: true})
	}
	d.sendSubscribe(l, gs)
}

// sendSubscribe sends one SUBSCRIBE for all of gs. Its identifier is that of
// the first.
func (d *device) sendSubscribe(l *link, gs []grant) {
	w := d.w
	p := mqtt.Subscribe{PacketID: d.takePID()}
	p.Props.SubscriptionID = gs[0].id
	r := &request{kind: mqtt.SUBACK, pid: p.PacketID, codes: len(gs), sent: w.next()}
	for _, g := range gs {
		g.id = gs[0].id
		p.Filters = append(p.Filters, mqtt.SubscribeFilter{Filter: []byte(g.filter), QoS: g.qos,
			NoLocal: g.noLocal, RetainAsPublished: g.rap, RetainHandling: g.rh})
		if !g.bad {
			d.book.subscribe(&g, w.next())
		}
		r.grants = append(r.grants, &g)
		w.note("subscribe", l.name, int64(g.qos), int64(g.id), g.filter)
	}
	l.requests = append(l.requests, r)
	l.send("SUBSCRIBE", int(p.PacketID), mqtt.AppendSubscribe(nil, &p, l.version))
}

// unsubscribe ends one of the subscriptions; shared ones stay.
func (d *device) unsubscribe(l *link) {
	w := d.w
	if len(d.wants) == 0 || len(l.requests) >= requestsMax {
		return
	}
	g := d.wants[w.rng.IntN(len(d.wants))]
	if g.shared {
		return
	}
	d.unwant(g.filter)
	p := mqtt.Unsubscribe{PacketID: d.takePID(), Filters: [][]byte{[]byte(g.filter)}}
	ended := d.book.unsubscribe(g.filter, w.next())
	l.requests = append(l.requests, &request{kind: mqtt.UNSUBACK, pid: p.PacketID, grants: ended, codes: 1})
	l.send("UNSUBSCRIBE", int(p.PacketID), mqtt.AppendUnsubscribe(nil, &p, l.version))
	w.note("unsubscribe", l.name, 0, 0, g.filter)
}
