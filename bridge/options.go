package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"sluice/broker/topic"
)

// Direction tells which way the messages of a route go.
type Direction uint8

// The directions. The zero value is not valid, so that a forgotten one shows.
const (
	Out Direction = 1 // from the local broker to the upstream
	In  Direction = 2 // from the upstream to the local broker
)

// String returns "out", "in" or "Direction(n)".
func (d Direction) String() string {
	switch d {
	case Out:
		return "out"
	case In:
		return "in"
	}
	return fmt.Sprintf("Direction(%d)", uint8(d))
}

// Route selects messages and renames them. With a message's topic being
// prefix+rest, where the prefix is that of the side it comes from, it becomes
// the other side's prefix+rest.
//
//	Out: subscribes LocalPrefix+Filter locally, sends RemotePrefix+rest
//	In:  subscribes RemotePrefix+Filter upstream, publishes LocalPrefix+rest
//
// A message that several routes select goes once under each different name;
// for the same name the first route decides.
type Route struct {
	Direction    Direction
	Filter       string   // a topic filter without the prefix; may be empty if the prefix is not: the prefix is then the whole topic
	LocalPrefix  string   // literal, no wildcards; "" for none; usually ends in '/'
	RemotePrefix string   // as LocalPrefix
	Exclude      []string // topic filters without the prefix, on the side the message comes from; this route does not carry what they match. nil: none
	QoS          uint8    // 0 or 1: the message goes at min(its own QoS, this). Danger: with 0, what is queued in an outage is lost with the link
	Queue        string   // Out: the queue of Options.Queues that its messages wait in; "": the one without a name
}

// TLS describes how to authenticate to the upstream and it to us. Files are PEM
// and are read again at each dial, so a renewed certificate needs no restart.
type TLS struct {
	CAFile             string   // trusted roots; "": those of the system
	CertFile, KeyFile  string   // client certificate; both or neither
	ServerName         string   // expected name and SNI; "": the host of Address
	ALPN               []string // protocols to offer, such as x-amzn-mqtt-ca for AWS on port 443; nil: none
	InsecureSkipVerify bool     // Danger: anybody on the path can read and forge
}

