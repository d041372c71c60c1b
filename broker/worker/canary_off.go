//go:build !canary

package worker

// Known bugs that a canary build (tag canary) can switch on, to show that the
// simulator finds them. In every other build they are constants, and gone.
const (
	canaryAckBeforeCommit = false
	canaryLostWakeUp      = false
	canaryDoubleDelivery  = false
	canaryStaleConnection = false
	canaryLaneForgotten   = false
)
