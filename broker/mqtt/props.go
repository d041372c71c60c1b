package mqtt

// DESIGN. One table says which packets may carry a property; one switch reads
// the value into its field of Properties and checks its range. PUBLISH does
// not use Properties: see publish.go. Its rules for the same properties are
// there, built on the same table.

// Property identifiers (MQTT5 2.2.2.2).
const (
	propPayloadFormat   = 0x01
	propMessageExpiry   = 0x02
	propContentType     = 0x03
	propResponseTopic   = 0x08
	propCorrelationData = 0x09
	propSubscriptionID  = 0x0B
	propSessionExpiry   = 0x11
	propAssignedID      = 0x12
	propServerKeepAlive = 0x13
	propAuthMethod      = 0x15
	propAuthData        = 0x16
	propProblemInfo     = 0x17
	propWillDelay       = 0x18
	propRequestResponse = 0x19
	propResponseInfo    = 0x1A
	propServerReference = 0x1C
	propReasonString    = 0x1F
	propReceiveMax      = 0x21
	propTopicAliasMax   = 0x22
	propTopicAlias      = 0x23
	propMaxQoS          = 0x24
	propRetainAvailable = 0x25
	propUser            = 0x26
	propMaxPacketBytes  = 0x27
	propWildcard        = 0x28
	propSubIDAvailable  = 0x29
	propShared          = 0x2A
)

// scope is a set of packets: bit t is packet type t, bit 0 the will.
type scope uint16

const (
	inWill       scope = 1
	inConnect          = 1 << CONNECT
	inConnack          = 1 << CONNACK
	inPublish          = 1 << PUBLISH
	inSubscribe        = 1 << SUBSCRIBE
	inDisconnect       = 1 << DISCONNECT
	inAuth             = 1 << AUTH
	inAck              = 1<<PUBACK | 1<<PUBREC | 1<<PUBREL | 1<<PUBCOMP | 1<<SUBACK | 1<<UNSUBACK
)

// properties says of each property where it may stand and which section
// defines it. A scope of 0: there is no such property.
var properties = [0x2B]struct {
	in      scope
	name    string
	section string
}{
	propPayloadFormat:   {inPublish | inWill, "payload format indicator", "MQTT5 3.3.2.3.2"},
	propMessageExpiry:   {inPublish | inWill, "message expiry interval", "MQTT5 3.3.2.3.3"},
	propContentType:     {inPublish | inWill, "content type", "MQTT5 3.3.2.3.9"},
	propResponseTopic:   {inPublish | inWill, "response topic", "MQTT5 3.3.2.3.5"},
	propCorrelationData: {inPublish | inWill, "correlation data", "MQTT5 3.3.2.3.6"},
	propSubscriptionID:  {inPublish | inSubscribe, "subscription identifier", "MQTT5 3.8.2.1.2"},
	propSessionExpiry:   {inConnect | inConnack | inDisconnect, "session expiry interval", "MQTT5 3.1.2.11.2"},
	propAssignedID:      {inConnack, "assigned client identifier", "MQTT5 3.2.2.3.7"},
	propServerKeepAlive: {inConnack, "server keep alive", "MQTT5 3.2.2.3.14"},
	propAuthMethod:      {inConnect | inConnack | inAuth, "authentication method", "MQTT5 3.1.2.11.9"},
	propAuthData:        {inConnect | inConnack | inAuth, "authentication data", "MQTT5 3.1.2.11.10"},
	propProblemInfo:     {inConnect, "request problem information", "MQTT5 3.1.2.11.7"},
	propWillDelay:       {inWill, "will delay interval", "MQTT5 3.1.3.2.2"},
	propRequestResponse: {inConnect, "request response information", "MQTT5 3.1.2.11.6"},
	propResponseInfo:    {inConnack, "response information", "MQTT5 3.2.2.3.15"},
	propServerReference: {inConnack | inDisconnect, "server reference", "MQTT5 3.2.2.3.16"},
	propReasonString:    {inConnack | inAck | inDisconnect | inAuth, "reason string", "MQTT5 3.2.2.3.9"},
	propReceiveMax:      {inConnect | inConnack, "receive maximum", "MQTT5 3.1.2.11.3"},
	propTopicAliasMax:   {inConnect | inConnack, "topic alias maximum", "MQTT5 3.1.2.11.5"},
	propTopicAlias:      {inPublish, "topic alias", "MQTT5 3.3.2.3.4"},
	propMaxQoS:          {inConnack, "maximum QoS", "MQTT5 3.2.2.3.4"},
	propRetainAvailable: {inConnack, "retain available", "MQTT5 3.2.2.3.5"},
	propUser:            {^scope(0) &^ (1<<PINGREQ | 1<<PINGRESP), "user property", "MQTT5 3.1.2.11.8"},
	propMaxPacketBytes:  {inConnect | inConnack, "maximum packet size", "MQTT5 3.1.2.11.4"},
	propWildcard:        {inConnack, "wildcard subscription available", "MQTT5 3.2.2.3.11"},
	propSubIDAvailable:  {inConnack, "subscription identifiers available", "MQTT5 3.2.2.3.12"},
	propShared:          {inConnack, "shared subscription available", "MQTT5 3.2.2.3.13"},
}

var (
	errPropUnknown    = malformed("MQTT5 2.2.2.2", "unknown property")
	errPropLength     = malformed("MQTT5 2.2.2.1", "the property length exceeds the packet")
	errResponseWild   = protocolError("MQTT-3.3.2-14", "response topic contains a wildcard")
	errResponseEmpty  = protocolError("MQTT-4.7.3-1", "response topic is empty")
	errAuthDataAlone  = protocolError("MQTT5 3.1.2.11.10", "authentication data without an authentication method")
	errTopicAliasZero = &Error{Reason: TopicAliasInvalid, Statement: "MQTT-3.3.2-8", Text: "topic alias is 0"}
)