// Options configure one Bridge. Start from Defaults. Where a zero value has a
// meaning of its own it is written at the field; elsewhere Validate refuses it.
type Options struct {
	Name    string // of the bridge: 1 to 64 letters, digits, '-', '_' or '.'; the local session is "$bridge/"+Name. Danger: renaming abandons what is queued
	Address string // of the upstream: tcp://host[:1883], tls://host[:8883], ws://host[:80][/mqtt] or wss://host[:443][/mqtt]; no credentials in it
	Routes  []Route

	// MoreAddresses are others of the same upstream, which share its sessions and its
	// credentials; Address is the primary.
	MoreAddresses   []string
	Failover        Failover
	ReturnToPrimary time.Duration // FailoverOrder: how often a link with another address looks whether the primary can be reached; 0: never

	// Proxy is the way to all addresses: http://[user:password@]host[:3128] (CONNECT)
	// or socks5://[user:password@]host[:1080]. It resolves their names. "": none.
	Proxy string

	// Interface is what connections leave by: the name of an interface, or an address
	// of this machine. Names are resolved as always. "": as the routes say.
	Interface string

	// Fingerprint stands for all that these Options were made of, such as a
	// digest of their configuration: a Set leaves a bridge alone whose
	// fingerprint is the same. "": always different.
	Fingerprint string

	// DialLocal connects to the local broker. The Bridge speaks MQTT 5 on the
	// connection, closes it, and calls again for each link.
	DialLocal func(ctx context.Context) (net.Conn, error)

	// Queues beside the one without a name, which is always there; giving that
	// sets its priority and share. nil: it alone.
	Queues []Queue

	// Sessions are the sessions of this bridge that the local broker has, by
	// client id, with the filters that they subscribe. Start unsubscribes those
	// that no route wants any more; queues that are gone are emptied. nil: none.
	Sessions map[string][]string

	// Backlog tells what the session of that client id has that was not
	// acknowledged by us. It must not block for long. nil: nobody knows; then
	// there is no depth, age and ETA in Status, and queues that are gone are
	// emptied but their sessions stay.
	Backlog func(session string) (Backlog, bool)

	Start       StartMode
	IdleTimeout time.Duration // for StartLazy
	Active      []Window      // when a link may be up; nil: always

	// Now is the wall clock for Active. nil: that of the system.
	Now func() time.Time

	// CleanSession makes the upstream forget us with the connection. Without it
	// the upstream keeps messages for the in routes while we are away, as long
	// and as many as it likes, and those of routes that were removed, too: they
	// are acknowledged and counted as unrouted.
	CleanSession bool

	// Notifications tells the upstream our state, on ConnectionTopic, retained,
	// with a will. Danger: the big clouds close the connection.
	Notifications bool

	// Announce tells everybody here: it publishes a retained message, or takes
	// it back if the payload is empty. It must not block. nil: nothing is told.
	Announce       func(topic string, payload []byte)
	ReportInterval time.Duration // between two reports of figures by Announce

	ClientID string // towards the upstream. Danger: two gateways with the same id disconnect each other for ever
	Username string // "": none
	Password string // "": none; needs a Username (MQTT 3.1.1)

	// Credentials, if not nil, is asked before each dial and replaces Username
	// and Password: the place for tokens that expire. It must honour ctx.
	Credentials func(ctx context.Context) (Login, error)

	TLS TLS // for tls:// addresses

	Protocol Protocol

	// TopicAliases, in MQTT 5, is how many topics may go as a number of two bytes once
	// the upstream has seen them: 0 to 65535, at most as many as it allows. The first
	// topics of a connection get one; each costs us its length. 0: none.
	TopicAliases int

	// BridgeBit, in MQTT 3.1.1, announces us as a bridge: bit 0x80 of the protocol level, as
	// mosquitto does it. Brokers that know it (mosquitto, NanoMQ, Sluice) keep
	// the retain flag on what they send us and do not echo our own messages.
	// Danger: others, the big clouds among them, refuse the connection. MQTT 5 does
	// without it.
	BridgeBit bool

	KeepAlive       time.Duration // upstream ping interval: whole seconds, 1 s to 65535 s
	ConnectTimeout  time.Duration // for resolving, TCP, TLS and CONNACK together; also for attaching and subscribing
	ProgressTimeout time.Duration // messages outstanding and not one PUBACK for so long: the link is dropped; also bounds each write. 0: 3 x KeepAlive, at least 10 s
	ReconnectMin    time.Duration // shortest wait before dialling again. Danger below 1 s: AWS allows one CONNECT per second and client id
	ReconnectMax    time.Duration // longest wait; the waits double up to it, with jitter
	StableAfter     time.Duration // a link that lived so long resets the wait to ReconnectMin
	DrainTimeout    time.Duration // Close waits so long for outstanding acknowledgements; 0: not at all (they are sent again after the next start)

	InflightMax      int // messages on the way and not acknowledged, each direction: 1 to 65535. Above 100 AWS disconnects, above 16 Azure IoT Hub
	InflightMaxBytes int // topics and payloads of those, each direction. A single larger message passes alone. Soft when both directions are full at once (budget.go)
	MaxPacketBytes   int // largest packet the upstream may announce; a larger one ends the link before memory is given for it. 128 B to 256 MiB
	MaxPayloadBytes  int // larger payloads are not sent upstream but counted, logged and acknowledged. 0: no limit. Danger: an upstream that closes the connection on large messages gets the same one again for ever

	// Pacing of what goes upstream, so that the backlog of an outage is no
	// tidal wave. Up to one second's worth may go at once. 0: no limit.
	OutMaxMessagesPerSecond int
	OutMaxBytesPerSecond    int // of topics and payloads

	// BacklogPercent is the part of these rates that queues get of which more
	// waits than InflightMax: 1 to 100.
	BacklogPercent int
}

const maxPacketLimit = 256 << 20 // the largest MQTT packet is 256 MiB + 4 B (MQTT5 2.1.4)

// Defaults returns the Options that a configuration starts from. Name, Address,
// Routes, DialLocal and ClientID are left to the caller.
func Defaults() Options {
	return Options{
		KeepAlive:        30 * time.Second,
		ConnectTimeout:   30 * time.Second,
		ReconnectMin:     time.Second,
		ReconnectMax:     time.Minute,
		StableAfter:      time.Minute,
		DrainTimeout:     5 * time.Second,
		ReportInterval:   10 * time.Second,
		InflightMax:      100,
		InflightMaxBytes: 4 << 20,
		MaxPacketBytes:   1 << 20,
		BacklogPercent:   100,
		Start:            StartAutomatic,
		CleanSession:     true,
		IdleTimeout:      time.Minute,
		Failover:         FailoverOrder,
		Protocol:         Protocol311,
		ReturnToPrimary:  5 * time.Minute,
	}
}

// SessionName returns the client id of the bridge's session at the local broker.
func (o *Options) SessionName() string { return "$bridge/" + o.Name }

func (o *Options) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}

