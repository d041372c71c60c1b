package worker

import (
	"time"

	"sluice/platform/mono"
)

// rate limits what one client may send, as the time up to which its allowance is
// used: each message moves it on by 1/limit seconds. It may run ahead of the
// clock by rateBurst. What a read has brought is worked on whole, so a client can be
// in debt; then it is not read until that is paid.
type rate struct {
	messages, bytes mono.Time
}

// rateBurst is how much may come at once, in seconds' worth of the limit.
const rateBurst = time.Second

// spend accounts for one message.
func (w *Worker) spend(r *rate, bytes int) {
	if n := w.g.opt.MessagesPerSecondMax; n > 0 {
		r.messages = max(r.messages, w.now).Add(time.Second / time.Duration(n))
	}
	if n := w.g.opt.BytesPerSecondMax; n > 0 {
		r.bytes = max(r.bytes, w.now).Add(time.Duration(int64(bytes) * int64(time.Second) / int64(n)))
	}
}

// throttle tells whether a client has sent more than it may, and then sees to
// it that it is looked at again.
func (w *Worker) throttle(c *conn) bool {
	e := c.extra
	until := max(e.rate.messages, e.rate.bytes).Add(-rateBurst)
	if until <= w.now {
		return false
	}
	if !e.timed {
		e.timed = true
		w.stats.Throttled++
		w.timers.add(until, timerRate, c.name())
	}
	return true
}
