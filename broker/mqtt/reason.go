package mqtt

import "strconv"

// Reason is an MQTT 5 reason code (MQTT5 2.4). Sluice uses it inside for every
// version; Connack311 and Suback311 translate for the older ones.
type Reason uint8

// The reason codes of MQTT 5. Success is also "normal disconnection" and "granted QoS 0".
const (
	Success                     Reason = 0x00
	GrantedQoS1                 Reason = 0x01
	GrantedQoS2                 Reason = 0x02
	DisconnectWithWill          Reason = 0x04
	NoMatchingSubscribers       Reason = 0x10
	NoSubscriptionExisted       Reason = 0x11
	ContinueAuthentication      Reason = 0x18
	ReAuthenticate              Reason = 0x19
	UnspecifiedError            Reason = 0x80
	MalformedPacket             Reason = 0x81
	ProtocolError               Reason = 0x82
	ImplementationSpecificError Reason = 0x83
	UnsupportedProtocolVersion  Reason = 0x84
	ClientIDNotValid            Reason = 0x85
	BadUserNameOrPassword       Reason = 0x86
	NotAuthorized               Reason = 0x87
	ServerUnavailable           Reason = 0x88
	ServerBusy                  Reason = 0x89
	Banned                      Reason = 0x8A
	ServerShuttingDown          Reason = 0x8B
	BadAuthenticationMethod     Reason = 0x8C
	KeepAliveTimeout            Reason = 0x8D
	SessionTakenOver            Reason = 0x8E
	TopicFilterInvalid          Reason = 0x8F
	TopicNameInvalid            Reason = 0x90
	PacketIDInUse               Reason = 0x91
	PacketIDNotFound            Reason = 0x92
	ReceiveMaxExceeded          Reason = 0x93
	TopicAliasInvalid           Reason = 0x94
	PacketTooLarge              Reason = 0x95
	MessageRateTooHigh          Reason = 0x96
	QuotaExceeded               Reason = 0x97
	AdministrativeAction        Reason = 0x98
	PayloadFormatInvalid        Reason = 0x99
	RetainNotSupported          Reason = 0x9A
	QoSNotSupported             Reason = 0x9B
	UseAnotherServer            Reason = 0x9C
	ServerMoved                 Reason = 0x9D
	SharedNotSupported          Reason = 0x9E
	ConnectionRateExceeded      Reason = 0x9F
	MaximumConnectTime          Reason = 0xA0
	SubIDNotSupported           Reason = 0xA1
	WildcardNotSupported        Reason = 0xA2
)

