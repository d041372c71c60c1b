package conformance

import (
	"encoding/binary"
	"slices"

	"sluice/broker/mqtt"
)

// Packets made by hand: what the codec would not encode.

// raw makes a packet of a first byte and its body, with the length in between.
func raw(first byte, body ...[]byte) []byte {
	all := slices.Concat(body...)
	return slices.Concat([]byte{first}, binary.AppendUvarint(nil, uint64(len(all))), all)
}

// str makes a string of the wire: its length before it.
func str(s string) []byte { return append(u16(uint16(len(s))), s...) }

func u16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// props makes properties with their length before them; before MQTT 5 nothing.
func (c *trial) props(parts ...[]byte) []byte {
	if !c.is5() {
		return nil
	}
	all := slices.Concat(parts...)
	return append(binary.AppendUvarint(nil, uint64(len(all))), all...)
}

// Connect flags (MQTT5 3.1.2.3).
const (
	flagReserved   = 0x01
	flagClean      = 0x02
	flagWill       = 0x04
	flagWillQoS1   = 0x08
	flagWillQoS3   = 0x18
	flagWillRetain = 0x20
	flagPassword   = 0x40
	flagUsername   = 0x80
)

// rawConnect makes a CONNECT of the case's version without properties: whatever
// payload comes after the client id is the caller's.
func (c *trial) rawConnect(flags byte, id string, payload ...[]byte) []byte {
	name := "MQTT"
	if c.v == mqtt.V31 {
		name = "MQIsdp"
	}
	return raw(0x10, str(name), []byte{byte(c.v), flags}, u16(0), c.props(), str(id), slices.Concat(payload...))
}

// rawPublish makes a PUBLISH of QoS 1 with any bytes as its topic.
func (c *trial) rawPublish(topic string, id uint16, props ...[]byte) []byte {
	return raw(0x32, str(topic), u16(id), c.props(props...), []byte("payload"))
}

// rawSubscribe makes a SUBSCRIBE with any bytes as its filter and options.
func (c *trial) rawSubscribe(id uint16, filter string, options byte) []byte {
	return raw(0x82, u16(id), c.props(), str(filter), []byte{options})
}

func (c *trial) publishPacket(topic string, qos mqtt.QoS, id uint16, payload string, change ...func(*mqtt.Publish)) []byte {
	p := mqtt.Publish{Topic: []byte(topic), QoS: qos, PacketID: id, Payload: []byte(payload)}
	for _, f := range change {
		f(&p)
	}
	return mqtt.AppendPublish(nil, &p, c.v)
}

func (c *trial) subscribePacket(id uint16, filters ...mqtt.SubscribeFilter) []byte {
	return mqtt.AppendSubscribe(nil, &mqtt.Subscribe{PacketID: id, Filters: filters}, c.v)
}

func (c *trial) unsubscribePacket(id uint16, filters ...string) []byte {
	u := mqtt.Unsubscribe{PacketID: id}
	for _, f := range filters {
		u.Filters = append(u.Filters, []byte(f))
	}
	return mqtt.AppendUnsubscribe(nil, &u, c.v)
}

// Changes of a PUBLISH.

func retained(p *mqtt.Publish) { p.Retain = true }
func dup(p *mqtt.Publish)      { p.Dup = true }

func expires(seconds uint32) func(*mqtt.Publish) {
	return func(p *mqtt.Publish) { p.HasMessageExpiry, p.ExpirySeconds = true, seconds }
}

// Changes of a subscription.

func noLocal(f *mqtt.SubscribeFilter)     { f.NoLocal = true }
func asPublished(f *mqtt.SubscribeFilter) { f.RetainAsPublished = true }

func handling(n uint8) func(*mqtt.SubscribeFilter) {
	return func(f *mqtt.SubscribeFilter) { f.RetainHandling = n }
}

// Property identifiers (MQTT5 2.2.2.2).
const (
	propPayloadFormat  = 0x01
	propExpiry         = 0x02
	propContentType    = 0x03
	propResponseTopic  = 0x08
	propCorrelation    = 0x09
	propSubscriptionID = 0x0B
	propReceiveMax     = 0x21
	propAlias          = 0x23
	propUser           = 0x26
)

func prop(id byte, value ...[]byte) []byte { return append([]byte{id}, slices.Concat(value...)...) }
