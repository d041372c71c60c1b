package mqtt

import (
	"errors"
	"testing"
)

func TestReasonStrings(t *testing.T) {
	named := 0
	seen := map[string]Reason{}
	for i := range 0x100 {
		r := Reason(i)
		s := r.String()
		if other, twice := seen[s]; twice {
			t.Errorf("%#x and %#x are both %q", i, uint8(other), s)
		}
		seen[s] = r
		if reasons[i].name != "" {
			named++
		}
		if (reasons[i].name != "") != (reasons[i].in != 0) {
			t.Errorf("%#x has a name or packets, but not both", i)
		}
	}
	if named != 43 { // the rows of table 2-6, three names of 0x00 counted once
		t.Errorf("%d reason codes", named)
	}
	for r, want := range map[Reason]string{0: "Success", 0x81: "Malformed Packet", 0xA2: "Wildcard Subscriptions not supported", 0x7F: "reason code 0x7f"} {
		if r.String() != want {
			t.Errorf("%#x is %q, want %q", uint8(r), r, want)
		}
	}
}

func TestConnack311(t *testing.T) {
	want := map[Reason]uint8{
		Success: 0, UnsupportedProtocolVersion: 1, ClientIDNotValid: 2, ServerUnavailable: 3, ServerBusy: 3, QuotaExceeded: 3,
		BadUserNameOrPassword: 4, BadAuthenticationMethod: 4, NotAuthorized: 5, Banned: 5, RetainNotSupported: 5, QoSNotSupported: 5,
	}
	for r, code := range want {
		if r.Connack311() != code {
			t.Errorf("%v: %d, want %d", r, r.Connack311(), code)
		}
	}
	for i := range 0x100 {
		code := Reason(i).Connack311()
		if code > 5 || i >= 0x80 && code == 0 {
			t.Errorf("reason %#x becomes %d", i, code)
		}
	}
}

func TestSuback311(t *testing.T) {
	for i := range 0x100 {
		want := byte(0x80)
		if i <= 2 {
			want = byte(i)
		}
		if got := Reason(i).Suback311(); got != want {
			t.Errorf("reason %#x becomes %#x, want %#x", i, got, want)
		}
	}
}

func TestErrorText(t *testing.T) {
	for e, want := range map[*Error]string{
		errNUL:           "Malformed Packet (0x81): string contains U+0000 [MQTT-1.5.4-2]",
		errShort:         "Malformed Packet (0x81): the packet ends in the middle of a field",
		errPropTwice(17): "Protocol Error (0x82): property given twice: session expiry interval [MQTT5 3.1.2.11.2]",
	} {
		if got := e.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestStrings(t *testing.T) {
	for got, want := range map[string]string{
		CONNECT.String(): "CONNECT", UNSUBACK.String(): "UNSUBACK", AUTH.String(): "AUTH", Type(0).String(): "packet type 0", Type(16).String(): "packet type 16", Type(200).String(): "packet type 200",
		V31.String(): "3.1", V311.String(): "3.1.1", V5.String(): "5", Version(6).String(): "version 6",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The caller must be able to refuse a CONNECT in a form that the peer
// understands.
func TestDecodeConnectTellsTheVersionOfRefused(t *testing.T) {
	for body, want := range map[string]Version{
		"00 04 'MQTT' 05 03 00 00 00 | 00 00":    V5,
		"00 04 'MQTT' 04 03 00 00 | 00 00":       V311,
		"00 06 'MQIsdp' 03 42 00 00 | 00 01 'c'": V31,
		"00 04 'MQTT' 06 02 00 00 | 00 00":       0,
		"00 04 'HTTP' 05 02 00 00 | 00 00":       0,
		"00":                                     0,
	} {
		c := Connect{Version: V5}
		if err := DecodeConnect(&c, unhex(t, body)); err == nil || c.Version != want {
			t.Errorf("%s: version %v, %v; want %v and an error", body, c.Version, err, want)
		}
	}
}

func TestErrorsAreTyped(t *testing.T) {
	var e *Error
	if err := DecodePublish(new(Publish), 0, nil, V5); !errors.As(err, &e) {
		t.Fatalf("%T", err)
	}
	if err := DecodePublish(new(Publish), 0, []byte{0, 1, 't'}, V311); err != nil {
		t.Fatalf("no error is not nil: %v", err)
	}
}
