package mqtt

import "bytes"

// Connect flags (MQTT5 3.1.2.3).
const (
	connectReserved   = 0x01
	connectClean      = 0x02
	connectWill       = 0x04
	connectWillQoS    = 0x18
	connectWillRetain = 0x20
	connectPassword   = 0x40
	connectUsername   = 0x80

	levelBridge = 0x80 // on the protocol level of 3.1 and 3.1.1; not in the specification
)

var (
	protocolMQTT   = []byte("MQTT")
	protocolMQIsdp = []byte("MQIsdp")

	errProtocolName  = &Error{Reason: UnsupportedProtocolVersion, Statement: "MQTT-3.1.2-1", Text: "unknown protocol name"}
	errProtocolLevel = &Error{Reason: UnsupportedProtocolVersion, Statement: "MQTT-3.1.2-2", Text: "unknown protocol version"}

	errConnectReserved   = malformed("MQTT-3.1.2-3", "reserved flag of CONNECT is set")
	errWillQoSNoWill     = malformed("MQTT-3.1.2-11", "will QoS without a will")
	errWillQoS3          = malformed("MQTT-3.1.2-12", "will QoS is 3")
	errWillRetainNoWill  = malformed("MQTT-3.1.2-13", "will retain without a will")
	errPasswordAlone     = malformed("MQTT3.1.1-3.1.2-22", "password without a user name")
	errWillTopicEmpty    = protocolError("MQTT-4.7.3-1", "will topic is empty")
	errWillTopicWildcard = &Error{Reason: TopicNameInvalid, Statement: "MQTT-3.3.2-2", Text: "will topic contains a wildcard"}
)

// DecodeConnect reads the body of a CONNECT packet into dst. The length of the
// client identifier is not judged, an empty one is accepted.
//
// After an error dst.Version is the version of the peer if it is one of ours,
// and 0 if not, so that the caller can refuse in a form the peer understands.
// An unknown version has the reason UnsupportedProtocolVersion.
func DecodeConnect(dst *Connect, body []byte) error {
	props, will := dst.Props, dst.Will.Props
	*dst = Connect{Props: props}
	dst.Props.reset()
	dst.Will.Props = will
	dst.Will.Props.reset()

	c := cursor{b: body}
	c.protocol(dst)
	flags := c.u8()
	dst.KeepAliveSeconds = c.u16()
	if c.err == nil {
		if err := checkConnectFlags(flags, dst.Version); err != nil {
			c.fail(err)
		}
	}
	dst.Clean = flags&connectClean != 0
	if dst.Version == V5 {
		c.properties(&dst.Props, inConnect)
	}
	dst.ClientID = c.str()
	if flags&connectWill != 0 {
		dst.HasWill = true
		c.will(&dst.Will, flags, dst.Version)
	}
	// MQTT3.1 3.1: the remaining length takes precedence over the flags of user
	// name and password; what is not there is absent.
	lenient := dst.Version == V31
	if flags&connectUsername != 0 && !(lenient && len(c.b) == 0) {
		dst.HasUsername = true
		dst.Username = c.str()
	}
	if flags&connectPassword != 0 && !(lenient && len(c.b) == 0) {
		dst.HasPassword = true
		dst.Password = c.bytes()
	}
	return c.end()
}

// protocol reads protocol name and level.
func (c *cursor) protocol(dst *Connect) {
	name := c.bytes()
	level := c.u8()
	if c.err != nil {
		return
	}
	switch {
	case bytes.Equal(name, protocolMQTT):
		switch level {
		case byte(V311), byte(V311) | levelBridge:
			dst.Version = V311
		case byte(V5):
			dst.Version = V5
			return
		}
	case bytes.Equal(name, protocolMQIsdp):
		if level&^levelBridge == byte(V31) {
			dst.Version = V31
		}
	default:
		c.fail(errProtocolName)
		return
	}
	if dst.Version == 0 {
		c.fail(errProtocolLevel)
		return
	}
	dst.Bridge = level&levelBridge != 0
}

