package front

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// DESIGN. All that a handshake uses is one immutable snapshot of the files
// (snapshot.go); Reload swaps it when the new one is sound as a whole. The
// tls.Config that is handed out never changes: for each handshake it fetches the
// configuration of the snapshot, so connections that are under way keep theirs.
//
// Session tickets spare small machines the signature and the certificates when all devices come back at
// once. Their keys live in a tls.Config of their own (crypto/tls renews them daily)
// which goes from one snapshot to the next, unless the client CAs or the CRL have
// changed: then all tickets are void, and every client shows its certificate again. Keys are never
// written to disk: a restart voids tickets, too. Besides,
// crypto/tls checks a resumed session's certificate against its dates and today's CAs, and calls
// VerifyConnection, which looks it up in today's CRL.
//
// Clock: a gateway without a battery boots in 1970, and without an uplink it stays
// there. Then it must not lock out every device with "not yet valid". So the clock
// used here never shows a time before one that signed or trusted evidence has shown to
// be past: the NotBefore of our certificate and of the client CAs, the CRL's
// ThisUpdate, and ClockMin. As long as the system's clock is behind those, certificates
// and the CRL's expiry are checked as of the latest of them. So a CRL that was in force when the machine
// lost its power stays in force until the clock is set; its entries always count.
// A client certificate that was issued later than all
// of this is refused until the clock is set; give a ClockMin that was kept on disk to avoid it.

// What a server asks of its clients (TLSOptions.ClientCertificate).
const (
	CertificateNone     = "none"
	CertificateOptional = "optional"
	CertificateRequire  = "require"
)

// TLSOptions configure a listener's TLS.
type TLSOptions struct {
	// CertFile is the server's certificate, then its intermediates; KeyFile its
	// private key. Both PEM, and may be the same file.
	CertFile, KeyFile string

	// ClientCAFile holds the certificates (PEM) that client certificates must lead to. An
	// intermediate CA in it is trusted without its root.
	ClientCAFile string

	// CRLFile holds revocation lists of the client CAs, PEM (several) or DER (one). With
	// it, a client certificate is refused if it is on the list, and
	// also if there is no list of the CA that issued it, or if that has expired, as OpenSSL does. Of
	// intermediate CAs, the list is looked at if there is one.
	CRLFile string

	// ClientCertificate is CertificateNone, the default; CertificateOptional: a certificate that is
	// shown must be good; or CertificateRequire.
	ClientCertificate string

	// MinVersion is tls.VersionTLS12, the default, or tls.VersionTLS13.
	MinVersion uint16

	// ALPN lists the protocols to agree on with clients that offer any, by preference. A client that
	// offers none of them is refused (RFC 7301 3.2); one that offers nothing is
	// welcome. Default: "mqtt" and "x-amzn-mqtt-ca", which clients made for AWS IoT insist
	// on and which is MQTT all the same; with WebSocket "http/1.1", as browsers offer.
	ALPN []string

	// WebSocket says that the listener speaks it. It matters to ALPN's default only.
	WebSocket bool

	// Tickets lets clients resume sessions.
	Tickets bool

	// ClockMin is a time that is known to be past, whatever the system's clock says: when the
	// broker last wrote to its store, say. Zero: unknown.
	ClockMin time.Time

	// Now is the wall clock. nil: time.Now.
	Now func() time.Time
}

func (o TLSOptions) withDefaults() TLSOptions {
	if o.ClientCertificate == "" {
		o.ClientCertificate = CertificateNone
	}
	if o.MinVersion == 0 {
		o.MinVersion = tls.VersionTLS12
	}
	if o.ALPN == nil {
		o.ALPN = []string{"mqtt", "x-amzn-mqtt-ca"}
		if o.WebSocket {
			o.ALPN = []string{"http/1.1"}
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// validate lists what is wrong with the options themselves.
func (o TLSOptions) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.CertFile == "" {
		wrong("TLS: no certificate file is given")
	}
	if o.KeyFile == "" {
		wrong("TLS: no key file is given")
	}
	switch o.ClientCertificate {
	case CertificateNone:
		if o.CRLFile != "" {
			wrong("TLS: the revocation list %s has no effect while clients are asked for no certificate; "+
				"set their certificates to %q or %q", o.CRLFile, CertificateOptional, CertificateRequire)
		}
	case CertificateOptional, CertificateRequire:
		if o.ClientCAFile == "" {
			wrong("TLS: client certificates are %q but there is no file with the CAs that issue them", o.ClientCertificate)
		}
	default:
		wrong("TLS: client certificates %q, want %q, %q or %q", o.ClientCertificate,
			CertificateNone, CertificateOptional, CertificateRequire)
	}
	if o.MinVersion != tls.VersionTLS12 && o.MinVersion != tls.VersionTLS13 {
		wrong("TLS: minimum version %s, want TLS 1.2 or TLS 1.3", tls.VersionName(o.MinVersion))
	}
	return errors.Join(errs...)
}

// TLS is the server's side of a listener's TLS. Its methods may be called from any goroutine.
type TLS struct {
	opt     TLSOptions
	config  *tls.Config
	reload  sync.Mutex
	current atomic.Pointer[snapshot]
}

// NewTLS reads the files. Its error lists all problems.
func NewTLS(o TLSOptions) (*TLS, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	s, err := load(o)
	if err != nil {
		return nil, err
	}
	t := &TLS{opt: o}
	t.config = &tls.Config{
		MinVersion:             o.MinVersion,
		SessionTicketsDisabled: true, // the snapshot's configuration has them
		GetConfigForClient:     func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.current.Load().config, nil },
	}
	t.use(s)
	return t, nil
}

// Config returns the configuration for wire.NewTLS, always the same. It is not to be changed.
func (t *TLS) Config() *tls.Config { return t.config }

// Reload reads the files again and uses what has changed, all or nothing, for the handshakes to come. If
// something is wrong with them, all stays as it was and the error lists it.
func (t *TLS) Reload() (changed bool, err error) {
	t.reload.Lock()
	defer t.reload.Unlock()
	s, err := load(t.opt)
	if err != nil {
		return false, err
	}
	old := t.current.Load()
	s.clockMin = later(s.clockMin, old.clockMin)
	if s.own == old.own && s.trust == old.trust {
		old.loose.Store(s.loose.Load()) // the key file's mode counts as no change, its warning does
		return false, nil
	}
	if s.trust == old.trust {
		s.tickets = old.tickets
	}
	t.use(s)
	return true, nil
}

// use makes s the current snapshot.
func (t *TLS) use(s *snapshot) {
	s.configure(t.opt)
	t.current.Store(s)
}

// Files lists the files that were given: those to be watched.
func (t *TLS) Files() []string {
	var files []string
	for _, f := range []string{t.opt.CertFile, t.opt.KeyFile, t.opt.ClientCAFile, t.opt.CRLFile} {
		if f != "" && (f != t.opt.KeyFile || f != t.opt.CertFile || len(files) == 0) {
			files = append(files, f)
		}
	}
	return files
}

// Leaf returns the server's certificate in use. It is not to be changed.
func (t *TLS) Leaf() *x509.Certificate { return t.current.Load().certificate.Leaf }

// Warnings lists what an operator should look at, as of now: an expired certificate is here, since only the
// clients can tell whether they mind, and since the clock may be what is wrong.
func (t *TLS) Warnings() []string { return t.current.Load().warnings(t.opt) }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
