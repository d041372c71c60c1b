package session

import (
	"time"

	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/platform/mono"
)

// Limits bounds what clients may do and what a session may hold. One value is
// shared by all sessions of a class and never changed.
type Limits struct {
	PacketBytesMax      int           // of a packet from a client, fixed header included
	TopicBytesMax       int           // of topic names and filters; 0: as MQTT has it, 65535
	TopicLevelsMax      int           // of topic names and filters
	ClientIDBytesMax    int           // of a client id
	SubscriptionsMax    int           // per session
	InflightMax         int           // QoS 1 and 2 messages sent to a client and not acknowledged; at most 65535
	ReceiveMax          int           // the same from a client, announced to MQTT 5 clients
	Queue               Queue         // what may wait for one session
	SessionExpiryMax    time.Duration // how long a session may outlive its connection; 0: as long as the client asks
	KeepAliveMax        time.Duration // longer ones, and 0, are lowered to it for MQTT 5 clients (server keep alive); 0: no cap
	TopicAliasMax       int           // aliases a client may use
	AliasBytesMax       int           // bytes of the topics that one connection's aliases stand for; 0: no limit
	TopicAliasOutMax    int           // aliases that we use towards a client that allows so many; 0: none
	RetainedMessagesMax int
	RetainedBytesMax    int
	DeniedDisconnects   bool   // a PUBLISH without permission ends the connection
	Priority            bool   // there are topics with priority: part of each client's receive maximum is kept for them
	ResponseInfo        string // for clients that ask for response information (MQTT5 3.2.2.3.15); "": none
}

// DefaultLimits are the limits of a broker that is not told otherwise.
func DefaultLimits() Limits {
	return Limits{
		PacketBytesMax:      1 << 20,
		TopicBytesMax:       4096,
		TopicLevelsMax:      128,
		ClientIDBytesMax:    256,
		SubscriptionsMax:    1000,
		InflightMax:         1000,
		ReceiveMax:          1000,
		Queue:               Queue{QueueLimits: persist.QueueLimits{Messages: 100_000, Bytes: 64 << 20}},
		TopicAliasMax:       32,
		AliasBytesMax:       16 << 10,
		TopicAliasOutMax:    16,
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
	Username    string // who the client proved to be, or said, if nobody asked
	Permit      *auth.Permit
	KeepAlive   time.Duration
	Expiry      uint32 // seconds it outlives the connection; persist.NoExpiry: for ever
	Epoch       uint32
	packetMax   uint32 // of the client; 0: none
	receiveMax  uint16 // of the client
	quota       uint16 // PUBLISH packets of QoS 1 and 2 that it may send now (MQTT5 4.9); before MQTT 5 not used
	aliasOutMax uint16 // aliases we may use
	Version     mqtt.Version
	Internal    bool // the peer is part of Sluice itself (a bridge)
	Guarded     bool // not all it subscribed to may be received: each message is checked. Set by the worker
	connected   bool
	bridge      bool // the client is another broker's bridge (mqtt.Connect.Bridge)
	noProblem   bool // the client asked for no reason strings (MQTT5 3.1.2.11.7)
	aliasing    bool // a topic worth an alias has been sent
	will        *Will
	acks        acks
	received    map[uint16]bool // QoS 2 packet ids received: true once accepted (PUBREC may be sent)
	extra       *extras         // nil: the connection uses nothing of it

	// Outbound.
	lane
	first *lane // the priority lane; nil: it was never used

	subs subscriptions
}

// extras is what few connections use. It goes with the connection, but for what
// is kept while there is none.
type extras struct {
	away       *away    // nil: nothing
	aliasesIn  [][]byte // topic of alias i+1, as the client set it
	aliasBytes int      // memory of those topics
	aliasesOut *aliasesOut
	authMethod string              // of enhanced authentication
	exchange   Exchange            // re-authentication under way
	shared     map[uint64]orphaned // by lane.shareKey; sessions without a store only
	sharedSize int                 // bytes of those messages
}

func (s *Session) extras() *extras {
	if s.extra == nil {
		s.extra = new(extras)
	}
	return s.extra
}

// New makes a session that no client is connected to. durable is its id in the
// store, or 0.
func New(id uint64, clientID string, durable uint64, limits *Limits) *Session {
	s := &Session{ID: id, ClientID: clientID, Durable: durable, limits: limits}
	s.rewind(1, 1)
	return s
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
		s.subs.add(Subscription(sub))
	}
}

// Connected tells whether a client is connected.
func (s *Session) Connected() bool { return s.connected }

// Pending tells how many acknowledgements wait for the store.
func (s *Session) Pending() int { return len(s.acks.list) }

// Kick closes the connection from the server's side: takeover, shutdown,
// keepalive, an administrator.
func (s *Session) Kick(fx *Effects, r mqtt.Reason, detail string) { s.close(fx, r, detail) }

// OnPingreq answers a PINGREQ.
func (s *Session) OnPingreq(fx *Effects) {
	at := len(fx.Send)
	fx.Send = mqtt.AppendPingresp(fx.Send)
	s.mustFit(fx, at)
}

// Expires tells when a message that is valid for so many seconds from now expires.
func Expires(now mono.Time, seconds uint32) int64 {
	return int64(now.Add(time.Duration(seconds) * time.Second))
}
