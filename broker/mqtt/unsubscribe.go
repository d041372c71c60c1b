package mqtt

var errUnsubscribeEmpty = protocolError("MQTT-3.10.3-2", "UNSUBSCRIBE without a topic filter")

// DecodeUnsubscribe reads the body of an UNSUBSCRIBE packet of version v into
// dst. The syntax of the filters is not checked, only that they are strings
// and not empty.
func DecodeUnsubscribe(dst *Unsubscribe, body []byte, v Version) error {
	if cap(dst.Filters) > scratchMax {
		dst.Filters = nil
	}
	dst.Filters = dst.Filters[:0]
	dst.Props.reset()
	c := cursor{b: body}
	dst.PacketID = c.packetID()
	if v == V5 {
		c.properties(&dst.Props, 1<<UNSUBSCRIBE)
	}
	if c.err == nil && len(c.b) == 0 {
		c.fail(errUnsubscribeEmpty)
	}
	for len(c.b) > 0 {
		f := c.topicFilter()
		dst.Filters = push(dst.Filters, f, len(c.b)/3)
	}
	return c.end()
}

// AppendUnsubscribe writes p as a packet of version v.
func AppendUnsubscribe(dst []byte, p *Unsubscribe, v Version) []byte {
	dst, at := openPacket(dst, UNSUBSCRIBE, flagsAck)
	dst = appendU16(dst, p.PacketID)
	if v == V5 {
		dst = appendProperties(dst, &p.Props, 1<<UNSUBSCRIBE)
	}
	for _, f := range p.Filters {
		dst = appendBytes(dst, f)
	}
	return closeLength(dst, at)
}
