package session

import (
	"strings"
	"unicode/utf8"

	"sluice/broker/mqtt"
)

// DESIGN. Who is refused is told why, in words (MQTT5 3.4.2.2.2 ff.): by the
// reason code alone nobody finds the limit that was met. The words are for the
// client only as far as they are about it; what they say of the server goes to
// the log. They are left out where the client wants none [MQTT-3.1.2-29], and
// where the packet would be larger than it takes [MQTT-3.4.2-2] ff.
//
// A packet that is too large even so is not sent [MQTT-3.1.2-24]. A PUBLISH
// can be dropped then; of all others the client must have the answer, so the
// connection ends with 0x95 (MQTT5 4.13.2).

// reasonBytesMax bounds reason strings.
const reasonBytesMax = 255

// fits tells whether the client takes a packet of n bytes.
func (s *Session) fits(n int) bool { return s.packetMax == 0 || uint64(n) <= uint64(s.packetMax) }

// cut takes back the packet that was appended at at if it does not fit, and
// tells whether it did.
func (s *Session) cut(fx *Effects, at int) bool {
	if s.fits(len(fx.Send) - at) {
		return false
	}
	fx.Send = fx.Send[:at]
	return true
}

// mustFit ends the connection if the packet appended at at does not fit.
func (s *Session) mustFit(fx *Effects, at int) {
	if s.cut(fx, at) {
		s.Fail(fx, errAnswerTooLarge)
	}
}

var errAnswerTooLarge = &mqtt.Error{Reason: mqtt.PacketTooLarge, Statement: "MQTT-3.1.2-24", Text: "the answer is larger than the client's maximum packet size"}

// close asks for the end of the connection, and tells an MQTT 5 client why.
func (s *Session) close(fx *Effects, r mqtt.Reason, detail string) {
	s.closeSaying(fx, r, detail, detail)
}

// closeSaying is close with other words for the client than for the log.
func (s *Session) closeSaying(fx *Effects, r mqtt.Reason, detail, text string) {
	if fx.Close {
		return
	}
	fx.Close, fx.Reason, fx.Detail = true, r, detail
	if s.Version != mqtt.V5 || !s.connected {
		return
	}
	at := len(fx.Send)
	d := mqtt.Disconnect{Reason: r}
	d.Props.ReasonString = reasonString(text)
	fx.Send = mqtt.AppendDisconnect(fx.Send, &d, s.Version)
	if s.cut(fx, at) { // [MQTT-3.14.2-3]
		d.Props.ReasonString = nil
		fx.Send = mqtt.AppendDisconnect(fx.Send, &d, s.Version)
		s.cut(fx, at)
	}
}

// reasonString is text as a property, or nil if it cannot be one.
func reasonString(text string) []byte {
	if text == "" || len(text) > reasonBytesMax || !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
		return nil
	}
	return []byte(text)
}

// Fail closes the connection for a packet that could not be decoded or is not
// allowed.
func (s *Session) Fail(fx *Effects, err error) {
	if e, ok := err.(*mqtt.Error); ok {
		s.closeSaying(fx, e.Reason, e.Error(), e.Text)
		return
	}
	s.close(fx, mqtt.MalformedPacket, err.Error())
}

// reasonText says why a packet was answered with the code r, "" if it was not
// refused.
func reasonText(kind mqtt.Type, r mqtt.Reason) string {
	if r < mqtt.UnspecifiedError {
		return ""
	}
	switch kind {
	case mqtt.PUBACK, mqtt.PUBREC:
		switch r {
		case mqtt.NotAuthorized:
			return "no permission to publish to this topic"
		case mqtt.TopicNameInvalid:
			return "the topic name is too long or has too many levels"
		case mqtt.QuotaExceeded:
			return "there is no room to keep this message"
		}
	case mqtt.PUBREL, mqtt.PUBCOMP:
		return "no message is under way with this packet identifier"
	case mqtt.SUBACK:
		switch r {
		case mqtt.NotAuthorized:
			return "no permission to subscribe to one of the filters"
		case mqtt.TopicFilterInvalid:
			return "one of the filters is not valid, too long or has too many levels"
		case mqtt.QuotaExceeded:
			return "more subscriptions than a session may have"
		}
	}
	return r.String()
}

// RefuseConnect appends the CONNACK that refuses c, in the version v, to dst:
// without text if it would be larger than the client takes, and nothing if it
// would be so even then. c may be as far decoded as its error let it.
func RefuseConnect(dst []byte, v mqtt.Version, r mqtt.Reason, text string, c *mqtt.Connect) []byte {
	p := mqtt.Connack{Code: byte(r)}
	if v != mqtt.V5 {
		p.Code = r.Connack311()
		return mqtt.AppendConnack(dst, &p, v)
	}
	s := Session{packetMax: c.Props.MaxPacketBytes}
	p.Props.ReasonString = reasonString(text)
	fx := Effects{Send: mqtt.AppendConnack(dst, &p, v)}
	if s.cut(&fx, len(dst)) { // MQTT5 3.2.2.3.9
		p.Props.ReasonString = nil
		fx.Send = mqtt.AppendConnack(fx.Send, &p, v)
		s.cut(&fx, len(dst))
	}
	return fx.Send
}
