package mqtt

import "strconv"

var errAckReason = protocolError("MQTT-3.4.2-1", "unknown reason code in PUBACK, PUBREC, PUBREL or PUBCOMP")

// DecodeAck reads the body of a PUBACK, PUBREC, PUBREL or PUBCOMP packet of
// version v into dst.
func DecodeAck(dst *Ack, t Type, body []byte, v Version) error {
	mustBeAck(t)
	dst.Type = t
	dst.Reason = Success
	dst.Props.reset()
	c := cursor{b: body}
	dst.PacketID = c.packetID()
	if v == V5 {
		dst.Reason = c.reason(t, errAckReason)
		if len(c.b) > 0 {
			c.properties(&dst.Props, 1<<t)
		}
	}
	return c.end()
}

func mustBeAck(t Type) {
	if t < PUBACK || t > PUBCOMP {
		panic("BUG: mqtt: packet type " + strconv.Itoa(int(t)) + " is not one of 4 to 7")
	}
}

// reason reads the reason code of a packet that may leave it out if it is
// success.
func (c *cursor) reason(t Type, unknown *Error) Reason {
	if len(c.b) == 0 {
		return Success
	}
	r := Reason(c.u8())
	if !r.validIn(t) {
		c.fail(unknown)
	}
	return r
}

// AppendAck writes p as a packet of version v, in MQTT 5 in the shortest form.
func AppendAck(dst []byte, p *Ack, v Version) []byte {
	mustBeAck(p.Type)
	dst, at := openPacket(dst, p.Type, ackFlags(p.Type))
	dst = appendU16(dst, p.PacketID)
	if v == V5 {
		dst = appendReason(dst, p.Reason, &p.Props, 1<<p.Type)
	}
	return closeLength(dst, at)
}

// AppendPuback writes a PUBACK, PUBREC, PUBREL or PUBCOMP without properties.
// Before MQTT 5 r is not written: a refusal looks like success.
func AppendPuback(dst []byte, t Type, id uint16, r Reason, v Version) []byte {
	mustBeAck(t)
	first := byte(t)<<4 | ackFlags(t)
	if v == V5 && r != Success {
		return append(dst, first, 3, byte(id>>8), byte(id), byte(r))
	}
	return append(dst, first, 2, byte(id>>8), byte(id))
}

// AppendAckReason writes a PUBACK, PUBREC, PUBREL or PUBCOMP of MQTT 5 with a
// reason string. It does without a Properties, for who is refused may ask often.
func AppendAckReason(dst []byte, t Type, id uint16, r Reason, text string) []byte {
	mustBeAck(t)
	dst, at := openPacket(dst, t, ackFlags(t))
	dst = append(appendU16(dst, id), byte(r))
	dst, props := openLength(dst)
	dst = appendString(append(dst, propReasonString), text)
	return closeLength(closeLength(dst, props), at)
}

func ackFlags(t Type) byte {
	if t == PUBREL {
		return flagsAck
	}
	return 0
}
