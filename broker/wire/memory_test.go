package wire

import (
	"crypto/tls"
	"fmt"
	"runtime"
	"testing"
	"unsafe"
)

// idleBytesMax is what a TLS connection without a client certificate may hold.
const idleBytesMax = 12 << 10

func TestIdleBytes(t *testing.T) {
	if n := unsafe.Sizeof(WebSocket{}); n > 200 {
		t.Errorf("a WebSocket has %d bytes", n)
	}
	t.Logf("structs: WebSocket %d, TLS %d", unsafe.Sizeof(WebSocket{}), unsafe.Sizeof(TLS{}))
	a := newAuthority(t)
	const n = 60
	for _, certified := range []bool{false, true} {
		for _, v := range versions {
			for _, record := range []int{150, 4096, 16384} {
				server, client := a.configs(t, v)
				if certified {
					server.ClientAuth = tls.RequireAndVerifyClientCert
				}
				layers := make([]*TLS, n)
				before := heap()
				for i := range layers {
					if certified {
						client.Certificates = []tls.Certificate{a.issue(t, fmt.Sprintf("device-%d", i))}
					}
					layers[i] = exercise(t, server, client, record)
				}
				client.Certificates = nil
				each := (heap() - before) / n
				t.Logf("%s, client certificate %v, after records of %d: %d bytes per idle connection",
					tls.VersionName(v), certified, record, each)
				if !certified && record <= 150 && each > idleBytesMax {
					t.Errorf("%d bytes", each)
				}
				runtime.KeepAlive(layers)
			}
		}
	}
}

func heap() int64 {
	for range 3 { // certificates leave crypto/tls's cache by clean-ups
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// exercise gives a connection that is idle after some records each way.
func exercise(t *testing.T, server, client *tls.Config, record int) *TLS {
	p := newPair(t, server, client)
	for range 5 {
		if record == 0 {
			break
		}
		wire := p.write(pattern(record))
		if record > 4096 { // a small record's limit is lifted after many
			for range 20 {
				wire = append(wire, p.write(pattern(record))...)
			}
		}
		if _, err := p.layer.In(nil, wire); err != nil {
			t.Fatal(err)
		}
		if _, err := p.layer.Out(nil, pattern(record)); err != nil {
			t.Fatal(err)
		}
	}
	return p.layer
}
