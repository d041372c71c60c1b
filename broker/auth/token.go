package auth

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluice/broker/mqtt"
)

// DESIGN. A client shows a JSON Web Token (RFC 7519) as its password. Signature
// and times are checked by golang-jwt; which key may have signed it (keys.go)
// and what the claims mean is decided here:
//
//	UserClaim       is the user; a token without it is refused
//	UsernameClaim   if the token has it: CONNECT's user name must be the same
//	ClientIDClaim   if the token has it: CONNECT's client id must be the same
//	PublishClaim,   arrays of topic filters, with %u and %c as in an ACL file:
//	SubscribeClaim  if the token has one of them, they are all that the client
//	                may do, and the ACL file says nothing about it
//
// The session ends when the token does (Identity.Expires).

// JWTOptions say which tokens are accepted. At least one key is needed. The
// algorithms follow from the keys: RS*, PS* of RSA keys, ES* of ECDSA keys,
// EdDSA of Ed25519 keys, HS* of secrets.
type JWTOptions struct {
	PublicKeys []File // PEM: public keys, or certificates (their validity is not checked)
	Secrets    []File // raw bytes, a line end at the end does not count; at least 32 bytes
	JWKS       []File // JSON (RFC 7517)

	Audience string        // must be among "aud"; "": any
	Issuer   string        // must be "iss"; "": any
	Leeway   time.Duration // by how much the clocks may differ; 0: none

	UserClaim      string // "": "sub"
	UsernameClaim  string // "": none is checked
	ClientIDClaim  string // "": "clientid"
	PublishClaim   string // "": "publ"
	SubscribeClaim string // "": "subs"; subscribing and receiving

	WithoutExpiry bool // accept tokens that never expire
}

// tokenBytesMax bounds the work that a token can make before its signature is
// known to be good; tokens with hundreds of topics are smaller.
const tokenBytesMax = 16 << 10

// rulesMax is how many topics a token may carry: they are kept per client.
const rulesMax = 256

// tokens is how Rules keep JWTOptions.
type tokens struct {
	keys           []*key
	parser         []jwt.ParserOption
	leeway         time.Duration
	user           string
	username       string
	clientID       string
	publishTopic   string
	subscribeTopic string
}

