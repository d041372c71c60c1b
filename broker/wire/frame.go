package wire

import (
	"encoding/binary"
	"unicode/utf8"
)

// DESIGN. Headers of frames (RFC 6455 5.2), unmasking, and the payload of close
// frames. A header is collected in the connection's own array: whether it comes
// whole or byte by byte is one path. What its first two bytes show to be wrong is
// refused without waiting for the rest.

// Opcodes. All from opClose on are control frames.
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

const (
	finBit          = 0x80
	reservedBits    = 0x70
	opcodeBits      = 0x0f
	maskBit         = 0x80
	lengthBits      = 0x7f
	length16        = 126 // the length follows in 2 bytes
	length64        = 127 // in 8
	controlBytesMax = 125 // RFC 6455 5.5
)

// readHeader takes what it needs of src for a frame's header, and gives the rest.
func (w *WebSocket) readHeader(src []byte) ([]byte, error) {
	need := 2
	if w.headed >= 2 {
		need = w.headerLen()
	}
	for {
		n := copy(w.header[w.headed:need], src)
		w.headed += uint8(n)
		src = src[n:]
		if int(w.headed) < need {
			return src, nil
		}
		if need > 2 {
			break
		}
		if err := w.checkStart(); err != nil {
			return src, err
		}
		need = w.headerLen()
	}
	w.headed = 0
	return src, w.begin(need)
}

// headerLen is the length of a header of which two bytes are known: it is masked.
func (w *WebSocket) headerLen() int {
	switch w.header[1] & lengthBits {
	case length16:
		return 2 + 2 + 4
	case length64:
		return 2 + 8 + 4
	}
	return 2 + 4
}

// checkStart refuses by a header's first two bytes.
func (w *WebSocket) checkStart() error {
	b0, b1 := w.header[0], w.header[1]
	if b0&reservedBits != 0 { // RFC 6455 5.2: no extension was negotiated
		return &CloseError{closeProtocol, "reserved bits set"}
	}
	if b1&maskBit == 0 { // RFC 6455 5.1
		return &CloseError{closeProtocol, "frame without mask"}
	}
	switch op := b0 & opcodeBits; op {
	case opContinuation:
		if !w.message {
			return &CloseError{closeProtocol, "continuation of nothing"}
		}
	case opText, opBinary:
		if w.message { // RFC 6455 5.4: fragments of messages are not interleaved
			return &CloseError{closeProtocol, "new message within a fragmented one"}
		}
		if op == opText { // [MQTT-6.0.0-1]
			return &CloseError{closeUnsupported, "text frame; MQTT is binary"}
		}
	case opClose, opPing, opPong:
		if b0&finBit == 0 {
			return &CloseError{closeProtocol, "fragmented control frame"}
		}
		if b1&lengthBits > controlBytesMax {
			return &CloseError{closeProtocol, "control frame too long"}
		}
	default:
		return &CloseError{closeProtocol, "unknown opcode"}
	}
	return nil
}

// begin starts the frame whose header of n bytes is complete.
func (w *WebSocket) begin(n int) error {
	h := w.header[:n]
	short := uint64(h[1] & lengthBits)
	w.left = short
	switch short { // RFC 6455 5.2: the shortest form, and the highest bit is 0
	case length16:
		w.left = uint64(binary.BigEndian.Uint16(h[2:]))
		if w.left < length16 {
			return &CloseError{closeProtocol, "length not in its shortest form"}
		}
	case length64:
		w.left = binary.BigEndian.Uint64(h[2:])
		if w.left < 1<<16 || w.left>>63 != 0 {
			return &CloseError{closeProtocol, "length not in its shortest form"}
		}
	}
	w.opcode = h[0] & opcodeBits
	w.mask = [4]byte(h[n-4:])
	if w.opcode < opClose {
		if limit := w.o.FrameBytesMax; limit > 0 && w.left > uint64(limit) {
			return &CloseError{closeTooBig, "frame too big"}
		}
		w.message = h[0]&finBit == 0
	}
	w.inFrame = w.left > 0
	if w.left == 0 && w.opcode >= opClose {
		return w.control(nil)
	}
	return nil
}

// appendHeader appends the header of a whole message of n bytes, not masked.
func appendHeader(dst []byte, opcode byte, n int) []byte {
	switch {
	case n < length16:
		return append(dst, finBit|opcode, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, finBit|opcode, length16), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, finBit|opcode, length64), uint64(n))
}

// unmask takes the mask from b, and gives the mask turned to where b ends.
func unmask(b []byte, mask [4]byte) [4]byte {
	m4 := uint64(binary.LittleEndian.Uint32(mask[:]))
	m8 := m4 | m4<<32
	turn := len(b) & 3
	for len(b) >= 32 {
		p := b[:32]
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^m8)
		binary.LittleEndian.PutUint64(p[8:], binary.LittleEndian.Uint64(p[8:])^m8)
		binary.LittleEndian.PutUint64(p[16:], binary.LittleEndian.Uint64(p[16:])^m8)
		binary.LittleEndian.PutUint64(p[24:], binary.LittleEndian.Uint64(p[24:])^m8)
		b = b[32:]
	}
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^m8)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= mask[i&3]
	}
	return [4]byte{mask[turn], mask[(turn+1)&3], mask[(turn+2)&3], mask[(turn+3)&3]}
}

// closeCode gives the code with which to answer a close frame (RFC 6455 5.5.1, 7.4).
func closeCode(payload []byte) (uint16, error) {
	if len(payload) == 0 {
		return closeNoStatus, nil
	}
	if len(payload) == 1 {
		return 0, &CloseError{closeProtocol, "close frame with half a code"}
	}
	code := binary.BigEndian.Uint16(payload)
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
	default: // reserved, not for the wire, or of no protocol
		return 0, &CloseError{closeProtocol, "code that a close frame cannot have"}
	}
	if !utf8.Valid(payload[2:]) {
		return 0, &CloseError{closeNotUTF8, "reason for closing is not UTF-8"}
	}
	return code, nil
}
