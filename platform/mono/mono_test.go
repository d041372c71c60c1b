package mono

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestNowIsNeverNone(t *testing.T) {
	last := Time(0)
	for range 1000 {
		now := Now()
		if now < Time(time.Second) {
			t.Fatalf("Now() = %d, want at least one second", now)
		}
		if now < last {
			t.Fatalf("Now() ran backwards: %d after %d", now, last)
		}
		last = now
	}
}

func TestArithmetic(t *testing.T) {
	const at = Time(5 * time.Second)
	if got := at.Add(1500 * time.Millisecond); got != Time(6500*time.Millisecond) {
		t.Errorf("Add: %d", got)
	}
	if got := at.Sub(Time(7 * time.Second)); got != -2*time.Second {
		t.Errorf("Sub: %v", got)
	}
}

// In a synctest bubble the clock is the bubble's: code that uses mono can be tested in fake time.
func TestNowFollowsFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := Now()
		time.Sleep(time.Hour)
		if got := Now().Sub(before); got != time.Hour {
			t.Fatalf("an hour of fake time moved Now by %v", got)
		}
	})
}

func TestNowDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { Now() }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
