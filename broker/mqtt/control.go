package mqtt

// PINGREQ, PINGRESP, DISCONNECT and AUTH.

var (
	errPingBody         = malformed("MQTT5 3.12.1", "PINGREQ or PINGRESP with a body")
	errDisconnectBody   = malformed("MQTT3.1.1 3.14.1", "DISCONNECT with a body before MQTT 5")
	errDisconnectReason = protocolError("MQTT-3.14.2-1", "unknown reason code in DISCONNECT")
	errAuthReason       = protocolError("MQTT-3.15.2-1", "unknown reason code in AUTH")
	errAuthMethod       = protocolError("MQTT5 3.15.2.2.2", "AUTH without an authentication method")
)

// DecodeEmpty checks the body of a PINGREQ or PINGRESP packet, and that of a
// DISCONNECT packet before MQTT 5: it must be empty.
func DecodeEmpty(t Type, body []byte) error {
	if len(body) == 0 {
		return nil
	}
	if t == DISCONNECT {
		return errDisconnectBody
	}
	return errPingBody
}

// DecodeDisconnect reads the body of a DISCONNECT packet of version v into dst.
// Some reason codes and properties are only for servers or only for clients to
// send; that is for the caller to check.
func DecodeDisconnect(dst *Disconnect, body []byte, v Version) error {
	dst.Reason = Success
	dst.Props.reset()
	if v < V5 {
		return DecodeEmpty(DISCONNECT, body)
	}
	c := cursor{b: body}
	dst.Reason = c.reason(DISCONNECT, errDisconnectReason)
	if len(c.b) > 0 {
		c.properties(&dst.Props, inDisconnect)
	}
	return c.end()
}

// DecodeAuth reads the body of an AUTH packet into dst. An empty one means
// success without properties (MQTT5 3.15.2.1); any other has an authentication
// method.
func DecodeAuth(dst *Auth, body []byte) error {
	dst.Reason = Success
	dst.Props.reset()
	if len(body) == 0 {
		return nil
	}
	c := cursor{b: body}
	dst.Reason = c.reason(AUTH, errAuthReason)
	c.properties(&dst.Props, inAuth)
	if c.err == nil && dst.Props.AuthMethod == nil {
		c.fail(errAuthMethod)
	}
	return c.end()
}

// AppendPingreq writes a PINGREQ packet.
func AppendPingreq(dst []byte) []byte { return append(dst, byte(PINGREQ)<<4, 0) }

// AppendPingresp writes a PINGRESP packet.
func AppendPingresp(dst []byte) []byte { return append(dst, byte(PINGRESP)<<4, 0) }

// AppendDisconnect writes p as a packet of version v; before MQTT 5 it is
// empty.
func AppendDisconnect(dst []byte, p *Disconnect, v Version) []byte {
	dst, at := openPacket(dst, DISCONNECT, 0)
	if v == V5 {
		dst = appendReason(dst, p.Reason, &p.Props, inDisconnect)
	}
	return closeLength(dst, at)
}

// AppendAuth writes p. Success without properties is an empty packet; no other
// form may leave anything out (MQTT5 3.15.2.1).
func AppendAuth(dst []byte, p *Auth) []byte {
	dst, at := openPacket(dst, AUTH, 0)
	dst = appendProperties(append(dst, byte(p.Reason)), &p.Props, inAuth)
	if p.Reason == Success && len(dst) == at+3 {
		dst = dst[:at+1]
	}
	return closeLength(dst, at)
}
