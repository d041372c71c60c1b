package bridge

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

// DESIGN. A link whose password expires is left before that, as by Close: what is under
// way is waited for, and the next link dials at once with a new password. It is not
// left for nothing: first the new password is asked for, and if there is none that holds
// longer, the link stays and it is asked again.
//
// The time of expiry is one of the wall clock, which may be set while the link is up. So
// it is looked at again and again, and as long as the clock was never set nothing is
// concluded from it.

var errRenew = errors.New("the password is to be renewed")

const (
	renewLook   = 10 * time.Second // between two looks at the clock
	renewAgain  = time.Minute      // between two questions for a new password
	renewMargin = 5 * time.Minute  // before the expiry, at most
	renewLeast  = 30 * time.Second // and at least, if it holds so long
)

// renewAt is when a password that was got at a time is to be renewed: when a tenth of
// its life is left, within the margins above, but not before half of it is over.
func renewAt(got, expires time.Time) time.Time {
	life := expires.Sub(got)
	if got.Year() < plausibleYear { // the clock was set since
		return expires.Add(-renewMargin)
	}
	return expires.Add(-min(max(life/10, renewLeast), renewMargin, life/2))
}

// renewal starts a goroutine that tells watch when to leave for a new password; it ends
// with the link. It does nothing for passwords that do not expire.
func (l *link) renewal(who Login) {
	if who.Expires.IsZero() {
		return
	}
	got := l.opts.now()
	if !who.Expires.After(got) {
		l.log.warn("the upstream took a password that has expired, by the clock of this machine; it is not renewed", zap.Time("expires", who.Expires))
		return
	}
	l.wg.Go(func() {
		look := time.NewTicker(min(renewLook, max(who.Expires.Sub(got)/20, renewLook/100)))
		defer look.Stop()
		var asked time.Duration // age of the link, then
		for {
			select {
			case <-look.C:
			case <-l.done:
				return
			}
			now := l.opts.now()
			if now.Year() < plausibleYear || now.Before(renewAt(got, who.Expires)) || asked > 0 && l.age()-asked < renewAgain || l.age() < l.opts.ReconnectMin {
				continue
			}
			asked = l.age()
			if l.renewed(who) {
				l.renew.Store(true)
				return
			}
		}
	})
}

// renewed tells whether there is a password that holds longer.
func (l *link) renewed(old Login) bool {
	ctx, cancel := l.context(l.opts.ConnectTimeout)
	defer cancel()
	fresh, err := l.opts.login(ctx)
	switch {
	case err != nil:
		l.log.warn("no new password, and the old one expires", zap.Time("expires", old.Expires), zap.Error(err))
		return false
	case !fresh.Expires.IsZero() && !fresh.Expires.After(old.Expires):
		l.log.warn("the new password holds no longer than the old one, which expires", zap.Time("expires", old.Expires))
		return false
	}
	return true
}

// context ends with the link, or after a timeout.
func (l *link) context(timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	go func() {
		select {
		case <-l.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
