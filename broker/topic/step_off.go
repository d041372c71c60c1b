//go:build !invariants

package topic

// step stands between two accesses to what readers and a writer share. It does
// nothing; with -tags invariants a test takes the other side's turn there.
func step() {}
