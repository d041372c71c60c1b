package session

import (
	"sluice/broker/auth"
	"sluice/broker/mqtt"
)

// Exchange is one enhanced authentication: challenges and answers, as its
// method has them.
type Exchange interface {
	// Step takes what the client said and gives the answer. done: the client
	// has proved who it is; reply is the last word then.
	Step(data []byte) (reply []byte, done bool, err error)
	// Identity is who the client is, once done.
	Identity() *auth.Identity
}

// Errors of an AUTH that end the connection.
var (
	errAuthUninvited = &mqtt.Error{Reason: mqtt.ProtocolError, Statement: "MQTT-4.12.0-7", Text: "AUTH without an authentication method in CONNECT"}
	errAuthMethod    = &mqtt.Error{Reason: mqtt.ProtocolError, Statement: "MQTT-4.12.1-1", Text: "AUTH with another authentication method than CONNECT"}
	errAuthReason    = &mqtt.Error{Reason: mqtt.ProtocolError, Statement: "MQTT-3.15.2-1", Text: "AUTH with a reason code that only a server sends"}
	errAuthTwice     = &mqtt.Error{Reason: mqtt.ProtocolError, Statement: "MQTT5 4.12.1", Text: "re-authentication begun while one is under way"}
	errAuthNothing   = &mqtt.Error{Reason: mqtt.ProtocolError, Statement: "MQTT5 4.12.1", Text: "authentication continued that was not begun"}
)

// OnAuth takes an AUTH of a client that is connected: re-authentication (MQTT5
// 4.12.1). begin makes an exchange of the method of CONNECT. Meanwhile all
// other packets go on as before. The result is not nil when the client has
// proved anew who it is; it is always the same user.
func (s *Session) OnAuth(fx *Effects, a *mqtt.Auth, begin func(method string) (Exchange, error)) *auth.Identity {
	x := s.extra
	switch {
	case x == nil || x.authMethod == "":
		s.Fail(fx, errAuthUninvited)
	case a.Reason == mqtt.Success:
		s.Fail(fx, errAuthReason)
	case string(a.Props.AuthMethod) != x.authMethod:
		s.Fail(fx, errAuthMethod)
	case a.Reason == mqtt.ReAuthenticate && x.exchange != nil:
		s.Fail(fx, errAuthTwice)
	case a.Reason == mqtt.ContinueAuthentication && x.exchange == nil:
		s.Fail(fx, errAuthNothing)
	case a.Reason == mqtt.ReAuthenticate:
		exchange, err := begin(x.authMethod)
		if err != nil {
			s.refuseAuth(fx, err.Error())
			return nil
		}
		x.exchange = exchange
		return s.authStep(fx, a.Props.AuthData)
	default:
		return s.authStep(fx, a.Props.AuthData)
	}
	return nil
}

func (s *Session) authStep(fx *Effects, data []byte) (renewed *auth.Identity) {
	x := s.extra
	reply, done, err := x.exchange.Step(data)
	if err != nil {
		s.refuseAuth(fx, err.Error())
		return nil
	}
	p := mqtt.Auth{Reason: mqtt.ContinueAuthentication}
	if done {
		renewed = x.exchange.Identity()
		x.exchange = nil
		if renewed == nil || renewed.User != s.Username {
			s.refuseAuth(fx, "it is another user")
			return nil
		}
		p.Reason = mqtt.Success
	}
	p.Props.AuthMethod, p.Props.AuthData = []byte(x.authMethod), reply
	at := len(fx.Send)
	fx.Send = mqtt.AppendAuth(fx.Send, &p)
	s.mustFit(fx, at)
	return renewed
}

// refuseAuth ends the connection [MQTT-4.12.1-2]. What was wrong is for the log
// only: it might help to guess.
func (s *Session) refuseAuth(fx *Effects, detail string) {
	s.extra.exchange = nil
	const text = "re-authentication failed"
	s.closeSaying(fx, mqtt.NotAuthorized, text+": "+detail, text)
}
