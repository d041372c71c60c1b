package main

import (
	"time"

	"sluice/broker/session"
	"sluice/broker/worker"
	"sluice/configs"
	"sluice/persist"
)

var (
	queuePolicies = map[string]persist.QueuePolicy{"reject": persist.Reject, "drop-oldest": persist.DropOldest, "drop-newest": persist.DropNewest}
	queueQoS0     = map[string]session.QoS0{"off": session.QoS0Off, "memory": session.QoS0Memory}
)

// sessionQueue translates the limits of queues.
func sessionQueue(q *configs.Queue) session.Queue {
	return session.Queue{
		QueueLimits: persist.QueueLimits{
			Messages: int64(q.MessagesMax), Bytes: int64(q.BytesMax),
			AgeSeconds: uint32(time.Duration(q.AgeMax) / time.Second), Policy: queuePolicies[q.Policy],
		},
		QoS0: queueQoS0[q.QoS0],
		Hold: q.MQTT5Full == "hold",
	}
}

// queueClasses translates the classes of sessions.
func queueClasses(q *configs.Queue) []worker.QueueClass {
	var all []worker.QueueClass
	for i := range q.Classes {
		c := &q.Classes[i]
		of := q.Of(c)
		all = append(all, worker.QueueClass{Name: c.Name, ClientIDs: c.ClientIDs, Users: c.Users, Queue: sessionQueue(&of)})
	}
	return all
}
