package sim

import (
	"fmt"

	"sluice/broker/mqtt"
)

// hostile is a client that breaks the rules: garbage, packets with bytes
// changed, half packets, packets out of turn, floods. Nothing is expected of
// the broker but that it survives, and closes the connection in the end. It
// never makes a session that outlives the connection, and it has no way to
// forge a publication of a device.
type hostile struct {
	w     *World
	id    string
	s     *sock
	heard int
}

func newHostile(w *World, n int) *hostile { return &hostile{w: w, id: fmt.Sprintf("hostile-%d", n)} }

// String names the client in the trace.
func (h *hostile) String() string { return h.id }

func (h *hostile) receive(b []byte) { h.heard += len(b) }
func (h *hostile) ended(bool)       { h.s = nil }
func (h *hostile) arrived(int)      {}
func (h *hostile) reluctant() bool  { return h.w.chance(0.5) }

func (h *hostile) act() {
	w := h.w
	if h.s == nil {
		if !w.host.up {
			return
		}
		h.s = w.open(h)
		if w.chance(0.8) {
			h.send(h.connect())
		}
		return
	}
	if len(h.s.up) > 1<<17 {
		return
	}
	switch x := w.rng.Float64(); {
	case x < 0.4:
		h.send(h.mutate(h.packet()))
	case x < 0.8:
		h.send(h.packet())
	case x < 0.85:
		h.garbage()
	case x < 0.87:
		for range 200 {
			h.send(h.packet())
		}
	case x < 0.90:
		w.note("die", h.id, int64(h.s.n), 0, "")
		h.s.abort()
		h.s = nil
	case x < 0.92:
		h.s.leave()
		h.s = nil
	}
}

func (h *hostile) send(b []byte) {
	h.w.note("> hostile", h.id, int64(len(b)), 0, "")
	if len(h.s.codes) > 0 && h.w.chance(0.02) {
		for _, e := range h.s.codes {
			e.spoilt = true
		}
		h.s.up = append(h.s.up, b...)
		return
	}
	h.s.send(h.w, b)
}

func (h *hostile) garbage() {
	b := make([]byte, h.w.between(1, 300))
	for i := range b {
		b[i] = byte(h.w.rng.Uint32())
	}
	if b[0]>>4 == byte(mqtt.CONNECT) {
		b[0] = 0
	}
	h.send(b)
}

func (h *hostile) connect() []byte {
	p := mqtt.Connect{Version: pick(h.w, mqtt.V31, mqtt.V311, mqtt.V5), Clean: true, ClientID: []byte(h.id)}
	if p.Version != mqtt.V31 && h.w.chance(0.3) {
		p.ClientID = nil
	}
	if h.w.cfg.auth {
		p.HasUsername, p.Username = true, []byte(pick(h.w, "hostile", "hostile", "user-0", "user-1"))
		p.HasPassword, p.Password = true, []byte(secretOf("hostile"))
		p.Version = pick(h.w, mqtt.V311, mqtt.V5)
	}
	b := mqtt.AppendConnect(nil, &p)
	if h.w.chance(0.2) {
		b = h.mutate(b)
		var q mqtt.Connect
		head, n, err := mqtt.ParseHeader(b, 0)
		if err == nil && n > 0 && len(b) >= n+head.Remaining {
			err = mqtt.DecodeConnect(&q, b[n:n+head.Remaining])
		}
		if err == nil { // it would make a session
			return mqtt.AppendConnect(nil, &p)
		}
	}
	return b
}

// packet gives a valid packet, most of the time one that does not fit the state of the connection.
func (h *hostile) packet() []byte {
	w := h.w
	v := pick(w, mqtt.V311, mqtt.V5)
	id := uint16(w.between(1, 20))
	switch w.rng.IntN(9) {
	case 0, 1, 2:
		m := mqtt.Publish{Topic: []byte(pick(w, "junk/"+h.id, "junk", "$SYS/x", "$x/y")), Payload: make([]byte, w.between(0, 50)), QoS: mqtt.QoS(w.rng.IntN(3)), PacketID: id, Retain: w.chance(0.1)}
		if m.QoS == 0 {
			m.PacketID = 0
		}
		return mqtt.AppendPublish(nil, &m, v)
	case 3:
		p := mqtt.Subscribe{PacketID: id, Filters: []mqtt.SubscribeFilter{{Filter: []byte(pick(w, "#", "t/#", "junk/+", "+/+")), QoS: mqtt.QoS(w.rng.IntN(3))}}}
		return mqtt.AppendSubscribe(nil, &p, v)
	case 4:
		p := mqtt.Unsubscribe{PacketID: id, Filters: [][]byte{[]byte("#")}}
		return mqtt.AppendUnsubscribe(nil, &p, v)
	case 5:
		return mqtt.AppendPingreq(nil)
	case 6:
		p := mqtt.Disconnect{}
		return mqtt.AppendDisconnect(nil, &p, v)
	}
	return mqtt.AppendPuback(nil, pick(w, mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP), id, mqtt.Success, v)
}

// mutate changes a byte, drops some, or doubles some.
func (h *hostile) mutate(b []byte) []byte {
	w := h.w
	switch i := w.rng.IntN(len(b)); w.rng.IntN(3) {
	case 0:
		b[i] ^= 1 << w.rng.IntN(8)
	case 1:
		b = b[:i]
	default:
		b = append(b, b[i:]...)
	}
	return b
}