// progressTimeout resolves the zero value.
func (o *Options) progressTimeout() time.Duration {
	if o.ProgressTimeout > 0 {
		return o.ProgressTimeout
	}
	return max(3*o.KeepAlive, 10*time.Second)
}

// Validate returns nil or an error that joins every problem found.
func (o *Options) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if !validName(o.Name) {
		bad("name %q: need 1 to 64 letters, digits, '-', '_' or '.'", o.Name)
	}
	if o.DialLocal == nil {
		bad("no way to dial the local broker")
	}
	if o.ClientID == "" {
		bad("client id is empty")
	}
	if o.Password != "" && o.Username == "" {
		bad("a password needs a username (MQTT 3.1.1)")
	}
	if (o.TLS.CertFile == "") != (o.TLS.KeyFile == "") {
		bad("client certificate and key come together: cert %q, key %q", o.TLS.CertFile, o.TLS.KeyFile)
	}
	errs = append(errs, o.validateTimes()...)
	errs = append(errs, o.validateSizes()...)
	if len(o.Routes) == 0 {
		bad("no routes")
	}
	for i := range o.Routes {
		if err := o.Routes[i].validate(); err != nil {
			bad("route %d: %w", i+1, err)
		}
	}
	for _, err := range []error{o.validateAddresses(), o.validateProtocol(), o.validateQueues(), o.validateStart()} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (o *Options) validateTimes() []error {
	var errs []error
	if k := o.KeepAlive; k < time.Second || k > 65535*time.Second || k%time.Second != 0 {
		errs = append(errs, fmt.Errorf("keep alive %v: need whole seconds from 1 to 65535", k))
	}
	positive := []struct {
		what string
		d    time.Duration
	}{
		{"connect timeout", o.ConnectTimeout}, {"reconnect min", o.ReconnectMin},
		{"reconnect max", o.ReconnectMax}, {"stable after", o.StableAfter},
		{"report interval", o.ReportInterval},
	}
	for _, p := range positive {
		if p.d <= 0 {
			errs = append(errs, fmt.Errorf("%s %v: must be positive", p.what, p.d))
		}
	}
	if o.ReconnectMax < o.ReconnectMin {
		errs = append(errs, fmt.Errorf("reconnect max %v is below reconnect min %v", o.ReconnectMax, o.ReconnectMin))
	}
	if o.ProgressTimeout < 0 || o.DrainTimeout < 0 {
		errs = append(errs, fmt.Errorf("negative time: progress timeout %v, drain timeout %v", o.ProgressTimeout, o.DrainTimeout))
	}
	return errs
}

func (o *Options) validateSizes() []error {
	var errs []error
	within := func(what string, n, lo, hi int) {
		if n < lo || n > hi {
			errs = append(errs, fmt.Errorf("%s %d: need %d to %d", what, n, lo, hi))
		}
	}
	const anything = 1<<31 - 1
	within("inflight max", o.InflightMax, 1, 65535)
	within("inflight max bytes", o.InflightMaxBytes, 1, anything)
	within("max packet bytes", o.MaxPacketBytes, 128, maxPacketLimit)
	within("max payload bytes", o.MaxPayloadBytes, 0, maxPacketLimit)
	within("topic aliases", o.TopicAliases, 0, 65535)
	within("backlog percent", o.BacklogPercent, 1, 100)
	within("out max messages per second", o.OutMaxMessagesPerSecond, 0, anything)
	within("out max bytes per second", o.OutMaxBytesPerSecond, 0, anything)
	return errs
}

func (r *Route) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if r.Direction != Out && r.Direction != In {
		bad("direction %v: need out or in", r.Direction)
	}
	if r.QoS > 1 {
		bad("QoS %d: need 0 or 1", r.QoS)
	}
	for _, p := range []string{r.LocalPrefix, r.RemotePrefix} {
		if strings.ContainsAny(p, "+#") {
			bad("prefix %q has a wildcard", p)
		}
	}
	if _, _, shared := topic.SplitShare(r.source()); shared {
		bad("filter %q: shared subscriptions cannot be bridged", r.source())
	}
	if err := topic.CheckFilter([]byte(r.source()), 0); err != nil {
		bad("filter %q: %w", r.source(), err)
	}
	if err := topic.CheckFilter([]byte(r.target()), 0); err != nil {
		bad("filter %q, the other side of the route: %w", r.target(), err)
	}
	for _, x := range r.excluded() {
		if err := topic.CheckFilter([]byte(x), 0); err != nil {
			bad("exclude %q: %w", x, err)
		}
	}
	return errors.Join(errs...)
}

func validName(s string) bool {
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (c < '0' || c > '9') && !strings.ContainsRune("-_.", rune(c)) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
