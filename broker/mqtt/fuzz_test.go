package mqtt

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

var versions = [...]Version{V31, V311, V5}

func seed(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.hex), uint8(g.v))
	}
	for _, r := range rules {
		body := unhex(f, r.body)
		f.Add(append(appendVarint([]byte{r.first}, len(body)), body...), uint8(r.v))
	}
}

// scratch holds one packet of each type, used again and again like a worker
// does.
var scratch = map[Type]any{}

// FuzzDecode: whatever the bytes, every decoder returns without a panic, keeps
// only parts of the input, makes slices that the input justifies, gives a
// typed error, and gives the same into a used packet as into a new one.
func FuzzDecode(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, in []byte, version uint8) {
		v := versions[version%3]
		h, n, err := ParseHeader(in, 0)
		if err != nil {
			mustBeTyped(t, err)
			return
		}
		body := in[n:]
		if n != 0 && len(body) > h.Remaining {
			body = body[:h.Remaining:h.Remaining]
		}
		// Through the decoder of the packet's own type, and, as the bytes may be
		// anything, through all others.
		for typ := CONNECT; typ <= AUTH; typ++ {
			h := Header{Type: typ, Flags: h.Flags, Remaining: len(body)}
			fresh := newPacket(typ)
			err := decodeInto(fresh, h, body, v)
			used := scratch[typ]
			if used == nil {
				used = newPacket(typ)
				scratch[typ] = used
			}
			errUsed := decodeInto(used, h, body, v)
			if (err == nil) != (errUsed == nil) {
				t.Fatalf("%v: %v into a new packet, %v into a used one", typ, err, errUsed)
			}
			// The smallest element is a filter of 3 bytes; append at most doubles,
			// and a slice header takes 24 bytes.
			if got := sliceBytes(fresh); got > 32*len(body)+256 {
				t.Fatalf("%v: %d bytes of input make slices of %d bytes", typ, len(body), got)
			}
			if err != nil {
				mustBeTyped(t, err)
				continue
			}
			mustAlias(t, fresh, in)
			if a, b := normal(fresh), normal(clone(used)); !reflect.DeepEqual(a, b) {
				t.Fatalf("%v: a used packet differs:\n%+v\n%+v", typ, a, b)
			}
		}
	})
}

// clone is a shallow copy, so that normal does not spoil a packet for reuse.
func clone(packet any) any {
	v := reflect.New(reflect.TypeOf(packet).Elem())
	v.Elem().Set(reflect.ValueOf(packet).Elem())
	return v.Interface()
}

func mustBeTyped(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Reason < 0x80 || e.Text == "" {
		t.Fatalf("error without a reason: %#v", err)
	}
}

// FuzzRoundTrip: what a decoder accepts, the encoder writes so that the decoder
// reads the same; and writing that again gives the same bytes.
func FuzzRoundTrip(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, in []byte, version uint8) {
		v := versions[version%3]
		first, err := decode(in, v)
		if err != nil {
			return
		}
		if c, ok := first.(*Connect); ok {
			v = c.Version
		}
		out := encode(nil, first, v)
		if p, ok := first.(*Publish); ok && PublishSize(p, v) != len(out) {
			t.Fatalf("PublishSize says %d, the packet has %d bytes", PublishSize(p, v), len(out))
		}
		second, err := decode(out, v)
		if err != nil {
			t.Fatalf("% x was accepted, but written as % x: %v", in, out, err)
		}
		again := encode(nil, second, v)
		if a, b := normal(first), normal(second); !reflect.DeepEqual(a, b) {
			t.Fatalf("% x was read as\n%+v, written as % x and read as\n%+v", in, a, out, b)
		}
		if !bytes.Equal(out, again) {
			t.Fatalf("written as % x, then as % x", out, again)
		}
	})
}