// checkConnectFlags tells whether the connect flags agree with each other. MQTT
// 3.1 disregards what it does not use.
func checkConnectFlags(flags byte, v Version) *Error {
	qos := flags & connectWillQoS
	if flags&connectWill != 0 && qos == connectWillQoS {
		return errWillQoS3
	}
	if flags&connectPassword != 0 && flags&connectUsername == 0 && v != V5 {
		return errPasswordAlone
	}
	if v == V31 {
		return nil
	}
	switch {
	case flags&connectReserved != 0:
		return errConnectReserved
	case flags&connectWill == 0 && qos != 0:
		return errWillQoSNoWill
	case flags&connectWill == 0 && flags&connectWillRetain != 0:
		return errWillRetainNoWill
	}
	return nil
}

// will reads will properties, topic and payload.
func (c *cursor) will(w *Will, flags byte, v Version) {
	w.QoS = QoS(flags & connectWillQoS >> 3)
	w.Retain = flags&connectWillRetain != 0
	if v == V5 {
		c.properties(&w.Props, inWill)
	}
	w.Topic = c.bytes()
	if err := checkName(w.Topic); err == errTopicWild {
		c.fail(errWillTopicWildcard)
	} else if err != nil {
		c.fail(err)
	}
	if c.err == nil && len(w.Topic) == 0 {
		c.fail(errWillTopicEmpty)
	}
	w.Payload = c.bytes()
}

// AppendConnect writes p as a packet of p.Version, which must be one of ours.
// Before MQTT 5 a password without a user name is left out, as it has no
// encoding.
func AppendConnect(dst []byte, p *Connect) []byte {
	hasPassword := p.HasPassword && (p.HasUsername || p.Version == V5)
	dst, at := openPacket(dst, CONNECT, 0)
	name := protocolMQTT
	if p.Version == V31 {
		name = protocolMQIsdp
	}
	level := byte(p.Version)
	if p.Bridge && p.Version != V5 {
		level |= levelBridge
	}
	dst = append(appendBytes(dst, name), level, connectFlags(p, hasPassword))
	dst = appendU16(dst, p.KeepAliveSeconds)
	if p.Version == V5 {
		dst = appendProperties(dst, &p.Props, inConnect)
	}
	dst = appendBytes(dst, p.ClientID)
	if p.HasWill {
		if p.Version == V5 {
			dst = appendProperties(dst, &p.Will.Props, inWill)
		}
		dst = appendBytes(dst, p.Will.Topic)
		dst = appendBytes(dst, p.Will.Payload)
	}
	if p.HasUsername {
		dst = appendBytes(dst, p.Username)
	}
	if hasPassword {
		dst = appendBytes(dst, p.Password)
	}
	return closeLength(dst, at)
}

func connectFlags(p *Connect, hasPassword bool) (flags byte) {
	if p.Clean {
		flags |= connectClean
	}
	if p.HasWill {
		flags |= connectWill | byte(p.Will.QoS)<<3
		if p.Will.Retain {
			flags |= connectWillRetain
		}
	}
	if hasPassword {
		flags |= connectPassword
	}
	if p.HasUsername {
		flags |= connectUsername
	}
	return flags
}

// Publish fills p with the message that the will is, and appends its
// properties in wire form to scratch, which it returns; p.Props is what was
// appended. The will delay is not part of the message.
func (w *Will) Publish(p *Publish, scratch []byte) []byte {
	at := len(scratch)
	props := w.Props
	props.HasMessageExpiry = false
	props.WillDelaySeconds = 0
	scratch = appendPropertyList(scratch, &props, inWill)
	*p = Publish{
		Topic:            w.Topic,
		Payload:          w.Payload,
		Props:            scratch[at:],
		QoS:              w.QoS,
		Retain:           w.Retain,
		HasMessageExpiry: w.Props.HasMessageExpiry,
		ExpirySeconds:    w.Props.MessageExpirySeconds,
	}
	return scratch
}
