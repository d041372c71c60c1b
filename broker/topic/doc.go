// Package topic holds what the broker knows about topics: which names and
// filters are valid, who subscribed to what (Index), and the retained message
// of each topic (Retained).
//
// DESIGN. Both structures are shared by all workers. In the Index writers
// serialise on a mutex and readers never wait: a reader follows atomic
// pointers, and whatever is reached by one of them is either immutable or made
// of atomics again. A Match that runs while somebody subscribes may or may not
// see the new subscription; it never sees half of one, and it never misses one
// that stands the whole time. Retained is read only when somebody subscribes,
// so a mutex is enough for it.
//
// Both give their results in an order that depends on nothing but the calls
// made before: no random seed, no Go map is iterated. The simulator replays a
// run by its seed and relies on it.
//
// The package knows neither sessions nor connections: a subscriber is a number
// that means something to the caller alone. It starts no goroutine, reads no
// clock and logs nothing.
package topic
