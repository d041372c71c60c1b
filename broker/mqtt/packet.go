package mqtt

// Version is the protocol level of CONNECT.
type Version uint8

// The versions Sluice speaks.
const (
	V31  Version = 3 // MQIsdp
	V311 Version = 4
	V5   Version = 5
)

// Type is the packet type, the high nibble of the first byte (MQTT5 2.1.2).
type Type uint8

// The packet types. 0 is reserved; 15 is AUTH in MQTT 5 and reserved before.
const (
	CONNECT     Type = 1
	CONNACK     Type = 2
	PUBLISH     Type = 3
	PUBACK      Type = 4
	PUBREC      Type = 5
	PUBREL      Type = 6
	PUBCOMP     Type = 7
	SUBSCRIBE   Type = 8
	SUBACK      Type = 9
	UNSUBSCRIBE Type = 10
	UNSUBACK    Type = 11
	PINGREQ     Type = 12
	PINGRESP    Type = 13
	DISCONNECT  Type = 14
	AUTH        Type = 15
)

// QoS is the quality of service of a message: 0, 1 or 2.
type QoS uint8

// UserProperty is one name/value pair (MQTT5 3.1.2.11.8).
type UserProperty struct{ Name, Value []byte }

// Properties holds the MQTT 5 properties of every packet but PUBLISH, and of
// the will (MQTT5 2.2.2). Which properties a packet may carry, and that none
// but the user property comes twice, is checked by its decoder. The zero value
// means: no property. In an encoder, fields that the packet may not carry are
// ignored.
//
// Fields whose absence differs from every value come with a Has flag; for the
// others the zero value encodes absence. Absent []byte are nil, present but
// empty ones are not.
type Properties struct {
	SessionExpirySeconds   uint32 // 0x11; absent means 0 in CONNECT, "unchanged" in DISCONNECT, "as asked" in CONNACK
	HasSessionExpiry       bool
	ReceiveMax             uint16 // 0x21; 0: absent, which means 65535
	MaxPacketBytes         uint32 // 0x27; 0: absent, no limit
	TopicAliasMax          uint16 // 0x22; absent means 0
	RequestResponseInfo    bool   // 0x19; absent means false
	NoProblemInfo          bool   // 0x17 present and 0
	WillDelaySeconds       uint32 // 0x18, will only
	MessageExpirySeconds   uint32 // 0x02, will only
	HasMessageExpiry       bool
	PayloadIsUTF8          bool   // 0x01, will only
	ContentType            []byte // 0x03, will only
	ResponseTopic          []byte // 0x08, will only
	CorrelationData        []byte // 0x09, will only
	SubscriptionID         uint32 // 0x0B, SUBSCRIBE only; 0: absent; at most 268435455
	AssignedClientID       []byte // 0x12, CONNACK
	ServerKeepAliveSeconds uint16 // 0x13, CONNACK
	HasServerKeepAlive     bool
	AuthMethod             []byte // 0x15
	AuthData               []byte // 0x16
	ResponseInfo           []byte // 0x1A, CONNACK
	ServerReference        []byte // 0x1C, CONNACK and DISCONNECT
	ReasonString           []byte // 0x1F
	MaxQoS                 QoS    // 0x24, CONNACK; 2 encodes absence
	HasMaxQoS              bool
	RetainUnavailable      bool // 0x25 present and 0, CONNACK
	WildcardUnavailable    bool // 0x28 present and 0, CONNACK
	SubIDUnavailable       bool // 0x29 present and 0, CONNACK
	SharedUnavailable      bool // 0x2A present and 0, CONNACK
	User                   []UserProperty
}

// Will is the will of a CONNECT (MQTT5 3.1.3.2 to 3.1.3.4).
type Will struct {
	Topic   []byte
	Payload []byte
	QoS     QoS
	Retain  bool
	Props   Properties
}

// Connect is a CONNECT packet (MQTT5 3.1, MQTT3.1.1 3.1).
type Connect struct {
	Version          Version
	Bridge           bool // bit 0x80 of the protocol level, as mosquitto and NanoMQ bridges set it (3.1 and 3.1.1 only)
	Clean            bool // clean session (3.1.1) or clean start (5)
	KeepAliveSeconds uint16
	ClientID         []byte // may be empty
	HasWill          bool
	Will             Will
	HasUsername      bool
	Username         []byte
	HasPassword      bool
	Password         []byte
	Props            Properties
}

// Connack is a CONNACK packet. Code is what goes on the wire: an MQTT 5 reason
// code, or a return code of 3.1.1 (Reason.Connack311 translates).
type Connack struct {
	SessionPresent bool
	Code           uint8
	Props          Properties // MQTT 5 only
}

// Publish is a PUBLISH packet, received or to be sent. It is a view: all
// []byte alias the input.
type Publish struct {
	Topic   []byte // empty only together with a TopicAlias
	Payload []byte

	// Props are the properties as they stand in the packet (checked; without
	// the length before them). AppendPublish sends on only those that belong
	// to the message: payload format, content type, response topic,
	// correlation data, user properties, in their order [MQTT-3.3.2-15 ff].
	// Those that belong to the hop are in the fields below, and are skipped
	// when Props are sent on.
	Props []byte

	PacketID         uint16 // 0 with QoS 0
	QoS              QoS
	Dup              bool
	Retain           bool
	HasMessageExpiry bool
	ExpirySeconds    uint32   // MQTT5 3.3.2.3.3; valid if HasMessageExpiry
	TopicAlias       uint16   // MQTT5 3.3.2.3.4; 0: none
	SubIDs           []uint32 // MQTT5 3.3.2.3.8; only server to client
	HasHopProps      bool     // Props contain a message expiry, topic alias or subscription identifier, to be skipped
}

// Ack is PUBACK, PUBREC, PUBREL or PUBCOMP (MQTT5 3.4 to 3.7).
type Ack struct {
	Type     Type
	PacketID uint16
	Reason   Reason     // 0 before MQTT 5
	Props    Properties // MQTT 5 only: reason string, user properties
}

// SubscribeFilter is one topic filter of a SUBSCRIBE with its options (MQTT5 3.8.3.1).
type SubscribeFilter struct {
	Filter            []byte
	QoS               QoS
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    uint8 // 0 send at subscribe, 1 only if new, 2 never
}

// Subscribe is a SUBSCRIBE packet. Filters is reused by the decoder.
type Subscribe struct {
	PacketID uint16
	Filters  []SubscribeFilter
	Props    Properties
}

// Unsubscribe is an UNSUBSCRIBE packet. Filters is reused by the decoder.
type Unsubscribe struct {
	PacketID uint16
	Filters  [][]byte
	Props    Properties
}

// Suback is a SUBACK or UNSUBACK packet. Codes are wire values, one per
// filter; an UNSUBACK before MQTT 5 has none.
type Suback struct {
	Type     Type // SUBACK or UNSUBACK
	PacketID uint16
	Codes    []byte
	Props    Properties
}

// Disconnect is a DISCONNECT packet; before MQTT 5 it is empty.
type Disconnect struct {
	Reason Reason
	Props  Properties
}

// Auth is an AUTH packet (MQTT5 3.15).
type Auth struct {
	Reason Reason
	Props  Properties
}
