package wire

import "sync"

// DESIGN. A stack owns no bytes: what the lower layer decrypts goes to the
// caller's dst, and the upper one decodes it there (see Layer.In); what the upper
// encodes goes through a buffer that is borrowed for the length of a call.

// Stack is one layer above another: WebSocket over TLS.
type Stack struct {
	lower, upper Layer
}

// NewStack puts upper above lower.
func NewStack(lower, upper Layer) *Stack { return &Stack{lower, upper} }

// borrowed are buffers for what an upper layer encodes. borrowedBytesMax is the
// largest that is given back: a full read buffer's worth, not a rare huge packet's.
var borrowed = sync.Pool{New: func() any { return new([]byte) }}

const borrowedBytesMax = 64 << 10

// In decodes through both layers. If both have an error, the upper one's counts:
// it is about older bytes.
func (s *Stack) In(dst, src []byte) ([]byte, error) {
	between, lowerErr := s.lower.In(dst[len(dst):], src)
	if len(dst) == 0 {
		dst = between[:0]
	}
	got, err := s.upper.In(dst, between)
	if err == nil {
		err = lowerErr
	}
	return got, err
}

// Out encodes through both layers.
func (s *Stack) Out(dst, src []byte) ([]byte, error) {
	between := borrowed.Get().(*[]byte)
	b, err := s.upper.Out((*between)[:0], src)
	if err == nil {
		dst, err = s.lower.Out(dst, b)
	}
	s.giveBack(between, b, src)
	return dst, err
}

// giveBack keeps b, unless it is large or is src itself (as of Plain).
func (s *Stack) giveBack(between *[]byte, b, src []byte) {
	own := cap(b) == 0 || cap(src) == 0 || &b[:1][0] != &src[:1][0]
	if own && cap(b) <= borrowedBytesMax {
		*between = b[:0]
	}
	borrowed.Put(between)
}

// Pending tells whether one of the two has something to say.
func (s *Stack) Pending() bool { return s.upper.Pending() || s.lower.Pending() }

// Close gives the upper layer's farewell, sent through the lower one, and then
// the lower one's.
func (s *Stack) Close(dst []byte) []byte {
	if farewell := s.upper.Close(nil); len(farewell) > 0 {
		// An error means that the lower layer has failed and can carry nothing.
		if b, err := s.lower.Out(dst, farewell); err == nil {
			dst = b
		}
	}
	return s.lower.Close(dst)
}
