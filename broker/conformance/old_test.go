package conformance

import (
	"strings"
	"time"

	"sluice/broker"
	"sluice/broker/mqtt"
)

// Cases of MQTT 3.1 that later versions do not have.

func pubrelAgainHasDup(c *trial) {
	p, pub := c.connect("x", renew), c.connect("pub")
	p.subscribe(c.topic("x"), 2)
	pub.publish(c.topic("x"), 2, "m")
	m := p.wantMessage("m")
	p.ack(mqtt.PUBREC, m.PacketID, mqtt.Success)
	if k := p.want(mqtt.PUBREL); k.flags != 0b0010 {
		c.Errorf("flags of PUBREL %04b, want 0010 the first time", k.flags)
	}
	p.drop()
	if k := c.connect("x", keep).want(mqtt.PUBREL); k.flags != 0b1010 {
		c.Errorf("flags of PUBREL %04b, want 1010 when sent again", k.flags)
	}
}

func dupOnOthers(c *trial) {
	sub, pub := c.connect("sub"), c.connect("pub")
	sub.send(raw(0x8A, u16(1), str(c.topic("x")), []byte{1}))
	sub.wantSuback(mqtt.SUBACK, 1, 1)
	pub.send(c.publishPacket(c.topic("x"), 2, 1, "m"))
	pub.wantAck(mqtt.PUBREC, 1)
	pub.send(raw(0x6A, u16(1)))
	pub.wantAck(mqtt.PUBCOMP, 1)
	sub.take("m")
	sub.send(raw(0xAA, u16(2), str(c.topic("x"))))
	sub.wantUnsuback(2)
}

func remainingLengthTooLong(c *trial) {
	p := c.connect("x")
	p.send([]byte{0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01})
	p.wantEOF()
}

func connectOverdue(c *trial) {
	c.own(func(o *broker.Options) { o.ConnectTimeout = 100 * time.Millisecond })
	p := c.dial()
	p.send(c.hello("x")[:5])
	p.wantEOF()
}

func protocolLevel31(c *trial) {
	for _, level := range []byte{0, 1, 2, 4, 5} {
		p := c.dial()
		p.send(raw(0x10, str("MQIsdp"), []byte{level, flagClean}, u16(0), str(c.id("x"))))
		p.wantRaw(0x20, 2, 0, 1)
		p.wantEOF()
	}
	turnedAway(c, raw(0x10, str("MQIsdpp"), []byte{3, flagClean}, u16(0), str(c.id("x"))))
}

func longClientID31(c *trial) {
	c.connect(strings.Repeat("x", 24)).ping()
	c.refused(mqtt.ClientIDNotValid, strings.Repeat("x", 300))
}

func emptyClientID31(c *trial) { c.refused(mqtt.ClientIDNotValid, "", clientID("")) }

func userMissing31(c *trial) {
	for _, payload := range [][]byte{nil, str("user")} {
		p := c.dial()
		p.send(c.rawConnect(flagClean|flagUsername|flagPassword, c.id("x"), payload))
		p.wantConnack(mqtt.Success)
	}
}

func connack31(c *trial) {
	p := c.dial()
	p.send(c.hello("x", renew))
	p.wantRaw(0x20, 2, 0, 0)
	p.drop()
	p = c.dial()
	p.send(c.hello("x", keep))
	p.wantRaw(0x20, 2, 0, 0)
	connectChecks(c)
}

func emptyMessage(c *trial) {
	sub, pub, topic := c.pair(2)
	for q := range mqtt.QoS(3) {
		pub.publish(topic, q, "")
		sub.take("")
	}
}

func disconnectClosed(c *trial) {
	p := c.connect("x")
	p.send([]byte{0xE0, 0})
	p.wantEOF()
}
