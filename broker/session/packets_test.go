package session

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sluice/broker/auth"
	"sluice/broker/mqtt"
)

// The packets of the client.

var packetTypes = map[string]mqtt.Type{
	"PUBLISH": mqtt.PUBLISH, "PUBACK": mqtt.PUBACK, "PUBREC": mqtt.PUBREC, "PUBREL": mqtt.PUBREL, "PUBCOMP": mqtt.PUBCOMP,
	"SUBSCRIBE": mqtt.SUBSCRIBE, "SUBACK": mqtt.SUBACK, "UNSUBSCRIBE": mqtt.UNSUBSCRIBE, "UNSUBACK": mqtt.UNSUBACK,
	"PINGREQ": mqtt.PINGREQ, "DISCONNECT": mqtt.DISCONNECT, "AUTH": mqtt.AUTH,
}

func packetType(name string) mqtt.Type {
	t := packetTypes[name]
	if t == 0 {
		fail("no such packet: %s", name)
	}
	return t
}

var reasons = map[string]mqtt.Reason{
	"with-will": mqtt.DisconnectWithWill, "unspecified": mqtt.UnspecifiedError, "malformed": mqtt.MalformedPacket,
	"shutdown": mqtt.ServerShuttingDown, "keepalive": mqtt.KeepAliveTimeout, "quota": mqtt.QuotaExceeded, "not-found": mqtt.PacketIDNotFound,
	"again": mqtt.ReAuthenticate, "continue": mqtt.ContinueAuthentication,
}

func reason(name string) mqtt.Reason {
	if n, err := strconv.ParseUint(name, 0, 8); err == nil {
		return mqtt.Reason(n)
	}
	r, ok := reasons[name]
	if !ok && name != "" {
		fail("no such reason: %s", name)
	}
	return r
}

// packet is an encoded packet: whole, and without its fixed header.
type packet struct {
	whole, body []byte
	flags       byte
}

func encode(b []byte) packet {
	h, n, err := mqtt.ParseHeader(b, 0)
	if err != nil || n+h.Remaining != len(b) {
		panic(fmt.Sprintf("BUG: the script's packet % x: %v", b, err))
	}
	return packet{whole: b, body: b[n:], flags: h.Flags}
}

// spoil overwrites bytes that were lent to the session for one event.
func spoil(lent ...[]byte) {
	for _, b := range lent {
		for i := range b {
			b[i] = 0xDD
		}
	}
}

// fromClient plays a packet from the client.
func (w *world) fromClient(name string, a *args) {
	v := w.version
	switch t := packetType(name); t {
	case mqtt.PUBLISH:
		w.publish(a)
	case mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP:
		ack := mqtt.Ack{Type: t, PacketID: uint16(a.number("id")), Reason: reason(a.text("reason"))}
		w.do(func() {
			switch t {
			case mqtt.PUBACK:
				w.s.OnPuback(&w.fx, &ack, w.now)
			case mqtt.PUBREC:
				w.s.OnPubrec(&w.fx, &ack, w.now)
			case mqtt.PUBREL:
				w.s.OnPubrel(&w.fx, &ack)
			case mqtt.PUBCOMP:
				w.s.OnPubcomp(&w.fx, &ack, w.now)
			}
		})
	case mqtt.SUBSCRIBE:
		w.subscribe(a)
	case mqtt.UNSUBSCRIBE:
		p := mqtt.Unsubscribe{PacketID: uint16(a.number("id"))}
		for _, f := range a.list("filter") {
			p.Filters = append(p.Filters, []byte(f))
		}
		e := encode(mqtt.AppendUnsubscribe(nil, &p, v))
		must(mqtt.DecodeUnsubscribe(&p, e.body, v))
		w.do(func() {
			for _, f := range w.s.OnUnsubscribe(&w.fx, &p, nil) {
				w.say("leave %s", f)
			}
		})
		spoil(e.whole)
	case mqtt.PINGREQ:
		w.do(func() { w.s.OnPingreq(&w.fx) })
	case mqtt.DISCONNECT:
		d := mqtt.Disconnect{Reason: reason(a.text("reason"))}
		if a.has("expiry") {
			d.Props.HasSessionExpiry, d.Props.SessionExpirySeconds = true, a.seconds("expiry")
		}
		w.do(func() { w.s.OnDisconnect(&w.fx, &d) })
	case mqtt.AUTH:
		w.auth(a)
	default:
		fail("a client does not send %s", name)
	}
}

