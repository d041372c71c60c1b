// Package worker runs the broker's connections and sessions. A Worker is one
// goroutine with one epoll instance and everything that lives on it; a Group is
// all workers with what they share.
//
// DESIGN. A session, and the connection it has, belongs to the worker that its
// client id hashes to, for life; so taking over a client id is a local affair
// of one worker. A connection before CONNECT belongs to the worker that
// accepted it (lobby) and is then moved, with its unread bytes, by mail.
// Whoever else wants something of a session writes to its worker with the
// session's id, which holds a slot and a generation: an id whose session has
// gone finds nothing. No pointer to a connection or a session ever leaves its
// worker.
//
// The way of a PUBLISH: conn.readable (conn.go) -> dispatch (dispatch.go) ->
// Session.OnPublish -> publish (route.go) -> settle (settle.go) -> mail
// (inbox.go, bundle.go) -> deliver (route.go) -> Session.Deliver -> flush
// (settle.go).
//
// # The turn
//
// A worker's life is a sequence of turns, and no step of a turn blocks:
//
//	events   what sockets have to say, at most turnBytesMax of it
//	mail     from other workers, the store, the facade
//	timers   that are due
//	settle   connections that died leave; the batch goes to the store and the
//	         durable deliveries with it; mail is posted, one lock and at most
//	         one wake-up per target; every touched connection is written once
//
// Connections and sessions die only in settle, so nothing later in a turn can
// name a corpse. Time is read once per turn.
//
// # Bounds
//
// Read buffer: one per worker. A connection holds bytes only for a part of a
// packet, grown as bytes really arrive, and for output that the peer has not
// read (Options.OutputBytesMax; beyond it QoS 0 is dropped and counted, and QoS 1
// and 2 wait in the session; before it comes to that, the output is written
// within the turn, if the socket may take it). A client is not read while too many
// of its acknowledgements wait for the store, while it does not read what we
// send, or while the worker it publishes to has too much mail.
package worker
