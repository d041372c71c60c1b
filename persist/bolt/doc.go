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
//	          "state"  -> state: the store's clock, the highest ids given out,
//	                      number of this opening and of this commit, write budget
//	session   session -> session record
//	sub       session, 0, filter            -> subscription record
//	          session, 1, SHA-256 of filter -> the same, for filters over 512 bytes
//	inbound   session, packet id (2 bytes) -> nothing
//	counter   session -> counters of the queue
//	queue     session, sequence number -> entry, with the message or its id
//	message   message id, part (4 bytes) -> a part of a message record, at most 1900 bytes
//	ref       message id -> number of references, if there are more than one
//	will      session -> will
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
// The meta page that a commit ends with is in doubt until its sync has come
// back without error: see doubt.go. So the first commit after the file was
// opened, and the first after one that failed at its end, writes that page once
// more before anything else.
//
// # Schema
//
// A file of an older schema is read as it is, and becomes one of this schema
// with the first change. One of a newer schema is refused and not touched.
// testdata has a file of each schema; see golden_test.go.
//
// # When to commit
//
// See policy.go, and budget.go for the write budget. BytesWritten counts all
// pages written, with meta pages, compaction and what failed.
//
// # Faults
//
// In each of these, nothing that was accepted is given up: it is pending, in
// memory, acknowledgements wait, Stats.Err and the log say why, and the commit
// is tried again after 100 ms, and ever more rarely, up to every 5 s. QoS 0
// and what receivers acknowledge meanwhile is not affected. Beyond
// MaxPendingBytes, groups with messages are settled with persist.ErrFull. No
// restart is needed.
//
//   - No space, quota (ENOSPC, EDQUOT), MaxFileBytes: the pages of a commit that
//     did not fit are free again. Removals that nobody waits for are committed
//     alone, so a queue that drains makes room.
//   - EIO of a write: as above.
//   - EIO of a sync: the kernel may have dropped what it could not write, and call
//     it clean. All pages of the commit are written again, to other places or the
//     same; if its meta page was among them, that one first, and the file is
//     opened anew, since bbolt's list of free pages may be wrong.
//   - EIO of a read: the fetch fails, the worker asks again later. A commit that
//     needs the page fails.
//   - A file system that becomes read-only: commits fail until it is writable. At
//     the start it is an error of Open: a broker that can store nothing is not
//     what was asked for.
//   - A slow disk: a commit holds nobody up but who waits for it. Fetches wait
//     if the pages are not in memory. Stats.CommitTime tells.
//   - A removed file or directory: found with the next commit, which then does not
//     count, or at Close. Everything is written into a new file of the name. A
//     SIGKILL before the next commit loses the store. Not if another file has the
//     name, or the directory is on another file system than before.
//   - A file that another process uses: Open says so, with its pid if the kernel
//     tells, after a second.
//   - A damaged file: moved aside at the start, to sluice.db.corrupt-<n>; what
//     can be read of it is taken over (salvage.go), Stats.Quarantined and Salvaged
//     tell. Lost is what was on damaged pages. A damaged record alone is left
//     out and counted (Stats.Skipped). Damage that shows while the store runs
//     makes commits fail, and is dealt with at the next start.
//   - A file over 1 GiB on a 32-bit system: Open refuses it and leaves it alone.
//
// # The file shrinks
//
// When three quarters of a file over 8 MiB are free, and no more than 256 MiB
// are in use, it is copied into a new one, which takes its place: see
// compact.go for how long that may keep somebody waiting. The file is bounded
// by MaxFileBytes; while it is copied there are two.
//
// # Clock
//
// No wall clock is read. See persist.Clock: what expires does so by the time
// for which the store was open. Boot and CommitNumber order what a clock cannot.
//
// # Tools
//
// Inspect, Check, Dump, Repair and Compact for a store that is not running
// (tool.go, inspect.go), Store.Backup for one that is.
//
// # Figures
//
// Two cores shared with other work, ext4 on a virtual disk, messages of 150
// bytes, go test -bench (B/msg are repeatable, times are not):
//
//	one message in a commit              16,550 B/msg
//	20 / 100 / 1000 in a commit          1,020 / 360 / 211 B/msg
//	receiver acknowledges in time        0 B/msg
//	draining a million, at once          1.6 B/msg, 100,000 msg/s
//	open, a million queued, 200 MB       0.3 ms after a proper close, 1.4 s after a crash; heap 6 KB
//	open, 100,000 retained, 44 MB        0.45 s; heap 28 MB
package bolt
