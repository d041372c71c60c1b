package mqtt

import (
	"bytes"
	"encoding/hex"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// rules has at least one packet for each rule that decoders enforce: the first
// byte and the body; the remaining length is put between them. A statement
// comes first, then the section where there is no statement.
var rules = []struct {
	statement string
	what      string
	v         Version
	first     byte
	body      string
	want      Reason
}{
	// Fixed header.
	{"MQTT5 2.1.2", "type 0", V5, 0x00, "", MalformedPacket},
	{"MQTT3.1.1 2.2.1", "AUTH before 5", V311, 0xF0, "", MalformedPacket},
	{"MQTT3.1.1 2.2.1", "AUTH before 5", V31, 0xF0, "", MalformedPacket},
	{"MQTT-2.1.3-1", "flags of CONNECT", V311, 0x11, "00 04 'MQTT' 04 02 00 00 00 00", MalformedPacket},
	{"MQTT-2.1.3-1", "flags of CONNACK", V311, 0x24, "00 00", MalformedPacket},
	{"MQTT-2.1.3-1", "flags of PUBACK", V311, 0x42, "00 01", MalformedPacket},
	{"MQTT-2.1.3-1", "flags of PUBREC", V311, 0x58, "00 01", MalformedPacket},
	{"MQTT-2.1.3-1", "flags of PUBCOMP", V311, 0x72, "00 01", MalformedPacket},
	{"MQTT-2.1.3-1", "flags of SUBACK", V311, 0x92, "00 01 00", MalformedPacket},
	{"MQTT-2.1.3-1", "flags of UNSUBACK", V311, 0xB2, "00 01", MalformedPacket},
	{"MQTT-2.1.3-1", "flags of PINGREQ", V311, 0xC1, "", MalformedPacket},
	{"MQTT-2.1.3-1", "flags of PINGRESP", V311, 0xD8, "", MalformedPacket},
	{"MQTT-3.14.1-1", "flags of DISCONNECT", V5, 0xE1, "", MalformedPacket},
	{"MQTT-3.15.1-1", "flags of AUTH", V5, 0xF2, "", MalformedPacket},
	{"MQTT-3.6.1-1", "PUBREL without the bit", V311, 0x60, "00 01", MalformedPacket},
	{"MQTT-3.6.1-1", "PUBREL with DUP after 3.1", V311, 0x6A, "00 01", MalformedPacket},
	{"MQTT-3.6.1-1", "PUBREL with RETAIN in 3.1", V31, 0x63, "00 01", MalformedPacket},
	{"MQTT-3.8.1-1", "SUBSCRIBE without the bit", V311, 0x80, "00 01 00 01 'a' 00", MalformedPacket},
	{"MQTT-3.8.1-1", "SUBSCRIBE with DUP after 3.1", V5, 0x8A, "00 01 00 00 01 'a' 00", MalformedPacket},
	{"MQTT-3.10.1-1", "UNSUBSCRIBE without the bit", V311, 0xA0, "00 01 00 01 'a'", MalformedPacket},
	{"MQTT-3.10.1-1", "UNSUBSCRIBE with DUP after 3.1", V311, 0xAA, "00 01 00 01 'a'", MalformedPacket},
	{"MQTT-3.3.1-4", "QoS 3", V311, 0x36, "00 01 't' 00 01", MalformedPacket},
	{"MQTT-3.3.1-2", "DUP with QoS 0", V311, 0x38, "00 01 't'", ProtocolError},

	// Strings and integers.
	{"MQTT-1.5.4-1", "overlong form in a topic", V311, 0x30, "00 02 c0af", MalformedPacket},
	{"MQTT-1.5.4-1", "surrogate in a topic", V311, 0x30, "00 03 eda080", MalformedPacket},
	{"MQTT-1.5.4-1", "beyond U+10FFFF in a topic", V311, 0x30, "00 04 f4908080", MalformedPacket},
	{"MQTT-1.5.4-1", "cut off character in a long topic", V311, 0x30, "00 0b 'abcdefgh/' e282", MalformedPacket},
	{"MQTT-1.5.4-1", "client identifier", V311, 0x10, "00 04 'MQTT' 04 02 00 00 | 00 01 ff", MalformedPacket},
	{"MQTT-1.5.4-1", "will topic", V311, 0x10, "00 04 'MQTT' 04 06 00 00 | 00 00 00 01 ff 00 00", MalformedPacket},
	{"MQTT-1.5.4-1", "user name", V311, 0x10, "00 04 'MQTT' 04 82 00 00 | 00 00 00 01 ff", MalformedPacket},
	{"MQTT-1.5.4-1", "topic filter of SUBSCRIBE", V311, 0x82, "00 01 00 01 ff 00", MalformedPacket},
	{"MQTT-1.5.4-1", "topic filter of UNSUBSCRIBE", V311, 0xA2, "00 01 00 01 ff", MalformedPacket},
	{"MQTT-1.5.4-1", "reason string", V5, 0x40, "00 01 00 04 1f 0001 ff", MalformedPacket},
	{"MQTT-1.5.4-1", "content type of PUBLISH", V5, 0x30, "00 01 't' 04 03 0001 ff", MalformedPacket},
	{"MQTT-1.5.4-1", "name of a user property of PUBLISH", V5, 0x30, "00 01 't' 06 26 0001 ff 0000", MalformedPacket},
	{"MQTT-1.5.4-1", "value of a user property of PUBLISH", V5, 0x30, "00 01 't' 06 26 0000 0001 ff", MalformedPacket},
	{"MQTT-1.5.4-1", "value of a user property", V5, 0x40, "00 01 00 06 26 0000 0001 ff", MalformedPacket},
	{"MQTT-1.5.4-2", "U+0000 in a short topic", V311, 0x30, "00 03 'a' 00 'b'", MalformedPacket},
	{"MQTT-1.5.4-2", "U+0000 in a long topic", V311, 0x30, "00 09 'abc' 00 'efghi'", MalformedPacket},
	{"MQTT-1.5.4-2", "U+0000 and a wildcard", V311, 0x30, "00 02 '+' 00", MalformedPacket},
	{"MQTT-1.5.4-2", "client identifier", V311, 0x10, "00 04 'MQTT' 04 02 00 00 | 00 01 00", MalformedPacket},
	{"MQTT-1.5.4-2", "topic filter", V311, 0x82, "00 01 00 01 00 00", MalformedPacket},
	{"MQTT-1.5.5-1", "property length padded", V5, 0x30, "00 01 't' 80 00", MalformedPacket},
	{"MQTT-1.5.5-1", "subscription identifier padded", V5, 0x82, "00 01 | 03 0b 81 00 | 00 01 'a' 00", MalformedPacket},
	{"MQTT5 1.5.5", "property length of five bytes", V5, 0x30, "00 01 't' 80 80 80 80 01", MalformedPacket},
	{"MQTT5 1.5.5", "subscription identifier of five bytes", V5, 0x30, "00 01 't' 06 0b ffffffff7f", MalformedPacket},
	{"", "no bytes at all", V311, 0x40, "", MalformedPacket},
	{"", "half a packet identifier", V311, 0x40, "00", MalformedPacket},
	{"", "string longer than the packet", V311, 0x30, "00 05 'abcd'", MalformedPacket},
	{"", "half a string length", V311, 0x30, "00", MalformedPacket},
	{"", "packet identifier cut off", V311, 0x32, "00 01 't' 00", MalformedPacket},
	{"", "no property length", V5, 0x30, "00 01 't'", MalformedPacket},
	{"", "property beyond the property length", V5, 0x30, "00 01 't' 04 02 000000 00", MalformedPacket},
	{"", "no value", V5, 0x30, "00 01 't' 01 01", MalformedPacket},
	{"", "no subscription identifier", V5, 0x30, "00 01 't' 01 0b", MalformedPacket},
	{"", "bytes after CONNECT", V311, 0x10, "00 04 'MQTT' 04 02 00 00 | 00 00 | 00", MalformedPacket},
	{"", "bytes after PUBACK", V311, 0x40, "00 01 00", MalformedPacket},
	{"", "bytes after UNSUBACK", V311, 0xB0, "00 01 00", MalformedPacket},
	{"", "bytes after the properties of PUBACK", V5, 0x40, "00 01 00 00 00", MalformedPacket},

	// Packet identifiers.
	{"MQTT-2.2.1-3", "PUBLISH", V311, 0x32, "00 01 't' 00 00", ProtocolError},
	{"MQTT-2.2.1-3", "PUBACK", V311, 0x40, "00 00", ProtocolError},
	{"MQTT-2.2.1-3", "SUBSCRIBE", V311, 0x82, "00 00 00 01 'a' 00", ProtocolError},
	{"MQTT-2.2.1-3", "UNSUBSCRIBE", V311, 0xA2, "00 00 00 01 'a'", ProtocolError},
	{"MQTT-2.2.1-3", "SUBACK", V311, 0x90, "00 00 00", ProtocolError},
	{"MQTT-2.2.1-3", "UNSUBACK", V5, 0xB0, "00 00 00 00", ProtocolError},

	// CONNECT.
	{"MQTT-3.1.2-1", "protocol name", V311, 0x10, "00 04 'MQTU' 04 02 00 00 | 00 00", UnsupportedProtocolVersion},
	{"MQTT-3.1.2-1", "protocol name in small letters", V311, 0x10, "00 04 'mqtt' 04 02 00 00 | 00 00", UnsupportedProtocolVersion},
	{"MQTT-3.1.2-1", "no protocol name", V311, 0x10, "00 00 04 02 00 00 | 00 00", UnsupportedProtocolVersion},
	{"MQTT-3.1.2-2", "MQTT 6", V311, 0x10, "00 04 'MQTT' 06 02 00 00 | 00 00", UnsupportedProtocolVersion},
	{"MQTT-3.1.2-2", "MQTT with level 3", V311, 0x10, "00 04 'MQTT' 03 02 00 00 | 00 00", UnsupportedProtocolVersion},
	{"MQTT-3.1.2-2", "MQIsdp with level 4", V311, 0x10, "00 06 'MQIsdp' 04 02 00 00 | 00 01 'c'", UnsupportedProtocolVersion},
	{"MQTT-3.1.2-2", "bridge bit with MQTT 5", V311, 0x10, "00 04 'MQTT' 85 02 00 00 00 | 00 00", UnsupportedProtocolVersion},
	{"MQTT-3.1.2-3", "reserved flag in 3.1.1", V311, 0x10, "00 04 'MQTT' 04 03 00 00 | 00 00", MalformedPacket},
	{"MQTT-3.1.2-3", "reserved flag in 5", V311, 0x10, "00 04 'MQTT' 05 03 00 00 00 | 00 00", MalformedPacket},
	{"MQTT-3.1.2-11", "will QoS without will", V311, 0x10, "00 04 'MQTT' 04 0a 00 00 | 00 00", MalformedPacket},
	{"MQTT-3.1.2-11", "will QoS 3 without will", V311, 0x10, "00 04 'MQTT' 04 1a 00 00 | 00 00", MalformedPacket},
	{"MQTT-3.1.2-12", "will QoS 3", V311, 0x10, "00 04 'MQTT' 05 1e 00 00 00 | 00 00 00 | 00 01 'w' 00 00", MalformedPacket},
	{"MQTT-3.1.2-12", "will QoS 3 in 3.1", V311, 0x10, "00 06 'MQIsdp' 03 1e 00 00 | 00 01 'c' 00 01 'w' 00 00", MalformedPacket},
	{"MQTT-3.1.2-13", "will retain without will", V311, 0x10, "00 04 'MQTT' 04 22 00 00 | 00 00", MalformedPacket},
	{"MQTT3.1.1-3.1.2-22", "password without user name", V311, 0x10, "00 04 'MQTT' 04 42 00 00 | 00 00 00 01 'p'", MalformedPacket},
	{"MQTT3.1.1-3.1.2-22", "password without user name in 3.1", V311, 0x10, "00 06 'MQIsdp' 03 42 00 00 | 00 01 'c' 00 01 'p'", MalformedPacket},
	{"", "user name missing after 3.1", V311, 0x10, "00 04 'MQTT' 04 82 00 00 | 00 00", MalformedPacket},
	{"", "password missing after 3.1", V311, 0x10, "00 04 'MQTT' 04 c2 00 00 | 00 00 00 01 'u'", MalformedPacket},
	{"", "client identifier missing", V311, 0x10, "00 04 'MQTT' 04 02 00 00", MalformedPacket},
	{"", "will payload missing", V311, 0x10, "00 04 'MQTT' 04 06 00 00 | 00 00 00 01 'w'", MalformedPacket},
	{"MQTT-4.7.3-1", "will topic", V311, 0x10, "00 04 'MQTT' 04 06 00 00 | 00 00 00 00 00 00", ProtocolError},
	{"MQTT-3.3.2-2", "will topic", V311, 0x10, "00 04 'MQTT' 04 06 00 00 | 00 00 00 03 'a/+' 00 00", TopicNameInvalid},

	// CONNACK.
	{"MQTT-3.2.2-1", "flags of CONNACK", V311, 0x20, "02 00", MalformedPacket},
	{"MQTT-3.2.2-6", "session present and refused, 3.1.1", V311, 0x20, "01 02", ProtocolError},
	{"MQTT-3.2.2-6", "session present and refused, 5", V5, 0x20, "01 87 00", ProtocolError},
	{"MQTT-3.2.2-8", "reason code of DISCONNECT", V5, 0x20, "00 8e 00", ProtocolError},
	{"MQTT3.1.1-3.2.2-6", "return code 6", V311, 0x20, "00 06", ProtocolError},
	{"MQTT3.1.1-3.2.2-6", "return code 6 in 3.1", V31, 0x20, "00 06", ProtocolError},

	// PUBLISH.
	{"MQTT-4.7.3-1", "topic", V311, 0x30, "00 00", ProtocolError},
	{"MQTT-4.7.3-1", "topic in 3.1", V31, 0x32, "00 00 00 01", ProtocolError},
	{"MQTT5 3.3.2.1", "no topic, no properties", V5, 0x30, "00 00 00", ProtocolError},
	{"MQTT5 3.3.2.1", "no topic, no alias", V5, 0x30, "00 00 02 01 00", ProtocolError},
	{"MQTT-3.3.2-2", "+ in a short topic", V311, 0x30, "00 03 'a/+'", TopicNameInvalid},
	{"MQTT-3.3.2-2", "# in a long topic", V311, 0x30, "00 09 'abcdef/#/'", TopicNameInvalid},
	{"MQTT-3.3.2-2", "# behind UTF-8", V311, 0x30, "00 03 c3a4 '#'", TopicNameInvalid},
	{"MQTT-3.3.2-2", "+ with an alias", V5, 0x30, "00 01 '+' 03 23 0001", TopicNameInvalid},
	{"MQTT-3.3.2-8", "topic alias 0", V5, 0x30, "00 01 't' 03 23 0000", TopicAliasInvalid},

	// Properties.
	{"MQTT5 2.2.2.1", "PUBLISH", V5, 0x30, "00 01 't' 05 01", MalformedPacket},
	{"MQTT5 2.2.2.1", "PUBACK", V5, 0x40, "00 01 00 05 1f 0000", MalformedPacket},
	{"MQTT5 2.2.2.2", "property 0", V5, 0x30, "00 01 't' 02 00 00", MalformedPacket},
	{"MQTT5 2.2.2.2", "property 4", V5, 0x30, "00 01 't' 02 04 00", MalformedPacket},
	{"MQTT5 2.2.2.2", "property 0x2b", V5, 0x40, "00 01 00 02 2b 00", MalformedPacket},
	{"MQTT5 2.2.2.2", "identifier of two bytes", V5, 0x40, "00 01 00 02 9f 01", MalformedPacket},
	{"MQTT5 3.3.2.3.2", "payload format 2", V5, 0x30, "00 01 't' 02 01 02", ProtocolError},
	{"MQTT5 3.3.2.3.2", "payload format 2 of the will", V5, 0x10, "00 04 'MQTT' 05 06 00 00 00 | 00 00 | 02 01 02 | 00 01 'w' 00 00", ProtocolError},
	{"MQTT-3.3.2-14", "PUBLISH", V5, 0x30, "00 01 't' 04 08 0001 '#'", ProtocolError},
	{"MQTT-3.3.2-14", "will", V5, 0x10, "00 04 'MQTT' 05 06 00 00 00 | 00 00 | 04 08 0001 '+' | 00 01 'w' 00 00", ProtocolError},
	{"MQTT-4.7.3-1", "response topic", V5, 0x30, "00 01 't' 03 08 0000", ProtocolError},
	{"MQTT-1.5.4-1", "response topic", V5, 0x30, "00 01 't' 04 08 0001 ff", MalformedPacket},
	{"MQTT5 3.8.2.1.2", "subscription identifier 0 in SUBSCRIBE", V5, 0x82, "00 01 02 0b 00 00 01 'a' 00", ProtocolError},
	{"MQTT5 3.8.2.1.2", "subscription identifier 0 in PUBLISH", V5, 0x30, "00 01 't' 02 0b 00", ProtocolError},
	{"MQTT5 3.1.2.11.3", "receive maximum 0", V5, 0x10, "00 04 'MQTT' 05 02 00 00 | 03 21 0000 | 00 00", ProtocolError},
	{"MQTT5 3.1.2.11.4", "maximum packet size 0", V5, 0x10, "00 04 'MQTT' 05 02 00 00 | 05 27 00000000 | 00 00", ProtocolError},
	{"MQTT5 3.1.2.11.6", "request response information 2", V5, 0x10, "00 04 'MQTT' 05 02 00 00 | 02 19 02 | 00 00", ProtocolError},
	{"MQTT5 3.1.2.11.7", "request problem information 2", V5, 0x10, "00 04 'MQTT' 05 02 00 00 | 02 17 02 | 00 00", ProtocolError},
	{"MQTT5 3.1.2.11.10", "CONNECT", V5, 0x10, "00 04 'MQTT' 05 02 00 00 | 04 16 0001 'x' | 00 00", ProtocolError},
	{"MQTT5 3.1.2.11.10", "CONNACK", V5, 0x20, "00 00 | 04 16 0001 'x'", ProtocolError},
	{"MQTT5 3.1.2.11.10", "AUTH", V5, 0xF0, "18 | 03 16 0000", ProtocolError},
	{"MQTT5 3.2.2.3.4", "maximum QoS 2", V5, 0x20, "00 00 | 02 24 02", ProtocolError},
	{"MQTT5 3.2.2.3.5", "retain available 2", V5, 0x20, "00 00 | 02 25 02", ProtocolError},
	{"MQTT5 3.2.2.3.11", "wildcard subscription available 2", V5, 0x20, "00 00 | 02 28 02", ProtocolError},
	{"MQTT5 3.2.2.3.12", "subscription identifiers available 2", V5, 0x20, "00 00 | 02 29 02", ProtocolError},
	{"MQTT5 3.2.2.3.13", "shared subscription available 2", V5, 0x20, "00 00 | 02 2a 02", ProtocolError},

	// Acknowledgements.
	{"MQTT-3.4.2-1", "PUBACK with a code of PUBREL", V5, 0x40, "00 01 92", ProtocolError},
	{"MQTT-3.4.2-1", "PUBREC with a code of SUBACK", V5, 0x50, "00 01 01", ProtocolError},
	{"MQTT-3.4.2-1", "PUBREL with a code of PUBACK", V5, 0x62, "00 01 10", ProtocolError},
	{"MQTT-3.4.2-1", "PUBCOMP with a code that does not exist", V5, 0x70, "00 01 ff", ProtocolError},

	// SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK.
	{"MQTT-3.8.3-2", "no filter", V311, 0x82, "00 01", ProtocolError},
	{"MQTT-3.8.3-2", "no filter in 5", V5, 0x82, "00 01 00", ProtocolError},
	{"MQTT-4.7.3-1", "filter", V311, 0x82, "00 01 00 00 00", ProtocolError},
	{"MQTT-3.8.3-5", "bit 2 before 5", V311, 0x82, "00 01 00 01 'a' 04", MalformedPacket},
	{"MQTT-3.8.3-5", "bit 7 in 3.1", V31, 0x82, "00 01 00 01 'a' 80", MalformedPacket},
	{"MQTT-3.8.3-5", "bit 6", V5, 0x82, "00 01 00 | 00 01 'a' 40", MalformedPacket},
	{"MQTT-3.8.3-5", "bit 7 of the second filter", V5, 0x82, "00 01 00 | 00 01 'a' 00 | 00 01 'a' 80", MalformedPacket},
	{"MQTT5 3.8.3.1", "QoS 3", V5, 0x82, "00 01 00 | 00 01 'a' 03", ProtocolError},
	{"MQTT5 3.8.3.1", "QoS 3 before 5", V311, 0x82, "00 01 00 01 'a' 03", ProtocolError},
	{"MQTT5 3.8.3.1", "retain handling 3", V5, 0x82, "00 01 00 | 00 01 'a' 30", ProtocolError},
	{"MQTT-3.8.3-4", "no local shared", V5, 0x82, "00 01 00 | 00 0a '$share/g/a' 05", ProtocolError},
	{"", "filter without options", V311, 0x82, "00 01 00 01 'a'", MalformedPacket},
	{"MQTT-3.9.3-1", "no code", V311, 0x90, "00 01", ProtocolError},
	{"MQTT-3.9.3-1", "no code in 5", V5, 0x90, "00 01 00", ProtocolError},
	{"MQTT-3.9.3-2", "code of UNSUBACK", V5, 0x90, "00 01 00 | 00 11", ProtocolError},
	{"MQTT3.1.1-3.9.3-2", "code 3", V311, 0x90, "00 01 | 00 03", ProtocolError},
	{"MQTT3.1.1-3.9.3-2", "code 0x87 before 5", V31, 0x90, "00 01 | 87", ProtocolError},
	{"MQTT-3.10.3-2", "no filter", V311, 0xA2, "00 01", ProtocolError},
	{"MQTT-3.10.3-2", "no filter in 5", V5, 0xA2, "00 01 00", ProtocolError},
	{"MQTT-4.7.3-1", "filter of UNSUBSCRIBE", V311, 0xA2, "00 01 00 01 'a' 00 00", ProtocolError},
	{"MQTT-3.11.3-1", "no code", V5, 0xB0, "00 01 00", ProtocolError},
	{"MQTT-3.11.3-2", "code of SUBACK", V5, 0xB0, "00 01 00 | 01", ProtocolError},

	// PINGREQ, PINGRESP, DISCONNECT, AUTH.
	{"MQTT5 3.12.1", "PINGREQ with a body", V311, 0xC0, "00", MalformedPacket},
	{"MQTT5 3.12.1", "PINGRESP with a body", V5, 0xD0, "00", MalformedPacket},
	{"MQTT3.1.1 3.14.1", "DISCONNECT with a body", V311, 0xE0, "00", MalformedPacket},
	{"MQTT3.1.1 3.14.1", "DISCONNECT with a body in 3.1", V31, 0xE0, "00", MalformedPacket},
	{"MQTT-3.14.2-1", "code of SUBACK", V5, 0xE0, "01", ProtocolError},
	{"MQTT-3.15.2-1", "code of DISCONNECT", V5, 0xF0, "04 | 04 15 0001 'm'", ProtocolError},
	{"MQTT5 3.15.2.2.2", "no method", V5, 0xF0, "18 | 00", ProtocolError},
	{"", "reason code alone", V5, 0xF0, "18", MalformedPacket},
}

func TestRules(t *testing.T) {
	for _, r := range rules {
		t.Run(r.statement+" "+r.what, func(t *testing.T) {
			body := unhex(t, r.body)
			packet := append(appendVarint([]byte{r.first}, len(body)), body...)
			p, err := decode(packet, r.v)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %+v, %v; want an *Error", p, err)
			}
			if e.Reason != r.want || e.Statement != r.statement {
				t.Fatalf("refused by %v; want %v [%s]", e, r.want, r.statement)
			}
		})
	}
}

