package mqtt

import "strconv"

// DESIGN. A refusal costs the refused more than it costs us: nearly every
// error is a package variable, so refusing garbage allocates nothing. The only
// errors made on demand are those that name the offending property, and they
// are of a fixed, small size.
//
// Malformed means that the bytes do not form a packet, protocol error that a
// packet says what it must not say (MQTT5 1.2). The caller closes the
// connection in both cases, after a CONNACK or DISCONNECT with Reason if the
// peer's version has one (MQTT5 4.13).

// Error is why a packet was refused. Every error of a decoder is an *Error.
// Errors are shared and must not be changed.
type Error struct {
	Reason    Reason // 0x80 or above
	Statement string // "MQTT-3.3.1-4" of MQTT 5, a section such as "MQTT5 3.3.2.3.4" where it has no number, the same of "MQTT3.1.1" where MQTT 5 has neither; may be empty
	Text      string // what is wrong, without values from the packet
}

// Error tells the reason code, what is wrong, and the statement.
func (e *Error) Error() string {
	s := e.Reason.String() + " (0x" + strconv.FormatUint(uint64(e.Reason), 16) + "): " + e.Text
	if e.Statement != "" {
		s += " [" + e.Statement + "]"
	}
	return s
}

func malformed(statement, text string) *Error {
	return &Error{Reason: MalformedPacket, Statement: statement, Text: text}
}

func protocolError(statement, text string) *Error {
	return &Error{Reason: ProtocolError, Statement: statement, Text: text}
}

// The errors that more than one packet can have. Those of one packet stand
// with its decoder.
var (
	errShort        = malformed("", "the packet ends in the middle of a field")
	errTrailing     = malformed("", "bytes after the end of the packet")
	errVarintLong   = malformed("MQTT5 1.5.5", "variable byte integer of more than 4 bytes")
	errVarintPadded = malformed("MQTT-1.5.5-1", "variable byte integer longer than necessary")
	errUTF8         = malformed("MQTT-1.5.4-1", "string is not well-formed UTF-8")
	errNUL          = malformed("MQTT-1.5.4-2", "string contains U+0000")
	errPacketIDZero = protocolError("MQTT-2.2.1-3", "packet identifier is 0")
	errTopicEmpty   = protocolError("MQTT-4.7.3-1", "topic name is empty")
	errFilterEmpty  = protocolError("MQTT-4.7.3-1", "topic filter is empty")
	errTopicWild    = &Error{Reason: TopicNameInvalid, Statement: "MQTT-3.3.2-2", Text: "topic name contains a wildcard"}
)
