package auth

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// CertificateUser is the user that a client's certificate names. from is
// "common_name" (mosquitto's use_identity_as_username): the first common name
// of the subject; or "subject" (use_subject_as_username): the whole subject as
// RFC 2253 writes it, "CN=dev,OU=line 4,O=Plant". "" if there is none, or if
// it contains a zero byte, which other programs would read as its end.
func CertificateUser(cert *x509.Certificate, from string) string {
	name := ""
	switch from {
	case "common_name":
		for _, a := range cert.Subject.Names {
			if a.Type.Equal(oidCommonName) {
				name, _ = a.Value.(string)
				break
			}
		}
	case "subject":
		var rdns pkix.RDNSequence
		if _, err := asn1.Unmarshal(cert.RawSubject, &rdns); err != nil {
			return ""
		}
		name = distinguished(rdns)
	default:
		panic(fmt.Sprintf("BUG: user of a certificate from %q", from))
	}
	if strings.IndexByte(name, 0) >= 0 {
		return ""
	}
	return name
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// attributeNames are the short names that OpenSSL writes for what is found in
// subjects; others are written as dotted numbers.
var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST",
	"2.5.4.9": "street", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "title", "2.5.4.17": "postalCode",
	"2.5.4.41": "name", "2.5.4.42": "GN", "2.5.4.43": "initials", "2.5.4.46": "dnQualifier",
	"0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC", "1.2.840.113549.1.9.1": "emailAddress",
}

// distinguished writes a name as RFC 2253 does: the last part first.
func distinguished(rdns pkix.RDNSequence) string {
	var b strings.Builder
	for i := len(rdns) - 1; i >= 0; i-- {
		for j, a := range rdns[i] {
			switch {
			case j > 0:
				b.WriteByte('+')
			case i < len(rdns)-1:
				b.WriteByte(',')
			}
			name, known := attributeNames[a.Type.String()]
			value, isText := a.Value.(string)
			if !known {
				name = a.Type.String()
			}
			b.WriteString(name + "=")
			if known && isText {
				escapeValue(&b, value)
			} else if der, err := asn1.Marshal(a.Value); err == nil {
				fmt.Fprintf(&b, "#%X", der)
			}
		}
	}
	return b.String()
}

// escapeValue writes a value as RFC 2253 section 2.4 wants it, and bytes that
// are not visible ASCII in hexadecimal, as OpenSSL does.
func escapeValue(b *strings.Builder, s string) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case strings.IndexByte(`,+"\<>;`, c) >= 0, c == '#' && i == 0, c == ' ' && (i == 0 || i == len(s)-1):
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == 0:
			b.WriteByte(0) // CertificateUser refuses it
		case c < ' ' || c > '~':
			fmt.Fprintf(b, `\%02X`, c)
		default:
			b.WriteByte(c)
		}
	}
}

// Revocations are certificate revocation lists (RFC 5280 section 5), checked
// and indexed once, for use at every TLS handshake. They are immutable.
type Revocations struct {
	issuers map[string]*revoked // by the issuer's raw name
}

type revoked struct {
	name    string // of the file
	expires time.Time
	serials map[string]bool // big-endian bytes
}

// NewRevocations reads revocation lists, in PEM or DER, several in a file if
// in PEM, and checks their signatures with the certificates that may have
// issued them. If an issuer has several lists, the newest counts. All problems
// are returned at once.
func NewRevocations(files []*File, issuers []*x509.Certificate) (*Revocations, error) {
	var p problems
	r := &Revocations{issuers: map[string]*revoked{}}
	newest := map[string]time.Time{}
	for _, f := range files {
		for _, der := range derOf(f) {
			list, err := x509.ParseRevocationList(der)
			if err == nil {
				err = checkList(list, issuers)
			}
			if err != nil {
				p.add(f.Name, 0, "revocation list: %w", err)
				continue
			}
			key := string(list.RawIssuer)
			if at, there := newest[key]; there && at.After(list.ThisUpdate) {
				continue
			}
			newest[key] = list.ThisUpdate
			v := &revoked{name: f.Name, expires: list.NextUpdate, serials: make(map[string]bool, len(list.RevokedCertificateEntries))}
			for _, e := range list.RevokedCertificateEntries {
				v.serials[string(e.SerialNumber.Bytes())] = true
			}
			r.issuers[key] = v
		}
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return r, nil
}

// derOf are the lists of a file.
func derOf(f *File) (ders [][]byte) {
	for rest := f.Data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "X509 CRL" {
			ders = append(ders, block.Bytes)
		}
	}
	if ders == nil {
		ders = append(ders, f.Data)
	}
	return ders
}

func checkList(list *x509.RevocationList, issuers []*x509.Certificate) error {
	for _, x := range list.Extensions {
		if x.Critical { // delta lists, lists for a part of the certificates
			return fmt.Errorf("it has the critical extension %v, which is unknown here", x.Id)
		}
	}
	err := errors.New("none of the certificates given is its issuer")
	for _, issuer := range issuers {
		if bytes.Equal(issuer.RawSubject, list.RawIssuer) {
			if err = list.CheckSignatureFrom(issuer); err == nil {
				return nil
			}
		}
	}
	return err
}

// Check tells why the client whose chain this is (its own certificate first,
// as tls.ConnectionState.VerifiedChains has it) must not come in. The issuer
// of the client's certificate must have a list; the issuers above may have
// one. A list that has expired admits nobody: a certificate revoked since
// then would not be on it. now is the wall clock. A nil Revocations revokes
// nothing.
func (r *Revocations) Check(chain []*x509.Certificate, now time.Time) error {
	if r == nil {
		return nil
	}
	if len(chain) == 0 {
		return refuse("the client has no certificate")
	}
	for i, cert := range chain {
		list := r.issuers[string(cert.RawIssuer)]
		switch {
		case list == nil && i == 0:
			return refuse("there is no revocation list of the issuer of the client's certificate, " + cert.Issuer.String())
		case list == nil || i > 0 && i == len(chain)-1: // the root vouches for itself
		case !list.expires.IsZero() && now.After(list.expires):
			return refuse(fmt.Sprintf("the revocation list %s has expired on %s: nobody is let in until there is a new one", list.name, list.expires.UTC().Format(time.DateTime)))
		case list.serials[string(cert.SerialNumber.Bytes())]:
			return refuse(fmt.Sprintf("the certificate %X of %s is revoked", cert.SerialNumber, cert.Subject.String()))
		}
	}
	return nil
}
