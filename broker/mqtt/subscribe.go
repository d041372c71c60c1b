package mqtt

import (
	"bytes"
	"strconv"
)

// Subscription options (MQTT5 3.8.3.1).
const (
	optionQoS         = 0x03
	optionNoLocal     = 0x04
	optionAsPublished = 0x08
	optionHandling    = 0x30
	optionReserved    = 0xC0
	optionReservedV3  = 0xFC
)

var sharePrefix = []byte("$share/")

var (
	errSubscribeEmpty    = protocolError("MQTT-3.8.3-2", "SUBSCRIBE without a topic filter")
	errOptionReserved    = malformed("MQTT-3.8.3-5", "reserved subscription options are set")
	errOptionQoS3        = protocolError("MQTT5 3.8.3.1", "SUBSCRIBE asks for QoS 3")
	errOptionHandling    = protocolError("MQTT5 3.8.3.1", "retain handling is 3")
	errNoLocalShared     = protocolError("MQTT-3.8.3-4", "no local on a shared subscription")
	errSubackEmpty       = protocolError("MQTT-3.9.3-1", "SUBACK without a reason code")
	errSubackReason      = protocolError("MQTT-3.9.3-2", "unknown reason code in SUBACK")
	errUnsubackEmpty     = protocolError("MQTT-3.11.3-1", "UNSUBACK without a reason code")
	errUnsubackReason    = protocolError("MQTT-3.11.3-2", "unknown reason code in UNSUBACK")
	errSubackReturnCodes = protocolError("MQTT3.1.1-3.9.3-2", "unknown return code in SUBACK")
)

// DecodeSubscribe reads the body of a SUBSCRIBE packet of version v into dst.
// The syntax of the filters is not checked, only that they are strings and not
// empty.
func DecodeSubscribe(dst *Subscribe, body []byte, v Version) error {
	if cap(dst.Filters) > scratchMax {
		dst.Filters = nil
	}
	dst.Filters = dst.Filters[:0]
	dst.Props.reset()
	c := cursor{b: body}
	dst.PacketID = c.packetID()
	if v == V5 {
		c.properties(&dst.Props, inSubscribe)
	}
	if c.err == nil && len(c.b) == 0 {
		c.fail(errSubscribeEmpty)
	}
	for len(c.b) > 0 {
		f := SubscribeFilter{Filter: c.topicFilter()}
		if err := f.setOptions(c.u8(), v); err != nil {
			c.fail(err)
		}
		dst.Filters = push(dst.Filters, f, len(c.b)/4)
	}
	return c.end()
}

func (f *SubscribeFilter) setOptions(options byte, v Version) *Error {
	reserved := byte(optionReservedV3)
	if v == V5 {
		reserved = optionReserved
	}
	f.QoS = QoS(options & optionQoS)
	f.NoLocal = options&optionNoLocal != 0
	f.RetainAsPublished = options&optionAsPublished != 0
	f.RetainHandling = options & optionHandling >> 4
	switch {
	case options&reserved != 0:
		return errOptionReserved
	case f.QoS == 3:
		return errOptionQoS3
	case f.RetainHandling == 3:
		return errOptionHandling
	case f.NoLocal && bytes.HasPrefix(f.Filter, sharePrefix):
		return errNoLocalShared
	}
	return nil
}

// AppendSubscribe writes p as a packet of version v.
func AppendSubscribe(dst []byte, p *Subscribe, v Version) []byte {
	dst, at := openPacket(dst, SUBSCRIBE, flagsAck)
	dst = appendU16(dst, p.PacketID)
	if v == V5 {
		dst = appendProperties(dst, &p.Props, inSubscribe)
	}
	for i := range p.Filters {
		f := &p.Filters[i]
		dst = append(appendBytes(dst, f.Filter), f.options(v))
	}
	return closeLength(dst, at)
}

func (f *SubscribeFilter) options(v Version) byte {
	options := byte(f.QoS)
	if v < V5 {
		return options
	}
	if f.NoLocal {
		options |= optionNoLocal
	}
	if f.RetainAsPublished {
		options |= optionAsPublished
	}
	return options | f.RetainHandling<<4
}

// DecodeSuback reads the body of a SUBACK or UNSUBACK packet of version v into
// dst. That there are as many codes as filters is for the caller to check.
func DecodeSuback(dst *Suback, t Type, body []byte, v Version) error {
	mustBeSuback(t)
	dst.Type = t
	dst.Codes = nil
	dst.Props.reset()
	c := cursor{b: body}
	dst.PacketID = c.packetID()
	if v == V5 {
		c.properties(&dst.Props, 1<<t)
	}
	if v < V5 && t == UNSUBACK || c.err != nil {
		return c.end()
	}
	dst.Codes = c.b[:len(c.b):len(c.b)]
	if err := checkCodes(dst.Codes, t, v); err != nil {
		return err
	}
	return nil
}

func mustBeSuback(t Type) {
	if t != SUBACK && t != UNSUBACK {
		panic("BUG: mqtt: packet type " + strconv.Itoa(int(t)) + " is neither 9 nor 11")
	}
}

// checkCodes accepts the 0x80 of 3.1.1 in 3.1, too: brokers have no other way
// to refuse a subscription there.
func checkCodes(codes []byte, t Type, v Version) *Error {
	empty, unknown := errSubackEmpty, errSubackReason
	switch {
	case t == UNSUBACK:
		empty, unknown = errUnsubackEmpty, errUnsubackReason
	case v < V5:
		unknown = errSubackReturnCodes
	}
	if len(codes) == 0 {
		return empty
	}
	for _, code := range codes {
		switch {
		case v == V5 && !Reason(code).validIn(t):
			return unknown
		case v < V5 && code > 2 && code != byte(UnspecifiedError):
			return unknown
		}
	}
	return nil
}

// SubackSize is how many bytes a SUBACK or UNSUBACK of MQTT 5 with n codes and
// no properties has.
func SubackSize(n int) int {
	remaining := 2 + 1 + n
	return 1 + varintSize(remaining) + remaining
}

// AppendSuback writes p as a packet of version v.
func AppendSuback(dst []byte, p *Suback, v Version) []byte {
	mustBeSuback(p.Type)
	dst, at := openPacket(dst, p.Type, 0)
	dst = appendU16(dst, p.PacketID)
	if v == V5 {
		dst = appendProperties(dst, &p.Props, 1<<p.Type)
	}
	if v == V5 || p.Type == SUBACK {
		dst = append(dst, p.Codes...)
	}
	return closeLength(dst, at)
}
