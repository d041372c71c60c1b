package bridge

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"sluice/broker/mqtt"
)

// DESIGN. Which version of MQTT is spoken with the upstream. protocol belongs to the
// supervisor. With auto it begins with 5. An upstream that knows 3.1.1 only says so, in
// one of two ways (MQTT5 3.1.2.2), or hangs up; whoever hangs up may also do so for other
// reasons, so then 3.1.1 is tried, and only if that is answered it stays. What was found
// out holds as long as the process lives: an upstream that was updated is spoken to
// in 5 after the next start.

// Protocol tells which version of MQTT a Bridge speaks with its upstream.
type Protocol string

// The protocols.
const (
	ProtocolAuto Protocol = "auto"  // 5, and 3.1.1 if the upstream does not speak it
	Protocol5    Protocol = "5"     // 5 only
	Protocol311  Protocol = "3.1.1" // 3.1.1 only
)

var errOtherProtocol = errors.New("another protocol version is to be tried")

type protocol struct {
	auto    bool
	version mqtt.Version // to dial with
	settled bool         // it has been answered
}

func newProtocol(p Protocol) *protocol {
	switch p {
	case ProtocolAuto:
		return &protocol{auto: true, version: mqtt.V5}
	case Protocol5:
		return &protocol{version: mqtt.V5}
	}
	return &protocol{version: mqtt.V311}
}

// dialled notes what came of dialling, nil: a connection. It reports whether the
// other version is to be tried now, and whether it has just been found out that the
// upstream speaks 3.1.1 only.
func (p *protocol) dialled(err error) (again, found bool) {
	if !p.auto {
		return false, false
	}
	var refused *connackError
	switch answered := err == nil || errors.As(err, &refused); {
	case errors.Is(err, errNot5):
		p.version, p.settled = mqtt.V311, true
		return true, true
	case answered:
		found = p.version == mqtt.V311 && !p.settled
		p.settled = true
	case p.settled:
	case p.version == mqtt.V5:
		if hungUp(err) {
			p.version = mqtt.V311
			return true, false
		}
	default:
		p.version = mqtt.V5 // it was nothing about versions
	}
	return false, found
}

// hungUp tells whether the upstream closed the connection instead of answering CONNECT.
func hungUp(err error) bool {
	var where *stepError
	return errors.As(err, &where) && where.step == stepMQTT && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}

func (o *Options) validateProtocol() error {
	switch o.Protocol {
	case ProtocolAuto, Protocol5, Protocol311:
		return nil
	}
	return fmt.Errorf("protocol %q: need auto, 5 or 3.1.1", o.Protocol)
}
