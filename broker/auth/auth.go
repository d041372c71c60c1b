package auth

import (
	"crypto/x509"
	"net/netip"
	"time"

	"sluice/broker/mqtt"
)

// Action is what a client wants to do with a topic.
type Action uint8

const (
	Publish   Action = iota // send a message to a topic name
	Receive                 // be sent a message of a topic name
	Subscribe               // subscribe to a topic filter
)

// String is the action in words, "publish", "receive" or "subscribe".
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return "unknown action"
}

var actionNames = [...]string{"publish", "receive", "subscribe"}

// Credentials are what a connection shows of itself in CONNECT and below it.
type Credentials struct {
	ClientID        string
	Username        string
	HasUsername     bool
	Password        []byte
	HasPassword     bool
	Certificate     *x509.Certificate // verified by TLS; nil: none
	CertificateUser string            // the user that Certificate names (CertificateUser); "": the listener does not take users from certificates
	Remote          netip.Addr        // zero: a unix socket
	Anonymous       bool              // the listener lets in who shows nothing
}

// nothing tells whether the client shows neither user name nor password. An
// empty one counts as none: libraries send it for "not configured".
func (c *Credentials) nothing() bool { return c.Username == "" && len(c.Password) == 0 }

// Identity is who a connection is. It is immutable.
type Identity struct {
	User    string    // "": anonymous
	Expires time.Time // when it ends (a token's expiry), wall clock; zero: never
	By      string    // what proved it: "anonymous", "certificate", "password", "jwt", "scram"

	grant *grant // what a token allows; it stands in for the ACL file; nil: the file decides
}

// Error is a refused login.
type Error struct {
	Reason mqtt.Reason // for CONNACK, AUTH or DISCONNECT
	Text   string      // for the log, without secrets
}

func (e *Error) Error() string { return e.Text }

// refuse makes the error of wrong or missing credentials.
func refuse(text string) *Error {
	return &Error{Reason: mqtt.BadUserNameOrPassword, Text: text}
}
