package configs

import (
	"slices"
	"strings"
)

// Auth is who may log in and what they may do. What its files contain is not
// looked at here: broker/auth knows.
type Auth struct {
	Methods            []string `toml:"methods"` // of authMethods, tried in this order
	PasswordFile       string   `toml:"password_file"`
	ACLFile            string   `toml:"acl_file"`
	DeniedPublish      string   `toml:"denied_publish" allow:"drop|disconnect"`
	LoginFailuresMax   int      `toml:"login_failures_max" allow:"1..1000000"` // of one user at one address
	LoginFailureWindow Duration `toml:"login_failure_window" allow:"1s..1d"`
	LoginRefuseFor     Duration `toml:"login_refuse_for" allow:"1s..1d"`
	JWT                JWT      `toml:"jwt"`
}

// JWT is how tokens in the place of passwords are checked. Exactly one of KeyFile,
// JWKSFile, SecretFile and SecretEnv says that they are accepted; none: they are
// not.
type JWT struct {
	KeyFile        string   `toml:"key_file"`    // PEM: a public key or a certificate
	JWKSFile       string   `toml:"jwks_file"`   // RFC 7517
	SecretFile     string   `toml:"secret_file"` // HS256 and its like
	SecretEnv      string   `toml:"secret_env" secret:"true"`
	Issuer         string   `toml:"issuer"`   // "": any
	Audience       string   `toml:"audience"` // "": any
	Leeway         Duration `toml:"leeway" allow:"0..10m"`
	RequireExpiry  bool     `toml:"require_expiry"`
	UserClaim      string   `toml:"user_claim"`      // a token must have it
	UsernameClaim  string   `toml:"username_claim"`  // "": the user name of CONNECT does not matter
	ClientIDClaim  string   `toml:"client_id_claim"` // this and the following bind if a token has them
	PublishClaim   string   `toml:"publish_claim"`
	SubscribeClaim string   `toml:"subscribe_claim"`
}

// authMethods are what may stand in auth.methods.
var authMethods = []string{"certificate", "jwt", "password"}

// ActiveMethods are those of Methods that are configured, never nil.
func (a *Auth) ActiveMethods() []string {
	active := []string{}
	for _, method := range a.Methods {
		if method == "certificate" || method == "jwt" && a.UsesJWT() || method == "password" && a.UsesPassword() {
			active = append(active, method)
		}
	}
	return active
}

func (a *Auth) has(method string) bool { return slices.Contains(a.Methods, method) }

// UsesPassword says whether the password file is asked.
func (a *Auth) UsesPassword() bool { return a.has("password") && a.PasswordFile != "" }

// UsesJWT says whether tokens are accepted.
func (a *Auth) UsesJWT() bool { return a.has("jwt") && a.JWT.enabled() }

func (j *JWT) enabled() bool { return len(j.keys()) > 0 }

// keys names the places that keys come from.
func (j *JWT) keys() (set []string) {
	for _, k := range []struct{ key, value string }{
		{"key_file", j.KeyFile}, {"jwks_file", j.JWKSFile}, {"secret_file", j.SecretFile}, {"secret_env", j.SecretEnv},
	} {
		if k.value != "" {
			set = append(set, k.key)
		}
	}
	return set
}

// Secret returns the key of HMAC tokens from secret_file or secret_env, nil if
// neither is set.
func (j *JWT) Secret() ([]byte, error) {
	secret, err := readSecret(j.SecretFile, j.SecretEnv)
	if secret == "" {
		return nil, err
	}
	return []byte(secret), err
}

func (v *validator) auth(a *Auth) {
	if len(a.Methods) == 0 {
		v.problem("auth.methods", "none", "at least one", "to let in everybody set allow_anonymous of the listeners instead")
	}
	for i, method := range a.Methods {
		path := index("auth.methods", i)
		if !slices.Contains(authMethods, method) {
			v.problem(path, quoted(method), `"`+strings.Join(authMethods, `", "`)+`"`, "")
		} else if slices.Index(a.Methods, method) < i {
			v.problem(path, quoted(method)+" twice", "each method once", "")
		}
	}
	if a.PasswordFile != "" && !a.has("password") {
		v.problem("auth.password_file", `password_file without "password" in auth.methods`, "both or none", "")
	}
	v.jwt(&a.JWT, a.has("jwt"))
}

func (v *validator) jwt(j *JWT, method bool) {
	const path = "auth.jwt"
	keys := j.keys()
	switch {
	case len(keys) > 1:
		v.problem(path+"."+keys[1], strings.Join(keys, " and "), "one of them", "")
	case len(keys) == 1 && !method:
		v.problem(path+"."+keys[0], keys[0]+` without "jwt" in auth.methods`, "both or none", "")
	case len(keys) == 0 && (j.Issuer != "" || j.Audience != "" || j.UsernameClaim != ""):
		v.problem(path, "no key", "one of key_file, jwks_file, secret_file and secret_env", "without one no token is accepted")
	}
	for key, claim := range map[string]string{"user_claim": j.UserClaim, "client_id_claim": j.ClientIDClaim,
		"publish_claim": j.PublishClaim, "subscribe_claim": j.SubscribeClaim} {
		if claim == "" {
			v.problem(path+"."+key, "nothing", "the name of a claim", "")
		}
	}
	v.envName(path+".secret_env", j.SecretEnv)
}

// envName checks the name of an environment variable, and does not repeat it: it
// may be the secret itself, written in the wrong place.
func (v *validator) envName(path, name string) {
	if name != "" && !validEnv(name) {
		v.problem(path, "something else", "the name of an environment variable: A to Z, 0 to 9 and _", "the secret itself belongs into that variable or into a file")
	}
}

// validEnv takes upper case only: a password looks less like that.
func validEnv(name string) bool {
	return len(name) > 0 && (name[0] < '0' || name[0] > '9') && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}
