package bridge

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/eclipse/paho.golang/paho"
)

// DESIGN. Between the brokers the properties of a message stay as they are on the wire
// (message.props). paho wants them one by one. They were checked when they came, so
// what cannot be read here is a bug.

// The properties that belong to a message (MQTT5 3.3.2.3).
const (
	propPayloadFormat   = 0x01
	propContentType     = 0x03
	propResponseTopic   = 0x08
	propCorrelationData = 0x09
	propUser            = 0x26
)

// publishProperties returns what paho sends with a message; nil: nothing. User
// properties keep their order [MQTT-3.3.2-17].
func publishProperties(m *message) *paho.PublishProperties {
	if len(m.props) == 0 && !m.expires {
		return nil
	}
	p := &paho.PublishProperties{}
	if m.expires {
		p.MessageExpiry = paho.Uint32(m.seconds)
	}
	for b := m.props; len(b) > 0; {
		id := b[0]
		b = b[1:]
		if id == propPayloadFormat {
			p.PayloadFormat = paho.Byte(b[0])
			b = b[1:]
			continue
		}
		var value, second []byte
		value, b = cutString(b)
		switch id {
		case propContentType:
			p.ContentType = string(value)
		case propResponseTopic:
			p.ResponseTopic = string(value)
		case propCorrelationData:
			p.CorrelationData = value
		case propUser:
			second, b = cutString(b)
			p.User.Add(string(value), string(second))
		default:
			panic(fmt.Sprintf("BUG: bridge: property %#x of a message", id))
		}
	}
	return p
}

// crossing returns properties as they go to the other side: without the mark that this
// side's bridges leave (in.go), which would mislead those of the other.
func crossing(props []byte) []byte {
	if !bytes.Contains(props, []byte(broughtBy)) {
		return props
	}
	var kept []byte
	for rest := props; len(rest) > 0; {
		id, b := rest[0], rest[1:]
		mark := false
		switch id {
		case propPayloadFormat:
			b = b[1:]
		case propUser:
			var name []byte
			name, b = cutString(b)
			mark = string(name) == broughtBy
			_, b = cutString(b)
		default:
			_, b = cutString(b)
		}
		if !mark {
			kept = append(kept, rest[:len(rest)-len(b)]...)
		}
		rest = b
	}
	return kept
}

// cutString takes a string or binary data off the head of b (MQTT5 1.5.4).
func cutString(b []byte) (s, rest []byte) {
	n := 2 + int(binary.BigEndian.Uint16(b))
	return b[2:n:n], b[n:]
}
