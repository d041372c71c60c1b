package mqtt

import (
	"encoding/binary"
	"slices"
	"strconv"
)

// DESIGN. PUBLISH is the hot path. Its properties are checked once, on the way
// in, and otherwise stay as they are on the wire: what belongs to the message
// is sent on by one copy, and only the properties that belong to the hop
// (message expiry, topic alias, subscription identifiers) are taken out of the
// bytes and written again for each receiver. Neither direction allocates.

var errTopicNoAlias = protocolError("MQTT5 3.3.2.1", "topic name is empty and there is no topic alias")

// DecodePublish reads the body of a PUBLISH packet of version v into dst; flags
// are those of the fixed header. Subscription identifiers are accepted: only
// the caller knows whether a server sent them.
func DecodePublish(dst *Publish, flags byte, body []byte, v Version) error {
	if e := checkFlags(PUBLISH, flags, v); e != nil {
		return e
	}
	dst.QoS = QoS(flags >> 1 & 3)
	dst.Dup = flags&flagDup != 0
	dst.Retain = flags&flagRetain != 0
	dst.Props = nil
	dst.PacketID = 0
	dst.HasMessageExpiry = false
	dst.ExpirySeconds = 0
	dst.TopicAlias = 0
	dst.HasHopProps = false
	if cap(dst.SubIDs) > scratchMax {
		dst.SubIDs = nil
	} else if len(dst.SubIDs) > 0 {
		dst.SubIDs = dst.SubIDs[:0]
	}

	if len(body) < 2 {
		return errShort
	}
	end := 2 + int(binary.BigEndian.Uint16(body))
	if len(body) < end {
		return errShort
	}
	dst.Topic = body[2:end:end]
	body = body[end:]
	if e := checkName(dst.Topic); e != nil {
		return e
	}
	if dst.QoS != 0 {
		if len(body) < 2 {
			return errShort
		}
		dst.PacketID = binary.BigEndian.Uint16(body)
		if dst.PacketID == 0 {
			return errPacketIDZero
		}
		body = body[2:]
	}
	if v == V5 {
		c := cursor{b: body}
		c.publishProperties(dst)
		if c.err != nil {
			return c.err
		}
		body = c.b
	}
	dst.Payload = body[:len(body):len(body)]
	if len(dst.Topic) == 0 && dst.TopicAlias == 0 {
		if v == V5 {
			return errTopicNoAlias
		}
		return errTopicEmpty
	}
	return nil
}

// publishProperties reads the property length and checks the properties: those
// of the hop go to their fields, all stay in dst.Props.
func (c *cursor) publishProperties(dst *Publish) {
	n := c.varint()
	if n > len(c.b) {
		c.fail(errPropLength)
	}
	if n == 0 || c.err != nil {
		return
	}
	dst.Props = c.b[:n:n]
	in := cursor{b: dst.Props}
	c.b = c.b[n:]
	var seen uint64
	for len(in.b) > 0 {
		switch id := in.propertyID(inPublish, &seen); id {
		case propPayloadFormat:
			in.flag(id)
		case propMessageExpiry:
			dst.ExpirySeconds, dst.HasMessageExpiry = in.u32(), true
		case propContentType:
			in.str()
		case propResponseTopic:
			in.responseTopic()
		case propCorrelationData:
			in.bytes()
		case propSubscriptionID:
			id := in.subscriptionID()
			dst.SubIDs = push(dst.SubIDs, id, len(in.b)/2)
		case propTopicAlias:
			dst.TopicAlias = in.u16()
			if dst.TopicAlias == 0 && in.err == nil {
				in.fail(errTopicAliasZero)
			}
		case propUser:
			in.str()
			in.str()
		}
	}
	const hop = 1<<propMessageExpiry | 1<<propTopicAlias | 1<<propSubscriptionID
	dst.HasHopProps = seen&hop != 0
	if in.err != nil {
		c.fail(in.err)
	}
}

