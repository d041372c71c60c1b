package conformance

import (
	"bytes"
	"slices"
	"strings"

	"sluice/broker"
	"sluice/broker/mqtt"
)

// Cases of CONNACK.

func connectAccepted(c *trial) {
	p := c.connect("x") // wants success
	if p.connack.SessionPresent {
		c.Error("session present for a client that was never here")
	}
	p.ping()
}

// afterRefusal: what comes with a CONNECT that is refused is not worked on.
func afterRefusal(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	topic := c.topic("x")
	sub.subscribe(topic, 0)
	message := c.publishPacket(topic, 0, 0, "of a refused client", retained)
	p := c.dial()
	p.send(c.hello("", clientID("$bridge/"+c.id("x"))), message, message)
	p.wantConnack(mqtt.ClientIDNotValid)
	p.wantEOF()
	p = c.dial()
	p.send(c.rawConnect(flagClean|flagReserved, c.id("x")), message)
	p.wantRejected(mqtt.MalformedPacket)
	c.quiet(pub, sub, topic)
	late := c.connect("late")
	late.subscribe(topic, 0)
	c.quiet(pub, late, topic)
}

// connackFirst: whatever is sent along with CONNECT, and whatever waits for the
// client, CONNACK comes before it.
func connackFirst(c *trial) {
	p, pub := c.connect("x", renew), c.connect("pub")
	p.subscribe(c.topic("x"), 1)
	p.drop()
	pub.publish(c.topic("x"), 1, "waits")
	p = c.dial()
	p.send(c.hello("x", keep), c.rawSubscribe(1, c.topic("y"), 1), mqtt.AppendPingreq(nil))
	p.wantConnack(mqtt.Success)
	var got []mqtt.Type
	for range 3 {
		got = append(got, p.next().typ)
	}
	slices.Sort(got)
	if !slices.Equal(got, []mqtt.Type{mqtt.PUBLISH, mqtt.SUBACK, mqtt.PINGRESP}) {
		c.Errorf("after CONNACK came %v", got)
	}
}

func oneConnack(c *trial) {
	p := c.connect("x")
	p.subscribe(c.topic("x"), 0)
	p.publish(c.topic("x"), 0, "m")
	p.take("m")
	p.send(c.hello("x")) // the answer is no CONNACK
	p.wantClosed(mqtt.ProtocolError)
}

func connackFlags(c *trial) {
	check := func(p *peer, want byte) {
		c.Helper()
		if k := p.want(mqtt.CONNACK); k.body[0] != want {
			c.Errorf("acknowledge flags %#02x, want %#02x", k.body[0], want)
		}
	}
	p := c.dial()
	p.send(c.hello("x", renew))
	check(p, 0)
	p.drop()
	p = c.dial()
	p.send(c.hello("x", keep))
	check(p, 1)
	p = c.dial()
	p.send(c.hello("", clientID("$bridge/x"), keep))
	check(p, 0)
}

// refusalWithoutSession: a refused CONNECT says that there is no session,
// although there is one.
func refusalWithoutSession(c *trial) {
	c.connect("x", renew).drop()
	p := c.refused(mqtt.NotAuthorized, "x", keep, will("$SYS/x", "x"))
	if p.connack.SessionPresent {
		c.Error("session present in a CONNACK that refuses")
	}
	if p = c.connect("x", keep); !p.connack.SessionPresent {
		c.Error("the session is gone: the case shows nothing")
	}
}

func refusalCloses(c *trial) {
	connectChecks(c) // refused reads the end, each time
	if !c.is5() {
		clientIDEmptyKept(c)
	}
}

// connackReasons: DecodeConnack takes no code but those of the table.
func connackReasons(c *trial) {
	c.connect("x")
	connectChecks(c)
	c.refused(mqtt.BadAuthenticationMethod, "x", func(m *mqtt.Connect) { m.Props.AuthMethod = []byte("no-such-method") })
}

