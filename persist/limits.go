package persist

import "errors"

// DESIGN. A queue may have limits, and a policy for when it is full. Reject and
// DropNewest are decided at Submit, by what is queued as far as the pending set
// knows: that is exact in messages; in bytes, what was dequeued counts until the
// next commit. DropOldest takes every message, and the transaction that writes
// it removes what is too much: only there is it known what is in the queue. So
// between two commits the queue is longer than it may be, by what is pending.
//
// What is dropped is the oldest message that the session does not have in its
// hands: of an attached session the first Held messages stay. A message of QoS 2
// that was ever given to the session stays in any case, for the client may
// have received it: it would take another one that gets the same packet id,
// 16,384 messages later at the earliest, for a duplicate. After a restart the store does not
// know which these are, and takes the first handedMax for such.

// ErrQueueFull settles a group one of whose queues is full and rejects. Nothing
// of the group is stored.
var ErrQueueFull = errors.New("a queue is full")

// QueuePolicy says what becomes of a message when its queue is full.
type QueuePolicy uint8

// The policies.
const (
	Reject     QueuePolicy = iota // the group fails with ErrQueueFull: its publisher is told, or held back
	DropOldest                    // the oldest messages go
	DropNewest                    // the message is not queued: its sequence number is 0
)

func (p QueuePolicy) String() string {
	switch p {
	case Reject:
		return "reject"
	case DropOldest:
		return "drop-oldest"
	case DropNewest:
		return "drop-newest"
	}
	return "unknown"
}

// QueueLimits bound one queue. 0 is no limit. A message alone may be larger
// than Bytes with no policy: it counts as one that finds the queue full, and
// DropOldest drops it instead of all others.
type QueueLimits struct {
	Messages   int64
	Bytes      int64 // topic, properties and payload
	AgeSeconds uint32
	Policy     QueuePolicy
}

// Drops counts messages that were not kept, by reason.
type Drops struct {
	Oldest   uint64 // removed to make room
	Newest   uint64 // not queued, as the queue was full
	Rejected uint64 // publications refused with ErrQueueFull; and messages that no group waited for
	Aged     uint64 // removed for their age
}

// Sum is all of them.
func (d *Drops) Sum() uint64 { return d.Oldest + d.Newest + d.Rejected + d.Aged }

func (d *Drops) add(o *Drops) {
	d.Oldest += o.Oldest
	d.Newest += o.Newest
	d.Rejected += o.Rejected
	d.Aged += o.Aged
}

// QueueStats describes one queue.
type QueueStats struct {
	Session  uint64
	Messages int64
	Bytes    int64 // what was dequeued since the last commit still counts
	Limits   QueueLimits
	Drops    Drops // since the store was opened
}

// Queues is a Store that tells about each queue.
type Queues interface {
	// QueueStats appends the queues that hold something, have limits or have
	// dropped something, by session id.
	QueueStats(dst []QueueStats) []QueueStats
}

// handedMax is how many messages a session may have had in flight, in sequence
// numbers: the span of its window.
const handedMax = 4096

// quota is what a session needs only if its queue has limits.
type quota struct {
	limits   QueueLimits
	drops    Drops
	held     int    // messages at the front that the attached session may have in its hands
	rejected uint64 // Pending.submits when it rejected last
	handed   uint64 // messages of QoS 2 below may have been given to the client
}

// Limit sets the limits of a queue that was made known with Restore.
func (p *Pending) Limit(id uint64, l QueueLimits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.live[id]; s != nil {
		p.setLimits(s, l)
	}
}

func (p *Pending) setLimits(s *session, l QueueLimits) {
	if s.quota == nil {
		if l == (QueueLimits{}) {
			return
		}
		front := s.tail - min(uint64(max(s.depth, 0)), s.tail-1) // at or behind the first message
		s.quota = &quota{handed: min(s.tail, front+handedMax)}
	}
	p.countRejecting(&s.quota.limits, -1)
	s.quota.limits = l
	p.countRejecting(&l, 1)
}

func (p *Pending) countRejecting(l *QueueLimits, n int) {
	if l.Policy == Reject && (l.Messages > 0 || l.Bytes > 0) {
		p.rejecting += n
	}
}

// full tells whether a message of so many bytes finds the queue full.
func (q *quota) full(s *session, size int64) bool {
	l := &q.limits
	return l.Messages > 0 && s.depth >= l.Messages || l.Bytes > 0 && s.bytes+size > l.Bytes
}

// rejects tells whether the group whose ops begin at index first of the batch is to
// be refused: it has a message for a full queue that rejects. A queue that has
// rejected once, rejects until the end of the batch: nothing smaller slips past.
func (p *Pending) rejects(b *Batch, first int) bool {
	group := b.Ops[first].group
	for i := first; i < len(b.Ops) && b.Ops[i].group == group; i++ {
		op := &b.Ops[i]
		if op.Kind != OpEnqueue || op.Entry.Msg == nil {
			continue
		}
		s := p.live[op.ID]
		if s == nil || s.quota == nil || s.quota.limits.Policy != Reject {
			continue
		}
		if q := s.quota; q.rejected == p.submits || q.full(s, messageBytes(op.Entry.Msg)) {
			q.rejected = p.submits
			p.drop(s, Drops{Rejected: 1})
			return true
		}
	}
	return false
}

