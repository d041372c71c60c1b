package front

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestProtocols(t *testing.T) {
	tests := []struct {
		name      string
		webSocket bool
		offered   []string
		want      string
		refused   bool
	}{
		{"nothing", false, nil, "", false},
		{"mqtt", false, []string{"mqtt"}, "mqtt", false},
		{"AWS IoT", false, []string{"x-amzn-mqtt-ca"}, "x-amzn-mqtt-ca", false},
		{"browser at MQTT", false, []string{"h2", "http/1.1"}, "", true},
		{"browser", true, []string{"h2", "http/1.1"}, "http/1.1", false},
		{"WebSocket without", true, nil, "", false},
		{"HTTP/2 only", true, []string{"h2"}, "", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t)
			s.opt.WebSocket = test.webSocket
			c := s.clientConfig()
			c.NextProtos = test.offered
			state, serverErr, clientErr := connect(t, s.tls(t).Config(), c)
			if refused := serverErr != nil && clientErr != nil; refused != test.refused || state.NegotiatedProtocol != test.want {
				t.Fatalf("got %q, %v, %v", state.NegotiatedProtocol, serverErr, clientErr)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	tests := []struct {
		min, offered uint16
		good         bool
	}{
		{0, tls.VersionTLS11, false},
		{0, tls.VersionTLS12, true},
		{0, tls.VersionTLS13, true},
		{tls.VersionTLS13, tls.VersionTLS12, false},
		{tls.VersionTLS13, tls.VersionTLS13, true},
	}
	for _, test := range tests {
		s := newSite(t)
		s.opt.MinVersion = test.min
		c := s.clientConfig()
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, test.offered
		state, serverErr, clientErr := connect(t, s.tls(t).Config(), c)
		if good := serverErr == nil && clientErr == nil && state.Version == test.offered; good != test.good {
			t.Errorf("minimum %x, offered %x: %x, %v, %v", test.min, test.offered, state.Version, serverErr, clientErr)
		}
	}
}

// Of TLS 1.2, only suites with forward secrecy and authenticated encryption are left.
func TestSuites(t *testing.T) {
	s := newSite(t)
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if !slices.Contains(suite.SupportedVersions, tls.VersionTLS12) || strings.Contains(suite.Name, "_RSA_") {
			continue // the site's key is ECDSA
		}
		c := s.clientConfig()
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{suite.ID}
		_, err, _ := connect(t, s.tls(t).Config(), c)
		want := strings.HasPrefix(suite.Name, "TLS_ECDHE_") && (strings.Contains(suite.Name, "GCM") || strings.Contains(suite.Name, "POLY1305"))
		if good := err == nil; good != want {
			t.Errorf("%s: %v", suite.Name, err)
		}
	}
}

func TestClientCertificates(t *testing.T) {
	s := newSite(t)
	stranger := issue(t, "stranger", issueCA(t, "test CA", nil), nil, nil)
	old := issue(t, "old", s.ca, nil, func(c *x509.Certificate) { c.NotAfter = today.Add(-time.Hour) })
	middle := issueCA(t, "middle", s.ca)
	below := issue(t, "below", middle, nil, nil)
	tests := []struct {
		how    string
		shown  string
		certs  []tls.Certificate
		good   bool
		seenBy string
	}{
		{CertificateNone, "none", nil, true, ""},
		{CertificateNone, "good", []tls.Certificate{s.client.tls()}, true, ""},
		{CertificateOptional, "none", nil, true, ""},
		{CertificateOptional, "good", []tls.Certificate{s.client.tls()}, true, "sensor"},
		{CertificateOptional, "of a stranger", []tls.Certificate{stranger.tls()}, false, ""},
		{CertificateRequire, "none", nil, false, ""},
		{CertificateRequire, "good", []tls.Certificate{s.client.tls()}, true, "sensor"},
		{CertificateRequire, "with intermediate", []tls.Certificate{below.tls(middle)}, true, "below"},
		{CertificateRequire, "without intermediate", []tls.Certificate{below.tls()}, false, ""},
		{CertificateRequire, "of a stranger", []tls.Certificate{stranger.tls()}, false, ""},
		{CertificateRequire, "expired", []tls.Certificate{old.tls()}, false, ""},
	}
	for _, test := range tests {
		t.Run(test.how+" "+test.shown, func(t *testing.T) {
			s.askClients(t, test.how)
			c := s.clientConfig()
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if test.certs == nil {
					return new(tls.Certificate), nil
				}
				return &test.certs[0], nil
			}
			state, err, _ := connect(t, s.tls(t).Config(), c)
			seen := ""
			if len(state.VerifiedChains) > 0 {
				seen = state.PeerCertificates[0].Subject.CommonName
			}
			if (err == nil) != test.good || seen != test.seenBy {
				t.Fatalf("%v, seen %q", err, seen)
			}
		})
	}
}

