// Package session is the MQTT state machine of one client, sans I/O: packets
// and the world's answers go in, effects come out as data. No goroutine, no
// clock, no socket, no logger: the worker that owns the session calls it, with
// the time read once per turn, and carries out the Effects.
//
// DESIGN. Events are named On<Packet>; answers of the world are in the past
// tense (Accepted, Fetched). An event appends packets for the peer to
// Effects.Send and operations for the store to Effects.Batch.
//
// Inbound. A publication that must be durable is acknowledged only when the
// store says so. Acknowledgements that wait stand in one queue (acks), so
// they leave in the order of the packets they answer [MQTT-4.6.0-2] ff. One
// that need not wait, and has none before it, is sent at once.
//
// Outbound. Every message of QoS 1 and 2 has a sequence number in the
// session's queue, dense and ascending; its packet id is derived from it
// (packetID). For a durable session the store assigns the number at Submit and
// keeps the message until it is acknowledged; the session itself keeps only
// which numbers are in flight (window), and a few messages that come next
// (queue). What is not at hand is fetched from the store. So an offline
// session costs no memory for its messages, a resend after a reconnect reads
// what the store has, and packet ids survive a crash without being written.
//
// Permissions are asked where a packet asks for something: PUBLISH, SUBSCRIBE
// and the will; and at delivery only while Guarded, for the worker knows which
// subscriptions are covered as a whole. What few connections need (topic
// aliases, re-authentication, messages of share groups) is in extras, which
// most sessions have not got.
//
// Invariants, checked by check:
//
//	of each lane (lane.go):
//	window.low <= next <= have <= tail
//	every entry of queue has next <= Seq < have, ascending
//	inflight = number of sequence numbers in [low, next) not done
//	a session that is not connected has an empty queue and no fetch under way
package session
