package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluice/broker/mqtt"
)

// signers are one private key of each kind.
var signers = sync.OnceValue(func() map[string]any {
	r, err1 := rsa.GenerateKey(rand.Reader, 2048)
	e, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	e5, err3 := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, d, err4 := ed25519.GenerateKey(rand.Reader)
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			panic(err)
		}
	}
	return map[string]any{"RS256": r, "PS384": r, "ES256": e, "ES512": e5, "EdDSA": d, "HS256": []byte(strings.Repeat("s", 32))}
})

func pemOf(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.(crypto.Signer).Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func sign(t testing.TB, alg string, key any, header map[string]any, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.GetSigningMethod(alg), claims)
	maps.Copy(token.Header, header)
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// claimsWith are good claims and those given; nil takes one away.
func claimsWith(more jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "dev", "exp": noon.Add(time.Hour).Unix()}
	for name, v := range more {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	return c
}

func tokenRules(t testing.TB, o *JWTOptions) *Rules {
	t.Helper()
	r, err := New(&Sources{JWT: o, ACL: &File{Name: "acl", Data: []byte("user dev\ntopic acl/#")}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// secretOptions accept tokens of the secret.
func secretOptions() *JWTOptions {
	return &JWTOptions{Secrets: []File{{Name: "secret", Data: append(signers()["HS256"].([]byte), '\n')}}}
}

func TestTokenOfEveryAlgorithm(t *testing.T) {
	o := secretOptions()
	for _, alg := range []string{"RS256", "ES256", "ES512", "EdDSA"} {
		o.PublicKeys = append(o.PublicKeys, File{Name: alg, Data: pemOf(t, signers()[alg])})
	}
	r := tokenRules(t, o)
	for alg, key := range signers() {
		c := login("whoever", sign(t, alg, key, nil, claimsWith(nil)))
		if r.Cheap(c) {
			t.Errorf("%s is cheap", alg)
		}
		id, err := r.Authenticate(c, noon)
		if err != nil || id.User != "dev" || id.By != "jwt" || !id.Expires.Equal(noon.Add(time.Hour)) {
			t.Errorf("%s: %+v %v", alg, id, err)
		}
		c.Password[len(c.Password)-10] ^= 1
		expectOut(t, r, c, mqtt.BadUserNameOrPassword)
	}
}

func TestTokenIsRefused(t *testing.T) {
	s := signers()
	public := pemOf(t, s["RS256"])
	rs := &JWTOptions{PublicKeys: []File{{Name: "rsa", Data: public}}}
	strict := secretOptions()
	strict.Audience, strict.Issuer, strict.Leeway, strict.UsernameClaim = "broker", "us", 10*time.Second, "name"
	good := jwt.MapClaims{"aud": []string{"x", "broker"}, "iss": "us"}
	with := func(name string, v any) jwt.MapClaims {
		c := maps.Clone(good)
		c[name] = v
		return claimsWith(c)
	}
	hs := func(c jwt.MapClaims) string { return sign(t, "HS256", s["HS256"], nil, c) }
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		o     *JWTOptions
		token string
		in    bool
	}{
		"good":                      {strict, hs(claimsWith(good)), true},
		"none":                      {rs, sign(t, "none", jwt.UnsafeAllowNoneSignatureType, nil, claimsWith(nil)), false},
		"public key as secret":      {rs, sign(t, "HS256", public, nil, claimsWith(nil)), false},
		"another key":               {rs, sign(t, "RS256", other, nil, claimsWith(nil)), false},
		"algorithm without key":     {rs, sign(t, "ES256", s["ES256"], nil, claimsWith(nil)), false},
		"secret too short for it":   {secretOptions(), sign(t, "HS512", s["HS256"], nil, claimsWith(nil)), false},
		"critical extension":        {rs, sign(t, "RS256", s["RS256"], map[string]any{"crit": []string{"b64"}}, claimsWith(nil)), false},
		"expired":                   {strict, hs(with("exp", noon.Add(-11*time.Second).Unix())), false},
		"expired within leeway":     {strict, hs(with("exp", noon.Add(-9*time.Second).Unix())), true},
		"without expiry":            {strict, hs(with("exp", nil)), false},
		"broken expiry":             {strict, hs(with("exp", "soon")), false},
		"not yet":                   {strict, hs(with("nbf", noon.Add(time.Minute).Unix())), false},
		"another audience":          {strict, hs(with("aud", "cloud")), false},
		"no audience":               {strict, hs(with("aud", nil)), false},
		"another issuer":            {strict, hs(with("iss", "them")), false},
		"no user":                   {strict, hs(with("sub", nil)), false},
		"empty user":                {strict, hs(with("sub", "")), false},
		"user of another type":      {strict, hs(with("sub", 7)), false},
		"its client id":             {strict, hs(with("clientid", "c")), true},
		"another client id":         {strict, hs(with("clientid", "d")), false},
		"client id of another type": {strict, hs(with("clientid", []any{"c"})), false},
		"its user name":             {strict, hs(with("name", "whoever")), true},
		"another user name":         {strict, hs(with("name", "dev")), false},
		"topics are no array":       {strict, hs(with("publ", "a/#")), false},
		"topics are no strings":     {strict, hs(with("subs", []any{1})), false},
		"a topic is none":           {strict, hs(with("subs", []any{"a/#/b"})), false},
		"too many topics":           {strict, hs(with("subs", make([]string, rulesMax+1))), false},
		"too long":                  {strict, hs(with("x", strings.Repeat("x", tokenBytesMax))), false},
		"four parts":                {strict, hs(claimsWith(good)) + ".x", false},
		"junk":                      {strict, "eyJ..", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := tokenRules(t, x.o)
			if x.in {
				expectIn(t, r, login("whoever", x.token), "dev", "jwt")
			} else {
				expectOut(t, r, login("whoever", x.token), mqtt.BadUserNameOrPassword)
			}
		})
	}
}

func TestTokenWithoutExpiryIfAllowed(t *testing.T) {
	o := secretOptions()
	o.WithoutExpiry = true
	id, err := tokenRules(t, o).Authenticate(login("", sign(t, "HS256", signers()["HS256"], nil, claimsWith(jwt.MapClaims{"exp": nil}))), noon)
	if err != nil || !id.Expires.IsZero() {
		t.Errorf("%+v %v", id, err)
	}
}

// A gateway boots in 1970: an expired token must not come in then.
func TestTokenWaitsForTheClock(t *testing.T) {
	_, err := tokenRules(t, secretOptions()).Authenticate(login("", sign(t, "HS256", signers()["HS256"], nil, claimsWith(nil))), time.Unix(100, 0))
	if e, ok := err.(*Error); !ok || e.Reason != mqtt.ServerUnavailable {
		t.Errorf("%v", err)
	}
}

func TestTokensTopicsReplaceTheACL(t *testing.T) {
	r := tokenRules(t, secretOptions())
	permit := func(more jwt.MapClaims) *Permit {
		id, err := r.Authenticate(login("", sign(t, "HS256", signers()["HS256"], nil, claimsWith(more))), noon)
		if err != nil {
			t.Fatal(err)
		}
		return r.Permit(id, "c")
	}
	p := permit(nil)
	check(t, p, "p:acl/x", true)
	p = permit(jwt.MapClaims{"publ": []string{"dev/%u/#", "cl/%c"}, "subs": []string{"cmd/%u/+"}})
	for q, want := range map[string]bool{"p:dev/dev/x": true, "p:cl/c": true, "r:cmd/dev/x": true, "s:cmd/dev/x": true, "s:#": true, "p:cmd/dev/x": false, "r:dev/dev/x": false, "p:acl/x": false, "p:dev/u/x": false} {
		check(t, p, q, want)
	}
	p = permit(jwt.MapClaims{"publ": []string{}})
	check(t, p, "p:acl/x", false)
	check(t, p, "s:#", false)
	p = permit(jwt.MapClaims{"publ": []string{"a/%u/x"}, "sub": "+"})
	check(t, p, "p:a/b/x", false)
}

func TestTokenAndPasswordInOneChain(t *testing.T) {
	r, err := New(&Sources{JWT: secretOptions(), Passwords: &File{Name: "pw", Data: []byte("u:" + HashPassword([]byte("pw"), 10, nil))}})
	if err != nil {
		t.Fatal(err)
	}
	expectIn(t, r, login("u", "pw"), "u", "password")
	expectIn(t, r, login("u", sign(t, "HS256", signers()["HS256"], nil, claimsWith(nil))), "dev", "jwt")
	expectOut(t, r, login("u", "wr0ng"), mqtt.BadUserNameOrPassword)
	expectOut(t, r, login("", "no token"), mqtt.BadUserNameOrPassword)
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func TestJWKS(t *testing.T) {
	s := signers()
	r, e, d := s["RS256"].(*rsa.PrivateKey), s["ES256"].(*ecdsa.PrivateKey), s["EdDSA"].(ed25519.PrivateKey)
	point, err := e.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(map[string]any{"keys": []map[string]any{
		{"kty": "RSA", "kid": "r", "alg": "RS256", "n": b64(r.N.Bytes()), "e": "AQAB", "use": "sig"},
		{"kty": "EC", "kid": "e", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])},
		{"kty": "OKP", "crv": "Ed25519", "x": b64(d.Public().(ed25519.PublicKey))},
		{"kty": "oct", "kid": "h", "k": b64(s["HS256"].([]byte))},
		{"kty": "RSA", "use": "enc"}, {"kty": "new"}, {"kty": "EC", "crv": "secp256k1"}, {"kty": "OKP", "crv": "X25519"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	rules := tokenRules(t, &JWTOptions{JWKS: []File{{Name: "jwks", Data: set}}})
	for _, x := range []struct {
		alg, kid string
		in       bool
	}{{"RS256", "r", true}, {"RS256", "", true}, {"ES256", "e", true}, {"EdDSA", "whatever", true}, {"HS256", "h", true}, {"RS256", "e", false}, {"ES256", "x", false}, {"PS384", "r", false}} {
		header := map[string]any{}
		if x.kid != "" {
			header["kid"] = x.kid
		}
		_, err := rules.Authenticate(login("", sign(t, x.alg, s[x.alg], header, claimsWith(nil))), noon)
		if (err == nil) != x.in {
			t.Errorf("%s %q: %v", x.alg, x.kid, err)
		}
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(signers()["RS256"])
	if err != nil {
		t.Fatal(err)
	}
	pems := func(data []byte) *JWTOptions { return &JWTOptions{PublicKeys: []File{{Name: "k", Data: data}}} }
	set := func(data string) *JWTOptions {
		return &JWTOptions{JWKS: []File{{Name: "k", Data: []byte(data)}}}
	}
	for want, o := range map[string]*JWTOptions{
		"k: the RSA key has 1024 bits":                pems(pemOf(t, small)),
		"k: the curve is not one of":                  pems(pemOf(t, curve)),
		`k: PEM block "PRIVATE KEY"`:                  pems(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		"k: there is no public key in PEM form in it": pems([]byte("x")),
		"k: the secret has 5 bytes":                   {Secrets: []File{{Name: "k", Data: []byte("short\n")}}},
		"k: a PEM or JSON file is no secret":          {Secrets: []File{{Name: "k", Data: pemOf(t, signers()["RS256"])}}},
		"needs keys":                                  {},
		"the leeway for tokens is negative":           {Leeway: -1},
		"k: invalid character":                        set("x"),
		"k: there is no key for signatures in it":     set(`{"keys":[]}`),
		"k: key 1: the point is not on the curve":     set(`{"keys":[{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}]}`),
		"k: key 1: a number is not base64url":         set(`{"keys":[{"kty":"RSA","n":"","e":"AQAB"}]}`),
		"k: key 1: the RSA key is too big":            set(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQABAQABAQAB"}]}`),
		"k: key 1: it does not serve its own":         set(`{"keys":[{"kty":"oct","alg":"RS256","k":"` + b64(make([]byte, 32)) + `"}]}`),
	} {
		if _, err := New(&Sources{JWT: o}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