// A clock in 1970 locks out nobody whose certificate is no newer than what is known of the time.
func TestClockNotSet(t *testing.T) {
	s := newSite(t)
	s.askClients(t, CertificateRequire)
	s.opt.Now = func() time.Time { return time.Unix(100, 0) }
	known := issue(t, "known", s.ca, nil, nil)                      // as old as the server's
	gone := issue(t, "gone", s.ca, nil, func(c *x509.Certificate) { // not yet, as the server's certificate knows
		c.NotBefore, c.NotAfter = today.Add(-200*day), today.Add(-100*day)
	})
	try := func(e *entity) error {
		_, err, _ := connect(t, s.tls(t).Config(), s.clientConfig(e.tls()))
		return err
	}
	if err := try(known); err != nil {
		t.Errorf("a certificate of the server's age: %v", err)
	}
	if try(gone) == nil {
		t.Error("a certificate that expired before the server's was issued is let in")
	}
	if try(s.client) == nil {
		t.Error("a newer certificate is let in: good, but not what is documented")
	}
	s.opt.ClockMin = today.Add(-day)
	if err := try(s.client); err != nil {
		t.Errorf("a newer certificate, with ClockMin: %v", err)
	}
	s.opt.ClockMin = time.Time{}
	s.opt.CRLFile = s.file(t, "crl", s.ca.crl(t, func(l *x509.RevocationList) { l.NextUpdate = today.Add(-time.Hour) }, known))
	if err := try(s.client); err != nil { // the list shows that yesterday is past
		t.Errorf("a newer certificate, with a list that is newer still: %v", err)
	}
	if try(known) == nil {
		t.Error("a revoked certificate is let in while the clock is not set")
	}
	s.opt.ClockMin = today
	if try(s.client) == nil {
		t.Error("the list is known to have expired, and all the same somebody is let in")
	}
	s.opt.ClockMin, s.opt.Now = time.Time{}, func() time.Time { return today }
	if try(s.client) == nil {
		t.Error("the list has expired by a clock that is set, and all the same somebody is let in")
	}
}

func TestReload(t *testing.T) {
	s := newSite(t)
	server := s.tls(t)
	config := server.Config()
	seen := func() string {
		c := s.clientConfig()
		name := ""
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			name = cs.PeerCertificates[0].SerialNumber.String()
			return nil
		}
		if _, serverErr, clientErr := connect(t, config, c); serverErr != nil || clientErr != nil {
			t.Fatal(serverErr, clientErr)
		}
		return name
	}
	reload := func(changed, good bool) {
		t.Helper()
		if got, err := server.Reload(); got != changed || (err == nil) != good {
			t.Fatalf("Reload: %v, %v", got, err)
		}
	}
	reload(false, true)
	first := s.server.cert.SerialNumber.String()
	if seen() != first {
		t.Fatal("another certificate")
	}
	next := issue(t, "broker.test", s.ca, nil, nil)
	s.file(t, "server.crt", next.certPEM())
	reload(false, false) // the key is missing yet
	if seen() != first || server.Leaf().SerialNumber.String() != first {
		t.Fatal("half a change was used")
	}
	s.file(t, "server.key", next.keyPEM(t))
	reload(true, true)
	if seen() != next.cert.SerialNumber.String() || !server.Leaf().Equal(next.cert) || server.Config() != config {
		t.Fatal("the change was not used")
	}
	must(t, os.Remove(s.opt.KeyFile))
	reload(false, false)
	if seen() != next.cert.SerialNumber.String() {
		t.Fatal("the certificate was lost with its file")
	}
}

