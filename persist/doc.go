// Package persist says what a store is (Store), what it guarantees, and keeps
// the pending set that every store shares. The stores themselves are
// persist/bolt (a file) and persist/mem (for tests, the simulator, and
// gateways that want no disk). No goroutine, no clock and no I/O here.
//
// # What is stored
//
// Sessions that outlive their connection, with their subscriptions; for each a
// queue of messages not yet acknowledged by the client, and the set of QoS 2
// packet ids received from it, and its will if its delay is running; and the
// retained messages. Message.From is not stored: a session's id in memory means
// nothing to the next process.
//
// # Queues
//
// A queue belongs to one session, named by a number that is never used again.
// Each message put into it gets the next sequence number of that queue, at
// Submit: so sequence numbers are dense in the order of Submit, whichever
// worker submitted. The owner of the session sends in that order. The MQTT
// packet id of a message is a function of its sequence number, therefore it
// need not be stored and is the same after a crash.
//
// # Limits of a queue
//
// Session.Queue says how many messages and bytes a queue may hold and how old
// they may become, and what happens when it is full (QueuePolicy). It is stored
// with the session and holds from the next OpPutSession on. What the owner of a
// session must be ready for:
//
//   - Reject: a group is settled with ErrQueueFull, as with ErrFull: nothing of
//     it is stored, all its enqueues have sequence number 0, and Batch.Refused
//     has it as soon as Submit returns. For the rest of the batch the queue
//     takes nothing, and neither does any other of this publisher and topic: so
//     an owner that tries again with what was refused, in order, changes no
//     order. Messages that no group waits for get sequence number 0.
//   - DropNewest: an enqueue gets sequence number 0, as for a queue that is gone,
//     and its group is settled as if it had not been there.
//   - DropOldest and age: an enqueue gets its number, and later the message is
//     gone, at any place of the queue. So Fetched.Next may jump, Entries may have
//     gaps or be empty with Next > From; a message that was fetched or delivered
//     may not be in the store any more, and is not sent again after a crash or
//     a new connection; OpDequeue and OpRelease of it have no effect, and their
//     groups settle. Of an attached session the first messages stay, as many as
//     OpAttach says in Op.Seq. A message of QoS 2 that was once fetched stays
//     until it is dequeued, whatever the limits, and so does a released one: its
//     packet id is in the client's memory. A message of QoS 2 that was never
//     fetched may vanish between Submit and Fetch.
//
// Every drop is counted by reason and queue: Stats.Drops, Queues.
//
// # Groups and settlement
//
// The ops of one publication (its copies to every queue, its retained update,
// its QoS 2 packet id) form a group with a Token. The group is settled when
// each of its ops is on disk (written and fsynced in one transaction: the
// whole group is there after a crash, or nothing of it) or has been cancelled
// by a later op (a Dequeue of a message not yet written; a newer retained
// message of the same topic). Then, and never before, Events.Settled names
// the token, and the worker acknowledges. When everything pending has been
// cancelled, nothing is written at all: with receivers that acknowledge within
// the commit interval the disk stays idle.
//
// A group with only ops that have no effect (an unknown queue) settles at once.
//
// What is on disk is always the state after some Submit, in full: nothing
// overtakes. When the disk is full there is one exception: removals that no
// group waits for are then written before what was submitted earlier, to make
// room for it.
//
// # When the disk does not take it
//
// Nothing that was accepted is given up: it stays pending, and is tried again.
// Beyond a number of pending bytes, groups with messages are settled with
// ErrFull instead, at once and as a whole, and their enqueues get sequence
// number 0. Stats.Err says why the disk fails; it becomes nil by itself.
//
// # What a crash takes
//
// What was not settled may be lost, and so may a sequence number that no
// message on disk has or had: the next message gets it again. Packet ids of QoS
// 2 messages are not affected, for these are on disk before they are fetched.
package persist