// Every property in every packet that has properties: alone it is accepted if
// the table of MQTT5 2.2.2.2 allows it there and refused if not; twice it is
// refused, but for user properties and, in PUBLISH, subscription identifiers.
func TestPropertyTable(t *testing.T) {
	values := map[byte]string{
		0x01: "00", 0x02: "00000001", 0x03: "0001 'x'", 0x08: "0001 'x'", 0x09: "0001 'x'", 0x0B: "01", 0x11: "00000001",
		0x12: "0001 'x'", 0x13: "0001", 0x15: "0001 'x'", 0x16: "0001 'x'", 0x17: "00", 0x18: "00000001", 0x19: "00",
		0x1A: "0001 'x'", 0x1C: "0001 'x'", 0x1F: "0001 'x'", 0x21: "0001", 0x22: "0001", 0x23: "0001", 0x24: "00", 0x25: "00",
		0x26: "0001 'x' 0001 'y'", 0x27: "00000001", 0x28: "00", 0x29: "00", 0x2A: "00",
	}
	// Of each packet the first byte, what precedes the properties, what follows
	// them, and which it may carry.
	packets := []struct {
		name          string
		first         byte
		before, after string
		may           string
	}{
		{"CONNECT", 0x10, "00 04 'MQTT' 05 02 00 00", "00 00", "11 15 16 17 19 21 22 26 27"},
		{"will", 0x10, "00 04 'MQTT' 05 06 00 00 00 | 00 00", "00 01 'w' 00 00", "01 02 03 08 09 18 26"},
		{"CONNACK", 0x20, "00 00", "", "11 12 13 15 16 1a 1c 1f 21 22 24 25 26 27 28 29 2a"},
		{"PUBLISH", 0x30, "00 01 't'", "'x'", "01 02 03 08 09 0b 23 26"},
		{"PUBACK", 0x40, "00 01 00", "", "1f 26"},
		{"PUBREC", 0x50, "00 01 00", "", "1f 26"},
		{"PUBREL", 0x62, "00 01 00", "", "1f 26"},
		{"PUBCOMP", 0x70, "00 01 00", "", "1f 26"},
		{"SUBSCRIBE", 0x82, "00 01", "00 01 'a' 00", "0b 26"},
		{"SUBACK", 0x90, "00 01", "00", "1f 26"},
		{"UNSUBSCRIBE", 0xA2, "00 01", "00 01 'a'", "26"},
		{"UNSUBACK", 0xB0, "00 01", "00", "1f 26"},
		{"DISCONNECT", 0xE0, "00", "", "11 1c 1f 26"},
		{"AUTH", 0xF0, "18", "", "15 16 1f 26"},
	}
	for _, p := range packets {
		may := map[byte]bool{}
		for _, id := range unhex(t, p.may) {
			may[id] = true
		}
		for id := range 0x100 {
			id := byte(id)
			one := append([]byte{id}, unhex(t, values[id])...)
			method := unhex(t, "15 0001 'm'")
			build := func(props ...[]byte) error {
				var all []byte
				for _, prop := range props {
					all = append(all, prop...)
				}
				body := unhex(t, p.before)
				body = append(append(appendVarint(body, len(all)), all...), unhex(t, p.after)...)
				_, err := decode(append(appendVarint([]byte{p.first}, len(body)), body...), V5)
				return err
			}
			// Authentication data needs a method beside it, and AUTH always does.
			needs := id == 0x16 && may[0x15] || p.name == "AUTH" && id != 0x15
			if needs {
				base := build
				build = func(props ...[]byte) error { return base(append([][]byte{method}, props...)...) }
			}
			err := build(one)
			switch {
			case may[id] && err != nil:
				t.Errorf("%s with property %#x: %v", p.name, id, err)
			case !may[id] && !isError(err, MalformedPacket, "MQTT5 2.2.2.2"):
				t.Errorf("%s with property %#x: got %v, want it refused", p.name, id, err)
			}
			if !may[id] {
				continue
			}
			if strings.Contains("03 08 12 15 1a 1c 1f 26", hex.EncodeToString(one[:1])) {
				bad := bytes.Replace(one, []byte("x"), []byte{0xFF}, 1)
				if err := build(bad); !isError(err, MalformedPacket, "MQTT-1.5.4-1") {
					t.Errorf("%s with property %#x that is no UTF-8: %v", p.name, id, err)
				}
			}
			err = build(one, one)
			twice := id == 0x26 || id == 0x0B && p.name == "PUBLISH"
			switch {
			case twice && err != nil:
				t.Errorf("%s with property %#x twice: %v", p.name, id, err)
			case !twice && !isError(err, ProtocolError, properties[id].section):
				t.Errorf("%s with property %#x twice: got %v, want it refused", p.name, id, err)
			}
		}
	}
}

