package conformance

import (
	"slices"

	"sluice/broker/mqtt"
)

// Cases of acknowledgements, DISCONNECT and the rest: reason codes, and what
// fits into the client's maximum packet size.

// Acknowledgements with every reason that a client can bring about.

func pubackReasons(c *trial) { publishReasons(c, 1, mqtt.PUBACK) }
func pubrecReasons(c *trial) { publishReasons(c, 2, mqtt.PUBREC) }

func publishReasons(c *trial, qos mqtt.QoS, t mqtt.Type) {
	sub, p, topic := c.pair(0)
	for i, x := range []struct {
		topic string
		want  mqtt.Reason
	}{{topic, mqtt.Success}, {c.topic("nobody"), mqtt.NoMatchingSubscribers}, {"$SYS/x", mqtt.NotAuthorized}, {c.topic(tooDeep()), mqtt.TopicNameInvalid}} {
		p.send(c.publishPacket(x.topic, qos, uint16(i+1), "m"))
		p.wantAck(t, uint16(i+1), x.want)
	}
	sub.take("m")
	badReason(c, t, 0x01)
}

// badReason: a reason code that the packet cannot have.
func badReason(c *trial, t mqtt.Type, code byte) {
	c.Helper()
	p := c.connect("x")
	flags := byte(0)
	if t == mqtt.PUBREL {
		flags = 2
	}
	p.send(raw(byte(t)<<4|flags, u16(1), []byte{code}))
	p.wantClosed(mqtt.ProtocolError, mqtt.MalformedPacket)
}

func pubrelReasons(c *trial) {
	pubrelFollows(c)
	p := c.connect("x")
	p.ack(mqtt.PUBREC, 99, mqtt.Success)
	p.wantAck(mqtt.PUBREL, 99, mqtt.PacketIDNotFound)
	badReason(c, mqtt.PUBREL, 0x80)
}

func pubcompReasons(c *trial) {
	pubcompAnswers(c)
	badReason(c, mqtt.PUBCOMP, 0x10)
}

func subackReasons(c *trial) {
	codesInOrder(c)
	subscribeAnswered(c)
}

// refusals provokes each acknowledgement with a reason that a text might
// explain, and gives what came.
func refusals(c *trial, change ...func(*mqtt.Connect)) map[mqtt.Type]*packet {
	p := c.connect("refused", change...)
	all := map[mqtt.Type]*packet{}
	ask := func(t mqtt.Type, b []byte) {
		c.Helper()
		p.send(b)
		all[t] = p.want(t)
	}
	deep := c.topic(tooDeep())
	ask(mqtt.PUBACK, c.publishPacket(deep, 1, 1, "m"))
	ask(mqtt.PUBREC, c.publishPacket(deep, 2, 2, "m"))
	ask(mqtt.PUBREL, mqtt.AppendPuback(nil, mqtt.PUBREC, 3, mqtt.Success, c.v))
	ask(mqtt.PUBCOMP, mqtt.AppendPuback(nil, mqtt.PUBREL, 4, mqtt.Success, c.v))
	ask(mqtt.SUBACK, c.rawSubscribe(5, deep, 0))
	ask(mqtt.UNSUBACK, c.unsubscribePacket(6, c.topic("none")))
	p.send(c.hello("refused"))
	all[mqtt.DISCONNECT] = p.want(mqtt.DISCONNECT)
	p.wantEOF()
	return all
}

// fits: an acknowledgement of type t to a client that takes little leaves out
// what can be left out, and says the rest.
func fits(t mqtt.Type) func(*trial) {
	return func(c *trial) {
		const limit = 20 // CONNACK takes most of it
		full, small := refusals(c)[t], refusals(c, maxPacket(limit))[t]
		if len(small.raw) > limit {
			c.Errorf("%v of %d bytes for a client that takes %d", t, len(small.raw), limit)
		}
		if a, b := reasonOf(c, full), reasonOf(c, small); a != b || a == mqtt.Success {
			c.Errorf("%v, and for a client that takes little %v", a, b)
		}
	}
}

// reasonOf gives the first reason code of an acknowledgement.
func reasonOf(c *trial, k *packet) mqtt.Reason {
	c.Helper()
	r, _ := look(c, k)
	return r
}

// look decodes an acknowledgement.
func look(c *trial, k *packet) (mqtt.Reason, mqtt.Properties) {
	c.Helper()
	var err error
	var r mqtt.Reason
	var p mqtt.Properties
	switch k.typ {
	case mqtt.SUBACK, mqtt.UNSUBACK:
		var s mqtt.Suback
		err = mqtt.DecodeSuback(&s, k.typ, k.body, c.v)
		r, p = mqtt.Reason(s.Codes[0]), s.Props
	case mqtt.DISCONNECT:
		var d mqtt.Disconnect
		err = mqtt.DecodeDisconnect(&d, k.body, c.v)
		r, p = d.Reason, d.Props
	default:
		var a mqtt.Ack
		err = mqtt.DecodeAck(&a, k.typ, k.body, c.v)
		r, p = a.Reason, a.Props
	}
	if err != nil {
		c.Fatal(err)
	}
	return r, p
}

var (
	pubackFits     = fits(mqtt.PUBACK)
	pubrecFits     = fits(mqtt.PUBREC)
	pubrelFits     = fits(mqtt.PUBREL)
	pubcompFits    = fits(mqtt.PUBCOMP)
	subackFits     = fits(mqtt.SUBACK)
	unsubackFits   = fits(mqtt.UNSUBACK)
	disconnectFits = fits(mqtt.DISCONNECT)
)

