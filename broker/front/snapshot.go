package front

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// DESIGN. A snapshot is what one reading of a TLS's files gave. It is immutable once it is in
// use, but for what says otherwise.

// fileBytesMax bounds a file that is read: the CRL of a large CA has some megabytes.
const fileBytesMax = 16 << 20

// expirySoon is how long before its expiry a certificate is warned of: with the usual
// renewal at a third of its life left, it should have been renewed by then.
const expirySoon = 7 * 24 * time.Hour

type snapshot struct {
	certificate tls.Certificate
	clientCAs   []*x509.Certificate
	pool        *x509.CertPool
	revoked     *revocation // nil: no CRL file
	clockMin    time.Time   // the clock that is used shows at least this
	own, trust  [sha256.Size]byte
	loose       atomic.Bool // the key file may be read by everybody; set by Reload
	tickets     *tls.Config // holder of the session ticket keys; outlives the snapshot
	config      *tls.Config
}

// load reads the files.
func load(o TLSOptions) (*snapshot, error) {
	s := new(snapshot)
	var errs []error
	read := func(path, what string) []byte {
		if path == "" {
			return nil
		}
		b, err := readFile(path, what)
		if err != nil {
			errs = append(errs, err)
		}
		return b
	}
	cert, key := read(o.CertFile, "certificate"), read(o.KeyFile, "private key")
	cas, crl := read(o.ClientCAFile, "client CAs"), read(o.CRLFile, "revocation list")
	if cert != nil && key != nil {
		var err error
		if s.certificate, err = keyPair(o, cert, key); err != nil {
			errs = append(errs, err)
		} else {
			s.clockMin = s.certificate.Leaf.NotBefore
		}
	}
	if cas != nil {
		if err := s.setClientCAs(o.ClientCAFile, cas); err != nil {
			errs = append(errs, err)
		}
	}
	if crl != nil && s.pool != nil {
		var err error
		if s.revoked, err = parseRevocation(o.CRLFile, crl, s.clientCAs); err != nil {
			errs = append(errs, err)
		} else {
			s.clockMin = later(s.clockMin, s.revoked.issued)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s.clockMin = later(s.clockMin, o.ClockMin)
	s.own, s.trust = digest(cert, key), digest(cas, crl)
	if info, err := os.Stat(o.KeyFile); err == nil {
		s.loose.Store(info.Mode().Perm()&0o007 != 0)
	}
	return s, nil
}

func readFile(path, what string) ([]byte, error) {
	f, err := os.Open(path)
	var b []byte
	if err == nil {
		defer f.Close()
		b, err = io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s (%s): the file does not exist; correct the path or put it there", path, what)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%s (%s): the broker may not read the file; give its user access, also to the directories above", path, what)
	case err != nil:
		return nil, fmt.Errorf("%s (%s): %w", path, what, err)
	case len(b) > fileBytesMax:
		return nil, fmt.Errorf("%s (%s): larger than %d MiB; is it the right file?", path, what, fileBytesMax>>20)
	}
	return append(b, '\n'), nil // never nil
}

// keyPair makes a certificate, or says what is wrong with it.
func keyPair(o TLSOptions, cert, key []byte) (tls.Certificate, error) {
	var errs []error
	certs, err := certificates(o.CertFile, cert)
	if err != nil {
		errs = append(errs, err)
	}
	if err := checkKey(o.KeyFile, key); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return tls.Certificate{}, errors.Join(errs...)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err == nil {
		return pair, nil
	}
	// X509KeyPair has no typed errors. With a key of its own kind that is whole, what is
	// left to be wrong is the match.
	return tls.Certificate{}, fmt.Errorf("%s and %s: %w; the first certificate in the file must be the server's (%s), "+
		"and the key the one it was issued for", o.CertFile, o.KeyFile, err, certs[0].Subject)
}

// certificates parses all certificates of a PEM file, at least one.
func certificates(path string, b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: no certificate in PEM form (BEGIN CERTIFICATE) is in it; "+
			"convert DER with: openssl x509 -inform der", path)
	}
	return certs, nil
}

