package sim

// What the broker is known to do otherwise than it should: runs are drawn, and
// judged, such that it does not show. Each is to become false, and then to go.
const (
	// A connection that is lent to a handshake is read for an event that the worker
	// had put off.
	knownShakeRead = true
	// A restored session of Sluice itself has the rules of anonymous clients
	// until its client comes.
	knownBridgeRules = true
	// Messages that are queued by a subscription that has ended since, or of a share
	// group, are sent even if rules forbid them by then.
	knownQueueRules = true
)