func newTokens(o *JWTOptions, p *problems) *tokens {
	t := &tokens{
		leeway:         o.Leeway,
		user:           or(o.UserClaim, "sub"),
		username:       o.UsernameClaim,
		clientID:       or(o.ClientIDClaim, "clientid"),
		publishTopic:   or(o.PublishClaim, "publ"),
		subscribeTopic: or(o.SubscribeClaim, "subs"),
	}
	for i := range o.PublicKeys {
		t.keys = append(t.keys, parsePEM(&o.PublicKeys[i], p)...)
	}
	for i := range o.Secrets {
		t.keys = append(t.keys, parseSecret(&o.Secrets[i], p)...)
	}
	for i := range o.JWKS {
		t.keys = append(t.keys, parseJWKS(&o.JWKS[i], p)...)
	}
	if len(o.PublicKeys)+len(o.Secrets)+len(o.JWKS) == 0 {
		p.add("", 0, "method %q needs keys", ByToken)
	}
	if o.Leeway < 0 {
		p.add("", 0, "the leeway for tokens is negative: %v", o.Leeway)
	}
	var algs []string
	for _, k := range t.keys {
		algs = append(algs, k.algs...)
	}
	t.parser = append(t.parser, jwt.WithValidMethods(algs), jwt.WithLeeway(o.Leeway), jwt.WithStrictDecoding())
	if !o.WithoutExpiry {
		t.parser = append(t.parser, jwt.WithExpirationRequired())
	}
	if o.Audience != "" {
		t.parser = append(t.parser, jwt.WithAudience(o.Audience))
	}
	if o.Issuer != "" {
		t.parser = append(t.parser, jwt.WithIssuer(o.Issuer))
	}
	return t
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// looksLikeToken tells a token from a password: a JSON object in base64url,
// and two dots.
func looksLikeToken(password []byte) bool {
	return bytes.HasPrefix(password, []byte("eyJ")) && bytes.Count(password, []byte{'.'}) == 2
}

// clockSet is a time that has passed: a clock that is behind it has not been
// set since the gateway booted, and cannot tell an expired token.
var clockSet = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// verify tells who shows the token in the password.
func (t *tokens) verify(c *Credentials, now time.Time) (*Identity, error) {
	if len(c.Password) > tokenBytesMax {
		return nil, refuse("the token is too long")
	}
	if now.Before(clockSet) {
		return nil, &Error{Reason: mqtt.ServerUnavailable, Text: "the clock is not set yet: a token's expiry cannot be checked"}
	}
	claims := jwt.MapClaims{}
	options := append(slices.Clip(t.parser), jwt.WithTimeFunc(func() time.Time { return now }))
	if _, err := jwt.NewParser(options...).ParseWithClaims(string(c.Password), claims, t.keysOf); err != nil {
		return nil, refuse("the token is refused: " + reasonOf(err))
	}
	id, err := t.identity(claims, c)
	if err != nil {
		return nil, refuse("the token is refused: " + err.Error())
	}
	return id, nil
}

// keysOf are the keys that a token may be signed with: of its algorithm, and,
// if both have an id, of the same id.
func (t *tokens) keysOf(token *jwt.Token) (any, error) {
	if _, critical := token.Header["crit"]; critical { // RFC 7515 4.1.11
		return nil, errors.New("it uses an extension")
	}
	kid, _ := token.Header["kid"].(string)
	var set jwt.VerificationKeySet
	for _, k := range t.keys {
		if slices.Contains(k.algs, token.Method.Alg()) && (kid == "" || k.id == "" || k.id == kid) {
			set.Keys = append(set.Keys, k.key)
		}
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("no key has its id and algorithm")
	}
	return set, nil
}

// reasonOf says in words, without a byte of the token, why it is refused.
func reasonOf(err error) string {
	for _, known := range []error{
		jwt.ErrTokenMalformed, jwt.ErrTokenExpired, jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued,
		jwt.ErrTokenInvalidAudience, jwt.ErrTokenInvalidIssuer, jwt.ErrTokenRequiredClaimMissing,
		jwt.ErrTokenInvalidClaims, jwt.ErrTokenSignatureInvalid, jwt.ErrTokenUnverifiable,
	} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "unknown reason"
}

// identity reads the claims of a token whose signature is good.
func (t *tokens) identity(claims jwt.MapClaims, c *Credentials) (*Identity, error) {
	user, _ := claims[t.user].(string)
	if user == "" || len(user) > nameMax || strings.IndexByte(user, 0) >= 0 {
		return nil, fmt.Errorf("claim %q names no user", t.user)
	}
	id := &Identity{User: user, By: "jwt"}
	if err := mustBe(claims, t.username, "user name", c.Username); err != nil {
		return nil, err
	}
	if err := mustBe(claims, t.clientID, "client id", c.ClientID); err != nil {
		return nil, err
	}
	expires, err := claims.GetExpirationTime()
	if err != nil {
		return nil, err
	}
	if expires != nil {
		id.Expires = expires.Add(t.leeway)
	}
	id.grant, err = t.grant(claims)
	return id, err
}

// mustBe checks a claim that, if it is there, says what CONNECT must say.
func mustBe(claims jwt.MapClaims, claim, what, shows string) error {
	if claim == "" {
		return nil
	}
	if v, there := claims[claim]; there && v != shows {
		return fmt.Errorf("its claim %q is for another %s", claim, what)
	}
	return nil
}

// grant reads the topics that a token allows; nil: it does not say.
func (t *tokens) grant(claims jwt.MapClaims) (*grant, error) {
	var g *grant
	for _, x := range []struct {
		claim string
		what  allowance
	}{{t.publishTopic, mayWrite}, {t.subscribeTopic, mayRead}} {
		v, there := claims[x.claim]
		if !there {
			continue
		}
		if g == nil {
			g = &grant{origin: "token"}
		}
		list, ok := v.([]any)
		if !ok || len(list)+len(g.rules) > rulesMax {
			return nil, fmt.Errorf("claim %q is not an array of topics, or of more than %d", x.claim, rulesMax)
		}
		for _, entry := range list {
			filter, _ := entry.(string)
			if err := checkFilter([]byte(filter)); err != nil {
				return nil, fmt.Errorf("claim %q: %w", x.claim, err)
			}
			g.rules = append(g.rules, newRule(x.what, filter, 0, fmt.Sprintf("claim %q: %s", x.claim, filter)))
		}
	}
	return g, nil
}