// checkKey finds a private key that can be used without a pass phrase.
func checkKey(path string, b []byte) error {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return fmt.Errorf("%s: the key needs a pass phrase, and nobody is there to enter it; "+
				"remove it with: openssl pkey -in FILE -out NEW, and protect the file by its mode", path)
		case bytes.HasSuffix([]byte(block.Type), []byte("PRIVATE KEY")):
			return nil
		}
	}
	return fmt.Errorf("%s: no private key in PEM form (BEGIN PRIVATE KEY) is in it; "+
		"convert DER with: openssl pkey -inform der", path)
}

func (s *snapshot) setClientCAs(path string, b []byte) error {
	certs, err := certificates(path, b)
	if err != nil {
		return err
	}
	for _, c := range certs {
		if c.BasicConstraintsValid && !c.IsCA {
			return fmt.Errorf("%s: %s is not a CA's certificate; put those of the CAs into the file, not the clients'", path, c.Subject)
		}
		s.clockMin = later(s.clockMin, c.NotBefore)
	}
	s.clientCAs, s.pool = certs, x509.NewCertPool()
	for _, c := range certs {
		s.pool.AddCert(c)
	}
	return nil
}

// configure builds the configuration, with new ticket keys unless there are some.
func (s *snapshot) configure(o TLSOptions) {
	now := func() time.Time { return later(o.Now(), s.clockMin) }
	if s.tickets == nil {
		s.tickets = new(tls.Config)
	}
	s.config = &tls.Config{
		Time:                   now,
		Certificates:           []tls.Certificate{s.certificate},
		MinVersion:             o.MinVersion,
		CipherSuites:           cipherSuites,
		NextProtos:             o.ALPN,
		ClientCAs:              s.pool,
		ClientAuth:             clientAuth[o.ClientCertificate],
		SessionTicketsDisabled: !o.Tickets,
		WrapSession:            s.tickets.EncryptTicket,
		UnwrapSession:          s.tickets.DecryptTicket,
	}
	if s.revoked != nil {
		s.config.VerifyConnection = func(cs tls.ConnectionState) error {
			return s.revoked.check(cs.VerifiedChains, now())
		}
	}
}

var clientAuth = map[string]tls.ClientAuthType{
	CertificateNone:     tls.NoClientCert,
	CertificateOptional: tls.VerifyClientCertIfGiven,
	CertificateRequire:  tls.RequireAndVerifyClientCert,
}

// cipherSuites are those of TLS 1.2 with forward secrecy and authenticated encryption. TLS 1.3 has no others.
var cipherSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// warnings are not errors: see TLS.Warnings.
func (s *snapshot) warnings(o TLSOptions) []string {
	var ws []string
	warn := func(format string, args ...any) { ws = append(ws, fmt.Sprintf(format, args...)) }
	now, leaf := o.Now(), s.certificate.Leaf
	day := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case now.Before(leaf.NotBefore):
		warn("%s: the certificate is valid from %s on, and the clock says %s; is the clock set?", o.CertFile, day(leaf.NotBefore), day(now))
	case now.After(leaf.NotAfter):
		warn("%s: the certificate expired on %s; clients will refuse it, renew it", o.CertFile, day(leaf.NotAfter))
	case now.Add(expirySoon).After(leaf.NotAfter) && leaf.NotAfter.Sub(leaf.NotBefore) > 3*expirySoon:
		warn("%s: the certificate expires on %s; renew it", o.CertFile, day(leaf.NotAfter))
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs) == 0 {
		warn("%s: the certificate has no subject alternative name; many clients look at nothing else", o.CertFile)
	}
	if s.loose.Load() {
		warn("%s: every user of this machine can read the private key; remove that with: chmod o= FILE", o.KeyFile)
	}
	for _, c := range s.clientCAs {
		if now.After(c.NotAfter) {
			warn("%s: the CA %s expired on %s; certificates issued by it are refused", o.ClientCAFile, c.Subject, day(c.NotAfter))
		}
	}
	if s.pool != nil && o.ClientCertificate == CertificateNone {
		warn("%s: the client CAs have no effect while clients are asked for no certificate", o.ClientCAFile)
	}
	if s.revoked != nil {
		for _, name := range s.revoked.expired(later(now, s.clockMin)) {
			warn("%s: the revocation list of %s has expired; its clients are refused until there is a newer one", o.CRLFile, name)
		}
	}
	return ws
}

func digest(parts ...[]byte) (d [sha256.Size]byte) {
	h := sha256.New()
	for _, p := range parts {
		sum := sha256.Sum256(p)
		h.Write(sum[:])
	}
	h.Sum(d[:0])
	return d
}
