package session

import (
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/platform/mono"
)

// Will is a client's last message, to be published when the connection ends
// without a proper DISCONNECT (MQTT5 3.1.2.5).
type Will struct {
	msg           mqtt.Message
	Delay         time.Duration
	expirySeconds uint32 // counts from the publication
	expires       bool
}

func (s *Session) setWill(c *mqtt.Connect) {
	s.will = nil
	if !c.HasWill {
		return
	}
	var p mqtt.Publish
	c.Will.Publish(&p, nil)
	s.will = &Will{
		msg:           *mqtt.NewMessage(&p),
		Delay:         time.Duration(c.Will.Props.WillDelaySeconds) * time.Second,
		expirySeconds: p.ExpirySeconds,
		expires:       p.HasMessageExpiry,
	}
	s.will.msg.QoS, s.will.msg.Retain = c.Will.QoS, c.Will.Retain
}

// Message gives the will as it is published at the time now.
func (w *Will) Message(now mono.Time) *mqtt.Message {
	m := w.msg
	if w.expires {
		m.Expires = Expires(now, w.expirySeconds)
	}
	return &m
}

// Stored gives the will as the store keeps it while it waits until due.
func (w *Will) Stored(due mono.Time) *persist.Will {
	return &persist.Will{Msg: &w.msg, Due: int64(due), ExpirySeconds: w.expirySeconds, HasExpiry: w.expires}
}

// RestoreWill is the reverse of Stored.
func RestoreWill(p *persist.Will) *Will {
	return &Will{msg: *p.Msg, expirySeconds: p.ExpirySeconds, expires: p.HasExpiry}
}
