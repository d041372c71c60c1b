package sim

import (
	"time"

	"sluice/broker/mqtt"
	"sluice/platform/mono"
)

// DESIGN. link is one connection of a device: the MQTT client's side of the
// byte stream, and the rules that hold within one connection. What outlives it
// is the device's (device.go) and its session's (session.go).

// answer is an acknowledgement that the device owes.
type answer struct {
	kind mqtt.Type
	pid  uint16
	n    int // publication, for PUBACK and PUBREC
}

// ackSent is a PUBACK that was sent; a PINGRESP to a later PINGREQ shows that
// the broker has processed it.
type ackSent struct {
	n     int
	stamp int64
}

// request is a SUBSCRIBE or UNSUBSCRIBE under way.
type request struct {
	kind   mqtt.Type // of the answer
	pid    uint16
	grants []*grant
	codes  int // filters in the packet
	sent   int64
}

// excuse is a set of reasons for which the broker may end a connection.
type excuse uint16

const (
	silent      excuse = 1 << iota // longer than the keepalive allows
	slowConnect                    // CONNECT did not come in time
	rival                          // another connection of the device may come, or come late
	crowded                        // too many connections; at accept only
	full                           // the store refuses a message of a client of MQTT 3.1.1
	crashed
	restarted
	unshaken   // the handshake has failed
	turnedAway // by CONNACK
)

type link struct {
	d    *device
	s    *sock
	name string

	version   mqtt.Version
	clean     bool
	durable   bool
	keepAlive time.Duration
	wrong     bool // it shows a wrong password
	healed    bool // it was opened when nothing went wrong any more
	refused   bool // by CONNACK
	opened    int64
	sure      int64 // stamp: what comes was written later
	scram     *scramClient
	will      *pub
	willDelay uint32

	in                     []byte
	connected              bool // CONNACK came
	dead                   bool // the device has done with it
	bye                    bool // DISCONNECT was sent
	endsSession, keepsWill bool // by that DISCONNECT
	told                   bool // the broker has sent DISCONNECT
	excuse                 excuse
	expect                 belief // about session present, as of the CONNECT

	connectAt  mono.Time
	byeAt      mono.Time
	lastSent   mono.Time
	lastHeard  mono.Time // bytes of ours reached the broker's host
	begun      int64     // stamp of the CONNACK
	crashes    int       // w.crashes when it was opened
	quota      int       // QoS 1 and 2 publications that the broker takes at once
	aliasMax   int
	aliases    []string
	theirs     map[uint16]string // the broker's aliases
	theirMax   int
	receiveMax int
	inflight   map[uint16]bool // received, QoS 1 and 2, not yet done with
	answers    []answer
	acksSent   []ackSent
	pings      []int64
	requests   []*request

	// The packet ids of what the broker has to acknowledge, in order.
	wantPuback, wantPubrec, wantPubcomp []uint16
}

// String names the link in the trace.
func (l *link) String() string { return l.name }

func (l *link) reluctant() bool { return l.d.slow && !l.d.w.chance(0.03) }

func (l *link) arrived(int) {
	l.keepAliveExcuse()
	if !l.s.closed { // nobody hears what comes after that
		l.lastHeard = l.d.w.now
	}
}

// keepAliveExcuse notes when the broker may end the link for silence.
func (l *link) keepAliveExcuse() {
	w := l.d.w
	if l.keepAlive > 0 && (w.now.Sub(l.lastHeard) >= l.keepAlive+l.keepAlive/2 || l.s.withheld) {
		l.excuse |= silent
	}
	if !l.connected && w.now.Sub(l.connectAt) >= w.cfg.connectTimeout {
		l.excuse |= slowConnect
	}
}

// send puts a packet on its way.
func (l *link) send(what string, a int, packet []byte) {
	l.s.send(l.d.w, packet)
	l.lastSent = l.d.w.now
	l.d.w.note("> "+what, l.name, int64(a), int64(len(packet)), "")
}

// fail reports a violation on this link.
func (l *link) fail(kind, format string, args ...any) {
	l.d.w.fail(kind, l.name+" (MQTT "+versionName(l.version)+"): "+format, args...)
}

func versionName(v mqtt.Version) string {
	if v == mqtt.V5 {
		return "5"
	}
	return "3.1.1"
}

func (l *link) receive(b []byte) {
	if l.dead {
		return
	}
	l.in = append(l.in, b...)
	for !l.dead {
		h, n, err := mqtt.ParseHeader(l.in, 0)
		if err != nil {
			l.fail("codec", "the broker sends what is no packet: %v: % x", err, l.in[:min(len(l.in), 40)])
		}
		if n == 0 || len(l.in) < n+h.Remaining {
			return
		}
		if m := int(l.d.packetMax); m > 0 && n+h.Remaining > m {
			l.fail("packet size", "%v of %d bytes, the maximum packet size is %d [MQTT-3.1.2-24]", h.Type, n+h.Remaining, m)
		}
		body := l.in[n : n+h.Remaining]
		l.in = l.in[n+h.Remaining:]
		if err := l.packet(h, body); err != nil {
			l.fail("codec", "%v from the broker: %v: % x", h.Type, err, body[:min(len(body), 40)])
		}
	}
}

