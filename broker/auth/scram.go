package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluice/broker/mqtt"
)

// DESIGN. The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) as enhanced
// authentication of MQTT 5 (MQTT5 4.12), without I/O:
//
//	client                                 server
//	CONNECT n,,n=user,r=nonce           ->  Step
//	                                    <-  AUTH r=nonce+ours,s=salt,i=4096
//	AUTH    c=biws,r=nonce+ours,p=proof ->  Step
//	                                    <-  CONNACK v=signature
//
// A CONNECT without authentication data is answered with an AUTH without, and
// the client begins with the next. There is no channel binding: "n" and "y"
// are accepted, "p=" is refused. Names and passwords are compared as the bytes
// they are: the normal form of RFC 4013 is not computed, for which clients
// send the same bytes as long as names and passwords are typed the same way
// (its tables would cost 300 KiB of the binary). An authorization identity
// must be the user itself.
//
// An unknown user gets an answer that looks like any other (users.scramOf),
// and fails where a wrong password does.

// scramBytesMax bounds one message of a peer: two names, a nonce and a proof
// are far below. With it an Exchange holds at most some 10 KiB.
const scramBytesMax = 4096

// step is where an Exchange stands.
type step uint8

const (
	awaitFirst    step = iota // client-first-message, an empty one may come before
	awaitFirstNow             // client-first-message, and nothing else
	awaitFinal                // client-final-message
	over
)

// Exchange is one enhanced authentication. It belongs to one connection.
type Exchange struct {
	users   *users
	named   string // the user name of CONNECT; "": it had none
	nonce   []byte // our part
	step    step
	user    string
	account *verifier
	known   bool
	gs2     string // the header before client-first-message-bare
	first   string // client-first-message-bare
	reply   string // server-first-message
	joint   string // both parts of the nonce
	id      *Identity
}

// Begin starts an enhanced authentication, that of CONNECT or one again later
// (then the caller compares the Identity's user with the one before,
// MQTT5 4.12.1). A user name in CONNECT must be the one that SCRAM proves; the
// password of CONNECT is not looked at. The error is an *Error with
// BadAuthenticationMethod: the method is unknown, or no user has a line for
// it.
func (r *Rules) Begin(method string, c *Credentials, now time.Time) (*Exchange, error) {
	if method != scramName || !r.has(ByPassword) || len(r.users.scram) == 0 {
		return nil, &Error{Reason: mqtt.BadAuthenticationMethod, Text: "the authentication method is not offered"}
	}
	e := &Exchange{users: r.users, named: c.Username}
	var nonce [18]byte
	rand.Read(nonce[:])
	e.nonce = base64.StdEncoding.AppendEncode(nil, nonce[:])
	return e, nil
}

// Step takes the authentication data of a CONNECT or AUTH packet (nil: it had
// none) and returns those of the answer. done: the client is who it says, and
// the answer goes into CONNACK, or into AUTH with Success. The error is an
// *Error, and ends the exchange. Steps are cheap: three HMACs at most.
func (e *Exchange) Step(data []byte) (reply []byte, done bool, err error) {
	at := e.step
	e.step = over // unless the step succeeds
	if len(data) > scramBytesMax {
		return nil, false, protocol("the message is too long")
	}
	switch at {
	case awaitFirst:
		if len(data) == 0 {
			e.step = awaitFirstNow
			return nil, false, nil
		}
		reply, err = e.onFirst(string(data))
	case awaitFirstNow:
		reply, err = e.onFirst(string(data))
	case awaitFinal:
		reply, err = e.onFinal(string(data))
		return reply, err == nil, err
	case over:
		err = protocol("the exchange is over")
	}
	if err == nil {
		e.step = awaitFinal
	}
	return reply, false, err
}

// Identity is who the client is, once Step was done; nil before.
func (e *Exchange) Identity() *Identity { return e.id }

// User is the name that the client says it has, for the Guard and the log; ""
// before it has said one.
func (e *Exchange) User() string { return e.user }

// protocol is the error of a peer that does not follow RFC 5802.
func protocol(text string) *Error {
	return &Error{Reason: mqtt.NotAuthorized, Text: scramName + ": " + text}
}

