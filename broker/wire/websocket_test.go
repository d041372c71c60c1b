package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

const goodRequest = "GET /mqtt HTTP/1.1\r\nHost: broker:8083\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"

const goodAnswer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"

// frame makes a client's frame. b0 has the final bit, the reserved ones and the opcode.
func frame(b0 byte, payload string) []byte {
	b := []byte{b0}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{0xa1, 0x5c, 0x07, 0xf3}
	b = append(b, mask[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

func frames(fs ...[]byte) []byte { return bytes.Join(fs, nil) }

// open gives a connection after its upgrade.
func open(t testing.TB, o *WebSocketOptions) *WebSocket {
	w := NewWebSocket(o)
	if _, err := w.In(nil, []byte(goodRequest)); err != nil {
		t.Fatal(err)
	}
	if b, err := w.Out(nil, nil); string(b) != goodAnswer || err != nil {
		t.Fatalf("%q %v", b, err)
	}
	return w
}

var frameTable = []struct {
	name   string // with the section of RFC 6455
	in     []byte
	data   string // MQTT's bytes
	code   uint16 // of the error; 1: io.EOF; 0: none
	answer string // of Out with nothing to send
	close  string // of Close
}{
	{"5.6 binary", frame(0x82, "abc"), "abc", 0, "", "\x88\x02\x03\xe8"},
	{"5.2 two frames in one read [MQTT-6.0.0-2]", frames(frame(0x82, "abc"), frame(0x82, "defg"), frame(0x82, "h")), "abcdefgh", 0, "", "\x88\x02\x03\xe8"},
	{"5.2 empty frame", frames(frame(0x82, ""), frame(0x82, "x")), "x", 0, "", "\x88\x02\x03\xe8"},
	{"5.2 length of 16 bits", frame(0x82, strings.Repeat("x", 126)), strings.Repeat("x", 126), 0, "", "\x88\x02\x03\xe8"},
	{"5.2 length of 64 bits", frame(0x82, strings.Repeat("xy", 40000)), strings.Repeat("xy", 40000), 0, "", "\x88\x02\x03\xe8"},
	{"5.4 fragments", frames(frame(0x02, "a"), frame(0x00, "b"), frame(0x80, "c"), frame(0x82, "d")), "abcd", 0, "", "\x88\x02\x03\xe8"},
	{"5.4 control frame between fragments", frames(frame(0x02, "a"), frame(0x89, "p"), frame(0x80, "c")), "ac", 0, "\x8a\x01p", "\x8a\x01p\x88\x02\x03\xe8"},
	{"5.4 continuation of nothing", frames(frame(0x82, "a"), frame(0x80, "b")), "a", 1002, "", "\x88\x02\x03\xea"},
	{"5.4 message within a message", frames(frame(0x02, "a"), frame(0x82, "b")), "a", 1002, "", "\x88\x02\x03\xea"},
	{"5.6 text [MQTT-6.0.0-1]", frames(frame(0x82, "a"), frame(0x81, "b")), "a", 1003, "", "\x88\x02\x03\xeb"},
	{"5.1 not masked", []byte{0x82, 1, 'a'}, "", 1002, "", "\x88\x02\x03\xea"},
	{"5.2 reserved bit 1", frame(0xc2, "a"), "", 1002, "", "\x88\x02\x03\xea"},
	{"5.2 reserved bit 2", frame(0xa2, "a"), "", 1002, "", "\x88\x02\x03\xea"},
	{"5.2 reserved bit 3", frame(0x92, "a"), "", 1002, "", "\x88\x02\x03\xea"},
	{"5.2 reserved opcode 3", frame(0x83, "a"), "", 1002, "", "\x88\x02\x03\xea"},
	{"5.2 reserved opcode 11", frame(0x8b, "a"), "", 1002, "", "\x88\x02\x03\xea"},
	{"5.2 16 bits not shortest", []byte("\x82\xfe\x00\x7d1234"), "", 1002, "", "\x88\x02\x03\xea"},
	{"5.2 64 bits not shortest", []byte("\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff1234"), "", 1002, "", "\x88\x02\x03\xea"},
	{"5.2 64 bits with the highest", []byte("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x001234"), "", 1002, "", "\x88\x02\x03\xea"},
	{"7.4.1 too big", []byte("\x82\xff\x00\x00\x00\x00\x00\x02\x00\x001234"), "", 1009, "", "\x88\x02\x03\xf1"},
	{"5.5 fragmented control frame", frame(0x09, "a"), "", 1002, "", "\x88\x02\x03\xea"},
	{"5.5 control frame of 126 bytes", frame(0x89, strings.Repeat("x", 126)), "", 1002, "", "\x88\x02\x03\xea"},
	{"5.5.2 ping of 125 bytes", frame(0x89, strings.Repeat("x", 125)), "", 0, "\x8a\x7d" + strings.Repeat("x", 125), "\x8a\x7d" + strings.Repeat("x", 125) + "\x88\x02\x03\xe8"},
	{"5.5.2 empty ping", frame(0x89, ""), "", 0, "\x8a\x00", "\x8a\x00\x88\x02\x03\xe8"},
	{"5.5.3 only the latest ping", frames(frame(0x89, "first"), frame(0x82, "x"), frame(0x89, "second"), frame(0x89, "3rd")), "x", 0, "\x8a\x033rd", "\x8a\x033rd\x88\x02\x03\xe8"},
	{"5.5.3 unsolicited pong", frames(frame(0x8a, "x"), frame(0x8a, ""), frame(0x82, "y")), "y", 0, "", "\x88\x02\x03\xe8"},
	{"5.5.1 close", frames(frame(0x82, "a"), frame(0x88, "\x03\xe9bye"), frame(0x82, "b")), "a", 1, "", "\x88\x02\x03\xe9"},
	{"5.5.1 close without a code", frame(0x88, ""), "", 1, "", "\x88\x00"},
	{"5.5.1 close with half a code", frame(0x88, "\x03"), "", 1002, "", "\x88\x02\x03\xea"},
	{"5.5.1 reason is not UTF-8", frame(0x88, "\x03\xe8\xff"), "", 1007, "", "\x88\x02\x03\xef"},
	{"7.4.2 code 4999", frame(0x88, "\x13\x87"), "", 1, "", "\x88\x02\x13\x87"},
	{"7.4 code 999", frame(0x88, "\x03\xe7"), "", 1002, "", "\x88\x02\x03\xea"},
	{"7.4.1 code 1005", frame(0x88, "\x03\xed"), "", 1002, "", "\x88\x02\x03\xea"},
	{"7.4.1 code 1006", frame(0x88, "\x03\xee"), "", 1002, "", "\x88\x02\x03\xea"},
	{"7.4.1 code 1015", frame(0x88, "\x03\xf7"), "", 1002, "", "\x88\x02\x03\xea"},
	{"7.4 code 5000", frame(0x88, "\x13\x88"), "", 1002, "", "\x88\x02\x03\xea"},
}

func TestWebSocketFrames(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for how, next := range map[string]func() int{
		"whole":        func() int { return 1 << 30 },
		"byte by byte": func() int { return 1 },
		"pieces":       func() int { return r.IntN(9) },
	} {
		for _, c := range frameTable {
			for _, over := range []string{"out", "close"} {
				w := open(t, &WebSocketOptions{Path: "/mqtt", FrameBytesMax: 100_000})
				data, err := chunked(w, c.in, next)
				if string(data) != c.data {
					t.Errorf("%s, %s: got %q", c.name, how, data)
				}
				var broken *CloseError
				switch {
				case c.code == 0 && err == nil, c.code == 1 && err == io.EOF:
				case errors.As(err, &broken) && broken.Code == c.code && broken.Text != "":
				default:
					t.Errorf("%s, %s: error %v", c.name, how, err)
				}
				if over == "close" {
					if b := w.Close(nil); string(b) != c.close {
						t.Errorf("%s, %s: closes with %q", c.name, how, b)
					}
					continue
				}
				if b, err := w.Out(nil, nil); string(b) != c.answer || err != nil {
					t.Errorf("%s, %s: answers %q %v", c.name, how, b, err)
				}
				if w.kept != nil || w.say != nil || w.Pending() {
					t.Errorf("%s, %s: keeps %q %q", c.name, how, w.kept, w.say)
				}
				if again, e := w.In(nil, frame(0x82, "z")); err != nil && (e != err || len(again) > 0) {
					t.Errorf("%s, %s: goes on after %v: %q %v", c.name, how, err, again, e)
				}
			}
		}
	}
}

// With a dst that has bytes, those of src are appended to it.
func TestWebSocketAppends(t *testing.T) {
	w := open(t, &WebSocketOptions{})
	got, err := w.In([]byte("had "), frames(frame(0x82, "abc"), frame(0x82, "def")))
	if string(got) != "had abcdef" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
}

func TestUnmask(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range 100 {
		mask := [4]byte{1, 2, 4, 8}
		want, b := make([]byte, n), make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
			want[i] = b[i] ^ mask[i%4]
		}
		for rest := b; len(rest) > 0; {
			k := 1 + r.IntN(len(rest))
			mask = unmask(rest[:k], mask)
			rest = rest[k:]
		}
		if !bytes.Equal(b, want) {
			t.Fatalf("%d bytes: % x, not % x", n, b, want)
		}
	}
}

func TestWebSocketOut(t *testing.T) {
	w := open(t, &WebSocketOptions{})
	for n, header := range map[int]string{1: "\x82\x01", 125: "\x82\x7d", 126: "\x82\x7e\x00\x7e", messageBytesMax: "\x82\x7e\x80\x00"} {
		data := pattern(n)
		got, err := w.Out([]byte("dst"), data)
		if string(got) != "dst"+header+string(data) || err != nil {
			t.Errorf("%d bytes: %d, %v", n, len(got), err)
		}
	}
	if got, _ := w.Out(nil, make([]byte, 2*messageBytesMax+1)); len(got) != 2*messageBytesMax+1+4+4+2 {
		t.Errorf("large: %d bytes", len(got))
	}
	if _, err := w.In(nil, frame(0x89, "ping")); err != nil || !w.Pending() {
		t.Fatal(err)
	}
	if got, _ := w.Out(nil, []byte("x")); string(got) != "\x8a\x04ping\x82\x01x" {
		t.Errorf("%q", got)
	}
	if _, err := NewWebSocket(&WebSocketOptions{}).Out(nil, []byte("x")); err != ErrNotUpgraded {
		t.Errorf("before the upgrade: %v", err)
	}
}
