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

// Credentials are what a connection shows of itself in CONNECT and below it.
type Credentials struct {
	ClientID    string
	Username    string
	HasUsername bool
	Password    []byte
	HasPassword bool
	Certificate *x509.Certificate // verified by TLS; nil: none
	Remote      netip.Addr        // zero: a unix socket
	Anonymous   bool              // the listener lets in who shows nothing
}

// Identity is who a connection is. It is immutable.
type Identity struct {
	User    string    // "": anonymous
	Expires time.Time // when it ends (a token's expiry), wall clock; zero: never
	By      string    // what proved it: "anonymous", "certificate", "password", "jwt", "scram"
}

// Error is a refused login.
type Error struct {
	Reason mqtt.Reason // for CONNACK, AUTH or DISCONNECT
	Text   string      // for the log, without secrets
}

func (e *Error) Error() string { return e.Text }