// onFirst takes client-first-message (RFC 5802 section 7) and makes
// server-first-message.
func (e *Exchange) onFirst(m string) ([]byte, error) {
	flag, rest, ok1 := strings.Cut(m, ",")
	authz, bare, ok2 := strings.Cut(rest, ",")
	switch {
	case !ok1 || !ok2:
		return nil, protocol("the first message has no header")
	case strings.HasPrefix(flag, "p="):
		return nil, protocol("channel binding is not offered")
	case flag != "n" && flag != "y":
		return nil, protocol("the first message has no header")
	}
	name, rest, _ := strings.Cut(bare, ",")
	nonce, _, _ := strings.Cut(rest, ",") // extensions after it are ignored
	if strings.HasPrefix(name, "m=") {
		return nil, protocol("an extension is mandatory that is unknown")
	}
	user, err := saslName(name, "n=")
	if err != nil {
		return nil, err
	}
	if authz != "" {
		other, err := saslName(authz, "a=")
		if err != nil {
			return nil, err
		}
		if other != user {
			return nil, protocol("the client wants to be somebody else")
		}
	}
	if nonce, ok1 = strings.CutPrefix(nonce, "r="); !ok1 || !printable(nonce) {
		return nil, protocol("the first message has no nonce")
	}
	if e.user = user; e.named != "" && e.named != user {
		return nil, refuse("the user name of CONNECT is not that of " + scramName)
	}
	e.account, e.known = e.users.scramOf(user)
	e.gs2 = m[:len(m)-len(bare)]
	e.first = strings.Clone(bare)
	e.joint = nonce + string(e.nonce)
	e.reply = fmt.Sprintf("r=%s,s=%s,i=%s", e.joint, encode(e.account.salt), strconv.Itoa(e.account.iterations))
	return []byte(e.reply), nil
}

// onFinal takes client-final-message and makes server-final-message.
func (e *Exchange) onFinal(m string) ([]byte, error) {
	cut := strings.LastIndex(m, ",p=")
	if cut < 0 {
		return nil, protocol("the last message has no proof")
	}
	binding, rest, _ := strings.Cut(m[:cut], ",")
	nonce, _, _ := strings.Cut(rest, ",")
	if binding != "c="+encode([]byte(e.gs2)) {
		return nil, protocol("the header of the last message is not that of the first")
	}
	if nonce != "r="+e.joint {
		return nil, protocol("the nonce of the last message is another")
	}
	proof, err := base64.StdEncoding.Strict().DecodeString(m[cut+len(",p="):])
	if err != nil || len(proof) != sha256.Size {
		return nil, protocol("the proof is none")
	}
	// ClientKey = proof XOR HMAC(StoredKey, AuthMessage), and its hash must be StoredKey.
	message := e.first + "," + e.reply + "," + m[:cut]
	clientKey := mac(e.account.key, message)
	subtle.XORBytes(clientKey, clientKey, proof)
	stored := sha256.Sum256(clientKey)
	signature := mac(e.account.serverKey, message)
	if !hmac.Equal(stored[:], e.account.key) || !e.known {
		return nil, refuse("user name or password is wrong")
	}
	e.id = &Identity{User: e.user, By: "scram"}
	return append([]byte("v="), encode(signature)...), nil
}

// saslName reads a name, in which "," is "=2C" and "=" is "=3D".
func saslName(s, prefix string) (string, error) {
	name, ok := strings.CutPrefix(s, prefix)
	if !ok || name == "" {
		return "", protocol("the first message has no user name")
	}
	if bytes.IndexByte([]byte(name), 0) >= 0 {
		return "", protocol("the user name contains a zero byte")
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch {
		case name[i] != '=':
			b.WriteByte(name[i])
			continue
		case strings.HasPrefix(name[i:], "=2C"):
			b.WriteByte(',')
		case strings.HasPrefix(name[i:], "=3D"):
			b.WriteByte('=')
		default:
			return "", protocol("the user name contains an escape that is none")
		}
		i += 2
	}
	return b.String(), nil
}

// printable tells whether s can be a nonce: visible ASCII without comma.
func printable(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || c == ',' {
			return false
		}
	}
	return s != ""
}
