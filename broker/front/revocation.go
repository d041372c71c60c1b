package front

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// DESIGN. A revocation list says which certificates of its CA are void before their
// time. Lists are checked and turned into a set when they are read, so a handshake
// costs one look-up. Only complete lists of the CA itself are
// taken: a list that leaves something out would let in who should stay out.

// revocation is the content of a CRL file. It is immutable.
type revocation struct {
	lists  map[issuer]*list
	issued time.Time // the newest ThisUpdate
}

// issuer tells CAs apart, those of one name by their keys.
type issuer struct{ name, key string }

func issuerOf(ca *x509.Certificate) issuer {
	return issuer{string(ca.RawSubject), string(ca.RawSubjectPublicKeyInfo)}
}

type list struct {
	name    string
	serials map[string]struct{} // big-endian
	issued  time.Time
	expires time.Time // zero: never
}

var (
	errRevoked    = errors.New("client certificate: it was revoked by its CA")
	errNoList     = errors.New("client certificate: there is no revocation list of its CA")
	errCRLExpired = errors.New("client certificate: the revocation list of its CA has expired")
)

// parseRevocation reads the lists of a file. Each must be signed by one of cas.
func parseRevocation(path string, b []byte, cas []*x509.Certificate) (*revocation, error) {
	var ders [][]byte
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "X509 CRL" {
			ders = append(ders, block.Bytes)
		}
	}
	if len(ders) == 0 {
		der := b[:len(b)-1] // without the line feed of readFile
		if _, err := x509.ParseRevocationList(der); err != nil {
			return nil, fmt.Errorf("%s: no revocation list is in it, neither PEM (BEGIN X509 CRL) nor DER: %w", path, err)
		}
		ders = [][]byte{der}
	}
	r := &revocation{lists: map[issuer]*list{}}
	for i, der := range ders {
		if err := r.add(der, cas); err != nil {
			return nil, fmt.Errorf("%s: revocation list %d: %w", path, i+1, err)
		}
	}
	return r, nil
}

// add takes a list, the newest of each CA.
func (r *revocation) add(der []byte, cas []*x509.Certificate) error {
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	if err := complete(crl); err != nil {
		return err
	}
	signed := false
	for _, ca := range cas {
		if !bytes.Equal(ca.RawSubject, crl.RawIssuer) {
			continue
		}
		if err = crl.CheckSignatureFrom(ca); err != nil {
			continue
		}
		signed = true
		if old := r.lists[issuerOf(ca)]; old != nil && !crl.ThisUpdate.After(old.issued) {
			continue
		}
		l := &list{crl.Issuer.String(), make(map[string]struct{}, len(crl.RevokedCertificateEntries)), crl.ThisUpdate, crl.NextUpdate}
		for _, e := range crl.RevokedCertificateEntries {
			l.serials[string(e.SerialNumber.Bytes())] = struct{}{}
		}
		r.lists[issuerOf(ca)] = l
		if crl.ThisUpdate.After(r.issued) {
			r.issued = crl.ThisUpdate
		}
	}
	switch {
	case signed:
		return nil
	case err != nil:
		return fmt.Errorf("it is not signed by the client CA %s: %w", crl.Issuer, err)
	}
	return fmt.Errorf("its issuer %s is not among the client CAs; add the CA's certificate to their file", crl.Issuer)
}

var (
	oidDeltaCRL = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidScope    = asn1.ObjectIdentifier{2, 5, 29, 28} // issuing distribution point
)

// scopeOnlyUsers is the one restriction of an issuing distribution point that can be taken (RFC 5280 5.2.5): the
// list holds no CA certificates. Tag 0 is the list's address. All others leave out clients or speak for other CAs.
const scopeOnlyUsers = 1

// complete refuses lists that do not hold all revoked clients of their CA, and those with extensions that must be
// understood and are not (RFC 5280 5.2).
func complete(crl *x509.RevocationList) error {
	for _, e := range crl.Extensions {
		switch {
		case e.Id.Equal(oidDeltaCRL):
			return errors.New("it holds changes only (a delta CRL); give the complete one")
		case e.Id.Equal(oidScope):
			var fields []asn1.RawValue
			if rest, err := asn1.Unmarshal(e.Value, &fields); err != nil || len(rest) > 0 {
				return errors.New("its issuing distribution point is malformed")
			}
			for _, f := range fields {
				if f.Tag > scopeOnlyUsers {
					return errors.New("it holds only some of its CA's certificates, or those of other CAs; give the complete one")
				}
			}
		case e.Critical:
			return fmt.Errorf("it has the critical extension %s, which is not known here", e.Id)
		}
	}
	return nil
}

// check decides on a client by its verified chains (leaf first, trust anchor last); no chain: no certificate. One chain
// without fault is enough, but not if a CA on another one has revoked it.
func (r *revocation) check(chains [][]*x509.Certificate, now time.Time) error {
	var refused error
	good := len(chains) == 0
	for _, chain := range chains {
		switch err := r.checkChain(chain, now); err {
		case nil:
			good = true
		case errRevoked:
			return err
		default:
			refused = err
		}
	}
	if good {
		return nil
	}
	return refused
}

// checkChain looks up all certificates but the trust anchor, which no list speaks of.
func (r *revocation) checkChain(chain []*x509.Certificate, now time.Time) error {
	for i, c := range chain[:max(1, len(chain)-1)] {
		l := r.lists[issuerOf(chain[min(i+1, len(chain)-1)])]
		switch {
		case l == nil && i == 0:
			return errNoList
		case l == nil:
		case l.has(c):
			return errRevoked
		case l.expired(now):
			return errCRLExpired
		}
	}
	return nil
}

func (l *list) has(c *x509.Certificate) bool {
	_, revoked := l.serials[string(c.SerialNumber.Bytes())]
	return revoked
}

func (l *list) expired(now time.Time) bool { return !l.expires.IsZero() && now.After(l.expires) }

// expired lists the CAs whose list has expired.
func (r *revocation) expired(now time.Time) []string {
	var names []string
	for _, l := range r.lists {
		if l.expired(now) {
			names = append(names, l.name)
		}
	}
	return names
}