func isError(err error, reason Reason, statement string) bool {
	var e *Error
	return errors.As(err, &e) && e.Reason == reason && e.Statement == statement
}

// Every reason code in every packet that has one, against MQTT5 2.4.
func TestReasonTable(t *testing.T) {
	valid := map[Type]string{
		CONNACK:    "00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f",
		PUBACK:     "00 10 80 83 87 90 91 97 99",
		PUBREC:     "00 10 80 83 87 90 91 97 99",
		PUBREL:     "00 92",
		PUBCOMP:    "00 92",
		SUBACK:     "00 01 02 80 83 87 8f 91 97 9e a1 a2",
		UNSUBACK:   "00 11 80 83 87 8f 91",
		DISCONNECT: "00 04 80 81 82 83 87 89 8b 8c 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2",
		AUTH:       "00 18 19",
	}
	method := Properties{AuthMethod: []byte("m")}
	for typ, codes := range valid {
		may := map[Reason]bool{}
		for _, code := range unhex(t, codes) {
			may[Reason(code)] = true
		}
		for code := range 0x100 {
			r := Reason(code)
			var packet []byte
			switch typ {
			case CONNACK:
				packet = AppendConnack(nil, &Connack{Code: byte(r)}, V5)
			case SUBACK, UNSUBACK:
				packet = AppendSuback(nil, &Suback{Type: typ, PacketID: 1, Codes: []byte{byte(r)}}, V5)
			case DISCONNECT:
				packet = AppendDisconnect(nil, &Disconnect{Reason: r}, V5)
			case AUTH:
				packet = AppendAuth(nil, &Auth{Reason: r, Props: method})
			default:
				packet = AppendPuback(nil, typ, 1, r, V5)
			}
			if _, err := decode(packet, V5); (err == nil) != may[r] {
				t.Errorf("%v with reason %#x: %v", typ, code, err)
			}
		}
	}
}