func noProblemInformation(c *trial) {
	for t, k := range refusals(c, func(m *mqtt.Connect) { m.Props.NoProblemInfo = true }) {
		if _, p := look(c, k); t != mqtt.DISCONNECT && (p.ReasonString != nil || len(p.User) > 0) {
			c.Errorf("%v with reason string %q and %d user properties, not wanted", t, p.ReasonString, len(p.User))
		}
	}
}

// nothingTooLarge: no packet beyond the client's maximum comes, of any type.
func nothingTooLarge(c *trial) {
	const limit = 60
	sub, pub := c.connect("sub", maxPacket(limit)), c.connect("pub")
	topic := c.topic("x")
	sub.subscribe(topic, 1)
	for _, n := range []int{limit, 3 * limit} {
		for q := range mqtt.QoS(2) {
			pub.publish(topic, q, string(make([]byte, n)), retained)
		}
	}
	sub.subscribe(topic, 1) // and the retained one
	c.quiet(pub, sub, topic)
	// A SUBACK cannot be made smaller.
	var many []mqtt.SubscribeFilter
	for range limit {
		many = append(many, mqtt.SubscribeFilter{Filter: []byte(topic)})
	}
	sub.send(c.subscribePacket(9, many...), mqtt.AppendPingreq(nil))
	for {
		k, err := sub.read()
		if err != nil || k.typ == mqtt.PINGRESP {
			return
		}
		if len(k.raw) > limit {
			c.Fatalf("%v of %d bytes for a client that takes %d", k.typ, len(k.raw), limit)
		}
	}
}

// tooLargeCountsAsSent: what cannot be sent takes no place in the client's
// window, and is not kept for a connection that takes more.
func tooLargeCountsAsSent(c *trial) {
	little := []func(*mqtt.Connect){maxPacket(60), receiveMaximum(1)}
	sub, pub := c.connect("sub", append(little, renew)...), c.connect("pub")
	topic := c.topic("x")
	sub.subscribe(topic, 2)
	large := string(make([]byte, 100))
	for q := mqtt.QoS(1); q <= 2; q++ {
		pub.publish(topic, q, large)
		pub.publish(topic, q, "small")
		sub.take("small")
	}
	sub.drop()
	pub.publish(topic, 1, large)
	pub.publish(topic, 1, "small")
	sub = c.connect("sub", append(little, keep)...)
	sub.take("small")
	sub.ping()
	sub.drop()
	sub = c.connect("sub", keep)
	c.quiet(pub, sub, topic)
}

// DISCONNECT.

// disconnectAfterConnack: no DISCONNECT for those who were not let in.
func disconnectAfterConnack(c *trial) {
	firstPacketIsConnect(c)
	malformedFlags(c, flagClean|flagReserved)
	connectChecks(c)
}

// disconnectReasons: DecodeDisconnect takes no code but those of the table.
func disconnectReasons(c *trial) {
	secondConnect(c)
	takenOver(c)
	packetIDZero(c)
	aliasZero(c)
	receiveMaxExceeded(c)
	for _, code := range []byte{0x01, 0x03, 0x92, 0xFF} {
		p := c.connect("y")
		p.send([]byte{0xE0, 2, code, 0})
		p.wantClosed(mqtt.ProtocolError, mqtt.MalformedPacket)
	}
}

func disconnectWithoutExpiry(c *trial) {
	old := c.connect("x", renew)
	c.connect("x", keep)
	if d := old.wantDisconnect(); d.Reason != mqtt.SessionTakenOver || d.Props.HasSessionExpiry {
		c.Errorf("DISCONNECT with %v, session expiry interval %v", d.Reason, d.Props.HasSessionExpiry)
	}
	old.wantEOF()
	p := c.connect("y")
	d := mqtt.Disconnect{}
	d.Props.HasSessionExpiry, d.Props.SessionExpirySeconds = true, 10
	p.send(mqtt.AppendDisconnect(nil, &d, c.v)) // it had none
	if d := p.wantDisconnect(); d.Reason != mqtt.ProtocolError || d.Props.HasSessionExpiry {
		c.Errorf("DISCONNECT with %v, session expiry interval %v", d.Reason, d.Props.HasSessionExpiry)
	}
}

// silentAfterDisconnect: after DISCONNECT come neither answers nor messages, but
// the end.
func silentAfterDisconnect(c *trial) {
	p := c.connect("x")
	p.subscribe(c.topic("x"), 0)
	p.send(slices.Concat(c.hello("x"), c.publishPacket(c.topic("x"), 1, 1, "m"), mqtt.AppendPingreq(nil)))
	p.wantClosed(mqtt.ProtocolError)
	old := c.connect("y")
	old.subscribe(c.topic("y"), 0)
	pub := c.connect("y")
	pub.publish(c.topic("y"), 0, "m")
	old.wantClosed(mqtt.SessionTakenOver)
}

func pingAnswered(c *trial) {
	p := c.connect("x")
	for range 3 {
		p.send([]byte{0xC0, 0})
		p.wantRaw(0xD0, 0)
	}
}

// violationCloses: packets that are malformed, that nobody but a server sends,
// or that come out of turn.
func violationCloses(c *trial) {
	for _, b := range [][]byte{
		c.hello("x"), {0x00, 0}, {0x20, 2, 0, 0}, {0xD0, 0}, {0x90, 3, 0, 1, 0}, {0xC0, 1, 0},
		{0x40, 1, 0}, {0x82, 2, 0, 1}, {0x30, 0}, {0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F},
	} {
		p := c.connect("x")
		p.send(b)
		p.wantClosed(mqtt.ProtocolError, mqtt.MalformedPacket)
	}
	qos3(c)
	secondConnect(c)
}

// refusalAlwaysCloses: a reason of 0x80 and above in CONNACK or DISCONNECT is
// followed by the end.
func refusalAlwaysCloses(c *trial) {
	violationCloses(c)
	connectChecks(c)
}
