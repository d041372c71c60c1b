package mqtt

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// DESIGN. A cursor walks over the body of a packet. Its first error sticks and
// empties it, so that a decoder can read field after field and look once at
// the end: reads after an error give zero values, and loops "while bytes are
// left" end.

// Limits of the wire format.
const (
	varintMax = 268435455 // MQTT5 1.5.5: four bytes of seven bits
	stringMax = 65535     // MQTT5 1.5.4, 1.5.6: strings and binary data have a two-byte length

	// PacketBytesMax is the size of the largest packet that MQTT can express,
	// header included. Whoever sends something bigger has a bug.
	PacketBytesMax = 1 + 4 + varintMax

	// scratchMax is how many elements a slice of a decoded packet may hold
	// for the next packet to reuse it. A larger one, grown by one huge packet,
	// is given up, so that it does not stay with the caller for ever. 64 is
	// more than any usual SUBSCRIBE has.
	scratchMax = 64
)

// cursor reads fields from b, the bytes not read yet.
type cursor struct {
	b   []byte
	err *Error // the first; nil: none
}

func (c *cursor) fail(e *Error) {
	if c.err == nil {
		c.err = e
	}
	c.b = nil
}

// end is the result of a decoder: the first error, or that bytes are left.
func (c *cursor) end() error {
	if c.err != nil {
		return c.err
	}
	if len(c.b) != 0 {
		return errTrailing
	}
	return nil
}

func (c *cursor) u8() byte {
	if len(c.b) < 1 {
		c.fail(errShort)
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

func (c *cursor) u16() uint16 {
	if len(c.b) < 2 {
		c.fail(errShort)
		return 0
	}
	v := binary.BigEndian.Uint16(c.b)
	c.b = c.b[2:]
	return v
}

func (c *cursor) u32() uint32 {
	if len(c.b) < 4 {
		c.fail(errShort)
		return 0
	}
	v := binary.BigEndian.Uint32(c.b)
	c.b = c.b[4:]
	return v
}

// packetID reads a packet identifier, which is never 0.
func (c *cursor) packetID() uint16 {
	id := c.u16()
	if id == 0 {
		c.fail(errPacketIDZero)
	}
	return id
}

// varint reads a variable byte integer (MQTT5 1.5.5).
func (c *cursor) varint() int {
	v, n, err := parseVarint(c.b)
	if err != nil {
		c.fail(err)
		return 0
	}
	if n == 0 {
		c.fail(errShort)
		return 0
	}
	c.b = c.b[n:]
	return v
}

// parseVarint reads a variable byte integer of n bytes from the head of b;
// n == 0 without an error: more bytes are needed.
func parseVarint(b []byte) (v, n int, err *Error) {
	for i := 0; i < len(b) && i < 4; i++ {
		x := b[i]
		v |= int(x&0x7F) << (7 * i)
		if x < 0x80 {
			if x == 0 && i > 0 {
				return 0, 0, errVarintPadded
			}
			return v, i + 1, nil
		}
	}
	if len(b) >= 4 {
		return 0, 0, errVarintLong
	}
	return 0, 0, nil
}

// bytes reads binary data (MQTT5 1.5.6). The result is never nil unless the
// cursor failed, and its capacity ends where it ends: it can not be grown into
// the rest of the input.
func (c *cursor) bytes() []byte {
	n := int(c.u16())
	if len(c.b) < n {
		c.fail(errShort)
	}
	if c.err != nil {
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

// str reads a UTF-8 encoded string (MQTT5 1.5.4).
func (c *cursor) str() []byte {
	v := c.bytes()
	if err := checkString(v); err != nil {
		c.fail(err)
		return nil
	}
	return v
}

// topicFilter reads a string that must not be empty.
func (c *cursor) topicFilter() []byte {
	v := c.str()
	if c.err == nil && len(v) == 0 {
		c.fail(errFilterEmpty)
	}
	return v
}

// push is append for slices whose length only the rest of the input bounds: at
// most mayFollow elements come after x. It doubles, as append does for small
// slices only, so that all growing together costs little more than the last
// size twice; and it never makes room for what can not come.
func push[T any](s []T, x T, mayFollow int) []T {
	if len(s) == cap(s) {
		s = slices.Grow(s, 1+min(len(s), mayFollow))
	}
	return append(s, x)
}

// Constants for looking at eight bytes at once.
const (
	lows  = 0x0101010101010101
	highs = 0x8080808080808080
)

// zeroByte is not 0 if, and only if, one of the eight bytes of w is 0: only
// then a borrow runs into a top bit that was clear.
func zeroByte(w uint64) uint64 { return (w - lows) &^ w & highs }

// checkString tells whether b is well-formed UTF-8 without U+0000. utf8.Valid
// refuses surrogates and overlong forms, too.
func checkString(b []byte) *Error {
	var high, zero uint64
	rest := b
	for len(rest) >= 8 {
		w := binary.LittleEndian.Uint64(rest)
		high |= w
		zero |= zeroByte(w)
		rest = rest[8:]
	}
	for _, x := range rest {
		high |= uint64(x)
		if x == 0 {
			zero = 1
		}
	}
	if zero != 0 {
		return errNUL
	}
	if high&highs != 0 && !utf8.Valid(b) {
		return errUTF8
	}
	return nil
}

// checkName is checkString plus the rule that a topic name has no wildcard
// [MQTT-3.3.2-2].
func checkName(b []byte) *Error {
	var high, bad uint64
	rest := b
	for len(rest) >= 8 {
		w := binary.LittleEndian.Uint64(rest)
		high |= w
		bad |= zeroByte(w) | zeroByte(w^'+'*lows) | zeroByte(w^'#'*lows)
		rest = rest[8:]
	}
	for _, x := range rest {
		high |= uint64(x)
		if x == 0 || x == '+' || x == '#' {
			bad = 1
		}
	}
	if bad == 0 && high&highs == 0 {
		return nil
	}
	if err := checkString(b); err != nil {
		return err
	}
	if bad != 0 {
		return errTopicWild
	}
	return nil
}
