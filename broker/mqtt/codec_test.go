package mqtt

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unsafe"
)

// unhex reads "10 0c | 00 04 'MQTT'": hex digits, with blanks and bars ignored
// and text between single quotes.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var out []byte
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			out = append(out, part...)
			continue
		}
		b, err := hex.DecodeString(strings.NewReplacer(" ", "", "|", "", "\n", "", "\t", "").Replace(part))
		if err != nil {
			t.Fatalf("bad hex %q: %v", part, err)
		}
		out = append(out, b...)
	}
	return out
}

// newPacket returns a zero struct for packets of type t.
func newPacket(t Type) any {
	switch t {
	case CONNECT:
		return new(Connect)
	case CONNACK:
		return new(Connack)
	case PUBLISH:
		return new(Publish)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		return new(Ack)
	case SUBSCRIBE:
		return new(Subscribe)
	case SUBACK, UNSUBACK:
		return new(Suback)
	case UNSUBSCRIBE:
		return new(Unsubscribe)
	case PINGREQ, PINGRESP:
		return new(ping)
	case DISCONNECT:
		return new(Disconnect)
	case AUTH:
		return new(Auth)
	}
	panic(fmt.Sprintf("BUG: no packet of type %d", t))
}

// ping stands for the two packets that have no struct.
type ping struct{ Type Type }

// decodeInto hands body to the decoder of the packet's type.
func decodeInto(dst any, h Header, body []byte, v Version) error {
	switch p := dst.(type) {
	case *Connect:
		return DecodeConnect(p, body)
	case *Connack:
		return DecodeConnack(p, body, v)
	case *Publish:
		return DecodePublish(p, h.Flags, body, v)
	case *Ack:
		return DecodeAck(p, h.Type, body, v)
	case *Subscribe:
		return DecodeSubscribe(p, body, v)
	case *Suback:
		return DecodeSuback(p, h.Type, body, v)
	case *Unsubscribe:
		return DecodeUnsubscribe(p, body, v)
	case *ping:
		p.Type = h.Type
		return DecodeEmpty(h.Type, body)
	case *Disconnect:
		return DecodeDisconnect(p, body, v)
	case *Auth:
		return DecodeAuth(p, body)
	}
	panic(fmt.Sprintf("BUG: cannot decode a %T", dst))
}

// decode reads the one packet that b must be, as a connection of version v
// does. CONNECT brings its version along.
func decode(b []byte, v Version) (any, error) {
	h, n, err := ParseHeader(b, 0)
	if err != nil {
		return nil, err
	}
	if n == 0 || len(b) != n+h.Remaining {
		return nil, fmt.Errorf("%d bytes are not one packet (header %d, remaining %d)", len(b), n, h.Remaining)
	}
	if err := CheckFlags(h.Type, h.Flags, v); err != nil {
		return nil, err
	}
	p := newPacket(h.Type)
	if err := decodeInto(p, h, b[n:], v); err != nil {
		return nil, err
	}
	return p, nil
}

func encode(dst []byte, packet any, v Version) []byte {
	switch p := packet.(type) {
	case *Connect:
		return AppendConnect(dst, p)
	case *Connack:
		return AppendConnack(dst, p, v)
	case *Publish:
		return AppendPublish(dst, p, v)
	case *Ack:
		return AppendAck(dst, p, v)
	case *Subscribe:
		return AppendSubscribe(dst, p, v)
	case *Suback:
		return AppendSuback(dst, p, v)
	case *Unsubscribe:
		return AppendUnsubscribe(dst, p, v)
	case *ping:
		if p.Type == PINGREQ {
			return AppendPingreq(dst)
		}
		return AppendPingresp(dst)
	case *Disconnect:
		return AppendDisconnect(dst, p, v)
	case *Auth:
		return AppendAuth(dst, p)
	}
	panic(fmt.Sprintf("BUG: cannot encode a %T", packet))
}

// normal makes decoded packets comparable: a reused slice that is empty is as
// good as none, and the properties of a PUBLISH are replaced by those that are
// sent on.
func normal(packet any) any {
	user := func(p *Properties) {
		if len(p.User) == 0 {
			p.User = nil
		}
	}
	switch p := packet.(type) {
	case *Connect:
		user(&p.Props)
		user(&p.Will.Props)
	case *Connack:
		user(&p.Props)
	case *Publish:
		p.Props = AppendForwardProps([]byte{}, p)
		p.HasHopProps = false
		if len(p.SubIDs) == 0 {
			p.SubIDs = nil
		}
	case *Ack:
		user(&p.Props)
	case *Subscribe:
		user(&p.Props)
	case *Suback:
		user(&p.Props)
	case *Unsubscribe:
		user(&p.Props)
	case *Disconnect:
		user(&p.Props)
	case *Auth:
		user(&p.Props)
	}
	return packet
}

// eachBytes calls f for every []byte in v that is not nil.
func eachBytes(v reflect.Value, f func(b []byte)) {
	switch v.Kind() {
	case reflect.Pointer:
		eachBytes(v.Elem(), f)
	case reflect.Struct:
		for i := range v.NumField() {
			eachBytes(v.Field(i), f)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if !v.IsNil() {
				f(v.Bytes())
			}
			return
		}
		for i := range v.Len() {
			eachBytes(v.Index(i), f)
		}
	}
}

// mustAlias fails unless every []byte in packet is a part of input that can not
// be grown into the rest of it.
func mustAlias(t testing.TB, packet any, input []byte) {
	t.Helper()
	first := uintptr(unsafe.Pointer(unsafe.SliceData(input)))
	eachBytes(reflect.ValueOf(packet), func(b []byte) {
		at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
		if at < first || at+uintptr(len(b)) > first+uintptr(len(input)) {
			t.Errorf("%T holds %q, which is no part of the input", packet, b)
		}
		if cap(b) != len(b) {
			t.Errorf("%T holds %q with capacity %d: append would overwrite the input", packet, b, cap(b))
		}
	})
}

// sliceBytes is how much memory the slices of structs in packet take.
func sliceBytes(packet any) (total int) {
	user := func(p *Properties) int { return cap(p.User) * int(unsafe.Sizeof(UserProperty{})) }
	switch p := packet.(type) {
	case *Connect:
		return user(&p.Props) + user(&p.Will.Props)
	case *Connack:
		return user(&p.Props)
	case *Publish:
		return cap(p.SubIDs) * 4
	case *Ack:
		return user(&p.Props)
	case *Subscribe:
		return user(&p.Props) + cap(p.Filters)*int(unsafe.Sizeof(SubscribeFilter{}))
	case *Suback:
		return user(&p.Props)
	case *Unsubscribe:
		return user(&p.Props) + cap(p.Filters)*int(unsafe.Sizeof([]byte{}))
	case *Disconnect:
		return user(&p.Props)
	case *Auth:
		return user(&p.Props)
	}
	return 0
}
