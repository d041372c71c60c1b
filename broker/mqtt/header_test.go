package mqtt

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestParseHeader(t *testing.T) {
	for _, c := range []struct {
		in   string
		max  int
		want Header
		n    int
	}{
		{"", 0, Header{}, 0},
		{"30", 0, Header{}, 0},
		{"30 80", 0, Header{}, 0},
		{"30 ff ff ff", 0, Header{}, 0},
		{"c0 00", 2, Header{Type: PINGREQ}, 2},
		{"3d 7f", 0, Header{PUBLISH, 0x0D, 127}, 2},
		{"30 80 01 ff", 0, Header{PUBLISH, 0, 128}, 3},
		{"30 80 80 01", 0, Header{PUBLISH, 0, 16384}, 4},
		{"30 80 80 80 01", 0, Header{PUBLISH, 0, 2097152}, 5},
		{"30 ff ff ff 7f", 0, Header{PUBLISH, 0, 268435455}, 5},
		{"30 ff ff ff 7f", PacketBytesMax, Header{PUBLISH, 0, 268435455}, 5},
		{"30 08", 10, Header{PUBLISH, 0, 8}, 2},
		{"6a 02", 0, Header{PUBREL, 0x0A, 2}, 2},
		{"8a 02", 0, Header{SUBSCRIBE, 0x0A, 2}, 2},
		{"aa 02", 0, Header{UNSUBSCRIBE, 0x0A, 2}, 2},
		{"f0 00", 0, Header{Type: AUTH}, 2},
	} {
		h, n, err := ParseHeader(unhex(t, c.in), c.max)
		if err != nil || n != c.n || n > 0 && h != c.want {
			t.Errorf("%q: %+v, %d, %v; want %+v, %d", c.in, h, n, err, c.want, c.n)
		}
	}
}

// Refused as soon as the bytes tell, with as little as is there.
func TestParseHeaderRefuses(t *testing.T) {
	for _, c := range []struct {
		in        string
		max       int
		reason    Reason
		statement string
	}{
		{"00", 0, MalformedPacket, "MQTT5 2.1.2"},
		{"0f", 0, MalformedPacket, "MQTT5 2.1.2"},
		{"'G'", 0, MalformedPacket, "MQTT-2.1.3-1"}, // GET / HTTP/1.1
		{"16", 0, MalformedPacket, "MQTT-2.1.3-1"},  // a TLS ClientHello
		{"36", 0, MalformedPacket, "MQTT-3.3.1-4"},
		{"39", 0, ProtocolError, "MQTT-3.3.1-2"},
		{"60", 0, MalformedPacket, "MQTT-3.6.1-1"},
		{"80", 0, MalformedPacket, "MQTT-3.8.1-1"},
		{"a6", 0, MalformedPacket, "MQTT-3.10.1-1"},
		{"e1", 0, MalformedPacket, "MQTT-3.14.1-1"},
		{"f1", 0, MalformedPacket, "MQTT-3.15.1-1"},
		{"30 80 00", 0, MalformedPacket, "MQTT-1.5.5-1"},
		{"30 ff ff 00", 0, MalformedPacket, "MQTT-1.5.5-1"},
		{"30 80 80 80 80", 0, MalformedPacket, "MQTT5 1.5.5"},
		{"30 09", 10, PacketTooLarge, "MQTT5 3.1.2.11.4"},
		{"30 80 01", 130, PacketTooLarge, "MQTT5 3.1.2.11.4"},
		{"30 ff ff ff 7f", PacketBytesMax - 1, PacketTooLarge, "MQTT5 3.1.2.11.4"},
		{"30 00", 1, PacketTooLarge, "MQTT5 3.1.2.11.4"},
	} {
		if h, n, err := ParseHeader(unhex(t, c.in), c.max); n != 0 || !isError(err, c.reason, c.statement) {
			t.Errorf("%q: %+v, %d, %v; want %v [%s]", c.in, h, n, err, c.reason, c.statement)
		}
	}
}

// The flags of every first byte in every version, against MQTT5 2.1.3 and
// MQTT3.1 2.1.
func TestCheckFlags(t *testing.T) {
	for _, v := range []Version{V31, V311, V5} {
		for first := range 0x100 {
			typ, flags := Type(first>>4), byte(first&15)
			want := flags == 0 && typ != 0
			switch typ {
			case PUBLISH:
				qos := flags >> 1 & 3
				want = qos != 3 && (qos != 0 || flags&8 == 0)
			case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
				want = flags == 2 || v == V31 && flags == 10
			case AUTH:
				want = flags == 0 && v == V5
			}
			if err := CheckFlags(typ, flags, v); (err == nil) != want {
				t.Errorf("first byte %#02x in %v: %v", first, v, err)
			}
			// ParseHeader, which does not know the version, refuses nothing that
			// a version allows.
			if _, _, err := ParseHeader([]byte{byte(first), 0}, 0); err != nil && want {
				t.Errorf("ParseHeader, first byte %#02x: %v", first, err)
			}
		}
	}
}

