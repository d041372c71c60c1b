package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice/broker/mqtt"
)

// DESIGN. Ping dials as a Bridge does, with the same code, and tells what it sees on
// the way. It does not touch the session at the upstream: it uses a client id of its
// own, asks for nothing to be kept, leaves no will and subscribes nothing. An error that
// people run into gets a hint, which says what to look at, not what went wrong.

// PingStep is one part of connecting.
type PingStep struct {
	Name   string  `json:"step"` // credentials, DNS, TCP, proxy, TLS, WebSocket or MQTT
	OK     bool    `json:"ok"`
	Millis float64 `json:"milliseconds"` // since the step before
	Found  string  `json:"found,omitempty"`
	Error  string  `json:"error,omitempty"`
	Hint   string  `json:"hint,omitempty"`
}

// Pinged is what came of dialling one address.
type Pinged struct {
	Address  string     `json:"address"`
	ClientID string     `json:"client_id"`
	OK       bool       `json:"ok"`
	Steps    []PingStep `json:"steps"`
}

// PingSuffix is what Ping appends to the client id.
const PingSuffix = "-ping"

// Ping dials each address of o, which must be valid but for its routes and its way to
// the local broker, up to ConnectTimeout each. ctx ends it earlier.
func Ping(ctx context.Context, o Options) []Pinged {
	o.ClientID += PingSuffix
	o.CleanSession, o.Notifications = true, false
	var all []Pinged
	for _, s := range o.addresses() {
		at, err := parseAddress(s)
		if err != nil {
			panic("BUG: bridge: address that was not validated: " + err.Error())
		}
		all = append(all, ping(ctx, &o, at))
	}
	return all
}

func ping(ctx context.Context, o *Options, at address) Pinged {
	ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	p := Pinged{Address: at.String(), ClientID: o.ClientID}
	last := time.Now()
	note := func(s PingStep) {
		s.Millis = float64(time.Since(last).Microseconds()) / 1000
		last = time.Now()
		p.Steps = append(p.Steps, s)
	}
	d := dialing{
		opts: o, at: at,
		onMessage: func(inMessage) {}, onLost: func(error) {},
		told: func(s step, found string) { note(PingStep{Name: string(s), OK: true, Found: found}) },
	}
	speaks := newProtocol(o.Protocol)
	d.version = speaks.version
	up, _, err := d.dial(ctx)
	if again, _ := speaks.dialled(err); again {
		note(PingStep{Name: string(stepMQTT), Error: err.Error(), Hint: "the upstream may not speak MQTT 5; now with 3.1.1, as the bridge does with protocol = \"auto\""})
		d.version = speaks.version
		up, _, err = d.dial(ctx)
	}
	if err != nil {
		failed := PingStep{Name: string(stepMQTT), Error: err.Error(), Hint: hint(o, at, err)}
		var at *stepError
		if errors.As(err, &at) {
			failed.Name, failed.Error = string(at.step), at.err.Error()
		}
		note(failed)
		return p
	}
	p.OK = true
	note(PingStep{Name: string(stepMQTT), OK: true, Found: describeLimits(up.limits())})
	up.disconnect()
	up.close()
	return p
}

func describeLimits(l upLimits) string {
	if l.version < mqtt.V5 {
		return "MQTT 3.1.1, accepted"
	}
	text := fmt.Sprintf("MQTT 5, accepted; receive maximum %d, maximum QoS %d", l.receiveMax, l.qosMax)
	if l.packetBytes < mqtt.PacketBytesMax {
		text += fmt.Sprintf(", maximum packet size %d", l.packetBytes)
	}
	if !l.retain {
		text += ", no retained messages"
	}
	return text
}

