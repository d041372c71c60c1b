package persist

import "time"

// DESIGN. A gateway has no clock when it boots, so a store cannot tell for how
// long it was off. It has a clock of its own that counts the seconds for which
// it has been open, over all its life; with each commit the clock is saved.
// Expiry is stored as a reading of that clock. Time without power does not
// count, time after the last commit before a crash does not either, all other
// time does: nothing expires too early.

// Clock ties the store's clock to the monotonic clock of this process.
type Clock struct {
	Seconds int64 // reading of the store's clock
	Mono    int64 // at this instant, ns
}

// At gives the reading of the store's clock at mono, rounded down.
func (c Clock) At(mono int64) int64 {
	return c.Seconds + floorSeconds(mono-c.Mono)
}

// expiry turns an instant of the monotonic clock into a reading of the store's
// clock, rounded up; 0 (never) stays 0, and nothing else becomes it.
func (c Clock) expiry(mono int64) uint64 {
	if mono == 0 {
		return 0
	}
	return uint64(max(c.Seconds-floorSeconds(c.Mono-mono), 1))
}

// mono is the reverse of expiry. What expired long ago becomes 1, the earliest
// instant, and what is out of range never expires.
func (c Clock) mono(expiry uint64) int64 {
	if expiry == 0 {
		return 0
	}
	const farthest = int64(1) << 33 // seconds: longer than any MQTT expiry, short enough not to overflow in ns
	left := int64(min(expiry, 1<<62)) - c.Seconds
	if left > farthest {
		return 0
	}
	if left < -farthest {
		return 1
	}
	return max(c.Mono+left*int64(time.Second), 1)
}

func floorSeconds(ns int64) int64 {
	s := ns / int64(time.Second)
	if ns%int64(time.Second) < 0 {
		s--
	}
	return s
}
