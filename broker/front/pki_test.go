package front

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/platform"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 90 * time.Second

// today is the time that most tests take for the present.
var today = time.Now().Truncate(time.Second)

const day = 24 * time.Hour

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

var serials atomic.Int64

// entity is a certificate with its key, and can issue others.
type entity struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue makes a certificate, signed by itself if by is nil. edit may be nil.
func issue(t testing.TB, name string, by *entity, key crypto.Signer, edit func(*x509.Certificate)) *entity {
	t.Helper()
	if key == nil {
		var err error
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    today.Add(-30 * day),
		NotAfter:     today.Add(60 * day),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		DNSNames:     []string{name},
	}
	if edit != nil {
		edit(template)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &entity{cert, key}
}

func issueCA(t testing.TB, name string, by *entity) *entity {
	return issue(t, name, by, nil, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.DNSNames = true, true, nil
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		c.NotBefore = today.Add(-300 * day)
	})
}

func rsaKey(t testing.TB) crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	return key
}

func (e *entity) certPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.cert.Raw})
}

func (e *entity) keyPEM(t testing.TB) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(e.key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// tls is e as crypto/tls wants it, with intermediates.
func (e *entity) tls(chain ...*entity) tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{e.cert.Raw}, PrivateKey: e.key}
	for _, i := range chain {
		c.Certificate = append(c.Certificate, i.cert.Raw)
	}
	return c
}

// crl is e's revocation list in DER.
func (e *entity) crl(t testing.TB, edit func(*x509.RevocationList), revoked ...*entity) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(serials.Add(1)), ThisUpdate: today.Add(-day), NextUpdate: today.Add(day)}
	for _, r := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: r.cert.SerialNumber, RevocationTime: today.Add(-day)})
	}
	if edit != nil {
		edit(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, e.cert, e.key)
	must(t, err)
	return der
}

func crlPEM(ders ...[]byte) []byte {
	var b []byte
	for _, der := range ders {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	}
	return b
}

// site is a broker's files, and a CA for everything.
type site struct {
	ca, server, client *entity
	dir                string
	opt                TLSOptions
}

func newSite(t testing.TB) *site {
	s := &site{ca: issueCA(t, "test CA", nil), dir: t.TempDir()}
	s.server = issue(t, "broker.test", s.ca, nil, nil)
	s.client = issue(t, "sensor", s.ca, nil, func(c *x509.Certificate) { c.NotBefore = today.Add(-10 * day) })
	s.opt = TLSOptions{Tickets: true, Now: func() time.Time { return today },
		CertFile: s.file(t, "server.crt", s.server.certPEM()), KeyFile: s.file(t, "server.key", s.server.keyPEM(t))}
	return s
}

// askClients makes the broker want certificates.
func (s *site) askClients(t testing.TB, how string) {
	s.opt.ClientCertificate = how
	s.opt.ClientCAFile = s.file(t, "clients.crt", s.ca.certPEM())
}

func (s *site) file(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	must(t, os.WriteFile(path, b, 0o600))
	return path
}

func (s *site) tls(t testing.TB) *TLS {
	t.Helper()
	server, err := NewTLS(s.opt)
	must(t, err)
	return server
}

// clientConfig is what a client of the site uses, with s.client's certificate if certs is set.
func (s *site) clientConfig(certs ...tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(s.ca.cert)
	return &tls.Config{RootCAs: roots, ServerName: "broker.test", Certificates: certs, Time: func() time.Time { return today },
		ClientSessionCache: tls.NewLRUClientSessionCache(4)}
}

// connPair returns two connected sockets. They have buffers, which both sides of TLS 1.3 may fill at the same time.
func connPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fd, b, err := platform.Socketpair()
	must(t, err)
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	a, err = net.FileConn(f)
	must(t, err)
	return a, b
}

// connect does a handshake and exchanges a byte, which brings the session ticket of TLS 1.3.
func connect(t testing.TB, server, client *tls.Config) (s tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	a, b := connPair(t)
	end := time.Now().Add(patience)
	must(t, a.SetDeadline(end))
	must(t, b.SetDeadline(end))
	served := make(chan struct{})
	go func() {
		defer close(served)
		defer a.Close()
		conn := tls.Server(a, server)
		if serverErr = conn.Handshake(); serverErr == nil {
			s = conn.ConnectionState()
			_, serverErr = conn.Write([]byte{'x'})
		}
	}()
	conn := tls.Client(b, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1))
	}
	b.Close()
	<-served
	return s, serverErr, clientErr
}
