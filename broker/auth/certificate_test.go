package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// authority signs certificates and revocation lists.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	a.cert = a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, SerialNumber: big.NewInt(1),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign, SubjectKeyId: []byte{1}})
	return a
}

func (a *authority) issue(template *x509.Certificate) *x509.Certificate {
	template.NotBefore, template.NotAfter = noon.Add(-time.Hour), noon.Add(time.Hour)
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, a.key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func (a *authority) revoke(at time.Time, extra []pkix.Extension, serials ...int64) []byte {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: at, NextUpdate: at.Add(24 * time.Hour), ExtraExtensions: extra}
	for _, n := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: at})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func inPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

func attribute(oid asn1.ObjectIdentifier, value any) pkix.RelativeDistinguishedNameSET {
	return pkix.RelativeDistinguishedNameSET{{Type: oid, Value: value}}
}

func TestUserOfCertificate(t *testing.T) {
	a := newAuthority(t, "ca")
	cn, o := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 10}
	mail, odd := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, asn1.ObjectIdentifier{1, 2, 3, 4}
	for _, x := range []struct {
		subject     pkix.RDNSequence
		common, all string
	}{
		{pkix.RDNSequence{attribute(o, "Plant"), attribute(cn, "dev 1")}, "dev 1", "CN=dev 1,O=Plant"},
		{pkix.RDNSequence{attribute(cn, "first"), attribute(cn, "second")}, "first", "CN=second,CN=first"},
		{pkix.RDNSequence{attribute(o, `a,b+c"d\e<f>;g`)}, "", `O=a\,b\+c\"d\\e\<f\>\;g`},
		{pkix.RDNSequence{attribute(o, " #x ")}, "", `O=\ #x\ `},
		{pkix.RDNSequence{attribute(o, "#x=")}, "", `O=\#x=`},
		{pkix.RDNSequence{attribute(cn, "tür\n")}, "tür\n", `CN=t\C3\BCr\0A`},
		{pkix.RDNSequence{attribute(mail, "a@b"), {{Type: cn, Value: "c"}, {Type: o, Value: "d"}}}, "c", "CN=c+O=d,emailAddress=a@b"},
		{pkix.RDNSequence{attribute(odd, "x"), attribute(cn, "y")}, "y", "CN=y,1.2.3.4=#130178"},
		{pkix.RDNSequence{attribute(cn, "root\x00.evil")}, "", ""},
		{pkix.RDNSequence{}, "", ""},
	} {
		raw, err := asn1.Marshal(x.subject)
		if err != nil {
			t.Fatal(err)
		}
		cert := a.issue(&x509.Certificate{RawSubject: raw, SerialNumber: big.NewInt(2)})
		if got := CertificateUser(cert, "common_name"); got != x.common {
			t.Errorf("common name %q, want %q", got, x.common)
		}
		if got := CertificateUser(cert, "subject"); got != x.all {
			t.Errorf("subject %s, want %s", got, x.all)
		}
	}
}

func TestRevocations(t *testing.T) {
	a, b := newAuthority(t, "a"), newAuthority(t, "b")
	cas := []*x509.Certificate{a.cert, b.cert}
	file := func(name string, data ...[]byte) *File {
		f := &File{Name: name}
		for _, d := range data {
			f.Data = append(f.Data, d...)
		}
		return f
	}
	leaf := func(by *authority, serial int64) []*x509.Certificate {
		return []*x509.Certificate{by.issue(&x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "dev"}}), by.cert}
	}
	at := noon.Add(-time.Hour)
	r, err := NewRevocations([]*File{file("one", inPEM(a.revoke(at, nil, 7, 1000)), inPEM(b.revoke(at, nil))), file("old", a.revoke(at.Add(-time.Hour), nil))}, cas)
	if err != nil {
		t.Fatal(err)
	}
	onlyA, err := NewRevocations([]*File{file("der", a.revoke(at, nil, 7))}, cas)
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		r     *Revocations
		chain []*x509.Certificate
		now   time.Time
		want  string // "": in
	}{
		"not on the list":           {r, leaf(a, 8), noon, ""},
		"on the list":               {r, leaf(a, 7), noon, "revoked"},
		"on the list, more bytes":   {r, leaf(a, 1000), noon, "revoked"},
		"the other's list":          {r, leaf(b, 7), noon, ""},
		"list in DER":               {onlyA, leaf(a, 7), noon, "revoked"},
		"no list of the issuer":     {onlyA, leaf(b, 8), noon, "no revocation list"},
		"the list has expired":      {r, leaf(a, 8), noon.Add(24 * time.Hour), "revocation list one has expired on 2026-06-02"},
		"no certificate":            {r, nil, noon, "no certificate"},
		"nobody asked":              {nil, nil, noon, ""},
		"an authority of the chain": {r, append(leaf(b, 8), a.issue(&x509.Certificate{SerialNumber: big.NewInt(7)}), a.cert), noon, "revoked"},
	} {
		err := x.r.Check(x.chain, x.now)
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
	}
	forged := newAuthority(t, "a")
	_, err = NewRevocations([]*File{
		file("forged", forged.revoke(at, nil)), file("unknown", newAuthority(t, "c").revoke(at, nil)), file("junk", []byte("x")),
		file("delta", a.revoke(at, []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}})),
	}, cas)
	for _, want := range []string{"forged: ", "unknown: revocation list: none of", "junk: ", "delta: revocation list: it has the critical extension 2.5.29.27"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("missing %s in %v", want, err)
		}
	}
}