// What is written is read, the sizes agree, and closeLength moves what it must.
func TestVarint(t *testing.T) {
	values := []int{0, 1, 127, 128, 16383, 16384, 2097151, 2097152, 268435455}
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		values = append(values, r.IntN(1<<(1+r.IntN(28))))
	}
	for _, n := range values {
		b := appendVarint(nil, n)
		if len(b) != varintSize(n) {
			t.Fatalf("%d takes %d bytes, varintSize says %d", n, len(b), varintSize(n))
		}
		if got, size, err := parseVarint(append(b, 0xFF)); got != n || size != len(b) || err != nil {
			t.Fatalf("%d was read as %d, %d, %v", n, got, size, err)
		}
		for cut := range b {
			if _, size, err := parseVarint(b[:cut]); size != 0 || err != nil {
				t.Fatalf("%d of %d bytes: %d, %v", cut, len(b), size, err)
			}
		}
	}
	for _, n := range []int{0, 1, 127, 128, 129, 16383, 16384, 16385, 2097151, 2097152} {
		content := make([]byte, n)
		for i := range content {
			content[i] = byte(i)
		}
		want := string(appendVarint([]byte("head"), n)) + string(content)
		dst, at := openLength([]byte("head"))
		if got := string(closeLength(append(dst, content...), at)); got != want {
			t.Fatalf("a part of %d bytes is written wrongly", n)
		}
	}
}

// The longest string, and values that encode absence.
func TestEncoderLimits(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 65535)
	out := AppendPublish(nil, &Publish{Topic: long}, V311)
	if p, err := decode(out, V311); err != nil || len(p.(*Publish).Topic) != 65535 {
		t.Fatalf("topic of 65535 bytes: %v", err)
	}
	absent := Properties{HasMaxQoS: true, MaxQoS: 2}
	if out := AppendConnack(nil, &Connack{Props: absent}, V5); !bytes.Equal(out, []byte{0x20, 3, 0, 0, 0}) {
		t.Fatalf("maximum QoS 2 is written: % x", out)
	}
	// What a packet may not carry is ignored.
	foreign := Properties{ReceiveMax: 1, WillDelaySeconds: 1, SubscriptionID: 1, ServerReference: []byte("s")}
	if out := AppendAck(nil, &Ack{Type: PUBACK, PacketID: 1, Props: foreign}, V5); !bytes.Equal(out, []byte{0x40, 2, 0, 1}) {
		t.Fatalf("foreign properties are written: % x", out)
	}
	// A password without a user name has no encoding before MQTT 5.
	c := &Connect{Version: V311, HasPassword: true, Password: []byte("p")}
	if p, err := decode(AppendConnect(nil, c), V311); err != nil || p.(*Connect).HasPassword {
		t.Fatalf("password alone: %+v, %v", p, err)
	}
	// DUP means nothing with QoS 0.
	if out := AppendPublish(nil, &Publish{Topic: []byte("t"), Dup: true}, V311); out[0] != 0x30 {
		t.Fatalf("first byte %#x", out[0])
	}
}

// The cheap encoder writes what the general one does.
func TestAppendPuback(t *testing.T) {
	for _, v := range versions {
		for typ := PUBACK; typ <= PUBCOMP; typ++ {
			for _, r := range []Reason{Success, NoMatchingSubscribers, PacketIDNotFound, QuotaExceeded} {
				want := AppendAck(nil, &Ack{Type: typ, PacketID: 0x1234, Reason: r}, v)
				if got := AppendPuback(nil, typ, 0x1234, r, v); !bytes.Equal(got, want) {
					t.Errorf("%v in %v with %v: % x, want % x", typ, v, r, got, want)
				}
			}
		}
	}
}

// AppendAckReason is AppendAck with a reason string.
func TestAppendAckReason(t *testing.T) {
	for typ := PUBACK; typ <= PUBCOMP; typ++ {
		for _, text := range []string{"why", strings.Repeat("x", 255)} {
			want := AppendAck([]byte("before"), &Ack{Type: typ, PacketID: 0x1234, Reason: 0x97, Props: Properties{ReasonString: []byte(text)}}, V5)
			if got := AppendAckReason([]byte("before"), typ, 0x1234, 0x97, text); !bytes.Equal(got, want) {
				t.Errorf("%v: % x, want % x", typ, got, want)
			}
		}
	}
	dst := make([]byte, 0, 100)
	if n := testing.AllocsPerRun(100, func() { dst = AppendAckReason(dst[:0], PUBACK, 1, NotAuthorized, "not allowed") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSubackSize(t *testing.T) {
	for _, n := range []int{1, 124, 125, 20000} {
		p := Suback{Type: SUBACK, PacketID: 1, Codes: make([]byte, n)}
		if got := len(AppendSuback(nil, &p, V5)); got != SubackSize(n) {
			t.Errorf("%d codes: %d bytes, SubackSize says %d", n, got, SubackSize(n))
		}
	}
}

func TestEncodersPanicOnBugs(t *testing.T) {
	for name, f := range map[string]func(){
		"long string":   func() { appendBytes(nil, make([]byte, 65536)) },
		"long packet":   func() { appendVarint(nil, 268435456) },
		"wrong ack":     func() { AppendPuback(nil, SUBACK, 1, 0, V5) },
		"wrong suback":  func() { AppendSuback(nil, &Suback{Type: PUBACK}, V5) },
		"wrong decoder": func() { _ = DecodeAck(new(Ack), PUBLISH, nil, V5) },
		"wrong props":   func() { AppendForwardProps(nil, &Publish{HasHopProps: true, Props: []byte{0x11, 0, 0, 0, 0}}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Fatal("no panic")
				}
			}()
			f()
		})
	}
}
