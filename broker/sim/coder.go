package sim

import (
	"errors"
	"io"

	"sluice/broker/wire"
)

// DESIGN. coder is a byte layer for tests, at both ends of a connection: each
// byte is two, the second of which depends on the first, on its place in the
// stream, and on whether it is of the layer above (data) or of the coder itself
// (sign). So what is lost, repeated, swapped or torn on the way shows at once,
// and a read may end in the middle of anything. The broker's end greets; each end
// may ask, which the broker's answers; and it says farewell.

const (
	markData byte = 0x5A
	markSign byte = 0xA5

	signGreet  byte = 'h'
	signAsk    byte = '?'
	signAnswer byte = '!'
	signBye    byte = 'b' // of the broker, or of a client that ends in order
	signBroken byte = 'e' // what came was no code
)

var errCode = errors.New("not in code")

// coder codes one connection in both directions.
type coder struct {
	sent, got byte // places, modulo 256
	half      byte
	torn      bool // half is the first byte of two
}

func (c *coder) seal(dst, src []byte, mark byte) []byte {
	for _, b := range src {
		dst = append(dst, b, b^mark^c.sent)
		c.sent++
	}
	return dst
}

// open appends the data in src to dst, and tells sign of each sign.
func (c *coder) open(dst, src []byte, sign func(byte) error) ([]byte, error) {
	for _, b := range src {
		if !c.torn {
			c.half, c.torn = b, true
			continue
		}
		c.torn = false
		mark := c.half ^ b ^ c.got
		c.got++
		switch mark {
		case markData:
			dst = append(dst, c.half)
		case markSign:
			if err := sign(c.half); err != nil {
				return dst, err
			}
		default:
			return dst, errCode
		}
	}
	return dst, nil
}

// codeLayer is the broker's end.
type codeLayer struct {
	coder
	first []byte // read before the layer was made
	say   []byte
	err   error
}

func newCodeLayer(first []byte) *codeLayer {
	return &codeLayer{first: first, say: []byte{signGreet}}
}

// In implements wire.Layer.
func (l *codeLayer) In(dst, src []byte) ([]byte, error) {
	if l.err != nil {
		return dst, l.err
	}
	first := l.first
	l.first = nil
	for _, b := range [][]byte{first, src} {
		if l.err == nil {
			dst, l.err = l.open(dst, b, l.onSign)
		}
	}
	return dst, l.err
}

func (l *codeLayer) onSign(s byte) error {
	switch s {
	case signAsk:
		l.say = append(l.say, signAnswer)
		return nil
	case signBye:
		return io.EOF
	}
	return errCode
}

// Out implements wire.Layer.
func (l *codeLayer) Out(dst, src []byte) ([]byte, error) {
	dst = l.seal(dst, l.say, markSign)
	l.say = nil
	return l.seal(dst, src, markData), nil
}

// Pending implements wire.Layer.
func (l *codeLayer) Pending() bool { return len(l.say) > 0 }

// Close implements wire.Layer.
func (l *codeLayer) Close(dst []byte) []byte {
	if l.err == errCode {
		return l.seal(dst, []byte{signBroken}, markSign)
	}
	return l.seal(dst, []byte{signBye}, markSign)
}

// above puts a coder above what there is already.
func above(below wire.Layer) wire.Layer {
	if _, plain := below.(wire.Plain); plain {
		return newCodeLayer(nil)
	}
	return wire.NewStack(below, newCodeLayer(nil))
}

// codeEnd is the client's end.
type codeEnd struct {
	coder
	asked   int
	greeted bool
	over    bool
	spoilt  bool // the client has sent what is no code
}

// receive decodes what came from the broker, and fails if it is not what the
// broker's end may have sent.
func (e *codeEnd) receive(w *World, who string, b []byte) []byte {
	if e.over {
		w.fail("layer", "%s: %d bytes after the layer's farewell", who, len(b))
	}
	data, err := e.open(nil, b, func(s byte) error {
		bad := e.over
		switch s {
		case signGreet:
			bad, e.greeted = bad || e.greeted, true
		case signAnswer:
			e.asked--
			bad = bad || e.asked < 0
		case signBroken:
			bad, e.over = bad || !e.spoilt, true
		case signBye:
			e.over = true
		default:
			bad = true
		}
		if bad {
			w.fail("layer", "%s: the broker's layer says %q", who, s)
		}
		return nil
	})
	if err != nil {
		w.fail("layer", "%s: what the broker sends is %v: something is lost, repeated or out of order", who, err)
	}
	if len(data) > 0 && !e.greeted {
		w.fail("layer", "%s: data before the layer's greeting", who)
	}
	return data
}
