package conformance

import (
	"bytes"
	"encoding/binary"
	"strings"

	"sluice/broker/mqtt"
)

// Cases of chapters 1 and 2: data types, fixed header, packet identifiers.

// illFormed are byte sequences that are no UTF-8: a surrogate, two overlong
// forms, a character cut off, one beyond U+10FFFF, a byte that never occurs.
var illFormed = []string{"\xED\xA0\x80", "\xC0\x80", "\xE0\x80\xAF", "a\xE2\x82", "\xF4\x90\x80\x80", "\xFF"}

// notString sends a string wherever a client can, and expects each connection closed.
func notString(c *trial, bad string) {
	p := c.dial()
	p.send(c.rawConnect(flagClean, c.id("x")+bad))
	p.wantRejected(mqtt.MalformedPacket)
	for _, b := range [][]byte{
		c.rawPublish(c.topic(bad), 1),
		c.rawSubscribe(1, c.topic(bad), 0),
		raw(0xA2, u16(1), c.props(), str(c.topic(bad))),
	} {
		p := c.connect("x")
		p.send(b)
		p.wantClosed(mqtt.MalformedPacket)
	}
}

// wantRejected reads what follows a CONNECT that is malformed: in MQTT 5 a
// CONNACK with one of these reasons, before it nothing; then the end.
func (p *peer) wantRejected(r mqtt.Reason) {
	p.c.Helper()
	if p.c.is5() {
		p.wantConnack(r)
	}
	p.wantEOF()
}

func stringIllFormed(c *trial) {
	for _, bad := range illFormed {
		notString(c, bad)
	}
}

func stringWithNUL(c *trial) { notString(c, "a\x00b") }

func byteOrderMarkKept(c *trial) {
	with, without := c.topic("\xEF\xBB\xBFx"), c.topic("x")
	p := c.connect("x")
	p.subscribe(with, 0)
	p.publish(without, 0, "without")
	p.publish(with, 0, "with")
	if m := p.take("with"); string(m.Topic) != with {
		c.Errorf("topic %q, want %q", m.Topic, with)
	}
}

func varintMinimal(c *trial) {
	// A property length and a remaining length of one byte more than needed.
	p := c.connect("x")
	p.send(raw(0x32, str(c.topic("x")), u16(1), []byte{0x80, 0x00}))
	p.wantClosed(mqtt.MalformedPacket)
	p = c.connect("x")
	p.send([]byte{0xC0, 0x80, 0x00})
	p.wantClosed(mqtt.MalformedPacket)
	// And what the broker writes around the steps from one to three bytes.
	p = c.connect("y")
	topic := c.topic("x")
	p.subscribe(topic, 0)
	for _, remaining := range []int{127, 128, 16383, 16384} {
		payload := strings.Repeat("x", remaining-2-len(topic)-1)
		p.send(c.publishPacket(topic, 0, 0, payload))
		k := p.want(mqtt.PUBLISH)
		head := binary.AppendUvarint(nil, uint64(remaining))
		if !bytes.HasPrefix(k.raw[1:], head) || len(k.raw) != 1+len(head)+remaining {
			c.Errorf("remaining length % x, want % x", k.raw[1:5], head)
		}
	}
}

func stringPair(c *trial) {
	for _, bad := range append(illFormed, "\x00") {
		for _, pair := range [][]byte{prop(propUser, str("name"+bad), str("value")), prop(propUser, str("name"), str("value"+bad))} {
			p := c.connect("x")
			p.send(c.rawPublish(c.topic("x"), 1, pair))
			p.wantClosed(mqtt.MalformedPacket)
		}
	}
}

// reservedFlags: every packet that a client may send, with flags it must not
// have. What the broker sends is looked at by peer.read, always.
func reservedFlags(c *trial) {
	p := c.dial()
	p.send([]byte{0x11}, c.hello("x")[1:])
	p.wantEOF()
	for _, b := range [][]byte{
		raw(0x41, u16(1)), raw(0x51, u16(1)), raw(0x60, u16(1)), raw(0x63, u16(1)), raw(0x71, u16(1)),
		raw(0x80, u16(1), c.props(), str(c.topic("x")), []byte{0}),
		raw(0xA0, u16(1), c.props(), str(c.topic("x"))),
		{0xC1, 0}, {0xE1, 0},
	} {
		p := c.connect("x")
		p.send(b)
		p.wantClosed(mqtt.MalformedPacket)
	}
}

