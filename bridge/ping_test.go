package bridge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"
)

func pingOne(t *testing.T, o Options) (p Pinged, last PingStep) {
	t.Helper()
	all := Ping(t.Context(), o)
	if len(all) != 1 {
		t.Fatalf("%d addresses", len(all))
	}
	for i, s := range all[0].Steps {
		if s.OK != (i < len(all[0].Steps)-1 || all[0].OK) {
			t.Errorf("step %+v in %+v", s, all[0])
		}
	}
	return all[0], all[0].Steps[len(all[0].Steps)-1]
}

func steps(p Pinged) string {
	var names []string
	for _, s := range p.Steps {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

// Ping gets in with a client id of its own, asks for nothing, and leaves politely;
// the session of the bridge is not touched.
func TestPingGetsIn(t *testing.T) {
	up := newFakeUpstream(t)
	o := testOptions(nil, strings.Replace(up.addr(), "127.0.0.1", "localhost", 1), outAll)
	o.CleanSession, o.Notifications, o.Username, o.Password = false, true, "user", "hunter2"
	p, _ := pingOne(t, o)
	if !p.OK || steps(p) != "DNS TCP MQTT" || p.ClientID != "gateway-ping" {
		t.Errorf("%+v", p)
	}
	eventually(t, "goodbye", func() bool { up.mu.Lock(); defer up.mu.Unlock(); return up.goodbyes == 1 })
	up.with(func() {
		if h := up.lastHi; !h.Clean || h.HasWill || string(h.ClientID) != "gateway-ping" || string(h.Password) != "hunter2" || len(up.subs)+len(up.got) > 0 {
			t.Errorf("CONNECT %+v", h)
		}
	})
}

func TestPingExplains(t *testing.T) {
	certificate := func(from, to time.Duration) tls.Certificate {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tpl := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "other.test"}, DNSNames: []string{"other.test"},
			NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to), IsCA: true, BasicConstraintsValid: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	serve := func(c *tls.Config) string {
		ln, err := tls.Listen("tcp", "127.0.0.1:0", c)
		if err != nil {
			t.Fatal(err)
		}
		p := pipeAll(ln, newFakeUpstream(t).ln.Addr().String())
		t.Cleanup(p.close)
		return "tls://" + ln.Addr().String()
	}
	dir := t.TempDir()
	own := selfSigned(t, dir)
	ca := filepath.Join(dir, "cert.pem")
	answers := func(set func(*fakeUpstream)) string {
		up := newFakeUpstream(t)
		up.with(func() { set(up) })
		return up.addr()
	}
	good := serve(&tls.Config{Certificates: []tls.Certificate{own}})
	for _, c := range []struct {
		what, address string
		set           func(*Options)
		step          string
		err, hint     string
	}{
		{"no such name", "tcp://no-such-host.invalid", nil, "DNS", "no-such-host.invalid", "resolved"},
		{"nobody listens", deadAddress(t), nil, "TCP", "refused", "nobody listens"},
		{"unknown issuer", good, func(o *Options) { o.TLS.ServerName = "broker.test" }, "TLS", "unknown authority", `issued by "CN=broker.test"`},
		{"wrong name", good, func(o *Options) { o.TLS.CAFile, o.TLS.ServerName = ca, "wrong.test" }, "TLS", "wrong.test", "for [broker.test]"},
		{"expired", serve(&tls.Config{Certificates: []tls.Certificate{certificate(-48*time.Hour, -24*time.Hour)}}), func(o *Options) { o.TLS.ServerName = "other.test" }, "TLS", "expired", "valid from"},
		{"no CA file", good, func(o *Options) { o.TLS.CAFile = filepath.Join(dir, "none") }, "TLS", "CA file", ""},
		{"certificate wanted", serve(&tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}), func(o *Options) { o.TLS.CAFile, o.TLS.ServerName = ca, "broker.test" }, "TLS", "remote error", "set cert_file"},
		{"no TLS there", strings.Replace(answers(func(up *fakeUpstream) {
			up.raw = func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 no\r\n\r\n")); _ = c.Close() }
		}), "tcp", "tls", 1), nil, "TLS", "", "speaks no TLS"},
		{"bad password", answers(func(up *fakeUpstream) { up.connackCode = 4 }), nil, "MQTT", "bad user name or password", "token may have expired"},
		{"not authorized", answers(func(up *fakeUpstream) { up.connackCode = 5 }), nil, "MQTT", "not authorized", `"gateway-ping"`},
		{"bridge bit", answers(func(up *fakeUpstream) { up.connackCode = 1 }), func(o *Options) { o.BridgeBit = true }, "MQTT", "unacceptable protocol version", "bridge_bit"},
		{"hangs up", answers(func(up *fakeUpstream) { up.raw = func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) } }), nil, "MQTT", "", "want TLS on this port"},
		{"says nothing", answers(func(up *fakeUpstream) {
			up.raw = func(c net.Conn) {
				for { // until the other side has enough
					if _, err := c.Read(make([]byte, 100)); err != nil {
						return
					}
				}
			}
		}), func(o *Options) { o.ConnectTimeout = 100 * time.Millisecond }, "MQTT", "", "connect_timeout"},
	} {
		o := testOptions(nil, c.address, outAll)
		if c.set != nil {
			c.set(&o)
		}
		p, last := pingOne(t, o)
		if p.OK || last.Name != c.step || !strings.Contains(last.Error, c.err) || !strings.Contains(last.Hint, c.hint) {
			t.Errorf("%s: %+v", c.what, p)
		}
	}
}

// With auto it tries what the bridge tries, and tells what it found.
func TestPingFindsTheProtocol(t *testing.T) {
	up := newFakeUpstream(t)
	up.connack = mqtt.Properties{ReceiveMax: 20}
	o := testOptions(nil, up.addr(), outAll)
	o.Protocol = ProtocolAuto
	p, last := pingOne(t, o)
	if !p.OK || !strings.Contains(last.Found, "MQTT 5, accepted; receive maximum 20") {
		t.Errorf("%+v", p)
	}
	up.with(func() { up.not5 = "0x84" })
	p = Ping(t.Context(), o)[0]
	if !p.OK || steps(p) != "TCP MQTT TCP MQTT" || p.Steps[1].OK || !strings.Contains(p.Steps[3].Found, "3.1.1") {
		t.Errorf("%+v", p)
	}
}

// A clock that was never set is what is wrong, not the certificate.
func TestPingKnowsTheClock(t *testing.T) {
	if s := clockHint(time.Unix(3600, 0)); !strings.Contains(s, "never set") {
		t.Error(s)
	}
	if s := clockHint(time.Now()); s != "" {
		t.Error(s)
	}
}
