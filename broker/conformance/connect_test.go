package conformance

import (
	"strings"

	"sluice/broker/mqtt"
)

// Cases of CONNECT and CONNACK: what is refused, and what is answered.

func firstPacketIsConnect(c *trial) {
	for _, b := range [][]byte{
		c.publishPacket(c.topic("x"), 0, 0, "x"), c.rawSubscribe(1, c.topic("x"), 0),
		{0xC0, 0}, {0xE0, 0}, raw(0x40, u16(1)), {0x20, 2, 0, 0},
	} {
		p := c.dial()
		p.send(b, c.hello("x"))
		p.wantEOF()
	}
}

func secondConnect(c *trial) {
	p := c.connect("x")
	p.send(c.hello("x"))
	p.wantClosed(mqtt.ProtocolError)
}

// turnedAway sends a CONNECT that is not of a version that Sluice speaks. A
// CONNACK is allowed; one that accepts is not.
func turnedAway(c *trial, connect []byte) {
	p := c.dial()
	p.send(connect)
	k, err := p.read()
	if err == nil {
		if k.typ != mqtt.CONNACK || len(k.body) < 2 || k.body[0] != 0 || k.body[1] != 1 && k.body[1] != byte(mqtt.UnsupportedProtocolVersion) {
			c.Fatalf("% x, want a CONNACK that refuses the version", k.raw)
		}
		p.wantEOF()
	} else if explain(err) == err {
		c.Fatal(err)
	}
}

func protocolName(c *trial) {
	for _, name := range []string{"MQTTX", "mqtt", "MQT", "", "HTTP"} {
		turnedAway(c, raw(0x10, str(name), []byte{byte(c.v), flagClean}, u16(0), c.props(), str(c.id("x"))))
	}
}

func protocolLevel(c *trial) {
	for _, level := range []byte{0, 1, 2, 6, 0x7F} {
		connect := raw(0x10, str("MQTT"), []byte{level, flagClean}, u16(0), c.props(), str(c.id("x")))
		turnedAway(c, connect)
		if !c.is5() { // the CONNACK is a must there
			p := c.dial()
			p.send(connect)
			p.wantRaw(0x20, 2, 0, 1)
			p.wantEOF()
		}
	}
}

// malformedFlags sends a CONNECT with these flags, and all fields there can be.
func malformedFlags(c *trial, flags byte, payload ...[]byte) {
	c.Helper()
	p := c.dial()
	p.send(c.rawConnect(flags, c.id("x"), payload...))
	p.wantRejected(mqtt.MalformedPacket)
}

func connectReservedFlag(c *trial) { malformedFlags(c, flagClean|flagReserved) }

func willQoSWithoutWill(c *trial) {
	malformedFlags(c, flagClean|flagWillQoS1)
	malformedFlags(c, flagClean|2*flagWillQoS1)
}

func willRetainWithoutWill(c *trial) { malformedFlags(c, flagClean|flagWillRetain) }

func willFlagsWithoutWill(c *trial) {
	willQoSWithoutWill(c)
	willRetainWithoutWill(c)
	malformedFlags(c, flagClean, str("will/topic"), str("payload"))
}

func willQoS3(c *trial) {
	malformedFlags(c, flagClean|flagWill|flagWillQoS3, c.props(), str(c.topic("will")), str("x"))
	for q := range mqtt.QoS(3) {
		c.connect("x", will(c.topic("will"), "x", willQoS(q))).disconnect()
	}
}

func usernameWithoutFlag(c *trial) { malformedFlags(c, flagClean, str("user")) }
func usernameMissing(c *trial)     { malformedFlags(c, flagClean|flagUsername) }

func passwordWithoutFlag(c *trial) {
	malformedFlags(c, flagClean|flagUsername, str("user"), str("password"))
}

func passwordMissing(c *trial) {
	malformedFlags(c, flagClean|flagUsername|flagPassword, str("user"))
}

func passwordWithoutUsername(c *trial) { malformedFlags(c, flagClean|flagPassword, str("password")) }

func clientIDMissing(c *trial) {
	p := c.dial()
	p.send(raw(0x10, str("MQTT"), []byte{byte(c.v), flagClean}, u16(0), c.props()))
	p.wantRejected(mqtt.MalformedPacket)
}

func clientIDIllFormed(c *trial) {
	for _, bad := range illFormed {
		malformed := c.dial()
		malformed.send(c.rawConnect(flagClean, c.id("x")+bad))
		malformed.wantRejected(mqtt.MalformedPacket)
	}
}

func willTopicIllFormed(c *trial) {
	for _, bad := range illFormed {
		malformedFlags(c, flagClean|flagWill, c.props(), str(c.topic("x")+bad), str("x"))
	}
}

