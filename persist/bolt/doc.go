// Package bolt is the store in a file, on bbolt.
//
// DESIGN. Submit only changes the pending set (persist.Pending). One
// goroutine, the committer, decides when it is time, takes all that is pending
// into one transaction, and reports what is settled. Another, the fetcher,
// answers Fetch: it is the only one that waits for reads from the disk.
// Nothing that bbolt gives out leaves them but as a copy.
//
// # Layout
//
// All keys are big-endian; ids and sequence numbers take eight bytes. All
// values are records (see persist/record.go), with the checksum over key and
// value.
//
//	meta      "schema" -> number: version of this layout
//	          "state"  -> state: the store's clock, the highest ids given out
//	session   session -> session record
//	sub       session, 0, filter            -> subscription record
//	          session, 1, SHA-256 of filter -> the same, for filters over 512 bytes
//	inbound   session, packet id (2 bytes) -> nothing
//	counter   session -> counters of the queue
//	queue     session, sequence number -> entry, with the message or its id
//	message   message id, part (4 bytes) -> a part of a message record, at most 1900 bytes
//	ref       message id -> number of references, if there are more than one
//	retained  0, topic            -> message record, or the number of a message
//	          1, SHA-256 of topic -> the same, for topics over 512 bytes
//
// Where a payload goes is decided by what writes less. A message with one
// receiver is in the queue entry, unless it would not share a page with
// another. A message with several is written once and referred to, unless it is
// so small that copies cost less than the reference. The count of references
// is kept apart from the message: so when one of several receivers
// acknowledges, a page with a hundred counts is written again, not one with
// twenty messages, and no count at all for the last. Long messages are cut in
// parts of which two fill a page: bbolt keeps at least two keys in a page, and
// so would otherwise write up to three neighbours again with each one removed.
//
// A deleted session's record goes at once, its messages within the following
// transactions, so many at a time: a queue of a million takes neither the
// memory nor the pause. What is found without a session when the store is
// opened is cleared away in the same manner.
//
// # Crash safety
//
// bbolt writes pages aside, syncs, then the meta page, syncs. A transaction
// holds whole groups, so a crash leaves all of a group or nothing. Every change
// is computed from what is on disk, never from what was there in memory: a
// transaction that failed in its last sync may yet be on disk, and is simply
// done again.
//
// The list of free pages is not written with each commit (after an outage it is
// long, and would be written again 20 times a second), but when the store is
// closed. After a crash it is found by reading the file, and as it is read all
// the same, the file is checked: see check.go. A damaged file is moved aside.
//
// # The file shrinks
//
// When three quarters of a file over 8 MiB are free, and what is in use is
// little, it is copied into a new one, which takes its place: see compact.go.
package bolt
