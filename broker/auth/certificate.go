package auth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
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