func usernameIllFormed(c *trial) {
	for _, bad := range illFormed {
		malformedFlags(c, flagClean|flagUsername, str("user"+bad))
	}
}

// clientID23: the ids that a server must take.
func clientID23(c *trial) {
	c.own(nil) // short ids are not the case's alone
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	var ids []string
	for n := 1; n <= 23; n++ {
		ids = append(ids, letters[n:2*n])
	}
	for at := 0; at < len(letters); at += 16 { // of other lengths than the slices above that begin there
		ids = append(ids, letters[at:min(at+15, len(letters))])
	}
	var all []*peer
	for _, id := range ids {
		all = append(all, c.connect("", clientID(id)))
	}
	for _, p := range all { // each is somebody else: nobody was taken over
		p.ping()
	}
}

func clientIDEmpty(c *trial) {
	a, b := c.connect("", clientID("")), c.connect("", clientID(""))
	a.ping()
	b.ping()
	a.subscribe(c.topic("x"), 1)
	b.publish(c.topic("x"), 1, "m")
	a.take("m")
}

func clientIDAssigned(c *trial) {
	clientIDEmpty(c)
	ids := map[string]bool{}
	for range 5 {
		p := c.connect("", clientID(""), keep)
		id := string(p.connack.Props.AssignedClientID)
		if id == "" || ids[id] {
			c.Fatalf("assigned client id %q, after %v", id, ids)
		}
		ids[id] = true
		p.subscribe(c.topic("y"), 1)
		p.drop()
		again := c.connect("", clientID(id), keep)
		if !again.connack.SessionPresent || again.connack.Props.AssignedClientID != nil {
			c.Errorf("with the assigned client id: session present %v, assigned %q", again.connack.SessionPresent, again.connack.Props.AssignedClientID)
		}
		again.send(mqtt.AppendDisconnect(nil, endSession(), c.v))
		again.wantEOF()
	}
}

// endSession is a DISCONNECT that ends the session with the connection.
func endSession() *mqtt.Disconnect {
	d := new(mqtt.Disconnect)
	d.Props.HasSessionExpiry = true
	return d
}

func clientIDEmptyKept(c *trial) {
	p := c.dial()
	p.send(c.hello("", clientID(""), func(m *mqtt.Connect) { m.Clean = false }))
	p.wantRaw(0x20, 2, 0, 2)
	p.wantEOF()
}

func clientIDRejected(c *trial) {
	c.refused(mqtt.ClientIDNotValid, strings.Repeat("x", 300))
	c.refused(mqtt.ClientIDNotValid, "", clientID("$bridge/"+c.id("x")))
}

// malformedConnects do not match the format for other reasons than above.
func malformedConnects(c *trial) {
	whole := c.hello("x", will(c.topic("will"), "x"), func(m *mqtt.Connect) { m.HasUsername, m.Username = true, []byte("user") })
	body := whole[2:]
	if whole[1] >= 0x80 {
		body = whole[3:]
	}
	for cut := range len(body) {
		p := c.dial()
		p.send(raw(0x10, body[:cut]))
		if cut < 10 { // even the version may be missing
			if k, err := p.read(); err == nil && (k.typ != mqtt.CONNACK || k.body[1] == 0) {
				c.Fatalf("% x for a CONNECT cut off after %d bytes", k.raw, cut)
			}
			continue
		}
		p.wantRejected(mqtt.MalformedPacket)
	}
	malformedFlags(c, flagClean, []byte{0})
	if !c.is5() {
		return
	}
	for _, x := range []struct {
		props  []byte
		reason mqtt.Reason
	}{
		{prop(propReceiveMax, u16(0)), mqtt.ProtocolError},
		{append(prop(propReceiveMax, u16(1)), prop(propReceiveMax, u16(1))...), mqtt.ProtocolError},
		{prop(propAlias, u16(1)), mqtt.MalformedPacket},
		{[]byte{0x7F}, mqtt.MalformedPacket},
	} {
		p := c.dial()
		p.send(raw(0x10, str("MQTT"), []byte{5, flagClean}, u16(0), c.props(x.props), str(c.id("x"))))
		p.wantRejected(x.reason)
	}
}

// connectChecks: a CONNECT that is well-formed and refused nevertheless.
func connectChecks(c *trial) {
	clientIDRejected(c)
	c.refused(mqtt.NotAuthorized, "x", will("$SYS/broker/uptime", "x"))
	c.refused(mqtt.TopicNameInvalid, "x", will(c.topic(tooDeep()), "x"))
}

func takenOver(c *trial) {
	old := c.connect("x")
	p := c.connect("x")
	old.wantClosed(mqtt.SessionTakenOver)
	p.ping()
}
