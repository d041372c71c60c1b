//go:build canary

package worker

var (
	canaryAckBeforeCommit bool
	canaryLostWakeUp      bool
	canaryDoubleDelivery  bool
	canaryStaleConnection bool
)

// Canaries names the bugs that SetCanary can switch on.
var Canaries = map[string]*bool{
	"ack-before-commit": &canaryAckBeforeCommit, // acknowledge what the store has not got yet
	"lost-wake-up":      &canaryLostWakeUp,      // post mail without waking the target
	"double-delivery":   &canaryDoubleDelivery,  // on resume, send again what was acknowledged
	"stale-connection":  &canaryStaleConnection, // use a connection's descriptor after it was closed
}
