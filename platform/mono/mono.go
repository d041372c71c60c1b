// Package mono is the broker's only notion of elapsed time.
//
// DESIGN: gateways boot without a clock and have it set, hours off, minutes later. Everything that measures a
// duration (keepalive, session expiry, timers, back-off) therefore counts nanoseconds of the kernel's CLOCK_MONOTONIC
// since the start of the process and never looks at the wall clock. Packages without a clock of their own take a Time
// as a parameter, so that tests and the simulator decide what the time is.
package mono

import "time"

// Time is an instant in nanoseconds since the start of the process plus one second. It is the same clock in every
// goroutine and never runs backwards; it stands still while the machine is suspended. The zero value is no instant
// that Now can return, so that 0 can mean "none".
type Time int64

// origin lies before every instant that Now returns, by the second that keeps Now away from 0.
const origin = Time(time.Second)

var start = time.Now()

// Now reads the clock.
func Now() Time { return origin + Time(time.Since(start)) }

// Add returns t moved by d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns the duration from u to t.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }
