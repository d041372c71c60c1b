package mqtt

// connackCodesV3 is how many return codes MQTT 3.1 and 3.1.1 have (MQTT3.1.1 3.2.2.3).
const connackCodesV3 = 6

var (
	errConnackFlags   = malformed("MQTT-3.2.2-1", "reserved flags of CONNACK are set")
	errConnackSession = protocolError("MQTT-3.2.2-6", "session present in a CONNACK that refuses")
	errConnackCode    = protocolError("MQTT-3.2.2-8", "unknown reason code in CONNACK")
	errConnackCodeV3  = protocolError("MQTT3.1.1-3.2.2-6", "unknown return code in CONNACK")
)

// DecodeConnack reads the body of a CONNACK packet of version v into dst. MQTT
// 3.1 has no session present flag: its byte is ignored.
func DecodeConnack(dst *Connack, body []byte, v Version) error {
	dst.Props.reset()
	c := cursor{b: body}
	flags := c.u8()
	if v == V31 {
		flags = 0
	}
	dst.SessionPresent = flags == 1
	dst.Code = c.u8()
	if c.err == nil {
		if err := checkConnack(flags, dst.Code, v); err != nil {
			c.fail(err)
		}
	}
	if v == V5 {
		c.properties(&dst.Props, inConnack)
	}
	return c.end()
}

func checkConnack(flags, code byte, v Version) *Error {
	switch {
	case flags > 1:
		return errConnackFlags
	case v == V5 && !Reason(code).validIn(CONNACK):
		return errConnackCode
	case v < V5 && code >= connackCodesV3:
		return errConnackCodeV3
	case flags == 1 && code != 0:
		return errConnackSession
	}
	return nil
}

// AppendConnack writes p as a packet of version v.
func AppendConnack(dst []byte, p *Connack, v Version) []byte {
	dst, at := openPacket(dst, CONNACK, 0)
	var flags byte
	if p.SessionPresent && v != V31 {
		flags = 1
	}
	dst = append(dst, flags, p.Code)
	if v == V5 {
		dst = appendProperties(dst, &p.Props, inConnack)
	}
	return closeLength(dst, at)
}
