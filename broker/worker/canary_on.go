//go:build canary

package worker

var (
	canaryAckBeforeCommit bool
	canaryLostWakeUp      bool
	canaryDoubleDelivery  bool
	canaryStaleConnection bool
	canaryLaneForgotten   bool
)

// Canaries names the bugs and the switches that turn them on.
var Canaries = map[string]*bool{
	"ack-before-commit": &canaryAckBeforeCommit, // acknowledge what the store has not got yet
	"lost-wake-up":      &canaryLostWakeUp,      // go to sleep without looking for mail once more
	"double-delivery":   &canaryDoubleDelivery,  // forget that messages were acknowledged: a resume sends them again
	"lane-forgotten":    &canaryLaneForgotten,   // deliver what has priority in the other lane if it came by mail
	"stale-connection":  &canaryStaleConnection, // use a connection's descriptor after it was closed
}
