package bridge

import (
	"context"

	"sluice/broker/mqtt"
)

// DESIGN. upstream is one connection to the upstream broker, in whichever version
// of MQTT; up3.go and up5.go make them, and are the only files that know a client
// library. Whatever the version, a receipt is honest: it is done without an error only
// if the upstream has acknowledged on this very connection. A connection is dialled
// once and never repaired. Whoever waits for a receipt waits for the end of the link
// as well: a receipt may never be done if the connection is lost.
//
// All methods may be called from any goroutine, publish from one at a time.
type upstream interface {
	// publish hands a message over, in the order of the calls. It does not wait
	// for the network. The message must stay as it is until the receipt is done.
	publish(m *message) receipt

	// open tells whether the library takes the connection for open. QoS 0 messages
	// are not given to it otherwise: it would report them as sent.
	open() bool

	// subscribe returns the QoS that the upstream granted, 0x80 or more for a
	// refusal.
	subscribe(ctx context.Context, filter string, qos uint8, lost <-chan struct{}) (uint8, error)

	// limits are what the upstream takes.
	limits() upLimits

	// disconnect says goodbye and waits for the upstream to hang up, both if that
	// is possible soon.
	disconnect()

	// close ends the connection and waits for our part of it.
	close()

	// kill ends the connection at once, without waiting for anything.
	kill(err error)

	// reason is why the connection ended.
	reason() error
}

// message is one message on its way between the brokers.
type message struct {
	topic   string
	payload []byte
	qos     uint8
	retain  bool

	// What MQTT 5 adds. 3.1.1 drops it.
	props   []byte // the properties that belong to the message, as in a packet, without its expiry; nil: none
	expires bool
	seconds uint32 // left, if it expires
}

// inMessage is a message from the upstream. It belongs to whom it is given to.
type inMessage struct {
	message
	ack func() // for QoS 1, once; may block until the connection is lost
}

// receipt is the outcome of a publish: Done is closed when the upstream has
// answered (QoS 1) or the packet is on its way (QoS 0). Error is nil then if the
// upstream has acknowledged, a refusal if it said that it does not want the
// message, and else why the connection ended. Done may never be closed if the
// connection is lost.
type receipt interface {
	Done() <-chan struct{}
	Error() error
}

// upLimits are what an upstream takes. MQTT 3.1.1 does not say; then they are those
// of the protocol.
type upLimits struct {
	version     mqtt.Version
	receiveMax  int // QoS 1 messages that may be on the way
	packetBytes int // the largest packet
	qosMax      uint8
	retain      bool // whether it keeps retained messages
}

// receiveMaxAny is the receive maximum of who does not set one (MQTT5 3.2.2.3.3).
const receiveMaxAny = 65535

// refusal is the error of a receipt whose message the upstream has answered with
// a reason from 0x80 on (MQTT5 3.4.2.1).
type refusal struct {
	reason mqtt.Reason
}

func (r *refusal) Error() string { return "the upstream refuses the message: " + r.reason.String() }
