package bolt

import (
	"sync/atomic"
	"time"

	"sluice/persist"
)

// DESIGN. When to commit. The longer, the more is cancelled and the fewer pages
// are written for the rest; but somebody waits. So, unless somebody waits for
// a session or a subscription (urgent), an op gets the whole interval, if there
// is hope that it will be cancelled. The hope is gone when publishers have
// filled their windows with messages for receivers that are away, and no more
// such messages come: then they wait for nothing but the commit. And what is
// pending takes memory, so a certain number of bytes is enough.
//
// The committer sleeps with a note of what would wake it (mode). It writes
// the note before it looks at the figures, and Submit reads it after it has
// changed them, so that one of the two sees the other.

const (
	// earlyBytes is about a thousand messages: more in one transaction hardly
	// makes each cheaper, and the pages of 1 MiB take a slow card 100 ms.
	earlyBytes = 1 << 20

	// earlyGroups of publications wait for nothing but the commit, and there
	// have been no more for quietTime: a publisher that is still sending sends
	// within a millisecond.
	earlyGroups = 16
	quietTime   = time.Millisecond
)

// mode says what wakes the committer.
type mode int32

const (
	modeBusy     mode = iota // nothing
	modeIdle                 // any op
	modeInterval             // what makes a commit due before the interval is over
	modeQuiet                // the same, and it looks again soon by itself
)

// policy is the note and what the committer remembers from look to look.
type policy struct {
	mode   atomic.Int32
	slowed uint64    // Waiting.Slowed at the last look
	seen   time.Time // when it changed last
}

func (p *policy) set(m mode) { p.mode.Store(int32(m)) }

// wakes tells whether a Submit after which w is waiting has to wake the committer.
func (p *policy) wakes(w persist.Waiting) bool {
	switch mode(p.mode.Load()) {
	case modeIdle:
		return w.Ops > 0
	case modeInterval:
		return w.Urgent || w.Bytes >= earlyBytes || w.SlowGroups >= earlyGroups
	case modeQuiet:
		return w.Urgent || w.Bytes >= earlyBytes
	}
	return false
}

// due gives how long to wait for a commit of w, 0 for none at all, and the mode
// to wait in. now is since Store.start, as is w.Oldest.
// patient is for an interval that is not to be cut short by publishers that wait.
func (p *policy) due(w persist.Waiting, interval time.Duration, patient bool, now time.Time, start time.Time) (time.Duration, mode) {
	if w.Slowed != p.slowed {
		p.slowed, p.seen = w.Slowed, now
	}
	left := time.Duration(w.Oldest) + interval - now.Sub(start)
	if w.Urgent || interval == 0 || w.Bytes >= earlyBytes || left <= 0 {
		return 0, modeBusy
	}
	if patient {
		return left, modeQuiet
	}
	if w.SlowGroups < earlyGroups {
		return left, modeInterval
	}
	if quiet := quietTime - now.Sub(p.seen); quiet > 0 {
		return min(left, quiet), modeQuiet
	}
	return 0, modeBusy
}