func errPropPlace(id byte) *Error {
	return malformed("MQTT5 2.2.2.2", "the packet must not carry the property "+properties[id].name)
}

func errPropTwice(id byte) *Error {
	return protocolError(properties[id].section, "property given twice: "+properties[id].name)
}

func errPropRange(id byte) *Error {
	return protocolError(properties[id].section, "value not allowed for the property "+properties[id].name)
}

// reset empties p but keeps its slice for reuse.
func (p *Properties) reset() {
	user := p.User
	if cap(user) > scratchMax {
		user = nil
	}
	*p = Properties{User: user[:0]}
}

// properties reads the property length and the properties of a packet (or
// will), which must be allowed in s, into p, which must be reset.
func (c *cursor) properties(p *Properties, s scope) {
	n := c.varint()
	if n > len(c.b) {
		c.fail(errPropLength)
	}
	if n == 0 || c.err != nil {
		return
	}
	in := cursor{b: c.b[:n]}
	c.b = c.b[n:]
	var seen uint64
	for len(in.b) > 0 {
		in.property(p, in.propertyID(s, &seen))
	}
	if p.AuthData != nil && p.AuthMethod == nil {
		in.fail(errAuthDataAlone)
	}
	if in.err != nil {
		c.fail(in.err)
	}
}

// propertyID reads the identifier of a property and checks that it may stand
// in s and, but for user properties, is not in seen; then it adds it there. An
// identifier is a variable byte integer (MQTT5 2.2.2.2), but all that exist fit
// into one byte. It returns 0 after an error.
func (c *cursor) propertyID(s scope, seen *uint64) byte {
	id := c.u8()
	if int(id) >= len(properties) || properties[id].in == 0 {
		c.fail(errPropUnknown)
		return 0
	}
	if properties[id].in&s == 0 {
		c.fail(errPropPlace(id))
		return 0
	}
	if *seen&(1<<id) != 0 && id != propUser && (id != propSubscriptionID || s != inPublish) {
		c.fail(errPropTwice(id))
		return 0
	}
	*seen |= 1 << id
	return id
}

// property reads the value of property id into its field of p.
func (c *cursor) property(p *Properties, id byte) {
	switch id {
	case propPayloadFormat:
		p.PayloadIsUTF8 = c.flag(id)
	case propMessageExpiry:
		p.MessageExpirySeconds, p.HasMessageExpiry = c.u32(), true
	case propContentType:
		p.ContentType = c.str()
	case propResponseTopic:
		p.ResponseTopic = c.responseTopic()
	case propCorrelationData:
		p.CorrelationData = c.bytes()
	case propSubscriptionID:
		p.SubscriptionID = c.subscriptionID()
	case propSessionExpiry:
		p.SessionExpirySeconds, p.HasSessionExpiry = c.u32(), true
	case propAssignedID:
		p.AssignedClientID = c.str()
	case propServerKeepAlive:
		p.ServerKeepAliveSeconds, p.HasServerKeepAlive = c.u16(), true
	case propAuthMethod:
		p.AuthMethod = c.str()
	case propAuthData:
		p.AuthData = c.bytes()
	case propProblemInfo:
		p.NoProblemInfo = !c.flag(id)
	case propWillDelay:
		p.WillDelaySeconds = c.u32()
	case propRequestResponse:
		p.RequestResponseInfo = c.flag(id)
	case propResponseInfo:
		p.ResponseInfo = c.str()
	case propServerReference:
		p.ServerReference = c.str()
	case propReasonString:
		p.ReasonString = c.str()
	case propReceiveMax:
		p.ReceiveMax = c.u16()
		c.notZero(id, uint32(p.ReceiveMax))
	case propTopicAliasMax:
		p.TopicAliasMax = c.u16()
	case propMaxQoS:
		p.HasMaxQoS = true
		if c.flag(id) {
			p.MaxQoS = 1
		}
	case propRetainAvailable:
		p.RetainUnavailable = !c.flag(id)
	case propUser:
		u := UserProperty{Name: c.str(), Value: c.str()}
		p.User = push(p.User, u, len(c.b)/5)
	case propMaxPacketBytes:
		p.MaxPacketBytes = c.u32()
		c.notZero(id, p.MaxPacketBytes)
	case propWildcard:
		p.WildcardUnavailable = !c.flag(id)
	case propSubIDAvailable:
		p.SubIDUnavailable = !c.flag(id)
	case propShared:
		p.SharedUnavailable = !c.flag(id)
	}
}

// flag reads a byte that must be 0 or 1.
func (c *cursor) flag(id byte) bool {
	v := c.u8()
	if v > 1 {
		c.fail(errPropRange(id))
	}
	return v == 1
}

func (c *cursor) notZero(id byte, v uint32) {
	if v == 0 && c.err == nil {
		c.fail(errPropRange(id))
	}
}

// subscriptionID reads 1 to 268435455 (MQTT5 3.8.2.1.2).
func (c *cursor) subscriptionID() uint32 {
	v := uint32(c.varint())
	c.notZero(propSubscriptionID, v)
	return v
}

// responseTopic reads a topic name that may be published to.
func (c *cursor) responseTopic() []byte {
	v := c.bytes()
	if err := checkName(v); err == errTopicWild {
		c.fail(errResponseWild)
	} else if err != nil {
		c.fail(err)
	}
	if c.err == nil && len(v) == 0 {
		c.fail(errResponseEmpty)
	}
	return v
}
