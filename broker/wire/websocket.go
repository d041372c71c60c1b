package wire

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// DESIGN. Own code for the few rules of RFC 6455 that a server without
// extensions needs, and not gobwas/ws: its upgrader and header reader want a reader
// that blocks, the header reader does not tell whether a length was written in the
// shortest form, and the package brings net/http with it.
//
// A WebSocket decodes in place: a payload is unmasked where it was read, and the
// payloads behind it are moved up to it, so MQTT's bytes need no second buffer
// and no frame is ever held. What is kept between calls is the request before the
// upgrade, the beginning of a frame's header, or of a control frame's payload.

// WebSocketOptions are shared by the connections of a listener.
type WebSocketOptions struct {
	// Path of the endpoint, compared literally and without the query; empty: any.
	Path string

	// Origins from which browsers may connect: host, host:port or
	// scheme://host[:port], where a host of "*.example.com" stands for all below
	// example.com; "null" for pages without an origin; "*" for all. Empty: the same
	// host as the request's. A request without Origin does not come from a
	// browser and is not refused for it.
	Origins []string

	// RequestBytesMax bounds the upgrade's request, which is kept until it is
	// whole. 0: 8192, what web servers allow.
	RequestBytesMax int

	// FrameBytesMax bounds the length that a data frame may declare. Nothing is
	// allocated by it, a frame's payload is passed on as it comes. 0: no bound.
	FrameBytesMax int
}

const requestBytesDefault = 8192

// messageBytesMax is the payload of one message that we send. MQTT does not care
// where messages end ([MQTT-6.0.0-2]), but clients do: common libraries refuse more
// than 32 KiB unless told otherwise.
const messageBytesMax = 32 << 10

// Status codes of close frames (RFC 6455 7.4.1).
const (
	closeNormal      = 1000
	closeProtocol    = 1002
	closeUnsupported = 1003
	closeNoStatus    = 1005 // never sent: a close frame without a code
	closeNotUTF8     = 1007
	closeTooBig      = 1009
)

// CloseError is a peer's breach of the protocol after the upgrade.
type CloseError struct {
	Code uint16 // of the close frame that answers it
	Text string
}

func (e *CloseError) Error() string { return fmt.Sprintf("websocket: %s (%d)", e.Text, e.Code) }

// ErrNotUpgraded is the error of sending MQTT before the peer has asked for the
// upgrade.
var ErrNotUpgraded = errors.New("websocket: not upgraded")

// WebSocket is the server's side of a WebSocket connection, a Layer from the first
// byte of the HTTP request on.
type WebSocket struct {
	o        *WebSocketOptions
	kept     []byte // of the request, or of a control frame's payload; nil most of the time
	say      []byte // the answer to the upgrade, then at most one pong; nil most of the time
	err      error
	left     uint64   // bytes of the current frame's payload that are to come
	header   [14]byte // of the frame that is coming
	headed   uint8    // bytes in header
	opcode   uint8    // of the current frame
	mask     [4]byte  // of the current frame, turned to where its payload goes on
	code     uint16   // of our close frame
	pongAt   uint16   // where in say the pong begins
	pong     bool     // say ends with a pong
	upgraded bool
	inFrame  bool // header is complete, left counts
	message  bool // a fragmented message goes on
}

// NewWebSocket prepares a connection. o must not change any more.
func NewWebSocket(o *WebSocketOptions) *WebSocket {
	return &WebSocket{o: o, code: closeNormal}
}

// In decodes: first the upgrade's request, then frames. io.EOF is a peer's close
// frame; *UpgradeError and *CloseError are breaches of the protocol.
func (w *WebSocket) In(dst, src []byte) ([]byte, error) {
	if w.err == nil && !w.upgraded {
		src, w.err = w.upgrade(src)
	}
	if w.err != nil || !w.upgraded {
		return dst, w.err
	}
	out, inPlace := dst, len(dst) == 0
	for len(src) > 0 && w.err == nil {
		if !w.inFrame {
			src, w.err = w.readHeader(src)
			continue
		}
		n := len(src)
		if uint64(n) > w.left {
			n = int(w.left)
		}
		piece := src[:n]
		src = src[n:]
		w.left -= uint64(n)
		w.mask = unmask(piece, w.mask)
		switch {
		case w.opcode >= opClose:
			w.err = w.control(piece)
		case inPlace && len(out) == 0:
			out = piece // never overtakes src: a header lies before each payload
		default:
			out = append(out, piece...)
		}
		w.inFrame = w.left > 0
	}
	if w.err != nil {
		w.kept = nil
		if e, ok := w.err.(*CloseError); ok {
			w.code = e.Code
		}
	}
	return slices.Clip(out), w.err
}

// control collects the payload of a control frame and acts on it when it is whole.
func (w *WebSocket) control(piece []byte) error {
	if w.left > 0 || len(w.kept) > 0 {
		w.kept = append(w.kept, piece...)
		piece = w.kept
	}
	if w.left > 0 {
		return nil
	}
	w.kept = nil
	switch w.opcode {
	case opPing:
		w.answer(piece)
	case opClose:
		code, err := closeCode(piece)
		if err != nil {
			return err
		}
		w.code = code
		return io.EOF
	}
	return nil
}

// answer prepares a pong. Of pings that have not been answered yet only the
// latest counts (RFC 6455 5.5.3), so a flood of them holds one pong.
func (w *WebSocket) answer(ping []byte) {
	if !w.pong {
		w.pong, w.pongAt = true, uint16(len(w.say))
	}
	w.say = append(appendHeader(w.say[:w.pongAt], opPong, len(ping)), ping...)
}

// Out frames src as binary messages ([MQTT-6.0.0-1]).
func (w *WebSocket) Out(dst, src []byte) ([]byte, error) {
	dst = append(dst, w.say...)
	w.say, w.pong = nil, false
	if len(src) > 0 && !w.upgraded {
		return dst, ErrNotUpgraded
	}
	for len(src) > 0 {
		n := min(len(src), messageBytesMax)
		dst = append(appendHeader(dst, opBinary, n), src[:n]...)
		src = src[n:]
	}
	return dst, nil
}

// Pending tells whether there is an answer to the upgrade, or a pong.
func (w *WebSocket) Pending() bool { return len(w.say) > 0 }

// Close gives the refusal of the upgrade, or a close frame: with the code of the
// error, or the peer's own if it closed (RFC 6455 5.5.1).
func (w *WebSocket) Close(dst []byte) []byte {
	dst = append(dst, w.say...)
	w.say, w.pong = nil, false
	switch {
	case !w.upgraded:
		return dst
	case w.code == closeNoStatus:
		return appendHeader(dst, opClose, 0)
	}
	return append(appendHeader(dst, opClose, 2), byte(w.code>>8), byte(w.code))
}
