package bridge

import (
	"errors"
	"fmt"
	"time"
)

// DESIGN. When a link is wanted. These are decisions only; the supervisor asks
// wanted before it dials and link.watch asks whether to leave. A link that is
// not wanted any more is left as by Close: what is under way is waited for.

// StartMode tells when a Bridge dials.
type StartMode string

// The start modes.
const (
	StartAutomatic StartMode = "automatic" // at once, and again whenever the link is lost
	StartLazy      StartMode = "lazy"      // when something is queued; it leaves when nothing has moved for IdleTimeout
	StartOnce      StartMode = "once"      // at once, but not again when a link that was up is lost
)

var (
	errIdle     = errors.New("nothing to carry for the idle timeout")
	errInactive = errors.New("outside of the times at which the bridge is active")
)

// Window is a part of each day, local time, in minutes since midnight. It ends
// on the following day if To is not after From.
type Window struct{ From, To int }

const dayMinutes = 24 * 60

// ParseWindow reads "22:00-06:00".
func ParseWindow(s string) (w Window, err error) {
	var fh, fm, th, tm int
	if n, err := fmt.Sscanf(s, "%d:%d-%d:%d", &fh, &fm, &th, &tm); err != nil || n != 4 ||
		s != fmt.Sprintf("%02d:%02d-%02d:%02d", fh, fm, th, tm) || fh > 23 || th > 23 || fm > 59 || tm > 59 || fh < 0 || th < 0 || fm < 0 || tm < 0 {
		return w, fmt.Errorf("%q: need hours and minutes as in 22:00-06:00", s)
	}
	if w = (Window{fh*60 + fm, th*60 + tm}); w.From == w.To {
		return w, fmt.Errorf("%q: begins and ends at the same time", s)
	}
	return w, nil
}

func (w Window) contains(minute int) bool {
	if w.From < w.To {
		return w.From <= minute && minute < w.To
	}
	return minute >= w.From || minute < w.To
}

// plausibleYear is the first that a clock can show which has been set. Gateways
// without a battery boot in 1970, or at the date of their image.
const plausibleYear = 2024

// active tells whether the time is within one of the windows. Without windows
// it always is, and so it is as long as the clock was not set: a link at the
// wrong time is better than none for ever.
func (o *Options) active(now time.Time) bool {
	if len(o.Active) == 0 || now.Year() < plausibleYear {
		return true
	}
	for _, w := range o.Active {
		if w.contains(now.Hour()*60 + now.Minute()) {
			return true
		}
	}
	return false
}

// queued tells whether a session has something for the upstream.
func (b *Bridge) queued() bool {
	for _, q := range living(b.queues) {
		if depth, known := b.opts.Backlog(q.session); known && depth.Messages > 0 {
			return true
		}
	}
	return false
}

// wanted tells whether there should be a link. lost: there was one that was up.
func (b *Bridge) wanted(lost bool) bool {
	switch {
	case b.opts.Start == StartOnce && lost, !b.opts.active(b.opts.now()):
		return false
	case b.opts.Start == StartLazy:
		return b.queued()
	}
	return true
}

// await waits until a link is wanted; false: the Bridge closes.
func (b *Bridge) await(lost bool) bool {
	if b.wanted(lost) {
		return b.ctx.Err() == nil
	}
	b.status.enter(StateIdle)
	tick := time.NewTicker(gaugeInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if b.wanted(lost) {
				return true
			}
		case <-b.closing:
			return false
		}
	}
}

// use watches whether a link is still of use.
type use struct {
	moved int64         // messages so far, when it was looked last
	at    time.Duration // when that had changed
}

// over returns why a link is to be left, or nil.
func (u *use) over(l *link, now time.Duration) error {
	if !l.opts.active(l.opts.now()) {
		return errInactive
	}
	c := l.counters
	moved := c.received.Load() + c.acked.Load() + c.remoteReceived.Load() + c.localAcked.Load()
	items, _ := l.out.held()
	if moved != u.moved || items > 0 {
		u.moved, u.at = moved, now
	}
	if l.opts.Start == StartLazy && now-u.at >= l.opts.IdleTimeout {
		return errIdle
	}
	return nil
}

func (o *Options) validateStart() error {
	var errs []error
	switch o.Start {
	case StartAutomatic, StartOnce:
	case StartLazy:
		if o.Backlog == nil {
			errs = append(errs, errors.New("a lazy start needs Backlog, to see when something is queued"))
		}
		if o.IdleTimeout <= 0 {
			errs = append(errs, fmt.Errorf("idle timeout %v: must be positive", o.IdleTimeout))
		}
	default:
		errs = append(errs, fmt.Errorf("start %q: need automatic, lazy or once", o.Start))
	}
	for _, w := range o.Active {
		if w.From == w.To || min(w.From, w.To) < 0 || max(w.From, w.To) >= dayMinutes {
			errs = append(errs, fmt.Errorf("active window %+v: need two different minutes of a day", w))
		}
	}
	return errors.Join(errs...)
}
