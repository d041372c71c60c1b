package session

import (
	"strings"
	"time"

	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/platform/mono"
)

// InternalPrefix begins the client ids of Sluice's own sessions (bridges). No
// client from outside may use it.
const InternalPrefix = "$bridge/"

// CheckConnect judges a CONNECT as far as that needs neither a session nor who
// the client is; CheckWill and its authentication follow. The reason is Success
// if it may go on; the text says what is wrong.
func CheckConnect(c *mqtt.Connect, lim *Limits, internal bool) (mqtt.Reason, string) {
	switch {
	case len(c.ClientID) > lim.ClientIDBytesMax:
		return mqtt.ClientIDNotValid, "client id is longer than limits.client_id_bytes_max"
	case len(c.ClientID) == 0 && c.Version == mqtt.V31:
		return mqtt.ClientIDNotValid, "empty client id (MQTT 3.1)"
	case len(c.ClientID) == 0 && c.Version == mqtt.V311 && !c.Clean: // [MQTT-3.1.3-8]
		return mqtt.ClientIDNotValid, "empty client id without clean session [MQTT-3.1.3-8]"
	case !internal && strings.HasPrefix(string(c.ClientID), InternalPrefix):
		return mqtt.ClientIDNotValid, "client ids that begin with " + InternalPrefix + " are Sluice's own"
	}
	return CheckWill(c, nil, internal, lim)
}

// Outlives tells whether a CONNECT asks for a session that outlives its
// connection, and for how many seconds.
func Outlives(c *mqtt.Connect, lim *Limits) (seconds uint32, yes bool) {
	switch {
	case c.Version == mqtt.V5:
		seconds = c.Props.SessionExpirySeconds
	case !c.Clean:
		seconds = persist.NoExpiry
	}
	seconds = capExpiry(seconds, lim)
	return seconds, seconds > 0
}

func capExpiry(seconds uint32, lim *Limits) uint32 {
	if lim.SessionExpiryMax > 0 {
		return uint32(min(int64(seconds), int64(lim.SessionExpiryMax/time.Second)))
	}
	return seconds
}

// Admission is how a client was let in.
type Admission struct {
	Identity   *auth.Identity // nil: nobody was asked, for a part of Sluice itself
	Permit     *auth.Permit   // what it may do; nil: everything
	Assigned   bool           // the client id is ours
	AuthMethod string         // of enhanced authentication; "": none
	AuthData   []byte         // the server's last word in it, for CONNACK
}

// Attach connects a client to the session: its CONNECT has been accepted.
// present tells whether the session existed before. CONNACK is the first thing
// in Effects.Send.
func (s *Session) Attach(fx *Effects, c *mqtt.Connect, a *Admission, present bool, now mono.Time) {
	s.Epoch++
	s.connected = true
	s.Version, s.bridge = c.Version, c.Bridge
	s.Username, s.Permit = string(c.Username), a.Permit
	if a.Identity != nil {
		s.Username = a.Identity.User
	}
	s.noProblem = c.Props.NoProblemInfo
	s.aliasing = false
	s.aliasOutMax = uint16(min(int(c.Props.TopicAliasMax), s.limits.TopicAliasOutMax))
	if a.AuthMethod != "" {
		s.extras().authMethod = a.AuthMethod
	}
	s.quota = uint16(min(s.limits.ReceiveMax, 65535)) // [MQTT-4.9.0-1]
	s.receiveMax = uint16(s.limits.InflightMax)
	if n := c.Props.ReceiveMax; n != 0 && n < s.receiveMax {
		s.receiveMax = n
	}
	s.packetMax = c.Props.MaxPacketBytes
	s.Expiry, _ = Outlives(c, s.limits)
	s.KeepAlive = time.Duration(c.KeepAliveSeconds) * time.Second
	if cap := s.limits.KeepAliveMax; c.Version == mqtt.V5 && cap > 0 && (s.KeepAlive == 0 || s.KeepAlive > cap) && !s.Internal {
		s.KeepAlive = cap
	}
	s.setWill(c)

	s.connack(fx, c, a, present)
	if s.Durable != 0 {
		s.AddRecord(fx.Batch)
		s.attachLanes(fx.Batch)
	}
	s.Resume(fx, now)
}

// connack accepts the CONNECT. What the client need not know is left out if it
// makes the packet too large; if it is so even then, nothing can be sent, no
// DISCONNECT either [MQTT-3.14.0-1].
func (s *Session) connack(fx *Effects, c *mqtt.Connect, a *Admission, present bool) {
	ack := mqtt.Connack{SessionPresent: present}
	if c.Version == mqtt.V5 {
		s.announce(&ack.Props, c, a)
	}
	at := len(fx.Send)
	fx.Send = mqtt.AppendConnack(fx.Send, &ack, s.Version)
	if s.cut(fx, at) {
		ack.Props.ResponseInfo = nil
		fx.Send = mqtt.AppendConnack(fx.Send, &ack, s.Version)
	}
	if s.cut(fx, at) {
		fx.Close, fx.Reason, fx.Detail = true, mqtt.PacketTooLarge, "CONNACK is larger than the client's maximum packet size [MQTT-3.1.2-24]"
	}
}

