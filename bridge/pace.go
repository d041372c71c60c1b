package bridge

import "time"

// pace limits a rate by telling how long to wait. It keeps the time at which
// everything sent so far will have been paid for; as long as that is at most
// one second ahead, the next message may go at once. It is not safe for
// concurrent use: each belongs to one goroutine.
type pace struct {
	perSecond int           // 0: no limit
	paid      time.Duration // since the start of the link
}

const paceBurst = time.Second

// next books n units at the time now and returns how long to wait before
// sending them. n may exceed one second's worth: the wait comes after it.
func (p *pace) next(now time.Duration, n int) time.Duration {
	if p.perSecond <= 0 {
		return 0
	}
	p.paid = max(p.paid, now)
	wait := p.paid - now - paceBurst
	p.paid += time.Duration(float64(n) / float64(p.perSecond) * float64(time.Second))
	return max(wait, 0)
}
