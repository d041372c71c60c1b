package mqtt

import (
	"bytes"
	"reflect"
	"testing"
)

// golden packets, written by hand from the specifications. All are decoded;
// those that are not decodeOnly are what the encoder writes, to the byte.
var golden = []struct {
	name       string
	v          Version
	hex        string
	want       any
	decodeOnly bool
}{
	{"connect least 3.1", V31, "10 0f | 00 06 'MQIsdp' 03 00 00 3c | 00 01 'c'",
		&Connect{Version: V31, KeepAliveSeconds: 60, ClientID: []byte("c")}, false},
	{"connect full 3.1", V31, "10 1d | 00 06 'MQIsdp' 03 ee 00 00 | 00 01 'c' 00 03 'w/t' 00 01 'x' 00 01 'u' 00 01 'p'",
		&Connect{Version: V31, Clean: true, ClientID: []byte("c"), HasWill: true,
			Will:        Will{Topic: []byte("w/t"), Payload: []byte("x"), QoS: 1, Retain: true},
			HasUsername: true, Username: []byte("u"), HasPassword: true, Password: []byte("p")}, false},
	{"connect 3.1 user name flag without user name", V31, "10 0f | 00 06 'MQIsdp' 03 c2 00 3c | 00 01 'c'",
		&Connect{Version: V31, Clean: true, KeepAliveSeconds: 60, ClientID: []byte("c")}, true},
	{"connect 3.1 password flag without password", V31, "10 12 | 00 06 'MQIsdp' 03 c2 00 3c | 00 01 'c' 00 01 'u'",
		&Connect{Version: V31, Clean: true, KeepAliveSeconds: 60, ClientID: []byte("c"), HasUsername: true, Username: []byte("u")}, true},
	{"connect 3.1 disregards what it does not use", V31, "10 0f | 00 06 'MQIsdp' 03 3b 00 3c | 00 01 'c'",
		&Connect{Version: V31, Clean: true, KeepAliveSeconds: 60, ClientID: []byte("c")}, true},
	{"connect bridge 3.1", V31, "10 0f | 00 06 'MQIsdp' 83 00 00 3c | 00 01 'c'",
		&Connect{Version: V31, Bridge: true, KeepAliveSeconds: 60, ClientID: []byte("c")}, false},
	{"connect bridge 3.1.1", V311, "10 0d | 00 04 'MQTT' 84 00 00 3c | 00 01 'c'",
		&Connect{Version: V311, Bridge: true, KeepAliveSeconds: 60, ClientID: []byte("c")}, false},
	{"connect no client id 3.1.1", V311, "10 0c | 00 04 'MQTT' 04 02 00 0a | 00 00",
		&Connect{Version: V311, Clean: true, KeepAliveSeconds: 10, ClientID: []byte{}}, false},
	{"connect full 3.1.1", V311, "10 1b | 00 04 'MQTT' 04 f6 ff ff | 00 01 'c' 00 03 'w/t' 00 01 'x' 00 01 'u' 00 01 00",
		&Connect{Version: V311, Clean: true, KeepAliveSeconds: 65535, ClientID: []byte("c"), HasWill: true,
			Will:        Will{Topic: []byte("w/t"), Payload: []byte("x"), QoS: 2, Retain: true},
			HasUsername: true, Username: []byte("u"), HasPassword: true, Password: []byte{0}}, false},
	{"connect empty will payload and user name 3.1.1", V311, "10 13 | 00 04 'MQTT' 04 84 00 00 | 00 00 00 01 'w' 00 00 00 00",
		&Connect{Version: V311, ClientID: []byte{}, HasWill: true, Will: Will{Topic: []byte("w"), Payload: []byte{}},
			HasUsername: true, Username: []byte{}}, false},
	{"connect least 5", V5, "10 0d | 00 04 'MQTT' 05 00 00 00 | 00 | 00 00",
		&Connect{Version: V5, ClientID: []byte{}}, false},
	{"connect password alone 5", V5, "10 11 | 00 04 'MQTT' 05 42 00 00 | 00 | 00 01 'c' 00 01 'p'",
		&Connect{Version: V5, Clean: true, ClientID: []byte("c"), HasPassword: true, Password: []byte("p")}, false},
	{"connect all properties 5", V5, `10 75 | 00 04 'MQTT' 05 ce 00 1e
		| 26 11 00000e10 | 15 0003 'scr' | 16 0002 0001 | 17 00 | 19 01 | 21 0014 | 22 000a | 27 00010000 | 26 0001 'k' 0001 'v'
		| 00 03 'dev'
		| 2b 01 01 | 02 0000003c | 03 0004 'text' | 08 0003 'r/t' | 09 0002 c1d1 | 18 00000005 | 26 0001 'a' 0001 'b' | 26 0001 'a' 0000
		| 00 04 'wi/l' 00 03 'bye' | 00 02 'us' 00 02 'pw'`,
		&Connect{Version: V5, Clean: true, KeepAliveSeconds: 30, ClientID: []byte("dev"),
			Props: Properties{SessionExpirySeconds: 3600, HasSessionExpiry: true, AuthMethod: []byte("scr"), AuthData: []byte{0, 1},
				NoProblemInfo: true, RequestResponseInfo: true, ReceiveMax: 20, TopicAliasMax: 10, MaxPacketBytes: 65536,
				User: []UserProperty{{[]byte("k"), []byte("v")}}},
			HasWill: true,
			Will: Will{Topic: []byte("wi/l"), Payload: []byte("bye"), QoS: 1,
				Props: Properties{PayloadIsUTF8: true, MessageExpirySeconds: 60, HasMessageExpiry: true, ContentType: []byte("text"),
					ResponseTopic: []byte("r/t"), CorrelationData: []byte{0xc1, 0xd1}, WillDelaySeconds: 5,
					User: []UserProperty{{[]byte("a"), []byte("b")}, {[]byte("a"), []byte{}}}}},
			HasUsername: true, Username: []byte("us"), HasPassword: true, Password: []byte("pw")}, false},
	{"connect defaults spelled out 5", V5, "10 19 | 00 04 'MQTT' 05 00 00 00 | 0c 11 00000000 | 22 0000 | 17 01 | 19 00 | 00 00",
		&Connect{Version: V5, ClientID: []byte{}, Props: Properties{HasSessionExpiry: true}}, true},

	{"connack 3.1", V31, "20 02 | 00 00", &Connack{}, false},
	{"connack 3.1 reserved byte", V31, "20 02 | ff 00", &Connack{}, true},
	{"connack 3.1.1 session present", V311, "20 02 | 01 00", &Connack{SessionPresent: true}, false},
	{"connack 3.1.1 refused", V311, "20 02 | 00 05", &Connack{Code: 5}, false},
	{"connack 5 least", V5, "20 03 | 01 00 | 00", &Connack{SessionPresent: true}, false},
	{"connack 5 all properties", V5, `20 4d | 00 00 | 4a
		11 00000e10 | 12 0003 'abc' | 13 001e | 15 0001 'm' | 16 0001 'd' | 1a 0001 'i' | 1c 0001 's' | 1f 0001 'r'
		| 21 0014 | 22 000a | 24 01 | 25 00 | 27 00010000 | 28 00 | 29 00 | 2a 00 | 26 0001 'k' 0001 'v' | 26 0001 'l' 0001 'w' | 26 0000 0000`,
		&Connack{Props: Properties{SessionExpirySeconds: 3600, HasSessionExpiry: true, AssignedClientID: []byte("abc"),
			ServerKeepAliveSeconds: 30, HasServerKeepAlive: true, AuthMethod: []byte("m"), AuthData: []byte("d"),
			ResponseInfo: []byte("i"), ServerReference: []byte("s"), ReasonString: []byte("r"), ReceiveMax: 20, TopicAliasMax: 10,
			MaxQoS: 1, HasMaxQoS: true, RetainUnavailable: true, MaxPacketBytes: 65536, WildcardUnavailable: true,
			SubIDUnavailable: true, SharedUnavailable: true,
			User: []UserProperty{{[]byte("k"), []byte("v")}, {[]byte("l"), []byte("w")}, {[]byte{}, []byte{}}}}}, false},
	{"connack 5 available spelled out", V5, "20 0d | 00 00 | 0a 24 00 | 25 01 | 28 01 | 29 01 | 2a 01",
		&Connack{Props: Properties{HasMaxQoS: true}}, true},
	{"connack 5 refused", V5, "20 08 | 00 87 | 05 1f 0002 'no'", &Connack{Code: 0x87, Props: Properties{ReasonString: []byte("no")}}, false},

	{"publish QoS 0", V311, "30 08 | 00 03 'a/b' 'hey'", &Publish{Topic: []byte("a/b"), Payload: []byte("hey"), Props: []byte{}}, false},
	{"publish QoS 0 empty retained", V311, "31 05 | 00 03 'a/b'", &Publish{Topic: []byte("a/b"), Payload: []byte{}, Props: []byte{}, Retain: true}, false},
	{"publish QoS 1", V31, "32 0a | 00 03 'a/b' 00 0a 'hey'", &Publish{Topic: []byte("a/b"), Payload: []byte("hey"), Props: []byte{}, QoS: 1, PacketID: 10}, false},
	{"publish QoS 2 dup retain", V311, "3d 08 | 00 03 'a/b' ff ff 00",
		&Publish{Topic: []byte("a/b"), Payload: []byte{0}, Props: []byte{}, QoS: 2, PacketID: 65535, Dup: true, Retain: true}, false},
	{"publish UTF-8 topic", V311, "30 08 | 00 06 c3a4 2f e282ac", &Publish{Topic: []byte("ä/€"), Payload: []byte{}, Props: []byte{}}, false},
	{"publish 5 least", V5, "30 04 | 00 01 't' 00", &Publish{Topic: []byte("t"), Payload: []byte{}, Props: []byte{}}, false},
	{"publish 5 alias for topic", V5, "32 09 | 00 00 00 01 | 03 23 0007 | 'x'",
		&Publish{Topic: []byte{}, Payload: []byte("x"), Props: []byte{}, QoS: 1, PacketID: 1, TopicAlias: 7}, false},
	{"publish 5 all properties", V5, `33 32 | 00 01 't' 00 01
		| 2b 02 0000003c | 23 0007 | 0b 01 | 0b ffffff7f | 01 01 | 26 0001 'k' 0001 'v' | 03 0001 'c' | 08 0001 'r' | 09 0001 'd' | 26 0001 'k' 0001 'w' 'x'`,
		&Publish{Topic: []byte("t"), Payload: []byte("x"), QoS: 1, PacketID: 1, Retain: true,
			HasMessageExpiry: true, ExpirySeconds: 60, TopicAlias: 7, SubIDs: []uint32{1, 268435455},
			Props: []byte("\x01\x01\x26\x00\x01k\x00\x01v\x03\x00\x01c\x08\x00\x01r\x09\x00\x01d\x26\x00\x01k\x00\x01w")}, false},
	{"publish 5 hop properties in between", V5, "30 1d | 00 01 't' | 17 01 00 | 0b 80 01 | 26 0001 'k' 0001 'v' | 02 00000000 | 09 0000 | 23 ffff 'xy'",
		&Publish{Topic: []byte("t"), Payload: []byte("xy"), HasMessageExpiry: true, TopicAlias: 65535, SubIDs: []uint32{128},
			Props: []byte("\x01\x00\x26\x00\x01k\x00\x01v\x09\x00\x00")}, true},

	{"puback 3.1.1", V311, "40 02 | 00 01", &Ack{Type: PUBACK, PacketID: 1}, false},
	{"pubrec 3.1", V31, "50 02 | 00 01", &Ack{Type: PUBREC, PacketID: 1}, false},
	{"pubrel 3.1.1", V311, "62 02 | 00 01", &Ack{Type: PUBREL, PacketID: 1}, false},
	{"pubrel dup 3.1", V31, "6a 02 | 00 01", &Ack{Type: PUBREL, PacketID: 1}, true},
	{"pubcomp 3.1.1", V311, "70 02 | ff ff", &Ack{Type: PUBCOMP, PacketID: 65535}, false},
	{"puback 5 two bytes", V5, "40 02 | 00 01", &Ack{Type: PUBACK, PacketID: 1}, false},
	{"puback 5 three bytes", V5, "40 03 | 00 01 10", &Ack{Type: PUBACK, PacketID: 1, Reason: NoMatchingSubscribers}, false},
	{"puback 5 three bytes success", V5, "40 03 | 00 01 00", &Ack{Type: PUBACK, PacketID: 1}, true},
	{"puback 5 four bytes", V5, "40 04 | 00 01 97 00", &Ack{Type: PUBACK, PacketID: 1, Reason: QuotaExceeded}, true},
	{"pubrec 5 properties", V5, "50 12 | 00 01 00 | 0e 1f 0004 'full' | 26 0001 'k' 0001 'v'",
		&Ack{Type: PUBREC, PacketID: 1, Props: Properties{ReasonString: []byte("full"), User: []UserProperty{{[]byte("k"), []byte("v")}}}}, false},
	{"pubrel 5 not found", V5, "62 03 | 00 01 92", &Ack{Type: PUBREL, PacketID: 1, Reason: PacketIDNotFound}, false},
	{"pubcomp 5 reason string", V5, "70 08 | 00 01 92 | 04 1f 0001 '?'",
		&Ack{Type: PUBCOMP, PacketID: 1, Reason: PacketIDNotFound, Props: Properties{ReasonString: []byte("?")}}, false},

	{"subscribe 3.1.1", V311, "82 0e | 00 0a | 00 03 'a/b' 01 | 00 03 'c/#' 02",
		&Subscribe{PacketID: 10, Filters: []SubscribeFilter{{Filter: []byte("a/b"), QoS: 1}, {Filter: []byte("c/#"), QoS: 2}}}, false},
	{"subscribe dup 3.1", V31, "8a 06 | 00 01 | 00 01 '#' 00", &Subscribe{PacketID: 1, Filters: []SubscribeFilter{{Filter: []byte("#")}}}, true},
	{"subscribe 5", V5, "82 15 | 00 01 | 0a 0b 80 01 | 26 0001 'k' 0001 'v' | 00 01 '+' 2e | 00 01 '#' 10",
		&Subscribe{PacketID: 1, Props: Properties{SubscriptionID: 128, User: []UserProperty{{[]byte("k"), []byte("v")}}},
			Filters: []SubscribeFilter{{Filter: []byte("+"), QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2},
				{Filter: []byte("#"), RetainHandling: 1}}}, false},
	{"subscribe 5 shared", V5, "82 10 | 00 01 | 00 | 00 0a '$share/g/t' 01",
		&Subscribe{PacketID: 1, Filters: []SubscribeFilter{{Filter: []byte("$share/g/t"), QoS: 1}}}, false},

	{"suback 3.1", V31, "90 03 | 00 01 | 02", &Suback{Type: SUBACK, PacketID: 1, Codes: []byte{2}}, false},
	{"suback 3.1.1", V311, "90 06 | 00 01 | 00 01 02 80", &Suback{Type: SUBACK, PacketID: 1, Codes: []byte{0, 1, 2, 0x80}}, false},
	{"suback 5", V5, "90 0c | 00 01 | 04 1f 0001 'r' | 00 02 87 8f a2",
		&Suback{Type: SUBACK, PacketID: 1, Codes: []byte{0, 2, 0x87, 0x8f, 0xa2}, Props: Properties{ReasonString: []byte("r")}}, false},
	{"unsubscribe 3.1.1", V311, "a2 0a | 00 02 | 00 01 'a' 00 03 'b/+'", &Unsubscribe{PacketID: 2, Filters: [][]byte{[]byte("a"), []byte("b/+")}}, false},
	{"unsubscribe dup 3.1", V31, "aa 05 | 00 02 | 00 01 'a'", &Unsubscribe{PacketID: 2, Filters: [][]byte{[]byte("a")}}, true},
	{"unsubscribe 5", V5, "a2 0d | 00 02 | 07 26 0001 'k' 0001 'v' | 00 01 'a'",
		&Unsubscribe{PacketID: 2, Filters: [][]byte{[]byte("a")}, Props: Properties{User: []UserProperty{{[]byte("k"), []byte("v")}}}}, false},
	{"unsuback 3.1.1", V311, "b0 02 | 00 02", &Suback{Type: UNSUBACK, PacketID: 2}, false},
	{"unsuback 5", V5, "b0 06 | 00 02 | 00 | 00 11 8f", &Suback{Type: UNSUBACK, PacketID: 2, Codes: []byte{0, 0x11, 0x8f}}, false},

	{"pingreq", V311, "c0 00", &ping{PINGREQ}, false},
	{"pingresp", V5, "d0 00", &ping{PINGRESP}, false},
	{"disconnect 3.1.1", V311, "e0 00", &Disconnect{}, false},
	{"disconnect 5 empty", V5, "e0 00", &Disconnect{}, false},
	{"disconnect 5 reason", V5, "e0 01 | 04", &Disconnect{Reason: DisconnectWithWill}, false},
	{"disconnect 5 zero lengths", V5, "e0 02 | 00 00", &Disconnect{}, true},
	{"disconnect 5 properties", V5, "e0 16 | 9c | 14 11 00000001 | 1c 0001 's' | 1f 0001 'r' | 26 0001 'k' 0001 'v'",
		&Disconnect{Reason: UseAnotherServer, Props: Properties{SessionExpirySeconds: 1, HasSessionExpiry: true, ServerReference: []byte("s"),
			ReasonString: []byte("r"), User: []UserProperty{{[]byte("k"), []byte("v")}}}}, false},
	{"auth empty", V5, "f0 00", &Auth{}, false},
	{"auth", V5, "f0 12 | 18 | 10 15 0001 'm' | 16 0000 | 1f 0001 'r' | 26 0000 0000",
		&Auth{Reason: ContinueAuthentication, Props: Properties{AuthMethod: []byte("m"), AuthData: []byte{}, ReasonString: []byte("r"),
			User: []UserProperty{{[]byte{}, []byte{}}}}}, false},
}

