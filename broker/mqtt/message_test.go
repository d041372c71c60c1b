package mqtt

import (
	"bytes"
	"reflect"
	"testing"
	"unsafe"
)

// mixedPublish is a PUBLISH whose hop properties stand between the others.
func mixedPublish(t testing.TB) *Publish {
	t.Helper()
	in := unhex(t, "35 24 | 00 03 'a/b' 00 09 | 1a 02 0000003c | 01 01 | 0b 05 | 26 0001 'k' 0001 'v' | 03 0001 'c' | 23 0007 | 0b 80 01 'pl'")
	p, err := decode(in, V5)
	if err != nil {
		t.Fatal(err)
	}
	return p.(*Publish)
}

const mixedForward = "\x01\x01\x26\x00\x01k\x00\x01v\x03\x00\x01c"

func TestNewMessageCopiesWhatBelongsToTheMessage(t *testing.T) {
	p := mixedPublish(t)
	m := NewMessage(p)
	if string(m.Topic) != "a/b" || string(m.Props) != mixedForward || string(m.Payload) != "pl" || m.QoS != 2 || !m.Retain {
		t.Fatalf("message %+v", m)
	}
	if want := len("a/b") + len(mixedForward) + len("pl"); m.Size() != want {
		t.Fatalf("size %d, want %d", m.Size(), want)
	}
	// The message keeps its bytes when the packet's are overwritten.
	for _, b := range [][]byte{p.Topic, p.Props, p.Payload} {
		for i := range b {
			b[i] = 0xDD
		}
	}
	if string(m.Topic) != "a/b" || string(m.Props) != mixedForward || string(m.Payload) != "pl" {
		t.Fatalf("message shares bytes with the packet: %+v", m)
	}
	// One allocation, of the exact size, and no part can be grown into the next.
	if cap(m.Topic) != len(m.Topic) || cap(m.Props) != len(m.Props) || cap(m.Payload) != len(m.Payload) && cap(m.Payload) > 64 {
		t.Fatalf("capacities %d %d %d", cap(m.Topic), cap(m.Props), cap(m.Payload))
	}
	if unsafe.SliceData(m.Payload) != (*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(m.Topic)), len(m.Topic)+len(m.Props))) {
		t.Fatal("topic, properties and payload are not one allocation")
	}
	p = mixedPublish(t)
	if n := testing.AllocsPerRun(100, func() { sinkMessage = NewMessage(p) }); n > 2 {
		t.Fatalf("NewMessage allocates %v times", n)
	}
}

var sinkMessage *Message

func TestViewClearsThePublish(t *testing.T) {
	p := mixedPublish(t)
	m := NewMessage(p)
	view := *p
	m.View(&view)
	if want := (Publish{Topic: m.Topic, Props: m.Props, Payload: m.Payload}); !reflect.DeepEqual(view, want) {
		t.Fatalf("view %+v, want %+v", view, want)
	}
	view.QoS, view.PacketID, view.SubIDs, view.HasMessageExpiry, view.ExpirySeconds = 1, 3, []uint32{9}, true, 59
	want := unhex(t, "32 1e | 00 03 'a/b' 00 03 | 14 02 0000003b | 0b 09 | 01 01 | 26 0001 'k' 0001 'v' | 03 0001 'c' | 'pl'")
	if out := AppendPublish(nil, &view, V5); !bytes.Equal(out, want) {
		t.Fatalf("sent % x, want % x", out, want)
	}
}

// Before MQTT 5 no property leaves, wherever the message came from.
func TestAppendPublishBeforeV5HasNoProperties(t *testing.T) {
	p := mixedPublish(t)
	want := unhex(t, "35 09 | 00 03 'a/b' 00 09 'pl'")
	for _, v := range []Version{V31, V311} {
		if got := AppendPublish(nil, p, v); !bytes.Equal(got, want) || PublishSize(p, v) != len(want) {
			t.Fatalf("%v: % x, size %d; want % x", v, got, PublishSize(p, v), want)
		}
	}
}

// The size is exact on both sides of every step of the two lengths.
func TestPublishSize(t *testing.T) {
	for _, payload := range []int{0, 1, 110, 120, 121, 122, 123, 124, 125, 126, 127, 128, 16370, 16376, 16379, 16380, 16381, 16384, 2097140, 2097152} {
		for _, corr := range []int{-1, 0, 100, 124, 125, 126, 16380, 16381} {
			p := &Publish{Topic: []byte("t"), Payload: make([]byte, payload), QoS: 1, PacketID: 1}
			if corr >= 0 {
				p.Props = appendBytes([]byte{propCorrelationData}, make([]byte, corr))
			}
			for _, v := range []Version{V31, V311, V5} {
				if got := AppendPublish(nil, p, v); len(got) != PublishSize(p, v) {
					t.Fatalf("payload %d, correlation data %d, version %v: %d bytes, PublishSize says %d", payload, corr, v, len(got), PublishSize(p, v))
				}
			}
		}
	}
	// Too large to have an encoding, and the caller can see it.
	huge := &Publish{Topic: []byte("t"), Payload: make([]byte, varintMax)}
	if PublishSize(huge, V5) <= PacketBytesMax {
		t.Fatal("a packet without an encoding looks small enough")
	}
}

func TestWillPublish(t *testing.T) {
	in := unhex(t, `10 4a | 00 04 'MQTT' 05 2e 00 00 | 00 | 00 00
		| 24 18 00000005 | 02 0000003c | 26 0001 'k' 0001 'v' | 01 01 | 03 0001 'c' | 08 0001 'r' | 09 0001 'd' 26 0000 0000 | 00 03 'a/b' 00 03 'bye'`)
	in[1] = byte(len(in) - 2)
	var c Connect
	if err := DecodeConnect(&c, in[2:]); err != nil {
		t.Fatal(err)
	}
	var p Publish
	scratch := c.Will.Publish(&p, []byte("kept"))
	if string(scratch[:4]) != "kept" || !bytes.Equal(scratch[4:], p.Props) {
		t.Fatalf("scratch % x", scratch)
	}
	p.PacketID = 1
	got, err := decode(AppendPublish(nil, &p, V5), V5)
	if err != nil {
		t.Fatal(err)
	}
	want := &Publish{Topic: []byte("a/b"), Payload: []byte("bye"), QoS: 1, Retain: true, PacketID: 1, HasMessageExpiry: true, ExpirySeconds: 60,
		Props: []byte("\x01\x01\x03\x00\x01c\x08\x00\x01r\x09\x00\x01d\x26\x00\x01k\x00\x01v\x26\x00\x00\x00\x00")}
	if !reflect.DeepEqual(normal(got), want) {
		t.Fatalf("published %+v, want %+v", got, want)
	}
}