// publish plays a PUBLISH, and the part of Worker.publish that concerns its
// session: with "store" something of it must be stored.
func (w *world) publish(a *args) {
	p := mqtt.Publish{
		Topic: a.bytes("topic"), Payload: a.bytes("payload"), QoS: mqtt.QoS(a.number("qos")), PacketID: uint16(a.number("id")),
		Dup: a.flag("dup"), Retain: a.flag("retain"), TopicAlias: uint16(a.number("alias")), SubIDs: a.numbers("subids"),
	}
	store, nobody, refuse := a.flag("store"), a.flag("nobody"), a.flag("refuse")
	e := encode(mqtt.AppendPublish(nil, &p, w.version))
	must(mqtt.DecodePublish(&p, e.flags, e.body, w.version))
	w.do(func() {
		if !w.s.OnPublish(&w.fx, &p) {
			return
		}
		w.say("route %s", w.published(&p))
		switch {
		case p.QoS == 0:
		case store || p.QoS == 2 && w.s.Durable != 0:
			w.s.Begin(&w.fx, &p)
			if store {
				w.batch.Enqueue(99, mqtt.NewMessage(&p), p.QoS, false, nil)
			}
			w.batch.End()
		case nobody:
			w.s.Ack(&w.fx, &p, mqtt.NoMatchingSubscribers)
		case refuse:
			w.s.Ack(&w.fx, &p, mqtt.QuotaExceeded)
		default:
			w.s.Ack(&w.fx, &p, mqtt.Success)
		}
	})
	spoil(e.whole)
}

// auth plays an AUTH. The exchange of a script asks back when it gets "more",
// and is done with "ok"; whom the client proved to be stands behind a colon.
func (w *world) auth(a *args) {
	p := mqtt.Auth{Reason: reason(a.text("reason"))}
	if a.has("method") {
		p.Props.AuthMethod = a.bytes("method")
	}
	if a.has("data") {
		p.Props.AuthData = a.bytes("data")
	}
	e := encode(mqtt.AppendAuth(nil, &p))
	must(mqtt.DecodeAuth(&p, e.body))
	w.do(func() {
		id := w.s.OnAuth(&w.fx, &p, func(method string) (Exchange, error) {
			if method != "test" {
				return nil, errors.New("no such method")
			}
			return &exchange{}, nil
		})
		if id != nil {
			w.say("renewed %s", id.User)
		}
	})
	spoil(e.whole)
}

type exchange struct{ user string }

func (e *exchange) Step(data []byte) (reply []byte, done bool, err error) {
	word, user, _ := strings.Cut(string(data), ":")
	switch word {
	case "more":
		return []byte("and?"), false, nil
	case "ok":
		e.user = user
		return []byte("bye"), true, nil
	}
	return nil, false, errors.New("the secret is secret")
}

func (e *exchange) Identity() *auth.Identity { return &auth.Identity{User: e.user} }

// subscribe plays a SUBSCRIBE: filters are filter:qos with options behind.
func (w *world) subscribe(a *args) {
	p := mqtt.Subscribe{PacketID: uint16(a.number("id"))}
	p.Props.SubscriptionID = uint32(a.number("subid"))
	for _, s := range a.list("filter") {
		part := strings.Split(s, ":")
		f := mqtt.SubscribeFilter{Filter: []byte(part[0]), QoS: mqtt.QoS(number(part[1]))}
		for _, option := range part[2:] {
			switch option {
			case "nolocal":
				f.NoLocal = true
			case "aspublished":
				f.RetainAsPublished = true
			case "new":
				f.RetainHandling = 1
			case "never":
				f.RetainHandling = 2
			default:
				fail("no such option: %s", option)
			}
		}
		p.Filters = append(p.Filters, f)
	}
	e := encode(mqtt.AppendSubscribe(nil, &p, w.version))
	must(mqtt.DecodeSubscribe(&p, e.body, w.version))
	w.do(func() {
		for _, g := range w.s.OnSubscribe(&w.fx, &p, nil) {
			text := fmt.Sprintf("enter %s qos=%d", g.Sub.Filter, g.Sub.QoS)
			text += number32(" subid", g.Sub.ID) + flagged(" nolocal", g.Sub.NoLocal) + flagged(" aspublished", g.Sub.RetainAsPublished)
			w.say("%s%s", text, flagged(", send retained", g.Retained))
		}
	})
	spoil(e.whole)
}

func must(err error) {
	if err != nil {
		fail("the codec refuses it: %v", err)
	}
}

func flagged(name string, yes bool) string {
	if yes {
		return name
	}
	return ""
}

func number32[N uint16 | uint32](name string, n N) string {
	if n == 0 {
		return ""
	}
	return name + "=" + strconv.FormatUint(uint64(n), 10)
}
