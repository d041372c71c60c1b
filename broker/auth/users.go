package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// DESIGN. Nothing that a peer can see or time may tell whether a user exists.
// For an unknown user the verifier of some user of the file is computed, and
// SCRAM shows that one's cost with a salt of its own; which one depends on the
// unknown name and a secret only, so asking twice gives the same answer, and
// over many names costs are spread as over those who exist.

// account is what the password file knows of one user.
type account struct {
	verifiers [kinds]*verifier
}

// first is the verifier that a password is held against: one only, so that an
// old line of another kind is no second password.
func (a *account) first() *verifier {
	for _, v := range a.verifiers {
		if v != nil {
			return v
		}
	}
	panic("BUG: an account without verifier")
}

// users is the password file as Rules keep it.
type users struct {
	accounts map[string]*account
	plain    []*verifier // of each user the first, in the order of the file: what unknown users are given
	scram    []*verifier // all SCRAM verifiers, for the same purpose
	secret   []byte
}

func newUsers(f *File, secret []byte, p *problems) *users {
	u := &users{accounts: map[string]*account{}, secret: bytes.Clone(secret)}
	if secret == nil {
		u.secret = mac(f.Data, "unknown users")
	}
	parsed := parsePasswords(f, p)
	var order []*account
	for i := range parsed.lines {
		l := &parsed.lines[i]
		if l.verifier == nil {
			continue
		}
		a := u.accounts[l.user]
		if a == nil {
			a = &account{}
			u.accounts[l.user] = a
			order = append(order, a)
		}
		a.verifiers[l.verifier.kind] = l.verifier
	}
	for _, a := range order {
		u.plain = append(u.plain, a.first())
		if v := a.verifiers[kindScram]; v != nil {
			u.scram = append(u.scram, v)
		}
	}
	return u
}

// verify tells whether password is that of user.
func (u *users) verify(user string, password []byte) bool {
	if a := u.accounts[user]; a != nil {
		return a.first().verify(password)
	}
	if v := u.decoy(u.plain, user); v != nil {
		v.verify(password)
	}
	return false
}

// decoy picks the verifier that stands in for an unknown user; nil: none.
func (u *users) decoy(of []*verifier, user string) *verifier {
	if len(of) == 0 {
		return nil
	}
	n := binary.BigEndian.Uint64(u.fake("pick", user)) % uint64(len(of))
	return of[n]
}

// fake are 32 bytes that depend on the name and the secret.
func (u *users) fake(what, user string) []byte {
	h := hmac.New(sha256.New, u.secret)
	h.Write([]byte(what))
	h.Write([]byte{0})
	h.Write([]byte(user))
	return h.Sum(nil)
}

// scramOf is the SCRAM verifier of a user. known false: it is made up, but for
// the peer looks like any other.
func (u *users) scramOf(user string) (v *verifier, known bool) {
	if a := u.accounts[user]; a != nil && a.verifiers[kindScram] != nil {
		return a.verifiers[kindScram], true
	}
	like := u.decoy(u.scram, user)
	salt := u.fake("salt", user)
	for len(salt) < len(like.salt) {
		salt = append(salt, u.fake("salt", string(salt)+user)...)
	}
	return &verifier{
		kind:       kindScram,
		iterations: like.iterations,
		salt:       salt[:len(like.salt)],
		key:        u.fake("stored", user),
		serverKey:  u.fake("server", user),
	}, false
}
