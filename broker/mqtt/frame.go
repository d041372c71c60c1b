package mqtt

import (
	"encoding/binary"
	"strconv"
)

// DESIGN. A packet is written behind a length of one byte, which is what nearly
// all packets need; closeLength sets it right and makes room if more bytes are
// needed. Property lengths are written in the same way. Only PUBLISH, which is
// often long, computes its length beforehand.

// openPacket starts a packet; closeLength(dst, at) ends it.
func openPacket(dst []byte, t Type, flags byte) (_ []byte, at int) {
	dst = append(dst, byte(t)<<4|flags)
	return openLength(dst)
}

// openLength starts a part that has its length before it.
func openLength(dst []byte) (_ []byte, at int) {
	return append(dst, 0), len(dst)
}

// closeLength ends the part that openLength started at at.
func closeLength(dst []byte, at int) []byte {
	n := len(dst) - at - 1
	if n < 0x80 {
		dst[at] = byte(n)
		return dst
	}
	more := varintSize(n) - 1
	dst = append(dst, 0, 0, 0)[:len(dst)+more]
	copy(dst[at+1+more:], dst[at+1:at+1+n])
	appendVarint(dst[:at], n)
	return dst
}

// varintSize is how many bytes n takes (MQTT5 1.5.5); 5 if it does not fit,
// see PacketBytesMax.
func varintSize(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	case n <= varintMax:
		return 4
	}
	return 5
}

func appendVarint(dst []byte, n int) []byte {
	if n < 0 || n > varintMax {
		panic("BUG: mqtt: a length of " + strconv.Itoa(n) + " has no encoding")
	}
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func appendU16(dst []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(dst, v) }

func appendU32(dst []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(dst, v) }

// appendBytes writes b as binary data or string: with a two-byte length.
func appendBytes(dst, b []byte) []byte { return appendString(dst, b) }

func appendString[S []byte | string](dst []byte, b S) []byte {
	if len(b) > stringMax {
		panic("BUG: mqtt: a string of " + strconv.Itoa(len(b)) + " bytes has no encoding")
	}
	dst = append(dst, byte(len(b)>>8), byte(len(b)))
	return append(dst, b...)
}