// refusedBefore gives the error with which a message of the same publisher and topic
// as the group that begins at index first was refused in this batch, nil if none
// was. The queues of a topic may have changed in between: the second must not
// overtake the first in those that have room.
func (p *Pending) refusedBefore(b *Batch, first int) error {
	if len(p.refused) == 0 {
		return nil
	}
	return p.refused[b.publication(first)]
}

// publication gives a hash of the publisher and the topic of the group that begins at
// index first.
func (b *Batch) publication(first int) uint64 {
	group := b.Ops[first].group
	h := (14695981039346656037 ^ b.tokens[group].Session) * 1099511628211 // FNV-1a
	for i := first; i < len(b.Ops) && b.Ops[i].group == group; i++ {
		if m := b.Ops[i].Entry.Msg; m != nil {
			for _, c := range m.Topic {
				h = (h ^ uint64(c)) * 1099511628211
			}
			break
		}
	}
	return h
}

// turnsAway tells whether a message is not to be queued, and counts it.
func (p *Pending) turnsAway(s *session, size int64, group int32) bool {
	q := s.quota
	if q == nil || !q.full(s, size) {
		return false
	}
	switch {
	case q.limits.Policy == DropNewest || q.limits.Policy == DropOldest && q.limits.Bytes > 0 && size > q.limits.Bytes:
		p.drop(s, Drops{Newest: 1})
		return true
	case q.limits.Policy == Reject && group == 0:
		p.drop(s, Drops{Rejected: 1})
		return true
	}
	return false // a group with several messages for one queue was judged as a whole
}

func (p *Pending) drop(s *session, d Drops) {
	p.stats.Drops.add(&d)
	if s.quota != nil {
		s.quota.drops.add(&d)
	}
}

// Handed notes that f is to be given to its session. It is false if that
// cannot be done now, as a transaction in progress might be removing what is
// in it: then the answer has to be made again after the commit.
func (p *Pending) Handed(o *Overlay, f *Fetched) bool {
	if !o.limited {
		return true
	}
	last := uint64(0)
	for i := range f.Entries {
		if f.Entries[i].QoS == 2 {
			last = f.Entries[i].Seq + 1
		}
	}
	if last <= o.Handed {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.live[f.Session]
	if s == nil || s.quota == nil {
		return true
	}
	if p.work != nil || p.gen != o.gen {
		return false
	}
	s.quota.handed = max(s.quota.handed, last)
	return true
}

// AppendQueueStats implements Queues for a store.
func (p *Pending) AppendQueueStats(dst []QueueStats) []QueueStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.live {
		if s.depth == 0 && s.quota == nil {
			continue
		}
		q := QueueStats{Session: s.id, Messages: s.depth, Bytes: s.bytes}
		if s.quota != nil {
			q.Limits, q.Drops = s.quota.limits, s.quota.drops
		}
		dst = append(dst, q)
	}
	return dst
}

// Trim goes through a queue on disk from its front, within the transaction that
// makes it longer than it may be.
type Trim struct {
	limits QueueLimits
	held   int
	handed uint64
	now    int64
	seen   int
}

// Trim gives what to remove from the queue, ok is false if it has no such
// limits. now is the clock of Entry.Until.
func (q *QueueWork) Trim(now int64) (t Trim, ok bool) {
	l := q.Limits
	if l.Policy != DropOldest {
		l.Messages, l.Bytes = 0, 0
	}
	t = Trim{limits: l, held: q.held, handed: q.handed, now: now}
	return t, l.Messages > 0 || l.Bytes > 0 || l.AgeSeconds > 0
}

// Next judges the next entry, given the counters of the queue as it is now. It
// tells whether to remove it, counting that in d, and whether there may be more
// to remove behind it.
func (t *Trim) Next(c *Counters, seq uint64, e *EntryHead, d *Drops) (remove, more bool) {
	over := t.limits.Messages > 0 && c.Depth > t.limits.Messages || t.limits.Bytes > 0 && c.Bytes > t.limits.Bytes
	aged := e.Until != 0 && e.Until <= t.now
	if !over && !aged {
		return false, false // what is behind it is younger
	}
	t.seen++
	if t.seen <= t.held || e.Released || e.QoS2 && seq < t.handed {
		return false, true
	}
	if aged {
		d.Aged++
	} else {
		d.Oldest++
	}
	return true, true
}

// Until is when a message that is queued now becomes too old, 0: never.
func (l *QueueLimits) Until(now int64) int64 {
	if l.AgeSeconds == 0 {
		return 0
	}
	return now + int64(l.AgeSeconds)*1e9
}
