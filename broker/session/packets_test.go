package session

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/platform/mono"
)

// What scripts say of packets and of operations for the store.

var packetTypes = map[string]mqtt.Type{
	"PUBLISH": mqtt.PUBLISH, "PUBACK": mqtt.PUBACK, "PUBREC": mqtt.PUBREC, "PUBREL": mqtt.PUBREL, "PUBCOMP": mqtt.PUBCOMP,
	"SUBSCRIBE": mqtt.SUBSCRIBE, "SUBACK": mqtt.SUBACK, "UNSUBSCRIBE": mqtt.UNSUBSCRIBE, "UNSUBACK": mqtt.UNSUBACK,
	"PINGREQ": mqtt.PINGREQ, "DISCONNECT": mqtt.DISCONNECT,
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
}

func reason(name string) mqtt.Reason {
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

// published describes a PUBLISH.
func (w *world) published(p *mqtt.Publish) string {
	s := fmt.Sprintf("qos=%d", p.QoS) + number32(" id", p.PacketID) + flagged(" dup", p.Dup) + flagged(" retain", p.Retain)
	payload := string(p.Payload)
	if len(payload) > 20 {
		payload = fmt.Sprintf("(%d bytes)", len(payload))
	}
	s += fmt.Sprintf(" topic=%s payload=%s", p.Topic, payload)
	if p.HasMessageExpiry {
		s += fmt.Sprintf(" expiry=%d", p.ExpirySeconds)
	}
	if len(p.SubIDs) > 0 {
		s += fmt.Sprintf(" subids=%v", p.SubIDs)
	}
	if props := mqtt.AppendForwardProps(nil, p); len(props) > 0 {
		s += fmt.Sprintf(" props=%q", props)
	}
	return s
}

func (w *world) message(m *mqtt.Message) string {
	var p mqtt.Publish
	m.View(&p)
	p.QoS, p.Retain = m.QoS, m.Retain
	s := " " + w.published(&p)
	if m.Expires != 0 {
		s += " expires=" + mono.Time(m.Expires).Sub(w.now).String()
	}
	return s
}

// sayPackets describes what the session sends.
func (w *world) sayPackets() {
	for b := w.fx.Send; len(b) > 0; {
		h, n, err := mqtt.ParseHeader(b, 0)
		if err != nil || n == 0 || len(b) < n+h.Remaining {
			panic(fmt.Sprintf("BUG: the session sent % x: %v", b, err))
		}
		text, err := w.packet(h, b[n:n+h.Remaining])
		if err != nil {
			panic(fmt.Sprintf("BUG: the session sent a %s that no client accepts: %v", h.Type, err))
		}
		w.say("> %s%s", h.Type, text)
		b = b[n+h.Remaining:]
	}
}

func (w *world) packet(h mqtt.Header, body []byte) (string, error) {
	v := w.version
	switch h.Type {
	case mqtt.CONNACK:
		var p mqtt.Connack
		err := mqtt.DecodeConnack(&p, body, v)
		return fmt.Sprintf(" code=%d", p.Code) + flagged(" present", p.SessionPresent) + connackProps(&p.Props), err
	case mqtt.PUBLISH:
		var p mqtt.Publish
		err := mqtt.DecodePublish(&p, h.Flags, body, v)
		return " " + w.published(&p), err
	case mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP:
		var p mqtt.Ack
		err := mqtt.DecodeAck(&p, h.Type, body, v)
		return number32(" id", p.PacketID) + because(p.Reason), err
	case mqtt.SUBACK, mqtt.UNSUBACK:
		var p mqtt.Suback
		err := mqtt.DecodeSuback(&p, h.Type, body, v)
		return fmt.Sprintf(" id=%d codes=%x", p.PacketID, p.Codes), err
	case mqtt.PINGRESP:
		return "", mqtt.DecodeEmpty(h.Type, body)
	case mqtt.DISCONNECT:
		var p mqtt.Disconnect
		err := mqtt.DecodeDisconnect(&p, body, v)
		return because(p.Reason), err
	}
	return "", fmt.Errorf("a server does not send it")
}

func because(r mqtt.Reason) string {
	if r == mqtt.Success {
		return ""
	}
	return fmt.Sprintf(" reason=%02x (%s)", uint8(r), r)
}

func connackProps(p *mqtt.Properties) string {
	s := number32(" rmax", p.ReceiveMax) + number32(" maxpacket", p.MaxPacketBytes) + number32(" aliases", p.TopicAliasMax)
	if p.HasSessionExpiry {
		s += fmt.Sprintf(" expiry=%d", p.SessionExpirySeconds)
	}
	if p.HasServerKeepAlive {
		s += fmt.Sprintf(" keepalive=%d", p.ServerKeepAliveSeconds)
	}
	if p.AssignedClientID != nil {
		s += fmt.Sprintf(" assigned=%s", p.AssignedClientID)
	}
	return s
}

func (w *world) sayDrops() {
	d := &w.fx.Dropped
	for _, x := range []struct {
		name string
		n    uint64
	}{{"blocked", d.QoS0Blocked}, {"offline", d.QoS0Offline}, {"queue-full", d.QueueFull}, {"too-large", d.TooLarge}, {"expired", d.Expired}} {
		if x.n > 0 {
			w.say("dropped %s=%d", x.name, x.n)
		}
	}
}

// sayBatch describes the operations for the store, each with the
// acknowledgement that waits for it, and empties the batch.
func (w *world) sayBatch() {
	b := reflect.ValueOf(&w.batch).Elem()
	tokens := b.FieldByName("tokens")
	empty := make([]bool, tokens.Len())
	for i := range empty {
		empty[i] = true
	}
	for i := range w.batch.Ops {
		group := b.FieldByName("Ops").Index(i).FieldByName("group").Int()
		waits := ""
		if group >= 0 {
			waits = " for " + tokenText(tokens.Index(int(group)))
			empty[group] = false
		}
		w.say("store%s: %s", waits, opText(&w.batch.Ops[i]))
	}
	for i, yes := range empty {
		if yes {
			w.say("store for %s: nothing", tokenText(tokens.Index(i)))
		}
	}
	w.batch.Reset()
}

func tokenText(t reflect.Value) string {
	index := t.FieldByName("Index").Uint()
	return fmt.Sprintf("%s %d", mqtt.Type(index>>16), index&0xFFFF)
}

func opText(op *persist.Op) string {
	switch op.Kind {
	case persist.OpPutSession:
		expiry := "never"
		if op.Sess.ExpirySeconds != persist.NoExpiry {
			expiry = (time.Duration(op.Sess.ExpirySeconds) * time.Second).String()
		}
		return fmt.Sprintf("put session %d id=%s user=%s version=%s expires=%s", op.Sess.ID, op.Sess.ClientID, op.Sess.Username, op.Sess.Version, expiry)
	case persist.OpDeleteSession:
		return fmt.Sprintf("delete session %d", op.ID)
	case persist.OpAttach:
		return fmt.Sprintf("attach %d", op.ID)
	case persist.OpDetach:
		return fmt.Sprintf("detach %d", op.ID)
	case persist.OpPutSubscription:
		return fmt.Sprintf("put subscription of %d: %s qos=%d", op.ID, op.Sub.Filter, op.Sub.QoS) + number32(" subid", op.Sub.ID)
	case persist.OpDeleteSubscription:
		return fmt.Sprintf("delete subscription of %d: %s", op.ID, op.Sub.Filter)
	case persist.OpEnqueue:
		return fmt.Sprintf("enqueue %d: %s", op.ID, op.Entry.Msg.Payload)
	case persist.OpDequeue:
		return fmt.Sprintf("dequeue %d: %d", op.ID, op.Seq)
	case persist.OpRelease:
		return fmt.Sprintf("release %d: %d", op.ID, op.Seq)
	case persist.OpPutInbound:
		return fmt.Sprintf("put inbound of %d: %d", op.ID, op.PacketID)
	case persist.OpDeleteInbound:
		return fmt.Sprintf("delete inbound of %d: %d", op.ID, op.PacketID)
	}
	panic(fmt.Sprintf("BUG: a session does not ask for op %d", op.Kind))
}