// hint says what to look at after an error, or nothing.
func hint(o *Options, at address, err error) string {
	var refused *connackError
	if errors.As(err, &refused) {
		return hintConnack(o, refused)
	}
	var where *stepError
	if !errors.As(err, &where) {
		return ""
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Sprintf("nothing came within connect_timeout, %v: a firewall that drops packets, or a server that speaks something else on this port", o.ConnectTimeout)
	}
	switch where.step {
	case stepCredentials:
		return "look at what the configuration says about the password: nothing was dialled yet"
	case stepDNS:
		return "the name cannot be resolved here: look at /etc/resolv.conf and at the spelling"
	case stepTCP:
		return hintTCP(err)
	case stepProxy:
		return "the proxy is there, but makes no connection: look at what it says, at user and password, and at whether it allows this port"
	case stepWebSocket:
		return hintWebSocket(at, err)
	case stepTLS:
		return hintTLS(o, err)
	case stepMQTT:
		return hintMQTT(at, err)
	}
	return ""
}

func hintTCP(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the machine is there, but nobody listens on this port: look at the port, and whether the broker runs"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no way to that network: look at the default route and at the link"
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "this machine's own firewall or rights forbid it"
	}
	return ""
}

// hintTLS explains a handshake that failed. What the library says about it names no
// dates and no names, so they are added from the certificate.
func hintTLS(o *Options, err error) string {
	var shown string
	var failed *tls.CertificateVerificationError
	if errors.As(err, &failed) && len(failed.UnverifiedCertificates) > 0 {
		shown = "the upstream shows a " + describeCertificate(failed.UnverifiedCertificates[0]) + ". "
	}
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var authority x509.UnknownAuthorityError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return shown + "The clock here says " + o.now().UTC().Format(time.RFC3339) + clockHint(o.now())
	case errors.As(err, &name):
		return shown + "If it is the right one, set server_name to a name in it"
	case errors.As(err, &authority):
		return shown + "Set ca_file to the certificate that has issued it"
	case errors.As(err, &record):
		return "what answers on this port speaks no TLS"
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		if o.TLS.CertFile == "" {
			return "the upstream ends the handshake: it may want a certificate of ours, set cert_file and key_file"
		}
		return "the upstream ends the handshake: it may not know our certificate or its issuer, or it may have expired"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return "the upstream hangs up: it may speak no TLS on this port, or may want another server_name or ALPN"
	}
	return ""
}

// clockHint tells whether a clock looks like one that was never set.
func clockHint(now time.Time) string {
	if now.Year() < plausibleYear {
		return ", which was never set: get the time first (NTP, RTC)"
	}
	return ""
}

func hintMQTT(at address, err error) string {
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		return ""
	}
	why := "the upstream hangs up instead of an answer. Some do so when they do not like the client id, the user name, bridge_bit or the protocol"
	if !at.tls() {
		why += ", or want TLS on this port"
	}
	return why
}

func hintConnack(o *Options, e *connackError) string {
	is := func(codes ...mqtt.Reason) bool { return slices.Contains(codes, mqtt.Reason(e.code)) }
	if e.version < mqtt.V5 { // as MQTT 5 calls them
		as := [...]mqtt.Reason{1: mqtt.UnsupportedProtocolVersion, 2: mqtt.ClientIDNotValid, 3: mqtt.ServerUnavailable, 4: mqtt.BadUserNameOrPassword, 5: mqtt.NotAuthorized}
		e = &connackError{code: byte(as[e.code])}
	}
	switch {
	case is(mqtt.UnsupportedProtocolVersion):
		if o.BridgeBit {
			return "bridge_bit is set, which only mosquitto and its like understand"
		}
		return "the upstream does not speak this version of MQTT"
	case is(mqtt.ClientIDNotValid):
		return fmt.Sprintf("this was with the client id %q; some upstreams take only those that they know, and then the bridge itself may get through", o.ClientID)
	case is(mqtt.BadUserNameOrPassword):
		return "look at username and password; a token may have expired, or the clock here may be wrong: it says " + o.now().UTC().Format(time.RFC3339)
	case is(mqtt.NotAuthorized, mqtt.Banned):
		return fmt.Sprintf("look at username, password and certificate, and at what the upstream allows them; this was with the client id %q, which it may not know", o.ClientID)
	}
	return ""
}
