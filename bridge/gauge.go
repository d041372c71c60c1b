package bridge

import "time"

// Backlog is what a session has that was not acknowledged.
type Backlog struct {
	Messages int64
	Bytes    int64 // topics, properties and payloads
}

// DESIGN. A gauge looks at a queue now and then (observe), and tells from that
// how old its oldest message is, how fast it moves, and when it will be empty.
// A queue is first in, first out: with its depth and the number of messages
// that have left it, the number that ever entered is known, and the oldest that
// is there entered when that number passed the number that has left. The marks
// are pairs of a time and that number. When there are too many every second one
// goes, so memory is bounded and the answer is exact to some hundredths of the
// age. What was there at the first look counts as that old, not older.
type gauge struct {
	marks []mark
	every time.Duration // between marks
	depth Backlog
	known bool

	at       time.Duration // of the last look
	left     int64         // messages that have left, then
	perSec   float64       // messages leaving
	emptying float64       // messages by which the queue becomes shorter in a second
}

type mark struct {
	at      time.Duration
	entered int64 // messages so far
}

const (
	marksMax  = 256
	rateDecay = 10 * time.Second // what is further back counts for less than half
)

// observe notes the depth at a time, by when so many messages have left.
func (g *gauge) observe(now time.Duration, depth Backlog, left int64) {
	if g.known {
		g.rates(now-g.at, depth, left)
	}
	g.depth, g.known, g.at, g.left = depth, true, now, left
	for len(g.marks) > 0 && g.marks[0].entered <= left {
		g.marks = g.marks[1:]
	}
	entered := left + depth.Messages
	n := len(g.marks)
	switch {
	case depth.Messages == 0:
		g.marks, g.every = nil, 0
	case n > 0 && now-g.marks[n-1].at < g.every:
		g.marks[n-1].entered = max(entered, g.marks[n-1].entered)
		return
	}
	g.marks = append(g.marks, mark{now, entered})
	if len(g.marks) > marksMax {
		g.thin()
	}
}

// thin keeps every second mark: of two neighbours the earlier time and the
// later number, so that ages are never told too low.
func (g *gauge) thin() {
	var kept []mark
	for i := 0; i < len(g.marks); i += 2 {
		m := g.marks[i]
		if i+1 < len(g.marks) {
			m.entered = g.marks[i+1].entered
		}
		kept = append(kept, m)
	}
	g.marks = kept
	g.every = (g.marks[len(g.marks)-1].at - g.marks[0].at) / time.Duration(len(g.marks))
}

func (g *gauge) rates(passed time.Duration, depth Backlog, left int64) {
	if passed <= 0 {
		return
	}
	weight := min(1, float64(passed)/float64(rateDecay))
	g.perSec += weight * (float64(left-g.left)/passed.Seconds() - g.perSec)
	g.emptying += weight * (float64(g.depth.Messages-depth.Messages)/passed.Seconds() - g.emptying)
}

// oldest is the age of the oldest message, 0 if there is none.
func (g *gauge) oldest(now time.Duration) time.Duration {
	if !g.known || g.depth.Messages == 0 {
		return 0
	}
	for _, m := range g.marks {
		if m.entered > g.left {
			return now - m.at
		}
	}
	return 0
}

// eta is how long until the queue is empty if all goes on as it does; 0: it is
// empty; negative: it does not become shorter.
func (g *gauge) eta() time.Duration {
	switch {
	case g.depth.Messages == 0:
		return 0
	case g.emptying < 0.01:
		return -1
	}
	const century = 100 * 365 * 24 * time.Hour
	return time.Duration(min(float64(g.depth.Messages)/g.emptying*float64(time.Second), float64(century)))
}
