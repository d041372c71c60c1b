package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// DESIGN. Who a client is shows in what it may do: the rules let each user write
// to a topic of its own name only, so a message that arrives there proves the name.

const ownTopics = "user admin\ntopic readwrite #\npattern write own/%u\n"

// TestClientCertificate: the certificate's common name is the user; without one,
// with one of somebody else's authority or a revoked one nobody gets in.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	var good, bad, stranger *rig.Certificate
	s := newSite(t, siteOptions{only: []string{"mqtt", "mqtts"}, auth: "acl_file = \"DIR/acl\"\n",
		tls: "client_ca_file = \"DIR/ca.pem\"\nclient_crl_file = \"DIR/crl.pem\"\nclient_certificate = \"require\"\nusername_from = \"common_name\"\n",
		prepare: func(s *site) {
			var err error
			good, err = s.ca.Issue("sensor 7", "good")
			must(t, err)
			bad, err = s.ca.Issue("sensor 8", "bad")
			must(t, err)
			other, err := rig.NewAuthority(t.TempDir())
			must(t, err)
			stranger, err = other.Issue("sensor 7", "stranger")
			must(t, err)
			_, err = s.ca.Revoke(bad)
			must(t, err)
			s.write(t, "acl", ownTopics)
			s.passwd(t, "-b", s.passwords, "admin", "pw")
		}})
	var in inbox[string]
	subscribed(t, s.Addr(), rig.ClientOptions{ID: "admin", Connect: login("admin", "pw"), OnMessage: func(p *mqtt.Publish) { in.put(received(p)) }}, 1, "own/#")
	pub := func(c *rig.Certificate, topic string) (string, error) {
		args := []string{"-h", "127.0.0.1", "-p", port(s.at("mqtts")), "--cafile", s.ca.File(), "-q", "1", "-t", topic, "-m", "x", "-u", "admin", "-P", "none"}
		if c != nil {
			args = append(args, "--cert", c.CertFile, "--key", c.KeyFile)
		}
		out, err := exec.Command("mosquitto_pub", args...).CombinedOutput()
		return string(out), err
	}
	for what, c := range map[string]*rig.Certificate{"no certificate": nil, "a stranger's": stranger, "a revoked one": bad} {
		if out, err := pub(c, "own/sensor 7"); err == nil {
			t.Errorf("%s: mosquitto_pub gets in: %s", what, out)
		}
	}
	for _, topic := range []string{"own/admin", "own/sensor 8", "own/sensor 7"} { // the name of CONNECT is worth nothing
		if out, err := pub(good, topic); err != nil {
			t.Errorf("mosquitto_pub with its certificate: %v: %s", err, out)
		}
	}
	same(t, in.await(t, 1), []string{"own/sensor 7 x qos1"})

	// What is revoked while the broker runs stays out, with a ticket from before, too.
	config, err := s.ca.Client(good)
	must(t, err)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		if got := s.try(5, anonymous, dialer(s.url("mqtts", ""), config)); got != 0 {
			t.Fatalf("CONNACK 0x%02x", got)
		}
	}
	_, err = s.ca.Revoke(bad, good)
	must(t, err)
	s.reload()
	c := rig.NewClient(rig.ClientOptions{ID: "late", Dial: dialer(s.url("mqtts", ""), config)})
	if _, err := c.Connect(""); err == nil || !strings.Contains(err.Error(), "bad certificate") && !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a certificate revoked meanwhile: %v", err)
	}
	c.Close()
	contains(t, s.Log(), "revoked")
}