func TestGolden(t *testing.T) {
	for _, g := range golden {
		t.Run(g.name, func(t *testing.T) {
			in := unhex(t, g.hex)
			got, err := decode(in, g.v)
			if err != nil {
				t.Fatalf("decode: %v", err)
			}
			mustAlias(t, got, in)
			if !reflect.DeepEqual(normal(got), g.want) {
				t.Fatalf("decoded\n%+v, want\n%+v", got, g.want)
			}
			if g.decodeOnly {
				return
			}
			if out := encode(nil, g.want, g.v); !bytes.Equal(out, in) {
				t.Fatalf("encoded\n% x, want\n% x", out, in)
			}
			// Encoders append: what stands before stays.
			if out := encode([]byte("before"), g.want, g.v); !bytes.Equal(out, append([]byte("before"), in...)) {
				t.Fatalf("appended\n% x, want \"before\" and\n% x", out, in)
			}
		})
	}
}

// A packet that is cut off anywhere, or followed by a byte that its header
// counts, is refused; but for PUBLISH, SUBACK and UNSUBACK, which have a
// payload of any length, and for packets that remain packets when cut.
func TestCutShort(t *testing.T) {
	for _, g := range golden {
		in := unhex(t, g.hex)
		h, n, _ := ParseHeader(in, 0)
		for size := range h.Remaining {
			p := newPacket(h.Type)
			err := decodeInto(p, h, in[n:n+size:n+size], g.v)
			if err != nil {
				continue
			}
			// Still a packet: then one that means something else.
			whole := newPacket(h.Type)
			if err := decodeInto(whole, h, in[n:], g.v); err != nil {
				t.Fatalf("%s: %v", g.name, err)
			}
			if same := reflect.DeepEqual(normal(p), normal(whole)); same && !g.decodeOnly {
				t.Errorf("%s: %d of %d bytes mean the same as all", g.name, size, h.Remaining)
			}
		}
		switch h.Type {
		case PUBLISH, SUBACK, UNSUBACK:
			continue
		}
		if g.decodeOnly {
			continue
		}
		body := append(bytes.Clone(in[n:]), 0xFF)
		if err := decodeInto(newPacket(h.Type), h, body, g.v); err == nil {
			t.Errorf("%s: a byte too many is accepted", g.name)
		}
	}
}

// Callers reuse packets: what an earlier packet left behind must not show.
func TestDecodeResets(t *testing.T) {
	for _, first := range golden {
		a := unhex(t, first.hex)
		ha, na, _ := ParseHeader(a, 0)
		for _, second := range golden {
			b := unhex(t, second.hex)
			hb, nb, _ := ParseHeader(b, 0)
			dirty, clean := newPacket(ha.Type), newPacket(hb.Type)
			if reflect.TypeOf(dirty) != reflect.TypeOf(clean) {
				continue
			}
			if err := decodeInto(dirty, ha, a[na:], first.v); err != nil {
				t.Fatal(err)
			}
			if err := decodeInto(dirty, hb, b[nb:], second.v); err != nil {
				t.Fatal(err)
			}
			if err := decodeInto(clean, hb, b[nb:], second.v); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(normal(dirty), normal(clean)) {
				t.Errorf("%s after %s:\n%+v, want\n%+v", second.name, first.name, dirty, clean)
			}
		}
	}
}
