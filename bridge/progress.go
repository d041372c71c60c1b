package bridge

import (
	"sync/atomic"
	"time"
)

// progress watches that outstanding work advances. Times are since the start
// of the link, by the monotonic clock.
type progress struct {
	outstanding atomic.Int64
	at          atomic.Int64 // ns; the last step, or the begin of the first outstanding piece
}

// begin counts a piece of work. The time goes first, lest the watchdog see
// the work together with the time of an earlier one.
func (p *progress) begin(now time.Duration) {
	if p.outstanding.Load() == 0 {
		p.at.Store(int64(now))
	}
	p.outstanding.Add(1)
}

// step notes that something moved.
func (p *progress) step(now time.Duration) { p.at.Store(int64(now)) }

// end notes that a piece of work is finished.
func (p *progress) end(now time.Duration) {
	p.at.Store(int64(now))
	p.outstanding.Add(-1)
}

// stuck tells whether work is outstanding and nothing has moved for a timeout.
func (p *progress) stuck(now, timeout time.Duration) bool {
	return p.outstanding.Load() > 0 && now-time.Duration(p.at.Load()) > timeout
}
