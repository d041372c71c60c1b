package persist

// DESIGN. A session may have a second queue, for messages with priority. To a
// store it is a session like any other, with its own record and counters, no
// subscriptions and nothing inbound; only its id says whose it is. So no record
// has a new form, and whatever holds for a queue, from its limits to its
// salvage, holds for this one. Its owner puts and deletes both in one batch.

// priorityBit in a session's id marks the queue for messages with priority.
// Session ids count up from 1.
const priorityBit uint64 = 1 << 63

// PriorityOf is the id of the priority queue of session id.
func PriorityOf(id uint64) uint64 { return id | priorityBit }

// OfPriority gives the session whose priority queue has this id; ok is false if
// it is that of a session itself.
func OfPriority(id uint64) (session uint64, ok bool) {
	return id &^ priorityBit, id&priorityBit != 0
}
