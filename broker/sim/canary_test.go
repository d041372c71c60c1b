//go:build canary

package sim

import (
	"slices"
	"testing"

	"sluice/broker/worker"
)

// canarySeeds is within how many seeds a canary must be found.
const canarySeeds = 200

// canaries says as what each known bug must show, to an observer who cannot
// look into the broker.
var canaries = []struct {
	name  string
	kinds []string
}{
	{"ack-before-commit", []string{"lost"}},
	{"double-delivery", []string{"acknowledged"}},
	{"lane-forgotten", []string{"packet id", "lost", "order", "stuck", "acknowledged"}},
	{"lost-wake-up", []string{"stuck"}},
	{"stale-connection", []string{"descriptor"}},
}

// TestCanaries switches on one known bug after the other. A simulator that
// does not find them finds nothing.
func TestCanaries(t *testing.T) {
	if len(canaries) != len(worker.Canaries) {
		t.Fatalf("%d canaries are expected, there are %d", len(canaries), len(worker.Canaries))
	}
	for _, c := range canaries {
		t.Run(c.name, func(t *testing.T) {
			*worker.Canaries[c.name] = true
			defer func() { *worker.Canaries[c.name] = false }()
			for seed := uint64(1); seed <= canarySeeds; seed++ {
				if f := Run(seed, Options{Blind: true}).Failure; f != nil && slices.Contains(c.kinds, f.Kind) {
					t.Logf("found by seed %d: %s", seed, f)
					return
				}
			}
			t.Fatalf("not found within %d seeds", canarySeeds)
		})
	}
}
