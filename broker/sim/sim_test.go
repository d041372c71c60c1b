package sim

import (
	"flag"
	"testing"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "run only this seed, and print its trace if it fails")
	seedsFlag  = flag.Uint64("seeds", 200, "how many seeds to run")
	firstFlag  = flag.Uint64("first", 1, "the first of them")
	eventsFlag = flag.Int("events", TraceEvents, "how many events of the trace to keep")
)

// TestSim runs a number of seeds; with -seed N one of them.
func TestSim(t *testing.T) {
	first, n := *firstFlag, *seedsFlag
	if *seedFlag != 0 {
		first, n = *seedFlag, 1
	}
	var sum Counts
	for seed := first; seed < first+n; seed++ {
		r := Run(seed, Options{Events: *eventsFlag})
		sum.Add(r.Counts)
		if r.Failure == nil {
			continue
		}
		if *seedFlag != 0 {
			t.Fatalf("%s", r.Report())
		}
		t.Errorf("seed %d: %.600s\n\treplay: go test ./broker/sim -run TestSim -seed=%d", seed, r.Failure, seed)
	}
	t.Logf("%d seeds: %+v", n, sum)
}

// TestReplayIsDeterministic: a seed decides everything.
func TestReplayIsDeterministic(t *testing.T) {
	for seed := uint64(1); seed <= 10; seed++ {
		a, b := Run(seed, Options{Events: *eventsFlag}), Run(seed, Options{Events: *eventsFlag})
		if a.Hash != b.Hash || a.Counts != b.Counts {
			t.Fatalf("seed %d: hash %#x, counts %+v; again: %#x, %+v", seed, a.Hash, a.Counts, b.Hash, b.Counts)
		}
	}
}
