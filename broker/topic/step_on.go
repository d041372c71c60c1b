//go:build invariants

package topic

// onStep is what step does, set by one test at a time.
var onStep func()

func step() {
	if onStep != nil {
		onStep()
	}
}
