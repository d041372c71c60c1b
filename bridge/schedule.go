package bridge

import (
	"slices"
	"time"
)

// DESIGN. The schedule decides which queue sends next, and when. It is pure: it
// knows neither messages nor goroutines, only what they cost.
//
// Strict between priorities: nothing of a lower one goes while a higher one has
// something that may go. Within one priority the queues share by weight: each
// has a clock that runs ahead with what it sends, slower the larger its share,
// and the one that is furthest behind goes.
//
// The window upstream is one for all. Of each priority above its own a queue
// leaves a few places free, so that an alarm finds a place however long the
// backlog below it waits for acknowledgements.
//
// Two pairs of token buckets: one for everything, one for backlogs, which is a
// share of the first. A queue is a backlog as long as more waits for it than
// its window. Nothing is booked before it is sent, so the next token goes to
// the highest priority that waits for it.
type schedule struct {
	used  int // places of the window taken
	turns []turn
	floor []float64 // by rank: the clock of whoever was served last

	messages, bytes               pace
	backlogMessages, backlogBytes pace
}

// turn is one queue's part of a schedule.
type turn struct {
	rank    int // 0: the highest priority of all
	share   int // at least 1
	places  int // of the window: it may send while fewer are used
	waiting bool
	backlog bool
	clock   float64 // bytes sent, by its share
}

// messageCost is what a message costs beside its bytes when queues share: about
// the packets and acknowledgements that it causes.
const messageCost = 64

// newSchedule makes a schedule of queues with the given priorities and shares.
func newSchedule(window int, queues []Queue, o *Options) *schedule {
	part := func(perSecond int) int {
		if perSecond <= 0 {
			return 0
		}
		return max(1, int(int64(perSecond)*int64(o.BacklogPercent)/100))
	}
	s := &schedule{
		messages:        pace{perSecond: o.OutMaxMessagesPerSecond},
		bytes:           pace{perSecond: o.OutMaxBytesPerSecond},
		backlogMessages: pace{perSecond: part(o.OutMaxMessagesPerSecond)},
		backlogBytes:    pace{perSecond: part(o.OutMaxBytesPerSecond)},
	}
	var priorities []int
	for _, q := range queues {
		priorities = append(priorities, q.Priority)
	}
	slices.Sort(priorities)
	priorities = slices.Compact(priorities)
	s.floor = make([]float64, len(priorities))
	spare := max(1, window/8)
	for _, q := range queues {
		rank := len(priorities) - 1 - slices.Index(priorities, q.Priority)
		s.turns = append(s.turns, turn{rank: rank, share: max(q.Share, 1), places: max(1, window-rank*spare)})
	}
	return s
}

// offer notes that a queue has something to send, or nothing.
func (s *schedule) offer(i int, waiting, backlog bool) {
	t := &s.turns[i]
	if waiting && !t.waiting {
		t.clock = max(t.clock, s.floor[t.rank]) // who was silent has no claim on what he did not use
	}
	t.waiting, t.backlog = waiting, backlog
}

// next returns the queue that sends next, or -1: then nothing may be sent
// before the wait is over, or, if that is 0, before something has changed.
func (s *schedule) next(now time.Duration) (queue int, wait time.Duration) {
	rate := max(s.messages.wait(now), s.bytes.wait(now))
	slow := max(rate, s.backlogMessages.wait(now), s.backlogBytes.wait(now))
	queue = -1
	for i := range s.turns {
		t := &s.turns[i]
		if !t.waiting || s.used >= t.places {
			continue
		}
		due := rate
		if t.backlog {
			due = slow
		}
		if due > 0 {
			if wait == 0 || due < wait {
				wait = due
			}
			continue
		}
		if queue < 0 || t.before(&s.turns[queue]) {
			queue = i
		}
	}
	if queue >= 0 {
		return queue, 0
	}
	return -1, wait
}

func (t *turn) before(o *turn) bool {
	if t.rank != o.rank {
		return t.rank < o.rank
	}
	return t.clock < o.clock
}

// take books a message of a queue: a place in the window, and its size.
func (s *schedule) take(i int, now time.Duration, bytes int) {
	s.used++
	t := &s.turns[i]
	s.floor[t.rank] = t.clock
	t.clock += float64(bytes+messageCost) / float64(t.share)
	if bytes == 0 {
		return // nothing leaves
	}
	s.messages.book(now, 1)
	s.bytes.book(now, bytes)
	if t.backlog {
		s.backlogMessages.book(now, 1)
		s.backlogBytes.book(now, bytes)
	}
}

// free gives a place back.
func (s *schedule) free() {
	if s.used--; s.used < 0 {
		panic("BUG: bridge: more places of the window given back than taken")
	}
}
