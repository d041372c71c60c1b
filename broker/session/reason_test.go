package session

import (
	"strings"
	"testing"

	"sluice/broker/mqtt"
)

// [MQTT-3.1.2-24], MQTT5 3.2.2.3.9: a CONNACK that refuses says why if that
// fits, is bare if only that fits, and is not sent otherwise. Before MQTT 5 it
// has the return code that comes closest.
func TestRefuseConnect(t *testing.T) {
	const text = "the client id is taken"
	for _, c := range []struct {
		v         mqtt.Version
		maxBytes  uint32
		text      string
		code      int // -1: no CONNACK
		wantsText bool
	}{
		{mqtt.V5, 0, text, 0x85, true},
		{mqtt.V5, 5 + 3 + uint32(len(text)), text, 0x85, true},
		{mqtt.V5, 4 + 3 + uint32(len(text)), text, 0x85, false},
		{mqtt.V5, 5, text, 0x85, false},
		{mqtt.V5, 4, text, -1, false},
		{mqtt.V5, 0, strings.Repeat("x", 256), 0x85, false},
		{mqtt.V5, 0, "\xff", 0x85, false},
		{mqtt.V5, 0, "a\x00b", 0x85, false},
		{mqtt.V5, 0, "", 0x85, false},
		{mqtt.V311, 0, text, 2, false},
		{mqtt.V31, 0, text, 2, false},
	} {
		in := mqtt.Connect{Version: c.v}
		in.Props.MaxPacketBytes = c.maxBytes
		in.Props.NoProblemInfo = true // CONNACK may have a reason string all the same [MQTT-3.1.2-29]
		out := RefuseConnect([]byte("before"), c.v, mqtt.ClientIDNotValid, c.text, &in)
		if string(out[:6]) != "before" {
			t.Fatalf("%v: what was there is gone: %q", c, out)
		}
		if out = out[6:]; c.code < 0 {
			if len(out) > 0 {
				t.Errorf("%v: % x", c, out)
			}
			continue
		}
		var p mqtt.Connack
		if err := mqtt.DecodeConnack(&p, out[2:], c.v); err != nil || int(p.Code) != c.code || (p.Props.ReasonString != nil) != c.wantsText {
			t.Errorf("%v: %+v, %v", c, p, err)
		}
		if p.Props.ReasonString != nil && string(p.Props.ReasonString) != c.text {
			t.Errorf("%v: reason string %q", c, p.Props.ReasonString)
		}
	}
}

// All words that a client may be told are strings that it must accept.
func TestReasonTexts(t *testing.T) {
	for kind := mqtt.PUBACK; kind <= mqtt.UNSUBACK; kind++ {
		for r := range 256 {
			text := reasonText(kind, mqtt.Reason(r))
			if (text != "") != (r >= 0x80) {
				t.Errorf("%s %#x: %q", kind, r, text)
			}
			if text != "" && reasonString(text) == nil {
				t.Errorf("%s %#x: %q is no reason string", kind, r, text)
			}
		}
	}
}
