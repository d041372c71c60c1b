package front

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
	"time"
)

func TestRevocation(t *testing.T) {
	s := newSite(t)
	middle := issueCA(t, "middle", s.ca)
	below := issue(t, "below", middle, nil, nil)
	twin := issueCA(t, "test CA", nil) // the same name, another key
	twins := issue(t, "twins", twin, nil, func(c *x509.Certificate) { c.SerialNumber = s.client.cert.SerialNumber })
	root, rootRevokes := s.ca.crl(t, nil), s.ca.crl(t, nil, s.client)
	all := append(append(s.ca.certPEM(), middle.certPEM()...), twin.certPEM()...)
	expired := func(l *x509.RevocationList) { l.NextUpdate = today.Add(-time.Second) }
	older := func(l *x509.RevocationList) { l.ThisUpdate = today.Add(-2 * day) }
	tests := []struct {
		name string
		crl  []byte
		cert tls.Certificate
		want error
	}{
		{"PEM", crlPEM(root), s.client.tls(), nil},
		{"DER", root, s.client.tls(), nil},
		{"revoked, PEM", crlPEM(rootRevokes), s.client.tls(), errRevoked},
		{"revoked, DER", rootRevokes, s.client.tls(), errRevoked},
		{"older list first", crlPEM(s.ca.crl(t, older), rootRevokes), s.client.tls(), errRevoked},
		{"older list last", crlPEM(rootRevokes, s.ca.crl(t, older)), s.client.tls(), errRevoked},
		{"expired", s.ca.crl(t, expired), s.client.tls(), errCRLExpired},
		{"revoked and expired", s.ca.crl(t, expired, s.client), s.client.tls(), errRevoked},
		{"no list of this CA", crlPEM(middle.crl(t, nil)), s.client.tls(), errNoList},
		{"of two CAs", crlPEM(root, middle.crl(t, nil)), below.tls(middle), nil},
		{"by the second CA", crlPEM(root, middle.crl(t, nil, below)), below.tls(middle), errRevoked},
		{"the second CA itself", crlPEM(s.ca.crl(t, nil, middle), middle.crl(t, nil)), below.tls(middle), errRevoked},
		{"serial of a namesake's", crlPEM(rootRevokes, twin.crl(t, nil)), twins.tls(), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s.askClients(t, CertificateOptional)
			s.file(t, "clients.crt", all)
			s.opt.CRLFile = s.file(t, "crl", test.crl)
			server := s.tls(t)
			if _, err, _ := connect(t, server.Config(), s.clientConfig(test.cert)); err != test.want {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if _, err, _ := connect(t, server.Config(), s.clientConfig()); err != nil {
				t.Errorf("without a certificate: %v", err)
			}
		})
	}
}

// A list that could let in somebody who is revoked is not taken at all.
func TestRevocationErrors(t *testing.T) {
	s := newSite(t)
	s.askClients(t, CertificateRequire)
	twin, stranger := issueCA(t, "test CA", nil), issueCA(t, "stranger", nil)
	scope := func(value string) func(l *x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: oidScope, Critical: true, Value: []byte(value)}}
		}
	}
	tests := []struct {
		name, want string
		crl        []byte
	}{
		{"nothing", "neither PEM", nil},
		{"garbage", "neither PEM", []byte("garbage")},
		{"a certificate", "neither PEM", s.ca.certPEM()},
		{"cut", "neither PEM", s.ca.crl(t, nil)[:100]},
		{"forged", "not signed by the client CA", twin.crl(t, nil)},
		{"of a stranger", "not among the client CAs", stranger.crl(t, nil)},
		{"second is bad", "list 2", crlPEM(s.ca.crl(t, nil), stranger.crl(t, nil))},
		{"delta", "delta CRL", s.ca.crl(t, func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: oidDeltaCRL, Critical: true, Value: []byte{2, 1, 1}}}
		})},
		{"unknown", "critical extension 1.2.3", s.ca.crl(t, func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		})},
		{"only CAs", "only some", s.ca.crl(t, scope("\x30\x03\x82\x01\xff"))},
		{"some reasons", "only some", s.ca.crl(t, scope("\x30\x04\x83\x02\x06\x40"))},
		{"indirect", "only some", s.ca.crl(t, scope("\x30\x03\x84\x01\xff"))},
		{"malformed", "malformed", s.ca.crl(t, scope("\x30\x05\x82\x01\xff"))},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s.opt.CRLFile = s.file(t, "crl", test.crl)
			if _, err := NewTLS(s.opt); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v", err)
			}
		})
	}
	s.opt.CRLFile = s.file(t, "crl", s.ca.crl(t, scope("\x30\x03\x81\x01\xff"))) // only users: all that we need
	s.tls(t)
}