// announce fills the properties of CONNACK: all that is not the default of the
// specification or was not granted as asked (MQTT5 3.2.2.3).
func (s *Session) announce(p *mqtt.Properties, c *mqtt.Connect, a *Admission) {
	if s.limits.ReceiveMax < 65535 {
		p.ReceiveMax = uint16(s.limits.ReceiveMax)
	}
	p.MaxPacketBytes = uint32(s.limits.PacketBytesMax)
	p.TopicAliasMax = uint16(s.limits.TopicAliasMax)
	if s.Expiry != c.Props.SessionExpirySeconds {
		p.HasSessionExpiry, p.SessionExpirySeconds = true, s.Expiry
	}
	if ka := uint16(s.KeepAlive / time.Second); ka != c.KeepAliveSeconds {
		p.HasServerKeepAlive, p.ServerKeepAliveSeconds = true, ka
	}
	if a.Assigned {
		p.AssignedClientID = []byte(s.ClientID)
	}
	if c.Props.RequestResponseInfo && s.limits.ResponseInfo != "" { // [MQTT-3.1.2-28]
		p.ResponseInfo = []byte(s.limits.ResponseInfo)
	}
	if a.AuthMethod != "" { // MQTT5 4.12
		p.AuthMethod, p.AuthData = []byte(a.AuthMethod), a.AuthData
	}
}

func (s *Session) record() *persist.Session {
	return &persist.Session{
		ID: s.Durable, ClientID: s.ClientID, Username: s.Username,
		Version: s.Version, ExpirySeconds: s.Expiry, Queue: s.limits.Queue.QueueLimits,
	}
}

// OnDisconnect takes the client's DISCONNECT: the connection is to be closed,
// and the will is forgotten if the client is content: any other reason, an
// error that the client reports among them, publishes it [MQTT-3.14.4-3].
func (s *Session) OnDisconnect(fx *Effects, d *mqtt.Disconnect) {
	if serverOnly(d.Reason) {
		s.Fail(fx, errServerReason)
		return
	}
	if d.Props.HasSessionExpiry {
		expiry := capExpiry(d.Props.SessionExpirySeconds, s.limits)
		if s.Expiry == 0 && expiry != 0 { // MQTT5 3.14.2.2.2
			s.Fail(fx, errExpiryRaised)
			return
		}
		s.Expiry = expiry
		if s.Durable != 0 && s.Expiry > 0 {
			s.AddRecord(fx.Batch)
		}
	}
	if d.Reason == mqtt.Success {
		s.will = nil
	}
	fx.Close, fx.Reason, fx.Detail = true, d.Reason, "DISCONNECT from the client"
}

// serverOnly tells whether only a server may give r in a DISCONNECT (MQTT5
// 3.14.2.1, table 3-10).
func serverOnly(r mqtt.Reason) bool {
	switch r {
	case mqtt.NotAuthorized, mqtt.ServerBusy, mqtt.ServerShuttingDown, mqtt.KeepAliveTimeout, mqtt.SessionTakenOver,
		mqtt.TopicFilterInvalid, mqtt.RetainNotSupported, mqtt.QoSNotSupported, mqtt.UseAnotherServer, mqtt.ServerMoved,
		mqtt.SharedNotSupported, mqtt.ConnectionRateExceeded, mqtt.MaximumConnectTime, mqtt.SubIDNotSupported, mqtt.WildcardNotSupported:
		return true
	}
	return false
}

var errServerReason = &mqtt.Error{Reason: mqtt.ProtocolError, Statement: "MQTT-3.14.2-1", Text: "DISCONNECT with a reason code that only a server sends"}

var errExpiryRaised = &mqtt.Error{Reason: mqtt.ProtocolError, Text: "DISCONNECT sets a session expiry although CONNECT had none (MQTT5 3.14.2.2.2)"}

// Departure says what is to be done after a client has gone.
type Departure struct {
	Ends        bool          // the session ends with its connection
	ExpireAfter time.Duration // when it ends otherwise; 0: never
	Will        *Will         // to be published, at once if Ends or it has no delay
	Orphans     []Orphan      // messages of share groups that the client has not got, for another member
}

// Detach ends the connection of the session. What is not acknowledged is sent
// again at the next Attach. If the session ends too, its record in the store is
// the caller's to delete: share groups may have a claim on what is queued.
func (s *Session) Detach(fx *Effects) Departure {
	d := Departure{Ends: s.Durable == 0 || s.Expiry == 0, Will: s.will}
	d.Orphans = s.orphans()
	s.forgetConnection()
	s.dropAcks(fx)
	s.rewind(s.oldest(), s.tail)
	if l := s.first; l != nil {
		l.rewind(l.oldest(), l.tail)
	}
	if d.Ends {
		return d
	}
	fx.Batch.Add(persist.Op{Kind: persist.OpDetach, ID: s.Durable})
	if s.laned() {
		fx.Batch.Add(persist.Op{Kind: persist.OpDetach, ID: persist.PriorityOf(s.Durable)})
	}
	if s.Expiry != persist.NoExpiry {
		d.ExpireAfter = time.Duration(s.Expiry) * time.Second
	}
	return d
}

// Backlog tells which part of its queue, without the priority lane, a session without a connection has not
// done: from low to before tail. What is below sent may have been sent before.
func (s *Session) Backlog() (low, sent, tail uint64) { return s.next, s.sent, s.tail }
