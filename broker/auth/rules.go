package auth

import (
	"fmt"
	"slices"
	"time"

	"sluice/broker/mqtt"
)

// The methods of Sources.Methods.
const (
	ByCertificate = "certificate"
	ByToken       = "jwt"
	ByPassword    = "password"
)

// Sources is everything Rules are made of: contents, not file names. What is
// needed of it is copied.
type Sources struct {
	// Methods are asked in this order: "certificate", "jwt", "password". nil:
	// all that are configured, in this order. Empty but not nil: none. With
	// "password", SCRAM is offered too if the password file has lines for it.
	Methods []string

	Passwords *File       // nil: there is no "password"
	ACL       *File       // nil: whoever is in may do everything
	JWT       *JWTOptions // nil: there is no "jwt"

	// Secret makes what unknown users are shown (SCRAM's salts) the same after
	// a reload as before, so that it does not give them away. nil: it is
	// derived from the password file, and changes with it.
	Secret []byte
}

// Rules are who may come in and what they may do: an immutable snapshot.
type Rules struct {
	methods []string
	users   *users  // nil: no password file
	tokens  *tokens // nil: no JWT
	acl     *acl    // nil: no ACL file
}

// New makes Rules, or returns all that is wrong with the sources at once, each
// problem with file name and line.
func New(s *Sources) (*Rules, error) {
	var p problems
	r := &Rules{methods: slices.Clone(s.Methods)}
	if s.Passwords != nil {
		r.users = newUsers(s.Passwords, s.Secret, &p)
	}
	if s.JWT != nil {
		r.tokens = newTokens(s.JWT, &p)
	}
	if s.ACL != nil {
		r.acl = parseACL(s.ACL, &p)
	}
	if s.Methods == nil {
		r.methods = append(r.methods, ByCertificate)
		if s.JWT != nil {
			r.methods = append(r.methods, ByToken)
		}
		if s.Passwords != nil {
			r.methods = append(r.methods, ByPassword)
		}
	}
	r.checkMethods(&p)
	if err := p.err(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Rules) checkMethods(p *problems) {
	for i, m := range r.methods {
		switch {
		case slices.Contains(r.methods[:i], m):
			p.add("", 0, "method %q is there twice", m)
		case m == ByCertificate:
		case m == ByToken && r.tokens == nil:
			p.add("", 0, "method %q needs keys", m)
		case m == ByPassword && r.users == nil:
			p.add("", 0, "method %q needs a password file", m)
		case m != ByToken && m != ByPassword:
			p.add("", 0, "method %s is not one of %q, %q and %q", shown(m), ByCertificate, ByToken, ByPassword)
		}
	}
}

// has tells whether m is among the methods asked.
func (r *Rules) has(m string) bool { return slices.Contains(r.methods, m) }

// judges tells whether method m has something to judge in c.
func judges(m string, c *Credentials) bool {
	switch m {
	case ByCertificate:
		return c.CertificateUser != ""
	case ByToken:
		return looksLikeToken(c.Password)
	case ByPassword:
		return c.Username != "" && len(c.Password) > 0
	}
	panic(fmt.Sprintf("BUG: method %q", m))
}

// Cheap tells that Authenticate needs no hashing and no signature check for
// these credentials, so that a worker may call it itself.
func (r *Rules) Cheap(c *Credentials) bool {
	for _, m := range r.methods {
		if judges(m, c) {
			return m == ByCertificate
		}
	}
	return true
}

// Authenticate tells who c is at the wall clock's now. It may take as long as
// the hashing cost in the password file makes it, for an unknown user as long
// as for a wrong password. Its error is an *Error with the reason
// BadUserNameOrPassword, NotAuthorized (nothing was shown that could be
// judged), or ServerUnavailable (a token, but the clock is not set yet).
func (r *Rules) Authenticate(c *Credentials, now time.Time) (*Identity, error) {
	var refused error
	for _, m := range r.methods {
		if !judges(m, c) {
			continue
		}
		id, err := r.ask(m, c, now)
		if err == nil {
			return id, nil
		}
		if refused == nil {
			refused = err
		}
	}
	if refused != nil {
		return nil, refused
	}
	return r.stranger(c)
}

func (r *Rules) ask(m string, c *Credentials, now time.Time) (*Identity, error) {
	switch m {
	case ByCertificate:
		return &Identity{User: c.CertificateUser, By: "certificate"}, nil
	case ByToken:
		return r.tokens.verify(c, now)
	default:
		if !r.users.verify(c.Username, c.Password) {
			return nil, refuse("user name or password is wrong")
		}
		return &Identity{User: c.Username, By: "password"}, nil
	}
}

// anonymous is the identity of everybody without one: thousands may be connected.
var anonymous = &Identity{By: "anonymous"}

// stranger judges who has shown nothing that a method could judge.
func (r *Rules) stranger(c *Credentials) (*Identity, error) {
	asked := r.has(ByToken) || r.has(ByPassword)
	switch {
	case c.Anonymous && (c.nothing() || !asked):
		return anonymous, nil
	case c.nothing():
		return nil, &Error{Reason: mqtt.NotAuthorized, Text: "anonymous clients are not allowed here"}
	case !asked:
		return nil, &Error{Reason: mqtt.NotAuthorized, Text: "user names are not accepted here: neither passwords nor tokens are configured"}
	case len(c.Password) == 0:
		return nil, refuse("the password is missing")
	case c.Username == "" && !r.has(ByToken):
		return nil, refuse("the user name is missing")
	}
	return nil, refuse("the password is not a token")
}

// PermitByName is Permit for somebody of whom only the name is known, from an
// earlier time. It is nil if he may have come by a token, which may have brought rules of its
// own: then his messages wait for him, and are judged when he is back.
func (r *Rules) PermitByName(user, clientID string) *Permit {
	if r.tokens != nil {
		return nil
	}
	return r.Permit(&Identity{User: user}, clientID)
}

// Permit compiles what a client may do: nil if there is nothing to restrict.
// clientID is the one it is known by, also if the broker gave it.
func (r *Rules) Permit(id *Identity, clientID string) *Permit {
	switch {
	case id == nil:
		panic("BUG: Permit of nobody")
	case id.grant != nil:
		return &Permit{sets: [3]*ruleSet{id.grant.fill(id.User, clientID)}}
	case r.acl == nil:
		return nil
	}
	return r.acl.permit(id.User, clientID)
}
