package bridge

import (
	"errors"
	"time"

	"sluice/broker/mqtt"

	"go.uber.org/zap"
)

// DESIGN. What becomes of a message that the upstream answers with a reason from 0x80
// on, which it can in MQTT 5 (MQTT5 3.4.2.1):
//
//   - it will never take it (not authorized, invalid topic name, invalid payload
//     format): the message is dropped, counted and logged. A 3.1.1 upstream does the
//     same, but says nothing (MQTT3 3.3.5);
//   - not now (quota exceeded, and whatever else): it is sent again on the same
//     connection, after a wait that doubles. Meanwhile the window fills up with
//     what was sent after it, and nothing more leaves. As long as the upstream answers,
//     the link is not stuck;
//   - the packet id is in use: the upstream and we disagree about the connection, which
//     ends.
//
// "No matching subscribers" is below 0x80: it is an acknowledgement.

// answered waits until the upstream has decided about a publish. taken: it has
// acknowledged it, and does not only want to hear no more of it. ok is false if
// the link is over.
func (l *lane) answered(p *outPending) (taken, ok bool) {
	for retry := refusedRetryMin; ; retry = min(2*retry, refusedRetryMax) {
		select {
		case <-p.receipt.Done():
		case <-l.link.done:
			return false, false
		}
		err := p.receipt.Error()
		var refused *refusal
		switch {
		case err == nil:
			return true, true
		case !errors.As(err, &refused) || refused.reason == mqtt.PacketIDInUse:
			l.link.fail(err)
			return false, false
		case final(refused.reason):
			l.link.counters.droppedRefused.Add(1)
			l.link.log.warn("message dropped: the upstream refuses it", zap.String("topic", p.message.topic), zap.Stringer("reason", refused.reason))
			return false, true
		}
		l.link.log.warn("message waits: the upstream refuses it for now", zap.String("topic", p.message.topic), zap.Stringer("reason", refused.reason))
		if !l.rest(min(retry, l.link.opts.progressTimeout()/2)) {
			return false, false
		}
		l.publish(p)
	}
}

// final tells whether a reason will not pass.
func final(r mqtt.Reason) bool {
	switch r {
	case mqtt.NotAuthorized, mqtt.TopicNameInvalid, mqtt.PayloadFormatInvalid, mqtt.PacketTooLarge:
		return true
	}
	return false
}

// rest waits, and is progress. It reports false if the link is over.
func (l *lane) rest(d time.Duration) bool {
	l.progress.step(l.link.age())
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.link.done:
		return false
	}
	l.progress.step(l.link.age())
	return true
}
