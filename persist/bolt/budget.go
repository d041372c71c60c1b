package bolt

import (
	"fmt"
	"math"
	"sync"
	"time"
)

// DESIGN. The write budget is bytes per day. A day has no beginning on a machine
// without a clock, so the budget is a bucket: what is written fills it, and it
// drains at four fifths of the budget per day; it holds the last fifth. So in
// any 24 hours no more is written than the budget, as long as the bucket does
// not run over. Up to half of it the commit interval is as configured; from
// there on it grows, by the same factor for each further part, and is at its
// maximum when the bucket is full. Then it stays there: what must be durable is
// written whatever it costs, and Stats tells.
//
// While the interval is longer than configured, commits do not begin early for
// publishers that wait (policy.go): with windows exhausted, they are held back.
//
// The level is in the file, so that restarts do not refill the budget. All
// time here is that for which the store was open.

const (
	// budgetDrain is the part of a day's budget that drains in a day.
	budgetDrain = 0.8

	// budgetCalm is the part of the bucket up to which nothing changes.
	budgetCalm = 0.5

	// stretchMin is what an interval of 0 or less than this is stretched from.
	stretchMin = 10 * time.Millisecond

	dayNanos = 24 * float64(time.Hour)
)

// meter knows what is written. The committer writes, Stats reads.
type meter struct {
	mu       sync.Mutex
	budget   float64       // bytes per day, 0: none
	base     time.Duration // configured interval
	longest  time.Duration
	level    float64 // bytes in the bucket
	at       int64   // when level was that, ns of Options.Now
	day      uint64  // day of the store's clock
	dayBytes uint64
	minute   int64      // of Options.Now
	commits  [60]uint32 // by minute of the hour
}

func (m *meter) init(opt *Options, now int64) {
	m.budget, m.base, m.longest = float64(opt.WriteBudgetBytes), opt.CommitInterval, opt.CommitIntervalMax
	m.at, m.minute = now, now/int64(time.Minute)
}

// drain brings the level and the minutes up to date.
func (m *meter) drain(now int64) {
	if now > m.at {
		m.level = max(0, m.level-float64(now-m.at)/dayNanos*budgetDrain*m.budget)
		m.at = now
	}
	minute := now / int64(time.Minute)
	for n := 0; m.minute < minute && n < len(m.commits); n++ {
		m.minute++
		m.commits[m.minute%60] = 0
	}
	m.minute = max(m.minute, minute)
}

// wrote counts what a transaction has written; day is that of the store's clock.
func (m *meter) wrote(now int64, bytes, commits, day uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drain(now)
	m.level += float64(bytes)
	if day != m.day {
		m.day, m.dayBytes = day, 0
	}
	m.dayBytes += bytes
	m.commits[m.minute%60] += uint32(commits)
}

// used is how full the bucket is: above 1, the budget is exceeded.
func (m *meter) used() float64 {
	if m.budget == 0 {
		return 0
	}
	return m.level / (m.budget * (1 - budgetDrain))
}

// interval is the present commit interval.
func (m *meter) interval(now int64) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drain(now)
	return m.stretched()
}

func (m *meter) stretched() time.Duration {
	part := (min(m.used(), 1) - budgetCalm) / (1 - budgetCalm)
	if part <= 0 || m.longest <= m.base {
		return m.base
	}
	from := float64(min(max(m.base, stretchMin), m.longest))
	return max(m.base, time.Duration(from*math.Pow(float64(m.longest)/from, part)))
}

// metered is the meter as Stats shows it.
type metered struct {
	interval        time.Duration
	used            float64
	dayBytes        uint64
	commitsLastHour uint64
}

// read gives the figures of the moment; day is that of the store's clock.
func (m *meter) read(now int64, day uint64) (r metered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drain(now)
	r.interval, r.used = m.stretched(), m.used()
	if day == m.day {
		r.dayBytes = m.dayBytes
	}
	for _, n := range m.commits {
		r.commitsLastHour += uint64(n)
	}
	return r
}

// saved gives what goes into the file.
func (m *meter) saved() (spent, day, dayBytes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(m.level), m.day, m.dayBytes
}

// restore takes what was in the file.
func (m *meter) restore(spent, day, dayBytes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.level, m.day, m.dayBytes = float64(spent), day, dayBytes
}

// Presets for how long a commit waits, by name:
//
//	latency   2 ms, stretched to at most 500 ms: acknowledgements come fast, flash wears
//	balanced  50 ms, at most 5 s: the default
//	flash     1 s, at most 30 s, and no commit begins early for publishers that
//	          wait: a publisher with 20 messages in flight, to a receiver that is
//	          away, gets 20 messages through in a second
var presets = map[string]Options{
	"latency":  {CommitInterval: 2 * time.Millisecond, CommitIntervalMax: 500 * time.Millisecond},
	"balanced": {CommitInterval: defaultCommitInterval, CommitIntervalMax: defaultCommitIntervalMax},
	"flash":    {CommitInterval: time.Second, CommitIntervalMax: 30 * time.Second, Patient: true},
}

// SetPreset sets CommitInterval, CommitIntervalMax and Patient to one of the
// presets latency, balanced and flash.
func (o *Options) SetPreset(name string) error {
	p, ok := presets[name]
	if !ok {
		return fmt.Errorf("store: no preset %q: there are latency, balanced and flash", name)
	}
	o.CommitInterval, o.CommitIntervalMax, o.Patient = p.CommitInterval, p.CommitIntervalMax, p.Patient
	return nil
}
