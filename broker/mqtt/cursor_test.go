package mqtt

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// The checks that look at eight bytes at once against the plain definition, on
// strings made of what is near the borders.
func TestCheckStringAndName(t *testing.T) {
	naive := func(b []byte, name bool) *Error {
		switch {
		case bytes.IndexByte(b, 0) >= 0:
			return errNUL
		case !utf8.Valid(b):
			return errUTF8
		case name && bytes.ContainsAny(b, "+#"):
			return errTopicWild
		}
		return nil
	}
	parts := []string{"\x00", "\x01", "\x7f", "\x80", "\xff", "+", "#", "*", ",", "\"", "$", "/", "a", "ä", "€", "😀", "\ufeff", "\xed\xa0\x80", "\xc0\x80",
		"\xab", "\xa3", "\x81", "abcdefgh", "abcdefghijklmnop"}
	r := rand.New(rand.NewPCG(3, 4))
	refused := 0
	for range 200_000 {
		var s strings.Builder
		for range r.IntN(12) {
			// Mostly harmless, or nearly all would be refused.
			if r.IntN(6) == 0 {
				s.WriteString(parts[r.IntN(len(parts))])
			} else {
				s.WriteByte(byte('a' + r.IntN(26)))
			}
		}
		b := []byte(s.String())
		if got, want := checkString(b), naive(b, false); got != want {
			t.Fatalf("checkString(%q) = %v, want %v", b, got, want)
		}
		got, want := checkName(b), naive(b, true)
		if got != want {
			t.Fatalf("checkName(%q) = %v, want %v", b, got, want)
		}
		if want != nil {
			refused++
		}
	}
	if refused < 1000 || refused > 199_000 {
		t.Fatalf("%d of 200000 refused: the strings do not test much", refused)
	}
}

// Every code point but U+0000 is a valid string [MQTT-1.5.4-1], and so is U+FEFF,
// which is not stripped [MQTT-1.5.4-3].
func TestCheckStringCodePoints(t *testing.T) {
	for r := rune(1); r <= utf8.MaxRune; r++ {
		if r >= 0xD800 && r <= 0xDFFF {
			continue
		}
		if err := checkString(utf8.AppendRune(nil, r)); err != nil {
			t.Fatalf("%U: %v", r, err)
		}
	}
}

// zeroByte must find a zero in each place, whatever stands around it, and
// nothing else.
func TestZeroByte(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 200_000 {
		var w uint64
		has := false
		for i := range 8 {
			x := [...]byte{0, 1, 2, 0x7F, 0x80, 0x81, 0xFF}[min(r.IntN(20), 6)]
			has = has || x == 0
			w |= uint64(x) << (8 * i)
		}
		if (zeroByte(w) != 0) != has {
			t.Fatalf("zeroByte(%#x) = %#x", w, zeroByte(w))
		}
	}
}

func TestCursorErrorSticks(t *testing.T) {
	c := cursor{b: []byte{0, 5, 'a', 'b', 0, 1}}
	if b := c.bytes(); b != nil {
		t.Fatalf("bytes gave %q", b)
	}
	c.fail(errTrailing)
	if c.u8() != 0 || c.u16() != 0 || c.u32() != 0 || c.varint() != 0 || c.bytes() != nil {
		t.Fatal("reads after an error give something")
	}
	if err := c.end(); err != error(errShort) {
		t.Fatalf("the first error was lost: %v", err)
	}
}