// TestTokens: a signed token stands in the place of the password.
func TestTokens(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	s := newSite(t, siteOptions{only: []string{"mqtt", "wss"}, auth: "acl_file = \"DIR/acl\"\nlogin_failures_max = 1000\n[auth.jwt]\nkey_file = \"DIR/jwt.pem\"\nissuer = \"plant\"\naudience = \"sluice\"\nleeway = \"0s\"\n",
		prepare: func(s *site) {
			s.write(t, "jwt.pem", string(publicPEM))
			s.write(t, "acl", ownTopics)
			s.passwd(t, "-b", s.passwords, "admin", "pw")
		}})
	claims := func(change jwt.MapClaims) jwt.MapClaims {
		c := jwt.MapClaims{"sub": "dev 1", "iss": "plant", "aud": "sluice", "exp": time.Now().Add(time.Hour).Unix()}
		for k, v := range change {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
		return c
	}
	sign := func(m jwt.SigningMethod, key any, change jwt.MapClaims) func(*mqtt.Connect) {
		token, err := jwt.NewWithClaims(m, claims(change)).SignedString(key)
		must(t, err)
		return login("whatever", token)
	}
	es := func(change jwt.MapClaims) func(*mqtt.Connect) {
		return sign(jwt.SigningMethodES256, crypto.Signer(key), change)
	}
	past := time.Now().Add(-time.Minute).Unix()
	for i, test := range []struct {
		what    string
		connect func(*mqtt.Connect)
		ok      bool
	}{
		{"good", es(nil), true},
		{"of this client", es(jwt.MapClaims{"clientid": "somebody"}), true},
		{"of another client", es(jwt.MapClaims{"clientid": "somebody else"}), false},
		{"expired", es(jwt.MapClaims{"exp": past}), false},
		{"without an end", es(jwt.MapClaims{"exp": nil}), false},
		{"not yet", es(jwt.MapClaims{"nbf": time.Now().Add(time.Hour).Unix()}), false},
		{"without a user", es(jwt.MapClaims{"sub": nil}), false},
		{"of another issuer", es(jwt.MapClaims{"iss": "mallory"}), false},
		{"for somebody else", es(jwt.MapClaims{"aud": "others"}), false},
		{"of another key", sign(jwt.SigningMethodES256, foreign, nil), false},
		{"signed by nobody", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil), false},
		{"signed with the public key as a secret", sign(jwt.SigningMethodHS256, publicPEM, nil), false},
		{"not a token", login("whatever", "x.y.z"), false},
	} {
		for _, version := range []mqtt.Version{4, 5} {
			dial := from(name("127.0.3.", 1+i))
			if got := s.try(version, test.connect, dial); (got == 0) != test.ok {
				t.Errorf("a token %s, version %d: CONNACK 0x%02x", test.what, version, got)
			}
		}
	}
	var in inbox[string]
	subscribed(t, s.Addr(), rig.ClientOptions{ID: "admin", Connect: login("admin", "pw"), OnMessage: func(p *mqtt.Publish) { in.put(received(p)) }}, 1, "#")
	publish := func(id string, connect func(*mqtt.Connect), topics ...string) {
		c := connected(t, "", rig.ClientOptions{ID: id, Version: 5, Clean: true, Connect: connect, Dial: dialer(s.url("wss", ""), s.clients)})
		for _, topic := range topics {
			must(t, c.Publish(topic, []byte(id), 1, false, 0))
		}
		must(t, c.Flush(patience))
	}
	publish("by file", es(nil), "own/dev 1", "own/dev 2", "line/1")
	publish("by token", es(jwt.MapClaims{"publ": []string{"line/+"}}), "own/dev 1", "line/1")
	same(t, in.await(t, 2), []string{"own/dev 1 by file qos1", "line/1 by token qos1"})

	// A connection does not outlive its token.
	end := time.Now().Add(2 * time.Second)
	c := connected(t, s.Addr(), rig.ClientOptions{ID: "short", Version: 5, Connect: es(jwt.MapClaims{"exp": end.Unix()})})
	<-c.Lost()
	if left := time.Until(end); left > time.Second { // the claim has whole seconds
		t.Errorf("the connection ended %v before its token", left)
	}
	if why, ok := c.Why().(*rig.Disconnected); !ok || why.Reason != mqtt.NotAuthorized {
		t.Errorf("the connection ended with %v", c.Why())
	}
}