// noConnackForMalformed: no return code of 3.1.1 says that.
func noConnackForMalformed(c *trial) {
	malformedFlags(c, flagClean|flagReserved)
	malformedFlags(c, flagClean|flagPassword, str("password"))
}

func maxQoSIs2(c *trial) {
	p, pub := c.connect("x"), c.connect("pub")
	if p.connack.Props.HasMaxQoS {
		c.Errorf("maximum QoS %d", p.connack.Props.MaxQoS)
	}
	p.subscribe(c.topic("x"), 2)
	pub.publish(c.topic("x"), 2, "m")
	if m := p.take("m"); m.QoS != 2 {
		c.Errorf("QoS %d, want 2", m.QoS)
	}
}

// packetTooLarge: the maximum packet size that the broker announces is the one
// that it takes.
func packetTooLarge(c *trial) {
	c.own(func(o *broker.Options) { o.Limits.PacketBytesMax, o.ConnectBytesMax = 1000, 1000 })
	p := c.connect("x")
	limit := int(p.connack.Props.MaxPacketBytes)
	if limit != 1000 {
		c.Fatalf("maximum packet size %d, want 1000", limit)
	}
	topic := c.topic("x")
	fits := c.publishPacket(topic, 1, 1, strings.Repeat("x", limit-3-2-len(topic)-2-1))
	if len(fits) != limit {
		c.Fatalf("BUG: %d bytes", len(fits))
	}
	p.send(fits)
	p.wantAck(mqtt.PUBACK, 1, mqtt.NoMatchingSubscribers)
	p.send(c.publishPacket(topic, 1, 1, strings.Repeat("x", limit-3-2-len(topic)-2)))
	p.wantClosed(mqtt.PacketTooLarge)
}

// fieldOrder: all fields of CONNECT, each where it belongs, arrive as what they are.
func fieldOrder(c *trial) {
	sub := c.connect("sub")
	sub.subscribe(c.topic("will"), 0)
	p := c.dial()
	flags := byte(flagClean | flagWill | flagUsername | flagPassword)
	p.send(c.rawConnect(flags, c.id("x"), c.props(), str(c.topic("will")), str("last words"), str("user"), str("\xFF\x00")))
	p.wantConnack(mqtt.Success)
	other := c.connect("x") // who takes over has the same client id
	p.wantClosed(mqtt.SessionTakenOver)
	other.ping()
	if m := sub.take("last words"); string(m.Topic) != c.topic("will") {
		c.Errorf("the will came to %q", m.Topic)
	}
}

// connackFits: a CONNACK that would be too large leaves out what it can.
func connackFits(c *trial) {
	p := c.dial()
	p.send(c.hello("", clientID("$bridge/x"), maxPacket(8)))
	k := p.want(mqtt.CONNACK)
	if len(k.raw) > 8 || !bytes.HasPrefix(k.body, []byte{0, byte(mqtt.ClientIDNotValid)}) {
		c.Errorf("% x, want a CONNACK with 0x85 and at most 8 bytes", k.raw)
	}
	p.wantEOF()
}

func noResponseInformation(c *trial) {
	for _, want := range []bool{false, true} {
		p := c.connect("x", func(m *mqtt.Connect) { m.Props.RequestResponseInfo = want })
		if info := p.connack.Props.ResponseInfo; !want && info != nil {
			c.Errorf("response information %q, not asked for", info)
		}
	}
}

func aliasesSwitchedOff(c *trial) {
	c.own(func(o *broker.Options) { o.Limits.TopicAliasMax = 0 })
	p := c.connect("x")
	if n := p.connack.Props.TopicAliasMax; n != 0 {
		c.Errorf("topic alias maximum %d, want none", n)
	}
	p.send(c.publishPacket(c.topic("x"), 1, 1, "m", alias(1)))
	p.wantClosed(mqtt.TopicAliasInvalid)
}