// Tickets outlive a new certificate, but neither new client CAs nor a new CRL; and a revoked client is refused.
func TestTickets(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			s := newSite(t)
			s.askClients(t, CertificateRequire)
			s.opt.CRLFile = s.file(t, "crl", crlPEM(s.ca.crl(t, nil)))
			server := s.tls(t)
			c := s.clientConfig(s.client.tls())
			c.MaxVersion = version
			expect := func(what string, resumed bool) {
				t.Helper()
				state, serverErr, clientErr := connect(t, server.Config(), c)
				if serverErr != nil || clientErr != nil || state.DidResume != resumed || len(state.VerifiedChains) == 0 {
					t.Fatalf("%s: %v, %v, resumed %v", what, serverErr, clientErr, state.DidResume)
				}
			}
			reload := func() {
				t.Helper()
				if changed, err := server.Reload(); !changed || err != nil {
					t.Fatalf("Reload: %v, %v", changed, err)
				}
			}
			expect("first", false)
			expect("second", true)
			next := issue(t, "broker.test", s.ca, nil, nil)
			s.file(t, "server.crt", next.certPEM())
			s.file(t, "server.key", next.keyPEM(t))
			reload()
			expect("with a new server certificate", true)
			s.file(t, "clients.crt", append(s.ca.certPEM(), issueCA(t, "other", nil).certPEM()...))
			reload()
			expect("with a new client CA", false)
			expect("and again", true)
			s.file(t, "crl", crlPEM(s.ca.crl(t, nil, issue(t, "x", s.ca, nil, nil))))
			reload()
			expect("with a new CRL", false)
			expect("and again", true)
			s.file(t, "crl", crlPEM(s.ca.crl(t, nil, s.client)))
			reload()
			if _, err, _ := connect(t, server.Config(), c); err != errRevoked {
				t.Fatalf("revoked, it gets %v", err)
			}
		})
	}
}

// Even with a ticket that can be read, a revoked client is refused.
func TestTicketOfRevoked(t *testing.T) {
	s := newSite(t)
	s.askClients(t, CertificateRequire)
	s.opt.CRLFile = s.file(t, "crl", crlPEM(s.ca.crl(t, nil)))
	server := s.tls(t)
	c := s.clientConfig(s.client.tls())
	if _, err, _ := connect(t, server.Config(), c); err != nil {
		t.Fatal(err)
	}
	tickets := server.current.Load().tickets
	s.file(t, "crl", crlPEM(s.ca.crl(t, nil, s.client)))
	changed, err := server.Reload()
	if !changed || err != nil {
		t.Fatal(changed, err)
	}
	now := server.current.Load()
	now.tickets = tickets
	now.configure(server.opt)
	if _, err, _ := connect(t, server.Config(), c); err != errRevoked {
		t.Fatalf("revoked, it gets %v", err)
	}
}

func TestTicketsOff(t *testing.T) {
	s := newSite(t)
	s.opt.Tickets = false
	server, c := s.tls(t), s.clientConfig()
	for range 2 {
		if state, err, _ := connect(t, server.Config(), c); err != nil || state.DidResume {
			t.Fatal(err, state.DidResume)
		}
	}
}

