package configs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// pki writes a certificate that signs itself, its key and an empty list of revoked ones
// into a directory: server.pem, server.key, list.pem, list.der.
func pki(t *testing.T, dir string) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	write := func(name, block string, der []byte) {
		must(os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der}), 0o600))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), SubjectKeyId: []byte{1},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCRLSign | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(err)
	write("server.pem", "CERTIFICATE", der)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	write("server.key", "PRIVATE KEY", private)
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), NextUpdate: time.Now().Add(time.Hour)}, template, key)
	must(err)
	write("list.pem", "X509 CRL", list)
	must(os.WriteFile(filepath.Join(dir, "list.der"), list, 0o600))
}

func TestCheckFilesOfListenersAndAuth(t *testing.T) {
	dir := t.TempDir()
	pki(t, dir)
	in := func(name string) string { return filepath.Join(dir, name) }
	both, err := os.ReadFile(in("list.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"text":   "no PEM",
		"secret": strings.Repeat("s", 32) + "\n",
		"lists":  string(both) + string(both),
		"broken": string(both) + "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
	} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SLUICE_TEST_SECRET", "from the environment")
	good := func() *Config {
		c := Default()
		c.Listeners[0].TLS = ListenerTLS{CertFile: in("server.pem"), KeyFile: in("server.key"), ClientCAFile: in("server.pem"), ClientCRLFile: in("list.pem"),
			ClientCertificate: "require", UsernameFrom: "subject", MinVersion: "1.2"}
		c.Auth.PasswordFile, c.Auth.ACLFile = in("text"), in("text")
		c.Auth.JWT.SecretFile = in("secret")
		c.Bridges = []Bridge{{PasswordEnv: "SLUICE_TEST_SECRET"}}
		return c
	}
	tests := []struct {
		key  string // that is wrong; "": none
		edit func(c *Config)
	}{
		{"", func(*Config) {}},
		{"", func(c *Config) { c.Listeners[0].TLS.ClientCRLFile = in("list.der") }},
		{"", func(c *Config) { c.Listeners[0].TLS.ClientCRLFile = in("lists") }},
		{"", func(c *Config) { c.Auth.JWT = JWT{SecretEnv: "SLUICE_TEST_SECRET"} }},
		{"listener[0].tls.cert_file", func(c *Config) { c.Listeners[0].TLS.KeyFile = in("text") }},
		{"listener[0].tls.cert_file", func(c *Config) { c.Listeners[0].TLS.CertFile = in("none") }},
		{"listener[0].tls.client_ca_file", func(c *Config) { c.Listeners[0].TLS.ClientCAFile = in("text") }},
		{"listener[0].tls.client_crl_file", func(c *Config) { c.Listeners[0].TLS.ClientCRLFile = in("text") }},
		{"listener[0].tls.client_crl_file", func(c *Config) { c.Listeners[0].TLS.ClientCRLFile = in("broken") }},
		{"listener[0].tls.client_crl_file", func(c *Config) { c.Listeners[0].TLS.ClientCRLFile = in("none") }},
		{"auth.password_file", func(c *Config) { c.Auth.PasswordFile = in("none") }},
		{"auth.acl_file", func(c *Config) { c.Auth.ACLFile = dir }},
		{"auth.jwt.jwks_file", func(c *Config) { c.Auth.JWT = JWT{JWKSFile: in("none")} }},
		{"auth.jwt.key_file", func(c *Config) { c.Auth.JWT = JWT{KeyFile: in("none")} }},
		{"auth.jwt.secret_file", func(c *Config) { c.Auth.JWT.SecretFile = in("none") }},
		{"auth.jwt.secret_env", func(c *Config) { c.Auth.JWT = JWT{SecretEnv: "SLUICE_TEST_NOT_SET"} }},
		{"bridge[0].password_env", func(c *Config) { c.Bridges[0].PasswordEnv = "SLUICE_TEST_NOT_SET" }},
	}
	for _, test := range tests {
		c := good()
		test.edit(c)
		var problems Problems
		errors.As(c.CheckFiles(), &problems)
		if test.key == "" && len(problems) > 0 || test.key != "" && (len(problems) != 1 || problems[0].Key != test.key) {
			t.Errorf("want a problem with %q: %v", test.key, problems)
		}
	}
	c := good()
	if got, err := c.Bridges[0].ReadPassword(); got != "from the environment" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := c.Auth.JWT.Secret(); string(got) != strings.Repeat("s", 32) || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := new(JWT).Secret(); got != nil || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// Who writes a secret where the name of its variable belongs does not find it in the log.
func TestSecretsAreNotTakenForNames(t *testing.T) {
	for _, text := range []string{
		"[auth.jwt]\nsecret_env = \"hunter2\"", "[auth.jwt]\nsecret_env = hunter2", "[auth.jwt]\nsecret_env = [\"hunter2\"]",
		"[[bridge]]\nusername = \"u\"\npassword_env = \"hunter2\"", "[[bridge]]\npassword_env = 'hunter2",
	} {
		err := check(text)
		if err == nil || !strings.Contains(err.Error(), "_env: found") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
	_, err := (&Bridge{PasswordEnv: "hunter2"}).ReadPassword()
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

func TestEveryExampleShowsAnother(t *testing.T) {
	files, err := filepath.Glob("examples/*.toml")
	if err != nil {
		t.Fatal(err)
	}
	var protected, websocket, certificates, tokens []string
	for _, file := range files {
		c, err := Load(file)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.Listeners {
			l := &c.Listeners[i]
			if l.TLS.Enabled() && !c.Anonymous(l) {
				protected = append(protected, file)
			}
			if l.Protocol == "websocket" && l.ProxyProtocol && !c.Anonymous(l) {
				websocket = append(websocket, file)
			}
			if l.TLS.ClientCertificate == "require" && l.TLS.names() {
				certificates = append(certificates, file)
			}
		}
		if c.Auth.UsesJWT() {
			tokens = append(tokens, file)
		}
		if w := c.Warnings(); len(w) > 0 {
			t.Errorf("%s: %q", file, w)
		}
	}
	if !slices.Contains(protected, "examples/gateway-tls.toml") || !slices.Equal(websocket, []string{"examples/websocket-proxy.toml"}) ||
		!slices.Equal(certificates, []string{"examples/mutual-tls.toml"}) || !slices.Equal(tokens, []string{"examples/jwt.toml"}) {
		t.Errorf("%v %v %v %v", protected, websocket, certificates, tokens)
	}
}
