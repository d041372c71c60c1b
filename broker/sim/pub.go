package sim

import (
	"encoding/binary"
	"strings"

	"sluice/broker/mqtt"
	"sluice/platform/mono"
)

// pub is a publication, as its publisher knows it. Its number is in its
// payload, so whoever receives it can be asked which it is.
type pub struct {
	n      int
	from   *device
	topic  string
	qos    mqtt.QoS
	retain bool
	clears bool // retained, with an empty payload
	bytes  int  // of payload
	sentAt mono.Time
	first  int64 // stamp of the first transmission
	acked  int64 // stamp of the PUBACK or PUBREC that accepted it; 0: none

	// sends counts transmissions, fresh those that were not resends within a
	// session, relived those resends that may have met another process.
	sends, fresh, relived int
	life                  int   // w.crashes at the last transmission
	last                  int64 // stamp of the last transmission

	expirySeconds uint32 // 0: none
	refused       bool
	given         bool // a given-up publication is not sent again
	tag           bool // carries its number as a user property, too

	// Of QoS 0: it was sent on this connection, and whether the broker is
	// known to have seen it.
	link *link

	will   bool
	voided bool // the will must not be published
	dies   int  // w.crashes when the connection died without DISCONNECT; -1: not yet, or not so
	got    bool // somebody received it
}

// routed is how often the broker may have taken p for a new message, as a
// receiver sees it. Only with QoS 2 can it tell a resend; and after a crash, or
// when the store refused the message, only if the message had been stored:
// before that no durable receiver with QoS 2 sees it, but others do.
func (p *pub) routed(w *World, eff mqtt.QoS, durable bool) int {
	switch {
	case p.qos < 2, w.cfg.quota() && !(eff == 2 && durable):
		return p.sends
	case eff < 2:
		return p.fresh + p.relived
	}
	return p.fresh
}

// payloadBytesMin is the length of what identifies a publication: two letters,
// its number, a check sum.
const payloadBytesMin = 10

func checksum(n uint32) uint32 { return n*2654435761 ^ 0x5A17 }

// payload makes the payload of p.
func (p *pub) payload() []byte {
	if p.clears {
		return nil
	}
	b := make([]byte, p.bytes)
	copy(b, "SL")
	binary.BigEndian.PutUint32(b[2:], uint32(p.n))
	binary.BigEndian.PutUint32(b[6:], checksum(uint32(p.n)))
	for i := payloadBytesMin; i < len(b); i++ {
		b[i] = byte(p.n + i)
	}
	return b
}

// identify finds the publication that a payload belongs to. It gives nil for
// what no device has published: a hostile client may have.
func (w *World) identify(b []byte) *pub {
	if len(b) < payloadBytesMin || string(b[:2]) != "SL" {
		return nil
	}
	n := binary.BigEndian.Uint32(b[2:])
	if binary.BigEndian.Uint32(b[6:]) != checksum(n) || int(n) >= len(w.pubs) {
		return nil
	}
	p := w.pubs[n]
	if p.bytes != len(b) {
		w.fail("payload", "publication %d of %d bytes arrives with %d", n, p.bytes, len(b))
	}
	for i := payloadBytesMin; i < len(b); i++ {
		if b[i] != byte(p.n+i) {
			w.fail("payload", "publication %d: byte %d is %#x", n, i, b[i])
		}
	}
	return p
}

// newPub makes a publication; the caller sets the rest.
func (w *World) newPub(from *device, topic string, qos mqtt.QoS) *pub {
	p := &pub{n: len(w.pubs), from: from, topic: topic, qos: qos, bytes: payloadBytesMin + w.rng.IntN(60), dies: -1}
	w.pubs = append(w.pubs, p)
	return p
}

// tagProps is the user property of a publication that is tagged, in wire form.
func (p *pub) tagProps() []byte {
	if !p.tag {
		return nil
	}
	v := []byte{byte('0' + p.n%10), byte('a' + p.n%26)}
	return append([]byte{0x26, 0, 1, 'n', 0, 2}, v...)
}

// matches tells whether a filter, which may be that of a shared subscription,
// matches a topic. It is written to be obviously right.
func matches(filter, topic string) bool {
	if _, rest, ok := cutShare(filter); ok {
		filter = rest
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i := range f {
		switch {
		case f[i] == "#":
			return i > 0 || topic[0] != '$'
		case i >= len(t):
			return false
		case f[i] == "+":
			if i == 0 && topic[0] == '$' {
				return false
			}
		case f[i] != t[i]:
			return false
		}
		if i+1 < len(f) && f[i+1] == "#" && i+1 == len(t) {
			return true
		}
	}
	return len(f) == len(t)
}

func cutShare(filter string) (group, rest string, ok bool) {
	if !strings.HasPrefix(filter, "$share/") {
		return "", filter, false
	}
	group, rest, _ = strings.Cut(filter[len("$share/"):], "/")
	return group, rest, true
}
