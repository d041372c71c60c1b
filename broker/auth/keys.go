package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// DESIGN. Which algorithms a token may use follows from the keys alone: each
// key knows those it serves, and a token is held only against keys that serve
// its algorithm. "none" is served by none, and a public key is never a secret
// (RFC 8725 section 3.1).

// key is one key that tokens may be signed with.
type key struct {
	id   string   // "kid"; "": none
	algs []string // what it serves
	key  any      // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey, []byte
}

// rsaBitsMin is what RFC 7518 3.3 demands; rsaBitsMax keeps a check below a
// few milliseconds.
const (
	rsaBitsMin = 2048
	rsaBitsMax = 8192
)

// newPublicKey makes a key of what a PEM block or JWK contains.
func newPublicKey(id string, public any) (*key, error) {
	k := &key{id: id, key: public}
	switch p := public.(type) {
	case *rsa.PublicKey:
		if n := p.N.BitLen(); n < rsaBitsMin || n > rsaBitsMax {
			return nil, fmt.Errorf("the RSA key has %d bits, not %d to %d", n, rsaBitsMin, rsaBitsMax)
		}
		if p.E < 3 || p.E%2 == 0 {
			return nil, errors.New("the RSA key has no valid exponent")
		}
		k.algs = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case *ecdsa.PublicKey:
		alg, ok := map[elliptic.Curve]string{elliptic.P256(): "ES256", elliptic.P384(): "ES384", elliptic.P521(): "ES512"}[p.Curve]
		if !ok {
			return nil, errors.New("the curve is not one of P-256, P-384 and P-521")
		}
		k.algs = []string{alg}
	case ed25519.PublicKey:
		k.algs = []string{"EdDSA"}
	default:
		return nil, errors.New("the key is neither RSA nor ECDSA nor Ed25519")
	}
	return k, nil
}

// newSecret makes a key for HMAC. It must be as long as the hash (RFC 7518
// 3.2).
func newSecret(id string, secret []byte) (*key, error) {
	if len(secret) < 32 {
		return nil, fmt.Errorf("the secret has %d bytes; HS256 needs 32, HS384 48, HS512 64", len(secret))
	}
	k := &key{id: id, key: secret, algs: []string{"HS256"}}
	if len(secret) >= 48 {
		k.algs = append(k.algs, "HS384")
	}
	if len(secret) >= 64 {
		k.algs = append(k.algs, "HS512")
	}
	return k, nil
}

// parsePEM reads all public keys and certificates of a file.
func parsePEM(f *File, p *problems) (keys []*key) {
	for rest := f.Data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		public, err := publicOf(block)
		var k *key
		if err == nil {
			k, err = newPublicKey("", public)
		}
		if err != nil {
			p.add(f.Name, 0, "%w", err)
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		p.add(f.Name, 0, "there is no public key in PEM form in it")
	}
	return keys
}

func publicOf(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	}
	return nil, fmt.Errorf("PEM block %s: only public keys and certificates are of use here", shown(block.Type))
}

// parseSecret takes a file as a secret, without a line end at its end.
func parseSecret(f *File, p *problems) []*key {
	secret := bytes.TrimRight(f.Data, "\r\n")
	if bytes.Contains(secret, []byte("-----BEGIN ")) || bytes.HasPrefix(bytes.TrimSpace(secret), []byte("{")) {
		p.add(f.Name, 0, "a PEM or JSON file is no secret: anybody may know it")
		return nil
	}
	k, err := newSecret("", bytes.Clone(secret))
	if err != nil {
		p.add(f.Name, 0, "%w", err)
		return nil
	}
	return []*key{k}
}

// jwk is one key of a JWK set (RFC 7517, RFC 7518 section 6, RFC 8037).
type jwk struct {
	Kty string
	Use string
	Kid string
	Alg string
	Crv string
	N   string
	E   string
	X   string
	Y   string
	K   string
}

// parseJWKS reads a JWK set. Keys that are not for signatures, or of a kind
// that is unknown, are passed over, as RFC 7517 section 5 asks.
func parseJWKS(f *File, p *problems) (keys []*key) {
	var set struct{ Keys []jwk }
	if err := json.Unmarshal(f.Data, &set); err != nil {
		p.add(f.Name, 0, "%w", err)
		return nil
	}
	for i := range set.Keys {
		j := &set.Keys[i]
		if j.Use != "" && j.Use != "sig" {
			continue
		}
		k, err := j.key()
		if err != nil {
			p.add(f.Name, 0, "key %d: %w", i+1, err)
			continue
		}
		if k == nil {
			continue
		}
		if j.Alg != "" {
			if !slices.Contains(k.algs, j.Alg) {
				p.add(f.Name, 0, "key %d: it does not serve its own algorithm %s", i+1, shown(j.Alg))
				continue
			}
			k.algs = []string{j.Alg}
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		p.add(f.Name, 0, "there is no key for signatures in it")
	}
	return keys
}

// key makes the key; nil: its kind is unknown.
func (j *jwk) key() (*key, error) {
	switch j.Kty {
	case "RSA":
		n, err1 := base64url(j.N)
		e, err2 := base64url(j.E)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		exponent := new(big.Int).SetBytes(e)
		if exponent.BitLen() > 31 || len(n) > rsaBitsMax/8+1 {
			return nil, errors.New("the RSA key is too big")
		}
		return newPublicKey(j.Kid, &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())})
	case "EC":
		return j.ec()
	case "OKP":
		x, err := base64url(j.X)
		if j.Crv != "Ed25519" {
			return nil, nil
		}
		if err != nil || len(x) != ed25519.PublicKeySize {
			return nil, errors.New("the Ed25519 key has not 32 bytes")
		}
		return newPublicKey(j.Kid, ed25519.PublicKey(x))
	case "oct":
		k, err := base64url(j.K)
		if err != nil {
			return nil, err
		}
		return newSecret(j.Kid, k)
	}
	return nil, nil
}

func (j *jwk) ec() (*key, error) {
	curve, ok := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[j.Crv]
	if !ok {
		return nil, nil
	}
	x, err1 := base64url(j.X)
	y, err2 := base64url(j.Y)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) > size || len(y) > size {
		return nil, errors.New("the point is not on the curve")
	}
	point := make([]byte, 1+2*size) // SEC 1, uncompressed
	point[0] = 4
	copy(point[1+size-len(x):], x)
	copy(point[1+2*size-len(y):], y)
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, errors.New("the point is not on the curve")
	}
	return newPublicKey(j.Kid, public)
}

func base64url(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil, errors.New("a number is not base64url")
	}
	return b, nil
}
