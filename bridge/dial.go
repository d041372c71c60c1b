package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"sluice/broker/mqtt"
)

// DESIGN. Dialling is a row of steps, each on top of the one before. Who only wants the
// connection gets the error of the first that fails, which says which one it was; Ping
// also sees those that succeed, and what they found (trace).

// step is a part of connecting.
type step string

const (
	stepCredentials step = "credentials"
	stepDNS         step = "DNS"
	stepTCP         step = "TCP"
	stepProxy       step = "proxy"
	stepTLS         step = "TLS"
	stepWebSocket   step = "WebSocket"
	stepMQTT        step = "MQTT"
)

// stepError is what went wrong in a step.
type stepError struct {
	step step
	err  error
}

func (e *stepError) Error() string { return string(e.step) + ": " + e.err.Error() }

func (e *stepError) Unwrap() error { return e.err }

// trace is told of each step that succeeded. nil: nobody wants to know.
type trace func(s step, found string)

func (t trace) tell(s step, format string, args ...any) {
	if t != nil {
		t(s, fmt.Sprintf(format, args...))
	}
}

// dialing is one attempt to connect.
type dialing struct {
	opts    *Options
	at      address
	version mqtt.Version

	// onMessage is called by the library's reader for each message, in order;
	// onLost when the connection is lost, not for close; both from goroutines of
	// the library. moved: see newGuard.
	onMessage func(inMessage)
	onLost    func(error)
	moved     func()

	told trace
}

// dial connects. ctx bounds that only.
func (d *dialing) dial(ctx context.Context) (upstream, Login, error) {
	who, err := d.opts.login(ctx)
	if err != nil {
		return nil, who, &stepError{stepCredentials, err}
	}
	if d.opts.Credentials != nil {
		d.told.tell(stepCredentials, "%s", who.describe())
	}
	conn, raw, err := openUpstream(ctx, d.opts, d.at, d.told)
	if err != nil {
		return nil, who, err
	}
	connect := d.connect3
	if d.version == mqtt.V5 {
		connect = d.connect5
	}
	up, err := connect(ctx, conn, raw, who)
	if err != nil {
		return nil, who, &stepError{stepMQTT, err}
	}
	return up, who, nil
}

// connackError is that the upstream has refused the connection.
type connackError struct {
	version mqtt.Version
	code    byte
	text    string // of the upstream; "": none
}

// connack3 are the return codes of 3.1.1 (MQTT3 3.2.2.3).
var connack3 = [...]string{1: "unacceptable protocol version", 2: "client identifier rejected", 3: "server unavailable", 4: "bad user name or password", 5: "not authorized"}

const connack3Max = byte(len(connack3) - 1)

func (e *connackError) Error() string {
	what := mqtt.Reason(e.code).String()
	if e.version < mqtt.V5 && e.code <= connack3Max {
		what = connack3[e.code]
	}
	if e.text != "" {
		what += fmt.Sprintf(" (%q)", e.text)
	}
	return "the upstream refuses the connection: " + what
}

// openUpstream makes the connection that MQTT is spoken on. raw is the socket below
// conn.
func openUpstream(ctx context.Context, o *Options, at address, told trace) (conn, raw net.Conn, err error) {
	if conn, raw, err = openSocket(ctx, o, at, told); err == nil && at.ws() {
		conn, err = dialWebSocket(ctx, at, conn, told)
	}
	if err != nil {
		return nil, nil, err
	}
	return conn, raw, nil
}

// openSocket dials TCP, by way of a proxy if there is one, and, for addresses with TLS,
// does the handshake.
func openSocket(ctx context.Context, o *Options, at address, told trace) (conn, raw net.Conn, err error) {
	var tc *tls.Config
	if at.tls() {
		if tc, err = tlsConfig(&o.TLS, at.host); err != nil {
			return nil, nil, &stepError{stepTLS, err}
		}
	}
	if o.Proxy != "" {
		raw, err = dialProxy(ctx, o, at, told)
	} else {
		raw, err = dialTCP(ctx, o, at.host, at.port, told)
	}
	if err != nil {
		return nil, nil, err
	}
	if tc == nil {
		return raw, raw, nil
	}
	t := tls.Client(raw, tc)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, nil, &stepError{stepTLS, err}
	}
	told.tell(stepTLS, "%s", describeTLS(t.ConnectionState()))
	return t, raw, nil
}

// dialTCP resolves a name and connects to one of its addresses.
func dialTCP(ctx context.Context, o *Options, host, port string, told trace) (net.Conn, error) {
	if told != nil && net.ParseIP(host) == nil { // the dialler does it again, in its own way
		found, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return nil, &stepError{stepDNS, err}
		}
		told.tell(stepDNS, "%s is %s", host, strings.Join(found, ", "))
	}
	d := o.dialer()
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	var unresolved *net.DNSError
	switch {
	case errors.As(err, &unresolved):
		return nil, &stepError{stepDNS, err}
	case err != nil:
		return nil, &stepError{stepTCP, err}
	}
	if t, ok := conn.(*net.TCPConn); ok {
		// What the kernel has buffered looks sent. Little of it keeps the
		// progress timeout honest on slow links.
		_ = t.SetWriteBuffer(sendBufferBytes)
	}
	told.tell(stepTCP, "%s to %s", conn.LocalAddr(), conn.RemoteAddr())
	return conn, nil
}

// dialer is one that leaves by Options.Interface.
func (o *Options) dialer() net.Dialer {
	switch ip := net.ParseIP(o.Interface); {
	case o.Interface == "":
		return net.Dialer{}
	case ip != nil:
		return net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}}
	}
	return net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = os.NewSyscallError("bind to interface "+o.Interface, syscall.SetsockoptString(int(fd), syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, o.Interface))
		})
		return errors.Join(err, failed)
	}}
}

// describeTLS says what was negotiated, and with whom.
func describeTLS(s tls.ConnectionState) string {
	text := tls.VersionName(s.Version) + ", " + tls.CipherSuiteName(s.CipherSuite)
	if s.NegotiatedProtocol != "" {
		text += ", ALPN " + s.NegotiatedProtocol
	}
	if len(s.PeerCertificates) > 0 {
		text += ", " + describeCertificate(s.PeerCertificates[0])
	}
	return text
}

// describeCertificate names a certificate, its issuer and its dates.
func describeCertificate(c *x509.Certificate) string {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	const day = "2006-01-02 15:04 MST"
	return fmt.Sprintf("certificate of %q for [%s], issued by %q, valid from %s to %s", c.Subject.String(), strings.Join(names, " "),
		c.Issuer.String(), c.NotBefore.UTC().Format(day), c.NotAfter.UTC().Format(day))
}

// tlsConfig reads the files anew, so that renewed ones are used from the next
// dial on.
func tlsConfig(t *TLS, host string) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		NextProtos:         t.ALPN,
		InsecureSkipVerify: t.InsecureSkipVerify,
	}
	if c.ServerName == "" {
		c.ServerName = host
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s: no certificate in it", t.CAFile)
		}
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}
