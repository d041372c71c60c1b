package configs

import (
	"strings"
	"time"
)

// Store is where sessions, queues and retained messages are kept.
type Store struct {
	Kind              string    `toml:"kind" allow:"bolt|memory"`
	Preset            string    `toml:"preset" allow:"latency|balanced|flash"`
	CommitInterval    *Duration `toml:"commit_interval" allow:"0 or 1ms..1m"`     // nil: that of the preset; 0: as soon as the last commit is done
	CommitIntervalMax *Duration `toml:"commit_interval_max" allow:"1ms..10m"`     // nil: that of the preset
	WriteBudget       PerDay    `toml:"write_budget" allow:"0 or 1MiB..1TiB/day"` // 0: none
	MaxBytes          Bytes     `toml:"max_bytes" allow:"0 or 1MiB..1TiB"`        // 0: no limit
}

// PerDay is a size per day. In the file it is a string such as "2GiB/day", or 0.
type PerDay int64

const perDay = "/day"

// ParsePerDay reads what String writes.
func ParsePerDay(s string) (PerDay, error) {
	size, ok := strings.CutSuffix(s, perDay)
	if !ok && s != "0" {
		return 0, errBytes
	}
	b, err := ParseBytes(strings.TrimSuffix(size, " "))
	return PerDay(b), err
}

// String writes it with the largest unit that divides it.
func (p PerDay) String() string {
	if p == 0 {
		return "0"
	}
	return Bytes(p).String() + perDay
}

func (v *validator) store(s *Store) {
	if s.CommitInterval != nil && s.CommitIntervalMax != nil && *s.CommitIntervalMax < *s.CommitInterval {
		v.problem("store.commit_interval_max", quoted(*s.CommitIntervalMax), "at least commit_interval, "+quoted(*s.CommitInterval), "")
	}
	if s.Kind == "memory" && s.WriteBudget != 0 {
		v.problem("store.write_budget", quoted(s.WriteBudget), "0 with kind = \"memory\"", "nothing is written")
	}
}

// or is what d points to, fallback if that is nothing.
func (d *Duration) or(fallback time.Duration) time.Duration {
	if d == nil {
		return fallback
	}
	return time.Duration(*d)
}

// Intervals gives the commit interval and how far the write budget may stretch it: as
// set, otherwise those of the preset, which are given.
func (s *Store) Intervals(commit, longest time.Duration) (time.Duration, time.Duration) {
	commit = s.CommitInterval.or(commit)
	return commit, max(commit, s.CommitIntervalMax.or(longest))
}
