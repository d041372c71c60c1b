package wire

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipe is one direction of a connection in memory, without a bound.
type pipe struct {
	mu     sync.Mutex
	cond   *sync.Cond
	buf    []byte
	closed bool
}

func newPipe() *pipe {
	p := &pipe{}
	p.cond = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) take() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.buf
	p.buf = nil
	return b
}

func (p *pipe) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cond.Broadcast()
}

// end is one end of a connection. With impatient, a Read that finds nothing says so.
type end struct {
	in, out   *pipe
	impatient bool
}

func newEnds() (*end, *end) {
	a, b := newPipe(), newPipe()
	return &end{in: a, out: b}, &end{in: b, out: a}
}

func (e *end) Read(b []byte) (int, error) {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	for len(e.in.buf) == 0 {
		if e.in.closed {
			return 0, io.EOF
		}
		if e.impatient {
			return 0, errNoBytes
		}
		e.in.cond.Wait()
	}
	n := copy(b, e.in.buf)
	e.in.buf = e.in.buf[n:]
	return n, nil
}

func (e *end) Write(b []byte) (int, error) {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	if e.out.closed {
		return 0, io.ErrClosedPipe
	}
	e.out.buf = append(e.out.buf, b...)
	e.out.cond.Broadcast()
	return len(b), nil
}

func (e *end) Close() error                     { e.in.close(); e.out.close(); return nil }
func (e *end) LocalAddr() net.Addr              { return nowhere{} }
func (e *end) RemoteAddr() net.Addr             { return nowhere{} }
func (e *end) SetDeadline(time.Time) error      { return nil }
func (e *end) SetReadDeadline(time.Time) error  { return nil }
func (e *end) SetWriteDeadline(time.Time) error { return nil }

// authority issues the certificates of the tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, pool: x509.NewCertPool()}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(t testing.TB, name string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		DNSNames: []string{name}, NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// configs are a server's and a client's, for one version.
func (a *authority) configs(t testing.TB, version uint16) (server, client *tls.Config) {
	server = &tls.Config{Certificates: []tls.Certificate{a.issue(t, "broker")}, MinVersion: version, MaxVersion: version, ClientCAs: a.pool}
	client = &tls.Config{RootCAs: a.pool, ServerName: "broker", MinVersion: version, MaxVersion: version}
	return server, client
}

// pair is a TLS connection after its handshake: a client of crypto/tls, and the
// layer. Bytes go between them only by hand.
type pair struct {
	t      testing.TB
	client *tls.Conn
	near   *end // the client's
	far    *end
	layer  *TLS
}

func newPair(t testing.TB, server, client *tls.Config) *pair {
	t.Helper()
	p := &pair{t: t}
	p.near, p.far = newEnds()
	p.client = tls.Client(p.near, client)
	done := make(chan error, 1)
	go func() { done <- p.client.Handshake() }()
	p.layer = NewTLS(p.far, nil, server)
	if err := p.layer.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	p.layer.Detach()
	p.near.impatient = true
	return p
}

// sent gives what the client has put on the wire.
func (p *pair) sent() []byte { return p.far.in.take() }

func (p *pair) write(b []byte) []byte {
	if _, err := p.client.Write(b); err != nil {
		p.t.Fatal(err)
	}
	return p.sent()
}

// receive gives the client bytes from the wire, and what it reads of them.
func (p *pair) receive(wire []byte) ([]byte, error) {
	_, _ = p.far.Write(wire)
	var got []byte
	b := make([]byte, 4096)
	for {
		n, err := p.client.Read(b)
		got = append(got, b[:n]...)
		if err == errNoBytes {
			return got, nil
		}
		if err != nil {
			return got, err
		}
	}
}

// chunked feeds b to a layer in pieces that next decides on, each in memory of its own.
func chunked(l Layer, b []byte, next func() int) (got []byte, err error) {
	for len(b) > 0 && err == nil {
		n := min(max(next(), 1), len(b))
		var out []byte
		out, err = l.In(nil, bytes.Clone(b[:n]))
		got = append(got, out...)
		b = b[n:]
	}
	return got, err
}
