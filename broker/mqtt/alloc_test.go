package mqtt

import (
	"bytes"
	"runtime"
	"testing"
)

// publishCases are the packets of the hot path.
func publishCases(t testing.TB) map[string]struct {
	v  Version
	in []byte
} {
	topic := []byte("factory/line-7/press/temperature")
	payload := bytes.Repeat([]byte("x"), 128)
	plain := &Publish{Topic: topic, Payload: payload, QoS: 1, PacketID: 7}
	rich := &Publish{Topic: topic, Payload: payload, QoS: 1, PacketID: 7, HasMessageExpiry: true, ExpirySeconds: 60, SubIDs: []uint32{1, 200},
		Props: unhex(t, "01 01 | 03 0010 'application/json' | 26 0003 'key' 0005 'value'")}
	type c = struct {
		v  Version
		in []byte
	}
	return map[string]c{
		"V311":      {V311, AppendPublish(nil, plain, V311)},
		"V5":        {V5, AppendPublish(nil, plain, V5)},
		"V5props":   {V5, AppendPublish(nil, rich, V5)},
		"V311utf-8": {V311, AppendPublish(nil, &Publish{Topic: []byte("Werk/Straße 7/Presse/Öldruck/größe"), Payload: payload}, V311)},
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	for name, c := range publishCases(t) {
		var p Publish
		var header Header
		n := 0
		dst := make([]byte, 0, 1024)
		read := func() {
			var err error
			if header, n, err = ParseHeader(c.in, 4096); err != nil {
				t.Fatal(err)
			}
			if err := DecodePublish(&p, header.Flags, c.in[n:], c.v); err != nil {
				t.Fatal(err)
			}
		}
		read() // SubIDs may grow once
		for what, f := range map[string]func(){
			"ParseHeader and DecodePublish": read,
			"AppendPublish":                 func() { dst = AppendPublish(dst[:0], &p, c.v) },
			"PublishSize":                   func() { n = PublishSize(&p, c.v) },
			"AppendForwardProps":            func() { dst = AppendForwardProps(dst[:0], &p) },
			"AppendPuback":                  func() { dst = AppendPuback(dst[:0], PUBACK, 7, QuotaExceeded, c.v) },
		} {
			if got := testing.AllocsPerRun(200, f); got != 0 {
				t.Errorf("%s: %s allocates %v times", name, what, got)
			}
		}
	}
	ack := unhex(t, "00 07 10")
	var a Ack
	if got := testing.AllocsPerRun(200, func() {
		if err := DecodeAck(&a, PUBACK, ack, V5); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("DecodeAck allocates %v times", got)
	}
}

// Garbage is refused without allocating, but for the errors that name a
// property.
func TestRefusingHardlyAllocates(t *testing.T) {
	for _, r := range rules {
		body := unhex(t, r.body)
		h := Header{Type: Type(r.first >> 4), Flags: r.first & 15, Remaining: len(body)}
		if h.Type == 0 {
			continue
		}
		p := newPacket(h.Type)
		var before, after runtime.MemStats
		_ = decodeInto(p, h, body, r.v) // slices grow here
		const runs = 100
		runtime.ReadMemStats(&before)
		for range runs {
			_ = decodeInto(p, h, body, r.v)
		}
		runtime.ReadMemStats(&after)
		if got := (after.TotalAlloc - before.TotalAlloc) / runs; got > 256 {
			t.Errorf("%s %s: %d bytes for each refusal", r.statement, r.what, got)
		}
	}
}

// The worst that a peer can do: a packet full of the smallest elements that
// make us allocate, and packets that declare much and bring little. The limits
// are what slices that double need on 64 bits, plus what the race detector adds;
// plain append exceeds them.
func TestAllocationIsBoundedByInput(t *testing.T) {
	const size = 1 << 20
	filters := append([]byte{0, 1}, bytes.Repeat([]byte{0, 1, 'a', 0}, size/4)...)
	unfilters := append([]byte{0, 1}, bytes.Repeat([]byte{0, 1, 'a'}, size/3)...)
	users := bytes.Repeat([]byte{0x26, 0, 0, 0, 0}, size/5)
	subIDs := bytes.Repeat([]byte{0x0B, 1}, size/2)
	for _, c := range []struct {
		name  string
		h     Header
		body  []byte
		v     Version
		times int
	}{
		{"filters", Header{Type: SUBSCRIBE}, filters, V311, 30},
		{"unsubscribe filters", Header{Type: UNSUBSCRIBE}, unfilters, V311, 35},
		{"user properties", Header{Type: PUBACK}, append(appendVarint([]byte{0, 1, 0}, len(users)), users...), V5, 40},
		{"user properties of PUBLISH", Header{Type: PUBLISH}, append(appendVarint([]byte{0, 1, 't'}, len(users)), users...), V5, 0},
		{"subscription identifiers", Header{Type: PUBLISH}, append(appendVarint([]byte{0, 1, 't'}, len(subIDs)), subIDs...), V5, 9},
		{"a long string announced", Header{Type: SUBSCRIBE}, []byte{0, 1, 0xFF, 0xFF}, V311, 24},
		{"long properties announced", Header{Type: PUBACK}, []byte{0, 1, 0, 0xFF, 0xFF, 0xFF, 0x7F}, V5, 24},
	} {
		p := newPacket(c.h.Type)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_ = decodeInto(p, c.h, c.body, c.v)
		runtime.ReadMemStats(&after)
		got := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d bytes of input allocate %d", c.name, len(c.body), got)
		if limit := uint64(c.times*len(c.body) + 1024); got > limit {
			t.Errorf("%s: %d bytes of input allocate %d, more than %d", c.name, len(c.body), got, limit)
		}
		// The next, small packet does not keep the memory.
		small := unhex(t, "00 01 00")
		_ = decodeInto(p, c.h, small, c.v)
		if kept := sliceBytes(p); kept > scratchMax*64 {
			t.Errorf("%s: %d bytes kept for the next packet", c.name, kept)
		}
	}
}

func BenchmarkParseHeader(b *testing.B) {
	in := []byte{0x32, 0xA2, 0x01, 0}
	for b.Loop() {
		if _, _, err := ParseHeader(in, 4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodePublish(b *testing.B) {
	for name, c := range publishCases(b) {
		b.Run(name, func(b *testing.B) {
			h, n, _ := ParseHeader(c.in, 0)
			var p Publish
			b.ReportAllocs()
			for b.Loop() {
				if err := DecodePublish(&p, h.Flags, c.in[n:], c.v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendPublish(b *testing.B) {
	for name, c := range publishCases(b) {
		b.Run(name, func(b *testing.B) {
			h, n, _ := ParseHeader(c.in, 0)
			var p Publish
			if err := DecodePublish(&p, h.Flags, c.in[n:], c.v); err != nil {
				b.Fatal(err)
			}
			dst := make([]byte, 0, 1024)
			b.ReportAllocs()
			for b.Loop() {
				dst = AppendPublish(dst[:0], &p, c.v)
			}
		})
	}
}

func BenchmarkAck(b *testing.B) {
	in := []byte{0, 7}
	b.Run("Decode", func(b *testing.B) {
		var a Ack
		for b.Loop() {
			if err := DecodeAck(&a, PUBACK, in, V5); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("AppendPuback", func(b *testing.B) {
		dst := make([]byte, 0, 16)
		for b.Loop() {
			dst = AppendPuback(dst[:0], PUBACK, 7, Success, V5)
		}
	})
}

func BenchmarkDecodeConnect(b *testing.B) {
	for _, g := range golden {
		if g.name != "connect all properties 5" && g.name != "connect full 3.1.1" {
			continue
		}
		b.Run(g.v.String(), func(b *testing.B) {
			in := unhex(b, g.hex)
			var c Connect
			b.ReportAllocs()
			for b.Loop() {
				if err := DecodeConnect(&c, in[2:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNewMessage(b *testing.B) {
	c := publishCases(b)["V5props"]
	p, err := decode(c.in, c.v)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		sinkMessage = NewMessage(p.(*Publish))
	}
}