// hopProperty tells whether the property at the head of props belongs to the
// hop, and how long it is. Props were checked when they were decoded or are
// made by us; others are a bug.
func hopProperty(props []byte) (hop bool, n int) {
	switch props[0] {
	case propPayloadFormat:
		n = 2
	case propMessageExpiry:
		hop, n = true, 5
	case propTopicAlias:
		hop, n = true, 3
	case propSubscriptionID:
		_, size, _ := parseVarint(props[1:])
		hop, n = true, 1+size
	case propContentType, propResponseTopic, propCorrelationData:
		n = 3 + int(binary.BigEndian.Uint16(props[1:]))
	case propUser:
		n = 3 + int(binary.BigEndian.Uint16(props[1:]))
		n += 2 + int(binary.BigEndian.Uint16(props[n:]))
	default:
		panic("BUG: mqtt: PUBLISH with property " + strconv.Itoa(int(props[0])))
	}
	return hop, n
}

// AppendForwardProps appends those of p.Props that belong to the message, in
// their order, without a length before them.
func AppendForwardProps(dst []byte, p *Publish) []byte {
	if !p.HasHopProps {
		return append(dst, p.Props...)
	}
	for props := p.Props; len(props) > 0; {
		hop, n := hopProperty(props)
		if !hop {
			dst = append(dst, props[:n]...)
		}
		props = props[n:]
	}
	return dst
}

func forwardPropsSize(p *Publish) int {
	total := len(p.Props)
	if !p.HasHopProps {
		return total
	}
	for props := p.Props; len(props) > 0; {
		hop, n := hopProperty(props)
		if hop {
			total -= n
		}
		props = props[n:]
	}
	return total
}

// publishSizes returns the property length (0 before MQTT 5) and the remaining
// length of p.
func publishSizes(p *Publish, v Version) (props, remaining int) {
	remaining = 2 + len(p.Topic) + len(p.Payload)
	if p.QoS != 0 {
		remaining += 2
	}
	if v < V5 {
		return 0, remaining
	}
	props = forwardPropsSize(p)
	if p.HasMessageExpiry {
		props += 5
	}
	if p.TopicAlias != 0 {
		props += 3
	}
	for _, id := range p.SubIDs {
		props += 1 + varintSize(int(id))
	}
	return props, remaining + varintSize(props) + props
}

// PublishSize is how many bytes AppendPublish appends, for comparison with the
// maximum packet size of the peer. A packet that exceeds PacketBytesMax has no
// encoding and must not be given to AppendPublish.
func PublishSize(p *Publish, v Version) int {
	_, remaining := publishSizes(p, v)
	return 1 + varintSize(remaining) + remaining
}

// AppendPublish writes p as a packet of version v: before MQTT 5 without any
// properties, else with those of p.Props that belong to the message, and with
// those of the hop from their fields.
func AppendPublish(dst []byte, p *Publish, v Version) []byte {
	props, remaining := publishSizes(p, v)
	first := byte(PUBLISH)<<4 | byte(p.QoS)<<1
	if p.Dup && p.QoS != 0 {
		first |= flagDup
	}
	if p.Retain {
		first |= flagRetain
	}
	dst = slices.Grow(dst, 1+varintSize(remaining)+remaining)
	dst = appendVarint(append(dst, first), remaining)
	dst = appendBytes(dst, p.Topic)
	if p.QoS != 0 {
		dst = appendU16(dst, p.PacketID)
	}
	if v == V5 {
		dst = appendVarint(dst, props)
		if props != 0 {
			dst = appendPublishProperties(dst, p)
		}
	}
	return append(dst, p.Payload...)
}

func appendPublishProperties(dst []byte, p *Publish) []byte {
	if p.HasMessageExpiry {
		dst = appendU32(append(dst, propMessageExpiry), p.ExpirySeconds)
	}
	if p.TopicAlias != 0 {
		dst = appendU16(append(dst, propTopicAlias), p.TopicAlias)
	}
	for _, id := range p.SubIDs {
		dst = appendVarint(append(dst, propSubscriptionID), int(id))
	}
	return AppendForwardProps(dst, p)
}
