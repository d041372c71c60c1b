package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

func eachVersion(t *testing.T, f func(t *testing.T, server, client *tls.Config)) {
	a := newAuthority(t)
	for _, v := range versions {
		t.Run(strings.ReplaceAll(tls.VersionName(v), " ", ""), func(t *testing.T) {
			server, client := a.configs(t, v)
			f(t, server, client)
		})
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

// Guards the way crypto/tls treats errNoBytes: were it remembered, the second
// byte would fail.
func TestTLSByteByByte(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		p := newPair(t, server, client)
		want := pattern(3000)
		got, err := chunked(p.layer, p.write(want), func() int { return 1 })
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, %v", len(got), err)
		}
	})
}

func TestTLSBigTransfers(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		p := newPair(t, server, client)
		r := rand.New(rand.NewPCG(1, 2))
		want := pattern(1 << 20)
		got, err := chunked(p.layer, p.write(want), func() int { return r.IntN(40000) })
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("in: got %d bytes, %v", len(got), err)
		}
		wire, err := p.layer.Out([]byte("before"), want)
		if err != nil || !bytes.HasPrefix(wire, []byte("before")) {
			t.Fatal(err)
		}
		if got, err = p.receive(wire[len("before"):]); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("out: got %d bytes, %v", len(got), err)
		}
		if p.layer.Pending() || p.layer.socket.out != nil || p.layer.socket.held != nil {
			t.Fatal("keeps a buffer when idle")
		}
	})
}

// What the client sends right behind its handshake is not lost.
func TestTLSDataBehindHandshake(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		near, far := newEnds()
		done := make(chan error, 1)
		go func() {
			c := tls.Client(near, client)
			_, err := c.Write([]byte("CONNECT"))
			done <- err
		}()
		// The hello came with the bytes by which the listener knew TLS.
		prefix := make([]byte, 100)
		n, _ := io.ReadFull(far, prefix)
		l := NewTLS(far, prefix[:n], server)
		clear(prefix)
		if err := errors.Join(l.Handshake(context.Background()), <-done); err != nil {
			t.Fatal(err)
		}
		l.Detach()
		if got, err := l.In(nil, nil); len(got) != 0 || err != nil {
			t.Fatalf("%q %v", got, err)
		}
		if got, err := l.In(nil, far.in.take()); string(got) != "CONNECT" || err != nil {
			t.Fatalf("%q %v", got, err)
		}
	})
}

// Bytes that lie in the prefix behind the handshake come with an empty In.
func TestTLSHeldBytes(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		p := newPair(t, server, client)
		p.layer.socket.held = p.write([]byte("held "))
		src := p.write([]byte("src"))
		a, err := p.layer.In(nil, nil)
		b, err2 := p.layer.In(a, src)
		if string(a) != "held " || string(b) != "held src" || err != nil || err2 != nil {
			t.Fatalf("%q %q %v %v", a, b, err, err2)
		}
	})
}

func TestTLSCloseNotify(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		p := newPair(t, server, client)
		wire := p.write([]byte("DISCONNECT"))
		if err := p.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := p.layer.In(nil, append(wire, p.sent()...))
		if string(got) != "DISCONNECT" || err != io.EOF {
			t.Fatalf("%q %v", got, err)
		}
		if got, err = p.layer.In(nil, []byte("more")); len(got) != 0 || err != io.EOF {
			t.Fatalf("%q %v", got, err)
		}
		if _, err = p.receive(p.layer.Close(nil)); err != io.EOF {
			t.Fatalf("the client sees %v", err)
		}

		p = newPair(t, server, client)
		wire, _ = p.layer.Out(nil, []byte("last"))
		if got, err = p.receive(p.layer.Close(wire)); string(got) != "last" || err != io.EOF {
			t.Fatalf("the client sees %q, %v", got, err)
		}
	})
}

func TestTLSCorruptRecord(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		p := newPair(t, server, client)
		good := p.write([]byte("good"))
		bad := p.write([]byte("bad"))
		bad[len(bad)-1] ^= 1
		got, err := p.layer.In(nil, append(good, bad...))
		if string(got) != "good" || err == nil || err == io.EOF {
			t.Fatalf("%q %v", got, err)
		}
		if !p.layer.Pending() {
			t.Fatal("no alert")
		}
		if _, err = p.receive(p.layer.Close(nil)); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
			t.Fatalf("the client sees %v", err)
		}
		if _, err = p.layer.Out(nil, []byte("x")); err == nil {
			t.Fatal("Out after a failure")
		}
	})
}

func TestTLSGarbage(t *testing.T) {
	eachVersion(t, func(t *testing.T, server, client *tls.Config) {
		for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "\x17\x03\x03\xff\xff", "\x17\x03\x01\x00\x10", "\x16\x03\x03\x00\x00"} {
			p := newPair(t, server, client)
			_, err := p.layer.In(nil, []byte(garbage))
			if err == nil || len(p.layer.Close(nil)) == 0 {
				t.Errorf("%q: %v, no alert", garbage, err)
			}
		}
	})
}

func TestTLSClientCertificateAndResumption(t *testing.T) {
	a := newAuthority(t)
	for _, v := range versions {
		server, client := a.configs(t, v)
		server.ClientAuth = tls.RequireAndVerifyClientCert
		client.Certificates = []tls.Certificate{a.issue(t, "device-7")}
		client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		for i, resumed := range []bool{false, true} {
			p := newPair(t, server, client)
			s := p.layer.ConnectionState()
			if s.DidResume != resumed || s.PeerCertificates[0].Subject.CommonName != "device-7" || s.Version != v {
				t.Fatalf("%x connection %d: resumed %v", v, i, s.DidResume)
			}
			wire, _ := p.layer.Out(nil, []byte("hi")) // a client of 1.3 takes the tickets now
			if got, err := p.receive(wire); string(got) != "hi" || err != nil {
				t.Fatalf("%q %v", got, err)
			}
			if got, err := p.layer.In(nil, p.write([]byte("ho"))); string(got) != "ho" || err != nil {
				t.Fatalf("%q %v", got, err)
			}
		}
	}
}

func TestTLSHandshakeFailures(t *testing.T) {
	server, client := newAuthority(t).configs(t, tls.VersionTLS13)

	near, far := newEnds()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewTLS(far, nil, server).Handshake(ctx) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if _, err := near.Read(make([]byte, 1)); err != io.EOF { // blocks for ever if it stays open
		t.Fatalf("socket after the context's end: %v", err)
	}

	server.ClientAuth = tls.RequireAndVerifyClientCert
	near, far = newEnds()
	go func() {
		c := tls.Client(near, client)
		_ = c.Handshake()
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	l := NewTLS(far, nil, server)
	if err := l.Handshake(context.Background()); err == nil {
		t.Fatal("handshake without the certificate that is required")
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Fatalf("the client sees %v", err)
	}
	mustPanic(t, "without a good handshake", l.Detach)
	mustPanic(t, "before Detach", func() { _, _ = l.In(nil, nil) })
	mustPanic(t, "before Detach", func() { _, _ = l.Out(nil, nil) })
	mustPanic(t, "before Detach", func() { l.Close(nil) })
}

func mustPanic(t *testing.T, text string, f func()) {
	t.Helper()
	defer func() {
		if s := fmt.Sprint(recover()); !strings.Contains(s, text) {
			t.Errorf("panic %q, not of %q", s, text)
		}
	}()
	f()
}
