package session

import (
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/platform/mono"
)

// Limits bounds what clients may do and what a session may hold. One value is
// shared by all sessions and never changed.
type Limits struct {
	PacketBytesMax      int           // of a packet from a client, fixed header included
	TopicLevelsMax      int           // of topic names and filters
	ClientIDBytesMax    int           // of a client id
	SubscriptionsMax    int           // per session
	InflightMax         int           // QoS 1 and 2 messages sent to a client and not acknowledged; at most 65535
	ReceiveMax          int           // the same from a client, announced to MQTT 5 clients
	QueueMessagesMax    int           // QoS 1 and 2 messages waiting for one session
	QueueBytesMax       int           // and their bytes of topic, properties and payload
	SessionExpiryMax    time.Duration // how long a session may outlive its connection; 0: as long as the client asks
	KeepAliveMax        time.Duration // longer ones, and 0, are lowered to it for MQTT 5 clients (server keep alive); 0: no cap
	TopicAliasMax       int           // aliases a client may use
	RetainedMessagesMax int
	RetainedBytesMax    int
}

// DefaultLimits are the limits of a broker that is not told otherwise.
func DefaultLimits() Limits {
	return Limits{
		PacketBytesMax:      1 << 20,
		TopicLevelsMax:      128,
		ClientIDBytesMax:    256,
		SubscriptionsMax:    1000,
		InflightMax:         1000,
		ReceiveMax:          1000,
		QueueMessagesMax:    100_000,
		QueueBytesMax:       64 << 20,
		TopicAliasMax:       32,
		RetainedMessagesMax: 100_000,
		RetainedBytesMax:    64 << 20,
	}
}

// aheadMax and aheadBytesMax bound the messages of a durable session that are
// kept in memory while they wait for room in the window. Enough to keep a
// fast client busy during a fetch; the rest is in the store.
const (
	aheadMax      = 128
	aheadBytesMax = 64 << 10
)

// Session is one client's session. It belongs to one worker for life.
type Session struct {
	// Set when the session is made.
	ID       uint64 // the worker's name for it; never 0
	ClientID string
	Durable  uint64 // its id in the store; 0: it ends with its connection
	limits   *Limits

	// Set by each CONNECT.
	Username   string
	Expiry     uint32 // seconds it outlives the connection; persist.NoExpiry: for ever
	Version    mqtt.Version
	Internal   bool // the peer is part of Sluice itself (a bridge)
	connected  bool
	noProblem  bool // the client asked for no reason strings (MQTT5 3.1.2.11.7)
	Epoch      uint32
	receiveMax uint16 // of the client
	packetMax  uint32 // of the client; 0: none
	KeepAlive  time.Duration
	will       *Will
	aliases    [][]byte // topic of alias i+1, as the client set it
	acks       acks
	received   map[uint16]bool // QoS 2 packet ids received: true once accepted (PUBREC may be sent)

	// Outbound.
	window   window
	next     uint64 // sequence number to be sent next
	have     uint64 // queue covers [next, have)
	tail     uint64 // sequence number that comes next into being
	sent     uint64 // everything below was, or may have been, sent before: DUP
	fetching bool
	queue    []persist.Entry
	queued   int // bytes in queue

	subs []Subscription
}

// New makes a session that no client is connected to. durable is its id in the
// store, or 0.
func New(id uint64, clientID string, durable uint64, limits *Limits) *Session {
	s := &Session{ID: id, ClientID: clientID, Durable: durable, limits: limits}
	s.rewind(1, 1)
	return s
}

// rewind makes the outbound side begin again at the oldest message not done.
func (s *Session) rewind(head, tail uint64) {
	s.window.reset(head)
	s.next, s.have, s.tail = head, head, tail
	s.fetching = false
	clear(s.queue)
	s.queue, s.queued = nil, 0
}

// Restore fills a session made by New from what the store kept of it. All that
// is in its queue may have been sent before.
func (s *Session) Restore(im *persist.SessionImage) {
	s.Username, s.Version, s.Expiry = im.Username, im.Version, im.ExpirySeconds
	s.rewind(im.Head, im.Tail)
	s.sent = im.Tail
	for _, id := range im.Inbound {
		s.receive(id, true)
	}
	for _, sub := range im.Subscriptions {
		s.subs = append(s.subs, Subscription(sub))
	}
}

// Connected tells whether a client is connected.
func (s *Session) Connected() bool { return s.connected }

// Pending tells how many acknowledgements wait for the store.
func (s *Session) Pending() int { return len(s.acks.list) }

// close asks for the end of the connection, and tells an MQTT 5 client why.
func (s *Session) close(fx *Effects, r mqtt.Reason, detail string) {
	if fx.Close {
		return
	}
	fx.Close, fx.Reason, fx.Detail = true, r, detail
	if s.Version == mqtt.V5 && s.connected {
		d := mqtt.Disconnect{Reason: r}
		fx.Send = mqtt.AppendDisconnect(fx.Send, &d, s.Version)
	}
}

// Fail closes the connection for a packet that could not be decoded or is not
// allowed.
func (s *Session) Fail(fx *Effects, err error) {
	r := mqtt.MalformedPacket
	if e, ok := err.(*mqtt.Error); ok {
		r = e.Reason
	}
	s.close(fx, r, err.Error())
}

// Kick closes the connection from the server's side: takeover, shutdown,
// keepalive, an administrator.
func (s *Session) Kick(fx *Effects, r mqtt.Reason, detail string) { s.close(fx, r, detail) }

// OnPingreq answers a PINGREQ.
func (s *Session) OnPingreq(fx *Effects) { fx.Send = mqtt.AppendPingresp(fx.Send) }

// Expires tells when a message that is valid for so many seconds from now expires.
func Expires(now mono.Time, seconds uint32) int64 {
	return int64(now.Add(time.Duration(seconds) * time.Second))
}