// Errors name the file and what to do, and all of them come at once.
func TestTLSErrors(t *testing.T) {
	s := newSite(t)
	other := issue(t, "other", s.ca, nil, nil)
	broken := s.file(t, "broken", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	tests := []struct {
		name string
		edit func(o *TLSOptions)
		want []string
	}{
		{"nothing", func(o *TLSOptions) { *o = TLSOptions{} }, []string{"no certificate file", "no key file"}},
		{"missing files", func(o *TLSOptions) {
			o.CertFile, o.KeyFile, o.ClientCAFile, o.ClientCertificate = "/no/cert", "/no/key", "/no/ca", CertificateRequire
		}, []string{"/no/cert (certificate): the file does not exist", "/no/key (private key)", "/no/ca (client CAs)", "correct the path"}},
		{"other key", func(o *TLSOptions) { o.KeyFile = s.file(t, "other.key", other.keyPEM(t)) },
			[]string{"server.crt and ", "other.key", "broker.test", "issued for"}},
		{"swapped", func(o *TLSOptions) { o.CertFile, o.KeyFile = o.KeyFile, o.CertFile },
			[]string{"server.key: no certificate", "server.crt: no private key", "openssl"}},
		{"broken", func(o *TLSOptions) { o.CertFile = broken }, []string{"broken: certificate 1"}},
		{"encrypted key", func(o *TLSOptions) {
			o.KeyFile = s.file(t, "enc.key", []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"))
		}, []string{"enc.key", "pass phrase", "openssl pkey"}},
		{"directory", func(o *TLSOptions) { o.CertFile = s.dir }, []string{s.dir + " (certificate)"}},
		{"large", func(o *TLSOptions) {
			o.CertFile = s.file(t, "large", nil)
			must(t, os.Truncate(o.CertFile, fileBytesMax+1))
		}, []string{"large (certificate): larger than 16 MiB"}},
		{"no CA given", func(o *TLSOptions) { o.ClientCertificate = CertificateRequire }, []string{"CAs that issue them"}},
		{"clients as CAs", func(o *TLSOptions) {
			leaf := issue(t, "leaf", s.ca, nil, func(c *x509.Certificate) { c.BasicConstraintsValid = true })
			o.ClientCertificate, o.ClientCAFile = CertificateRequire, s.file(t, "leaf.crt", leaf.certPEM())
		}, []string{"leaf.crt", "not a CA"}},
		{"CRL for nothing", func(o *TLSOptions) { o.CRLFile = broken }, []string{"broken has no effect"}},
		{"words", func(o *TLSOptions) { o.ClientCertificate, o.MinVersion = "yes", tls.VersionTLS10 }, []string{`"yes"`, "TLS 1.0"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := s.opt
			test.edit(&o)
			_, err := NewTLS(o)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	s := newSite(t)
	server := s.tls(t)
	expect := func(wants ...string) {
		t.Helper()
		got := server.Warnings()
		if len(got) != len(wants) {
			t.Fatalf("warnings %q, want %q", got, wants)
		}
		for i, want := range wants {
			if !strings.Contains(got[i], want) {
				t.Errorf("warning %q, want %q", got[i], want)
			}
		}
	}
	expect()
	for at, want := range map[time.Time]string{
		time.Unix(100, 0):        "is the clock set?",
		today.Add(61 * day):      "expired on",
		today.Add(60*day - 1e10): "expires on",
	} {
		server.opt.Now = func() time.Time { return at }
		expect(want)
	}
	server.opt.Now = s.opt.Now
	must(t, os.Chmod(s.opt.KeyFile, 0o644))
	if changed, err := server.Reload(); changed || err != nil {
		t.Fatal(changed, err)
	}
	expect("chmod o=")
	must(t, os.Chmod(s.opt.KeyFile, 0o640))
	s.askClients(t, CertificateNone)
	s.file(t, "server.crt", issue(t, "", s.ca, s.server.key, func(c *x509.Certificate) { c.DNSNames = nil }).certPEM())
	server = s.tls(t)
	expect("subject alternative name", "no effect")
	s.file(t, "server.crt", s.server.certPEM())
	s.askClients(t, CertificateRequire)
	s.opt.CRLFile = s.file(t, "crl", s.ca.crl(t, func(l *x509.RevocationList) { l.NextUpdate = today.Add(-time.Hour) }))
	server = s.tls(t)
	expect("revocation list of CN=test CA has expired")
	if got, want := server.Files(), []string{"server.crt", "server.key", "clients.crt", "crl"}; len(got) != len(want) {
		t.Errorf("files %q", got)
	} else {
		for i := range want {
			if filepath.Base(got[i]) != want[i] {
				t.Errorf("files %q", got)
			}
		}
	}
}
