package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"
)

// authority signs certificates.
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