func (l *link) packet(h mqtt.Header, body []byte) error {
	if l.told {
		l.fail("protocol", "%v after DISCONNECT [MQTT-3.14.4-1]", h.Type)
	}
	if l.connected == (h.Type == mqtt.CONNACK || h.Type == mqtt.AUTH) && !l.bye || l.refused {
		l.fail("protocol", "%v, connected %v", h.Type, l.connected)
	}
	if h.Type == mqtt.PUBLISH {
		var p mqtt.Publish
		if err := mqtt.DecodePublish(&p, h.Flags, body, l.version); err != nil {
			return err
		}
		l.onPublish(&p)
		return nil
	}
	if err := mqtt.CheckFlags(h.Type, h.Flags, l.version); err != nil {
		return err
	}
	switch h.Type {
	case mqtt.CONNACK:
		var p mqtt.Connack
		if err := mqtt.DecodeConnack(&p, body, l.version); err != nil {
			return err
		}
		l.d.onConnack(l, &p)
	case mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP:
		var p mqtt.Ack
		if err := mqtt.DecodeAck(&p, h.Type, body, l.version); err != nil {
			return err
		}
		l.onAck(&p)
	case mqtt.SUBACK, mqtt.UNSUBACK:
		var p mqtt.Suback
		if err := mqtt.DecodeSuback(&p, h.Type, body, l.version); err != nil {
			return err
		}
		l.onSuback(&p)
	case mqtt.PINGRESP:
		l.onPingresp()
	case mqtt.AUTH:
		var p mqtt.Auth
		if err := mqtt.DecodeAuth(&p, body); err != nil {
			return err
		}
		l.onAuth(&p)
	case mqtt.DISCONNECT:
		var p mqtt.Disconnect
		if err := mqtt.DecodeDisconnect(&p, body, l.version); err != nil {
			return err
		}
		l.onDisconnect(p.Reason)
	default:
		l.fail("protocol", "%v from a server", h.Type)
	}
	return nil
}

func (l *link) onPingresp() {
	if len(l.pings) == 0 {
		l.fail("protocol", "PINGRESP without PINGREQ")
	}
	stamp := l.pings[0]
	l.pings = l.pings[1:]
	l.sure = max(l.sure, stamp)
	l.d.w.note("< PINGRESP", l.name, 0, 0, "")
	for l.excuse&crashed == 0 && len(l.acksSent) > 0 && l.acksSent[0].stamp < stamp {
		l.d.book.processed(l.acksSent[0].n, l.d.w.next())
		l.acksSent = l.acksSent[1:]
	}
}

// onDisconnect: the broker may only say what the device has earned.
func (l *link) onDisconnect(r mqtt.Reason) {
	l.told = true
	l.d.w.note("< DISCONNECT", l.name, int64(r), 0, r.String())
	if l.version != mqtt.V5 {
		l.fail("protocol", "DISCONNECT to a client of MQTT 3.1.1")
	}
	l.keepAliveExcuse()
	ok := false
	switch r {
	case mqtt.SessionTakenOver:
		ok = l.excuse&rival != 0
	case mqtt.KeepAliveTimeout:
		ok = l.excuse&silent != 0
	case mqtt.ServerShuttingDown:
		ok = l.excuse&restarted != 0
	}
	if !ok {
		l.fail("kicked", "DISCONNECT with reason %q (%#x), excuse %b", r, uint8(r), l.excuse)
	}
}

// ended implements endpoint.
func (l *link) ended(reset bool) {
	l.d.w.note("ended", l.name, int64(l.s.n), 0, map[bool]string{true: "reset", false: "eof"}[reset])
	if l.dead {
		return
	}
	l.keepAliveExcuse()
	if l.s.unshaken && !l.connected {
		l.excuse |= unshaken
	}
	if !l.connected && l.mayBeRefused() && l.d.w.cfg.cuts() {
		l.excuse |= turnedAway // and of the CONNACK that says so not all was written
	}
	if !l.bye && l.excuse == 0 {
		l.fail("kicked", "the broker ends the connection without a reason")
	}
	l.d.onEnded(l, reset)
}

// flush sends answers that are due, in their order; each may be put off.
func (l *link) flush(lazy float64) {
	for len(l.answers) > 0 && !l.d.w.chance(lazy) {
		a := l.answers[0]
		l.answers = l.answers[1:]
		l.send(a.kind.String(), int(a.pid), mqtt.AppendPuback(nil, a.kind, a.pid, mqtt.Success, l.version))
		s := l.d.book
		switch a.kind {
		case mqtt.PUBACK:
			delete(l.inflight, a.pid)
			delete(s.in1, a.pid)
			if a.n >= 0 {
				l.acksSent = append(l.acksSent, ackSent{a.n, l.d.w.next()})
			}
		case mqtt.PUBCOMP:
			delete(l.inflight, a.pid)
		case mqtt.PUBREL:
			l.wantPubcomp = append(l.wantPubcomp, a.pid)
		}
	}
}

func (l *link) ping() {
	l.send("PINGREQ", 0, mqtt.AppendPingreq(nil))
	l.pings = append(l.pings, l.d.w.next())
}
