package wire

import (
	"crypto/tls"
	"testing"
)

func TestWebSocketAllocs(t *testing.T) {
	w := open(t, &WebSocketOptions{})
	const data = "a PUBLISH of some length, in a frame of its own"
	wire := frames(frame(0x82, data), frame(0x82, data))
	src, dst := make([]byte, len(wire)), make([]byte, 0, 4096)
	packet := pattern(150)
	if n := testing.AllocsPerRun(1000, func() {
		copy(src, wire)
		cut := len(src) / 3
		a, err := w.In(nil, src[:cut])
		b, err2 := w.In(nil, src[cut:])
		if len(a)+len(b) != 2*len(data) || err != nil || err2 != nil {
			t.Fatal(len(a), len(b), err, err2)
		}
		if _, err := w.Out(dst, packet); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTLSAllocs(t *testing.T) {
	server, client := newAuthority(t).configs(t, tls.VersionTLS13)
	p := newPair(t, server, client)
	packet, dst := pattern(150), make([]byte, 0, 4096)
	var wires [][]byte
	for range 1100 {
		wires = append(wires, p.write(packet))
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		got, err := p.layer.In(dst, wires[i])
		if len(got) != len(packet) || err != nil {
			t.Fatal(len(got), err)
		}
		if _, err = p.layer.Out(dst, packet); err != nil {
			t.Fatal(err)
		}
		i++
	}); n > 5 { // crypto/tls's own: 3, and more under the race detector, where pools lose things
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkWebSocketIn(b *testing.B) {
	for _, n := range []int{150, 16384} {
		b.Run(size(n), func(b *testing.B) {
			w := open(b, &WebSocketOptions{})
			wire := frame(0x82, string(pattern(n)))
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() { // the mask goes on and off: the content does not matter
				if got, err := w.In(nil, wire); len(got) != n || err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWebSocketOut(b *testing.B) { benchmarkOut(b, open(b, &WebSocketOptions{})) }

func benchmarkOut(b *testing.B, l Layer) {
	for _, n := range []int{150, 16384} {
		b.Run(size(n), func(b *testing.B) {
			src, dst := pattern(n), make([]byte, 0, 2*n+1000)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Out(dst, src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkTLSOut(b *testing.B) {
	server, client := newAuthority(b).configs(b, tls.VersionTLS13)
	benchmarkOut(b, newPair(b, server, client).layer)
}

func BenchmarkStackOut(b *testing.B) {
	server, client := newAuthority(b).configs(b, tls.VersionTLS13)
	_, s := stacked(b, server, client)
	benchmarkOut(b, s)
}

func BenchmarkTLSIn(b *testing.B) {
	server, client := newAuthority(b).configs(b, tls.VersionTLS13)
	for _, n := range []int{150, 16384} {
		b.Run(size(n), func(b *testing.B) {
			p := newPair(b, server, client)
			src, dst := pattern(n), make([]byte, 0, n+1000)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for i := 0; i < b.N; {
				b.StopTimer()
				wires := make([][]byte, min(1000, b.N-i))
				for k := range wires {
					wires[k] = p.write(src)
				}
				b.StartTimer()
				for _, wire := range wires {
					if got, err := p.layer.In(dst, wire); len(got) != n || err != nil {
						b.Fatal(len(got), err)
					}
				}
				i += len(wires)
			}
		})
	}
}

func size(n int) string {
	if n < 1024 {
		return "small"
	}
	return "large"
}
