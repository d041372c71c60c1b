package session

import (
	"sluice/broker/mqtt"
	"sluice/persist"
)

// Effects is what one event asks of the world. The worker owns it, points Send
// at the connection's output and Batch at the turn's batch, and carries out the
// rest after the call.
type Effects struct {
	Send  []byte         // packets to the peer, appended
	Batch *persist.Batch // operations for the store, appended

	// Blocked: the peer's unsent output is over its limit. Nothing that can
	// wait is appended to Send: QoS 0 is dropped, the rest stays queued.
	// Set by the worker, and by the session as soon as Send is longer than
	// SendMax (0: no limit).
	Blocked bool
	SendMax int

	Close   bool                   // the connection is to be closed once Send is written
	Reason  mqtt.Reason            // why; goes to the log and, in MQTT 5, has gone to the peer
	Detail  string                 // why, for the log
	Fetches []persist.FetchRequest // appended; to be passed to the store

	Dropped Drops  // messages that will not be delivered, by reason
	Denied  uint64 // PUBLISH packets from the client without permission, or with a topic that is not allowed
	Sent    uint64

	Orphans []Orphan // messages of share groups that the client left, appended; for another member
	Waiting int      // change in the number of acknowledgements that wait for the store
}

// Drops counts messages that were not delivered, by reason.
type Drops struct {
	QoS0Blocked uint64 // the receiver reads too slowly
	QoS0Offline uint64 // a durable session without a connection
	QueueFull   uint64 // the queue in memory is full, and takes nothing more. What the store drops it counts itself
	QueueOldest uint64 // it was full, and this one was the oldest
	QueueAged   uint64 // it waited in memory for too long
	TooLarge    uint64 // above the receiver's maximum packet size
	Expired     uint64 // message expiry
	Denied      uint64 // the receiver has no permission any more
}

// Sum is the number of all drops.
func (d *Drops) Sum() uint64 {
	return d.QoS0Blocked + d.QoS0Offline + d.QueueFull + d.QueueOldest + d.QueueAged + d.TooLarge + d.Expired + d.Denied
}

// Add adds o to d.
func (d *Drops) Add(o *Drops) {
	d.QoS0Blocked += o.QoS0Blocked
	d.QoS0Offline += o.QoS0Offline
	d.QueueFull += o.QueueFull
	d.QueueOldest += o.QueueOldest
	d.QueueAged += o.QueueAged
	d.TooLarge += o.TooLarge
	d.Expired += o.Expired
	d.Denied += o.Denied
}
