package session

import (
	"fmt"
	"reflect"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/platform/mono"
)

// What scripts say of packets and of operations for the store.

// published describes a PUBLISH.
func (w *world) published(p *mqtt.Publish) string {
	s := fmt.Sprintf("qos=%d", p.QoS) + number32(" id", p.PacketID) + flagged(" dup", p.Dup) + flagged(" retain", p.Retain)
	payload := string(p.Payload)
	if len(payload) > 20 {
		payload = fmt.Sprintf("(%d bytes)", len(payload))
	}
	s += fmt.Sprintf(" topic=%s payload=%s", p.Topic, payload)
	s += number32(" alias", p.TopicAlias)
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
		return number32(" id", p.PacketID) + because(p.Reason) + saying(&p.Props), err
	case mqtt.SUBACK, mqtt.UNSUBACK:
		var p mqtt.Suback
		err := mqtt.DecodeSuback(&p, h.Type, body, v)
		return fmt.Sprintf(" id=%d codes=%x", p.PacketID, p.Codes) + saying(&p.Props), err
	case mqtt.PINGRESP:
		return "", mqtt.DecodeEmpty(h.Type, body)
	case mqtt.DISCONNECT:
		var p mqtt.Disconnect
		err := mqtt.DecodeDisconnect(&p, body, v)
		return because(p.Reason) + saying(&p.Props), err
	case mqtt.AUTH:
		var p mqtt.Auth
		err := mqtt.DecodeAuth(&p, body)
		return because(p.Reason) + fmt.Sprintf(" method=%s data=%q", p.Props.AuthMethod, p.Props.AuthData), err
	}
	return "", fmt.Errorf("a server does not send it")
}

func because(r mqtt.Reason) string {
	if r == mqtt.Success {
		return ""
	}
	return fmt.Sprintf(" reason=%02x (%s)", uint8(r), r)
}

func saying(p *mqtt.Properties) string {
	if p.ReasonString == nil {
		return ""
	}
	return ": " + string(p.ReasonString)
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
	if p.ResponseInfo != nil {
		s += fmt.Sprintf(" responseinfo=%s", p.ResponseInfo)
	}
	if p.AuthMethod != nil {
		s += fmt.Sprintf(" auth=%s data=%q", p.AuthMethod, p.AuthData)
	}
	return s
}

func (w *world) sayDrops() {
	d := &w.fx.Dropped
	for _, x := range []struct {
		name string
		n    uint64
	}{{"blocked", d.QoS0Blocked}, {"offline", d.QoS0Offline}, {"queue-full", d.QueueFull}, {"queue-oldest", d.QueueOldest}, {"queue-aged", d.QueueAged}, {"too-large", d.TooLarge}, {"expired", d.Expired}, {"denied", d.Denied}} {
		if x.n > 0 {
			w.say("dropped %s=%d", x.name, x.n)
		}
	}
	if w.fx.Denied > 0 {
		w.say("denied %d", w.fx.Denied)
	}
}

func (w *world) sayOrphans(all []Orphan) {
	for i := range all {
		w.say("orphan of %s: qos=%d topic=%s payload=%s", all[i].Filter, all[i].QoS, all[i].Msg.Topic, all[i].Msg.Payload)
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
		return fmt.Sprintf("put session %s id=%s user=%s version=%s expires=%s", queueName(op.Sess.ID), op.Sess.ClientID, op.Sess.Username, op.Sess.Version, expiry)
	case persist.OpDeleteSession:
		return fmt.Sprintf("delete session %s", queueName(op.ID))
	case persist.OpAttach:
		return fmt.Sprintf("attach %s", queueName(op.ID))
	case persist.OpDetach:
		return fmt.Sprintf("detach %s", queueName(op.ID))
	case persist.OpPutSubscription:
		return fmt.Sprintf("put subscription of %d: %s qos=%d", op.ID, op.Sub.Filter, op.Sub.QoS) + number32(" subid", op.Sub.ID)
	case persist.OpDeleteSubscription:
		return fmt.Sprintf("delete subscription of %d: %s", op.ID, op.Sub.Filter)
	case persist.OpEnqueue:
		return fmt.Sprintf("enqueue %d: %s", op.ID, op.Entry.Msg.Payload)
	case persist.OpDequeue:
		return fmt.Sprintf("dequeue %s: %d", queueName(op.ID), op.Seq)
	case persist.OpRelease:
		return fmt.Sprintf("release %s: %d", queueName(op.ID), op.Seq)
	case persist.OpPutInbound:
		return fmt.Sprintf("put inbound of %d: %d", op.ID, op.PacketID)
	case persist.OpDeleteInbound:
		return fmt.Sprintf("delete inbound of %d: %d", op.ID, op.PacketID)
	}
	panic(fmt.Sprintf("BUG: a session does not ask for op %d", op.Kind))
}

// queueName is the number of a queue, and whether it is for messages with priority.
func queueName(id uint64) string {
	of, priority := persist.OfPriority(id)
	return fmt.Sprintf("%d%s", of, flagged("p", priority))
}