func flagsOf(first ...byte) func(*trial) {
	return func(c *trial) {
		for _, f := range first {
			p := c.connect("x")
			body := [][]byte{u16(1), c.props(), str(c.topic("x")), {0}}
			switch f >> 4 {
			case 6:
				body = body[:1]
			case 10:
				body = body[:3]
			case 14:
				body = nil
			}
			p.send(raw(f, body...))
			p.wantClosed(mqtt.MalformedPacket)
		}
	}
}

// The flags that must be 0010, and those next to it.
var (
	pubrelFlags      = flagsOf(0x60, 0x61, 0x63, 0x66, 0x6A)
	subscribeFlags   = flagsOf(0x80, 0x81, 0x83, 0x86, 0x8A)
	unsubscribeFlags = flagsOf(0xA0, 0xA1, 0xA3, 0xA6, 0xAA)
	disconnectFlags  = flagsOf(0xE1, 0xE2, 0xE4, 0xE8)
)

func qos0WithoutPacketID(c *trial) {
	topic := c.topic("x")
	sub := c.connect("sub")
	sub.subscribe(topic, 2)
	c.connect("pub").publish(topic, 0, "payload")
	sub.wantRaw(raw(0x30, str(topic), c.props(), []byte("payload"))...)
}

func packetIDZero(c *trial) {
	for _, b := range [][]byte{
		c.rawPublish(c.topic("x"), 0),
		c.publishPacket(c.topic("x"), 2, 0, "x"),
		c.rawSubscribe(0, c.topic("x"), 0),
		c.unsubscribePacket(0, c.topic("x")),
	} {
		p := c.connect("x")
		p.send(b)
		p.wantClosed(mqtt.ProtocolError, mqtt.MalformedPacket)
	}
}

// serverPacketIDs: ids of messages under way are never 0 and never the same,
// whatever their QoS.
func serverPacketIDs(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	sub.subscribe(c.topic("x"), 2)
	seen := map[uint16]bool{}
	for i := range 20 {
		pub.publish(c.topic("x"), mqtt.QoS(1+i%2), "m")
		m := sub.wantMessage("m")
		if m.PacketID == 0 || seen[m.PacketID] || m.Dup {
			c.Fatalf("message %d: packet id %d, DUP %v; %d ids in use", i, m.PacketID, m.Dup, len(seen))
		}
		seen[m.PacketID] = true
		if i%4 == 0 {
			sub.finish(m)
			delete(seen, m.PacketID)
		}
	}
}

// serverPacketIDsResent: sent again, a message has the id it had.
func serverPacketIDsResent(c *trial) {
	serverPacketIDs(c)
	resendKeepsIDs(c)
}

func acksNameThePacket(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	sub.subscribe(c.topic("x"), 2)
	pub.send(c.publishPacket(c.topic("x"), 1, 0x1234, "a"))
	pub.wantAck(mqtt.PUBACK, 0x1234)
	pub.send(c.publishPacket(c.topic("x"), 2, 0xFFFF, "b"))
	pub.wantAck(mqtt.PUBREC, 0xFFFF)
	pub.ack(mqtt.PUBREL, 0xFFFF, mqtt.Success)
	pub.wantAck(mqtt.PUBCOMP, 0xFFFF)
	sub.take("a")
	sub.take("b") // its PUBREL is looked at by finish
}

func subacksNameThePacket(c *trial) {
	p := c.connect("x")
	p.send(c.rawSubscribe(0xFEDC, c.topic("x"), 1))
	p.wantSuback(mqtt.SUBACK, 0xFEDC, 1)
	p.send(c.unsubscribePacket(0x0100, c.topic("x")))
	p.wantUnsuback(0x0100, mqtt.Success)
}

func emptyPropertiesHaveLength(c *trial) {
	p := c.connect("x")
	topic := c.topic("x")
	p.send(c.rawSubscribe(7, topic, 0))
	p.wantRaw(0x90, 4, 0, 7, 0, 0)
	p.send(c.publishPacket(topic, 0, 0, "payload"))
	p.wantRaw(raw(0x30, str(topic), []byte{0}, []byte("payload"))...)
	p.send(c.unsubscribePacket(8, topic))
	p.wantRaw(0xB0, 4, 0, 8, 0, 0)
}