// No rule without a test: every text of an error in this package is one that a
// case above, or TestParseHeaderRefuses, brings about.
func TestRulesAreComplete(t *testing.T) {
	met := map[string]bool{}
	note := func(err error) {
		var e *Error
		if errors.As(err, &e) {
			met[e.Text] = true
		}
	}
	for _, r := range rules {
		body := unhex(t, r.body)
		_, err := decode(append(appendVarint([]byte{r.first}, len(body)), body...), r.v)
		note(err)
	}
	_, _, err := ParseHeader([]byte{0x30, 0x7F}, 10)
	note(err)

	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".go") || strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), entry.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			vars, ok := decl.(*ast.GenDecl)
			if !ok || vars.Tok != token.VAR {
				continue
			}
			for _, spec := range vars.Specs {
				v := spec.(*ast.ValueSpec)
				if !strings.HasPrefix(v.Names[0].Name, "err") {
					continue
				}
				found++
				text := lastString(v.Values[0])
				if !met[text] {
					t.Errorf("%s %q is never brought about", v.Names[0].Name, text)
				}
			}
		}
	}
	if found < 50 {
		t.Fatalf("only %d errors found in the source", found)
	}
}

// lastString is the last string literal in x: the text of an error.
func lastString(x ast.Expr) (last string) {
	ast.Inspect(x, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			last, _ = strconv.Unquote(lit.Value)
		}
		return true
	})
	return last
}
