package bridge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// A client whose tokens prove nothing must not be used.
func TestDishonestClientsPanic(t *testing.T) {
	u := &up3{}
	o := Defaults()
	mustBeHonest(paho.NewClient(u.pahoOptions(&o, nil, nil)))
	for what, set := range map[string]func(*paho.ClientOptions){
		"auto reconnect":    func(po *paho.ClientOptions) { po.SetAutoReconnect(true) },
		"connect retry":     func(po *paho.ClientOptions) { po.SetConnectRetry(true) },
		"resumed subs":      func(po *paho.ClientOptions) { po.SetResumeSubs(true) },
		"paho's own wishes": func(po *paho.ClientOptions) { *po = *paho.NewClientOptions() },
	} {
		po := u.pahoOptions(&o, nil, nil)
		set(po)
		func() {
			defer func() {
				if s, _ := recover().(string); !strings.HasPrefix(s, "BUG:") {
					t.Errorf("%s: recovered %q", what, s)
				}
			}()
			mustBeHonest(paho.NewClient(po))
		}()
	}
}

// What paho promises under these settings: without a PUBACK no receipt is done
// without an error, however the connection ends. With a clean session each is
// done with an error; otherwise it may never be.
func TestReceiptsAreHonest(t *testing.T) {
	for i, how := range []string{"cut", "close", "kill", "cut", "close", "kill"} {
		clean := i < 3 && testProtocol == Protocol311
		up := newFakeUpstream(t)
		up.neverAck = true
		o := testOptions(nil, up.addr(), outAll)
		o.CleanSession = clean
		lost := make(chan error, 1)
		d := dialing{opts: &o, at: newAddresses(&o).current(), version: newProtocol(testProtocol).version, onLost: func(err error) { lost <- err }}
		u, _, err := d.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var receipts []receipt
		for range 50 {
			receipts = append(receipts, u.publish(&message{topic: "t", qos: 1, payload: []byte("x")}))
		}
		eventually(t, "arrived", func() bool { return up.count() == 50 })
		for _, r := range receipts {
			select {
			case <-r.Done():
				t.Fatalf("%s: a receipt without PUBACK: %v", how, r.Error())
			default:
			}
		}
		switch how {
		case "cut":
			up.cutAll()
			<-lost
		case "close":
			u.disconnect()
		case "kill":
			u.kill(errNoPuback)
			if err := <-lost; !errors.Is(err, errNoPuback) {
				t.Errorf("paho was told %v", err)
			}
		}
		u.close()
		eventually(t, "errors", func() bool {
			for _, r := range receipts {
				select {
				case <-r.Done():
					if r.Error() == nil {
						t.Fatalf("%s: a receipt says delivered", how)
					}
				default:
					if clean {
						return false
					}
				}
			}
			return true
		})
		if u.open() {
			t.Errorf("%s: still open", how)
		}
	}
}

func TestBridgeBit(t *testing.T) {
	for _, bit := range []bool{false, true} {
		local, up := newFakeLocal(t), newFakeUpstream(t)
		o := testOptions(local, up.addr(), outAll)
		o.BridgeBit = bit
		b := startBridge(t, o)
		eventually(t, "up", inState(b, StateUp))
		up.with(func() {
			if h := up.lastHi; h.Bridge != bit || h.Version != mqtt.V311 || !h.Clean || string(h.ClientID) != "gateway" || h.KeepAliveSeconds != 30 || h.HasUsername {
				t.Errorf("CONNECT %+v", h)
			}
			if up.connects != 1 {
				t.Errorf("%d CONNECTs for one link", up.connects)
			}
		})
	}
}

func TestOverTLS(t *testing.T) {
	dir := t.TempDir()
	cert := selfSigned(t, dir)
	up := newFakeUpstream(t)
	front := tlsFront(t, cert, up.ln.Addr().String())

	local := newFakeLocal(t)
	oracle(t, local, up)
	o := testOptions(local, "tls://"+front, outAll)
	o.TLS = TLS{CAFile: filepath.Join(dir, "cert.pem"), ServerName: "broker.test", CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), ALPN: []string{"mqtt"}}
	b := startBridge(t, o)
	for i := range 200 {
		publishRound(local, 1, i)
	}
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	expectOrder(t, up.messages(), 1, 200)
	_ = b.Close()

	for what, c := range map[string]struct {
		tls  TLS
		want string
	}{
		"unknown authority": {TLS{ServerName: "broker.test"}, "unknown authority"},
		"wrong name":        {TLS{CAFile: o.TLS.CAFile}, "127.0.0.1"},
		"no CA file":        {TLS{CAFile: filepath.Join(dir, "none.pem")}, "CA file"},
		"CA file of keys":   {TLS{CAFile: o.TLS.KeyFile}, "no certificate in it"},
		"no client file":    {TLS{CertFile: o.TLS.KeyFile, KeyFile: o.TLS.KeyFile}, "client certificate"},
	} {
		bad := o
		bad.TLS = c.tls
		b := startBridge(t, bad)
		eventually(t, what, func() bool { return strings.Contains(b.Status().LastError, c.want) })
		if st := b.Status(); st.Links != 0 {
			t.Errorf("%s: connected", what)
		}
		_ = b.Close()
	}
}

func selfSigned(t *testing.T, dir string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "broker.test"}, DNSNames: []string{"broker.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	for name, b := range map[string][]byte{"cert.pem": certPEM, "key.pem": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// tlsFront passes TLS connections on to a plain address. It wants a client
// certificate, whichever.
func tlsFront(t *testing.T, cert tls.Certificate, to string) string {
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"mqtt"}})
	if err != nil {
		t.Fatal(err)
	}
	p := pipeAll(ln, to)
	t.Cleanup(p.close)
	return ln.Addr().String()
}

// A message that needs longer than the progress timeout to leave is no stuck
// link as long as bytes move.
func TestSlowLinkIsNotStuck(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := pipeAll(ln, up.ln.Addr().String())
	p.setDelay(24 * time.Millisecond) // per 16 KiB: about 650 kB/s
	t.Cleanup(p.close)
	o := testOptions(local, "tcp://"+ln.Addr().String(), outAll)
	o.ProgressTimeout = 3 * time.Second
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	local.publish("s/0", strings.Repeat("x", 4<<20), 1, false) // about 6 s
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	if st := b.Status(); st.Links != 1 {
		t.Errorf("%d links: %s", st.Links, st.LastError)
	}
}
