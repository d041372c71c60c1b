package bridge

import "time"

// pace limits a rate. It keeps the time at which everything booked so far will
// have been paid for; as long as that is at most paceBurst ahead, the next
// message may go at once. So what is booked may exceed one second's worth: the
// wait comes after it. It is not safe for concurrent use.
type pace struct {
	perSecond int           // 0: no limit
	paid      time.Duration // since the start of the link
}

const paceBurst = time.Second

// wait tells how long nothing may be sent.
func (p *pace) wait(now time.Duration) time.Duration {
	if p.perSecond <= 0 {
		return 0
	}
	return max(p.paid-now-paceBurst, 0)
}

// book notes n units sent at the time now.
func (p *pace) book(now time.Duration, n int) {
	if p.perSecond <= 0 {
		return
	}
	p.paid = max(p.paid, now) + time.Duration(float64(n)/float64(p.perSecond)*float64(time.Second))
}
