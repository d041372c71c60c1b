package broker

import (
	"runtime"
	"testing"
)

var ballast [][]byte

func TestTrimmerWaitsForQuietAndTrimsOnce(t *testing.T) {
	x := newTrimmer()
	for range 64 {
		ballast = append(ballast, make([]byte, 256<<10))
	}
	if x.due() {
		t.Error("trims in a burst of allocations")
	}
	ballast = nil
	if !x.due() {
		t.Error("16 MiB of garbage, nothing allocated since, and nothing is trimmed")
	}
	runtime.GC()
	if x.due() {
		t.Error("trims again although nothing was allocated since")
	}
	ballast = append(ballast, make([]byte, 16<<20))
	x.due()
	ballast = nil
	if !x.due() {
		t.Error("does not trim after the next burst")
	}
}
