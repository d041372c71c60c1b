package wire

import (
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"testing"
)

// FuzzWebSocket: never panics, holds and gives no more than came, and how the bytes
// are cut changes nothing.
func FuzzWebSocket(f *testing.F) {
	for _, c := range frameTable {
		f.Add(true, c.in, uint64(1))
	}
	for _, c := range upgradeTable {
		f.Add(false, []byte(c.request), uint64(2))
	}
	o := &WebSocketOptions{Path: "/mqtt", Origins: []string{"*.example.com", "x:1"}, FrameBytesMax: 1 << 30}
	f.Fuzz(func(t *testing.T, upgraded bool, b []byte, seed uint64) {
		run := func(next func() int) (*WebSocket, []byte, error) {
			w := NewWebSocket(o)
			if upgraded {
				w = open(t, o)
			}
			got, err := chunked(w, b, next)
			if len(got) > len(b) || len(w.kept) > len(b) || len(w.say) > len(b)+1000 {
				t.Fatalf("%d bytes give %d, keep %d, say %d", len(b), len(got), len(w.kept), len(w.say))
			}
			return w, got, err
		}
		w1, got1, err1 := run(func() int { return len(b) })
		r := rand.New(rand.NewPCG(seed, 0))
		w2, got2, err2 := run(func() int { return 1 + r.IntN(20) })
		if !bytes.Equal(got1, got2) || (err1 == nil) != (err2 == nil) || err1 != nil && err1.Error() != err2.Error() {
			t.Fatalf("whole: %q, %v; cut: %q, %v", got1, err1, got2, err2)
		}
		if a, b := w1.Close(nil), w2.Close(nil); !bytes.Equal(a, b) {
			t.Fatalf("farewell %q, %q", a, b)
		}
	})
}

// FuzzTLSRecords: what is not the peer's is never taken for data, and ends the
// connection with bounded words.
func FuzzTLSRecords(f *testing.F) {
	f.Add(true, []byte("\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), 3)
	f.Add(false, []byte("\x16\x03\x03\x00\x04\x01\x00\x00\x00"), 1)
	f.Add(true, []byte("\x14\x03\x03\x00\x01\x01\x14\x03\x03\x00\x01\x01"), 5)
	f.Add(false, []byte("\x15\x03\x03\x00\x02\x01\x00"), 2)
	a := newAuthority(f)
	server12, client12 := a.configs(f, tls.VersionTLS12)
	server13, client13 := a.configs(f, tls.VersionTLS13)
	f.Fuzz(func(t *testing.T, new bool, b []byte, size int) {
		server, client := server12, client12
		if new {
			server, client = server13, client13
		}
		p := newPair(t, server, client)
		good := p.write([]byte("good"))
		got, err := p.layer.In(nil, good)
		if string(got) != "good" || err != nil {
			t.Fatalf("%q %v", got, err)
		}
		size = 1 + int(uint(size)%64)
		if got, err = chunked(p.layer, b, func() int { return size }); len(got) > 0 || err == io.EOF {
			t.Fatalf("%q %v", got, err)
		}
		if out := p.layer.Close(nil); len(out) > 200 {
			t.Fatalf("%d bytes of farewell", len(out))
		}
	})
}