// reasons says of each reason code its name and the packets that may carry it
// (MQTT5 2.4, table 2-6). A code without a name does not exist.
var reasons = [0x100]struct {
	name string
	in   scope
}{
	Success:                     {"Success", inConnack | inAck | inDisconnect | inAuth},
	GrantedQoS1:                 {"Granted QoS 1", 1 << SUBACK},
	GrantedQoS2:                 {"Granted QoS 2", 1 << SUBACK},
	DisconnectWithWill:          {"Disconnect with Will Message", inDisconnect},
	NoMatchingSubscribers:       {"No matching subscribers", 1<<PUBACK | 1<<PUBREC},
	NoSubscriptionExisted:       {"No subscription existed", 1 << UNSUBACK},
	ContinueAuthentication:      {"Continue authentication", inAuth},
	ReAuthenticate:              {"Re-authenticate", inAuth},
	UnspecifiedError:            {"Unspecified error", inConnack | 1<<PUBACK | 1<<PUBREC | 1<<SUBACK | 1<<UNSUBACK | inDisconnect},
	MalformedPacket:             {"Malformed Packet", inConnack | inDisconnect},
	ProtocolError:               {"Protocol Error", inConnack | inDisconnect},
	ImplementationSpecificError: {"Implementation specific error", inConnack | 1<<PUBACK | 1<<PUBREC | 1<<SUBACK | 1<<UNSUBACK | inDisconnect},
	UnsupportedProtocolVersion:  {"Unsupported Protocol Version", inConnack},
	ClientIDNotValid:            {"Client Identifier not valid", inConnack},
	BadUserNameOrPassword:       {"Bad User Name or Password", inConnack},
	NotAuthorized:               {"Not authorized", inConnack | 1<<PUBACK | 1<<PUBREC | 1<<SUBACK | 1<<UNSUBACK | inDisconnect},
	ServerUnavailable:           {"Server unavailable", inConnack},
	ServerBusy:                  {"Server busy", inConnack | inDisconnect},
	Banned:                      {"Banned", inConnack},
	ServerShuttingDown:          {"Server shutting down", inDisconnect},
	BadAuthenticationMethod:     {"Bad authentication method", inConnack | inDisconnect},
	KeepAliveTimeout:            {"Keep Alive timeout", inDisconnect},
	SessionTakenOver:            {"Session taken over", inDisconnect},
	TopicFilterInvalid:          {"Topic Filter invalid", 1<<SUBACK | 1<<UNSUBACK | inDisconnect},
	TopicNameInvalid:            {"Topic Name invalid", inConnack | 1<<PUBACK | 1<<PUBREC | inDisconnect},
	PacketIDInUse:               {"Packet Identifier in use", 1<<PUBACK | 1<<PUBREC | 1<<SUBACK | 1<<UNSUBACK},
	PacketIDNotFound:            {"Packet Identifier not found", 1<<PUBREL | 1<<PUBCOMP},
	ReceiveMaxExceeded:          {"Receive Maximum exceeded", inDisconnect},
	TopicAliasInvalid:           {"Topic Alias invalid", inDisconnect},
	PacketTooLarge:              {"Packet too large", inConnack | inDisconnect},
	MessageRateTooHigh:          {"Message rate too high", inDisconnect},
	QuotaExceeded:               {"Quota exceeded", inConnack | 1<<PUBACK | 1<<PUBREC | 1<<SUBACK | inDisconnect},
	AdministrativeAction:        {"Administrative action", inDisconnect},
	PayloadFormatInvalid:        {"Payload format invalid", inConnack | 1<<PUBACK | 1<<PUBREC | inDisconnect},
	RetainNotSupported:          {"Retain not supported", inConnack | inDisconnect},
	QoSNotSupported:             {"QoS not supported", inConnack | inDisconnect},
	UseAnotherServer:            {"Use another server", inConnack | inDisconnect},
	ServerMoved:                 {"Server moved", inConnack | inDisconnect},
	SharedNotSupported:          {"Shared Subscriptions not supported", 1<<SUBACK | inDisconnect},
	ConnectionRateExceeded:      {"Connection rate exceeded", inConnack | inDisconnect},
	MaximumConnectTime:          {"Maximum connect time", inDisconnect},
	SubIDNotSupported:           {"Subscription Identifiers not supported", 1<<SUBACK | inDisconnect},
	WildcardNotSupported:        {"Wildcard Subscriptions not supported", 1<<SUBACK | inDisconnect},
}

// String is the name of the code in MQTT5 2.4, for codes that do not exist the
// number.
func (r Reason) String() string {
	if name := reasons[r].name; name != "" {
		return name
	}
	return "reason code 0x" + strconv.FormatUint(uint64(r), 16)
}

// validIn tells whether a packet of type t may carry r. Whether client or
// server may send it is not looked at.
func (r Reason) validIn(t Type) bool { return reasons[r].in&(1<<t) != 0 }

// Connack311 is the return code that tells a client of 3.1 or 3.1.1 the most
// about r (MQTT3.1.1 3.2.2.3): 0 accepted, 1 unacceptable protocol version, 2
// identifier rejected, 3 server unavailable, 4 bad user name or password, 5 not
// authorized. What another attempt may cure is 3; what will be refused again,
// as long as the client asks for the same, is 5.
func (r Reason) Connack311() uint8 {
	switch r {
	case Success:
		return 0
	case UnsupportedProtocolVersion:
		return 1
	case ClientIDNotValid:
		return 2
	case BadUserNameOrPassword, BadAuthenticationMethod:
		return 4
	case NotAuthorized, Banned, TopicNameInvalid, PacketTooLarge, PayloadFormatInvalid, RetainNotSupported, QoSNotSupported:
		return 5
	}
	return 3
}

// Suback311 is the return code of SUBACK in 3.1.1 (MQTT3.1.1 3.9.3): the QoS
// granted, or 0x80 for every refusal. MQTT 3.1 has no code for a refusal; its
// clients must make do with 0x80.
func (r Reason) Suback311() byte {
	if r <= GrantedQoS2 {
		return byte(r)
	}
	return byte(UnspecifiedError)
}
