package session

import (
	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/broker/topic"
)

// MayPublish tells whether the client may publish to a topic.
func (s *Session) MayPublish(topic []byte) bool { return s.Internal || mayPublish(s.Permit, topic) }

// SetPermit replaces what the client may do, after the rules were reloaded.
// Subscriptions, and Guarded, are the caller's to look at.
func (s *Session) SetPermit(p *auth.Permit) { s.Permit = p }

// MayReceive tells whether the client may be sent a message of the topic.
func (s *Session) MayReceive(topic []byte) bool { return s.Permit.Can(auth.Receive, topic) }

// mayPublish tells whether a client may publish to a topic: what Sluice itself
// tells under $SYS is read-only.
func mayPublish(p *auth.Permit, t []byte) bool {
	if len(t) >= 4 && string(t[:4]) == "$SYS" && (len(t) == 4 || t[4] == '/') {
		return false
	}
	return p.Can(auth.Publish, t)
}

// CheckWill judges the will of a CONNECT as a PUBLISH of that client would be
// judged. internal: the client is a part of Sluice, which needs no permission.
func CheckWill(c *mqtt.Connect, p *auth.Permit, internal bool, lim *Limits) (mqtt.Reason, string) {
	if !c.HasWill {
		return mqtt.Success, ""
	}
	if err := checkName(c.Will.Topic, lim); err != nil {
		return mqtt.TopicNameInvalid, "will topic: " + err.Error()
	}
	if internal {
		p = nil
	}
	if !mayPublish(p, c.Will.Topic) {
		return mqtt.NotAuthorized, "no permission to publish to the will topic"
	}
	return mqtt.Success, ""
}

// errTopicBytes is what topics above Limits.TopicBytesMax are refused with.
const errTopicBytes topic.Error = "topic is longer than limits.topic_bytes_max"

func checkName(t []byte, lim *Limits) error {
	if lim.TopicBytesMax > 0 && len(t) > lim.TopicBytesMax {
		return errTopicBytes
	}
	return topic.CheckName(t, lim.TopicLevelsMax)
}

func checkFilter(f []byte, lim *Limits) error {
	if lim.TopicBytesMax > 0 && len(f) > lim.TopicBytesMax {
		return errTopicBytes
	}
	return topic.CheckFilter(f, lim.TopicLevelsMax)
}
