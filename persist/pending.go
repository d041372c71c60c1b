package persist

import (
	"errors"
	"fmt"
	"sync"

	"sluice/broker/mqtt"
)

// DESIGN. Pending is what has been submitted and is not on disk: it assigns
// sequence numbers, lets later ops cancel earlier ones, and knows which groups
// wait. The committer takes everything there is into one transaction (Take),
// and says how it went (Committed). What was taken keeps its place until then,
// so that it can be fetched, and goes back in front of what has come since if
// the transaction failed. As everything is taken at once, what is on disk is
// always the state after some Submit: groups are whole, and nothing overtakes.
//
// The one exception is TakeFreeing: when the disk is full, the removals that
// nobody waits for are committed alone, to make room.
//
// A mutex guards it all; no method blocks, reads a clock or does I/O.

// ErrFull settles a group whose messages do not fit: more than the permitted
// bytes are waiting for a disk that does not take them. Nothing of the group
// is stored.
var ErrFull = errors.New("the store is full")

// SlowDepth is the depth from which on a message is not expected to be
// acknowledged within a commit interval, even if the receiver is connected: it
// is more than the receiver is likely to have in flight.
const SlowDepth = 1024

// Waiting are figures to decide by when to commit. They describe what has not
// been taken.
type Waiting struct {
	Ops        int    // pending ops
	Groups     int    // groups not settled, those taken included
	SlowGroups int    // groups with a message for a queue that is not attached, deep, or of QoS 2 (which is not sent before it is on disk)
	Bytes      int64  // message bytes, and some for each op
	TotalBytes int64  // the same with what is taken
	Oldest     int64  // when the oldest pending op was submitted
	Slowed     uint64 // how often a group became one of SlowGroups, since the start
	Urgent     bool   // a batch with ops was urgent
}

// Pending is the pending set. Its zero value is not ready: use NewPending.
type Pending struct {
	mu       sync.Mutex
	live     map[uint64]*session
	dirty    []*session // those with un != nil, and some without
	unused   []*uncommitted
	puts     changes[uint64, *Session]
	deletes  changes[uint64, struct{}]
	retained changes[string, *mqtt.Message] // nil: remove
	groups   groups
	ages     ages
	work     *Work // taken and not yet Committed

	now        int64 // of the current Submit
	ops        int
	bytes      int64
	takenBytes int64
	limit      int64
	gen        uint32 // number of the last full Take
	urgent     bool
	failed     bool // the last full transaction failed

	depth, queued int64 // over all queues
	stats         PendingStats
	rejecting     int              // sessions whose queues reject when they are full
	submits       uint64           // number of the current Submit
	refused       map[uint64]error // of it: publisher and topic of refused messages, see publication
	groupOf       []int32          // scratch of Submit: the batch's groups
}

// PendingStats are counters since the start.
type PendingStats struct {
	Enqueued, Dequeued, Cancelled, Refused uint64
	BytesSubmitted                         uint64 // of the messages enqueued
	Drops                                  Drops
}

// NewPending makes an empty set. Once more than limit bytes are pending, groups
// with new messages are settled with ErrFull; 0: never. step is the precision
// of Waiting.Oldest in the unit of Submit's now.
func NewPending(limit, step int64) *Pending {
	return &Pending{live: make(map[uint64]*session), limit: limit, ages: ages{step: step}}
}

// Restore makes a session known that is on disk with these counters.
func (p *Pending) Restore(id uint64, c Counters) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.Tail = max(c.Tail, 1)
	p.live[id] = &session{id: id, tail: c.Tail, stored: c, depth: c.Depth, bytes: c.Bytes, onDisk: true}
	p.depth += c.Depth
	p.queued += c.Bytes
}

// refused stands for the group of a group that does not fit.
const refused int32 = -1

// Submit applies the batch in order; see Store.Submit. What it settles is
// appended to dst.
func (p *Pending) Submit(b *Batch, now int64, dst []Settlement) ([]Settlement, Waiting) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = now
	p.submits++
	b.Refused = b.Refused[:0]
	if len(p.refused) > 0 {
		p.refused = nil
	}
	p.groupOf = p.groupOf[:0]
	for _, t := range b.tokens {
		p.groupOf = append(p.groupOf, p.groups.open(b.Owner, t, p.gen))
	}
	last := int32(-1)
	for i := range b.Ops {
		op := &b.Ops[i]
		var group int32
		if op.group >= 0 {
			if op.group != last {
				if err := p.judgeGroup(b, i); err != nil {
					p.refuse(b, i, err)
				}
			}
			group = p.groupOf[op.group]
		} else if p.full() && adds(op.Kind) {
			group = refused
			p.stats.Refused++
		}
		last = op.group
		if group == refused {
			op.Seq, op.Entry.Seq = 0, 0
			continue
		}
		p.apply(op, group)
	}
	for _, g := range p.groupOf {
		if g != refused {
			p.release(g)
		}
	}
	p.urgent = p.urgent || b.Urgent && p.ops > 0
	return p.groups.collect(dst), p.waiting()
}

// full tells whether what is pending exceeds the limit.
func (p *Pending) full() bool { return p.limit > 0 && p.bytes+p.takenBytes > p.limit }

// adds tells whether ops of this kind bring message bytes.
func adds(k OpKind) bool { return k == OpEnqueue || k == OpPutRetained }

// grows tells whether the group at the front of ops brings message bytes.
func grows(ops []Op, group int32) bool {
	for i := range ops {
		if ops[i].group != group {
			return false
		}
		if adds(ops[i].Kind) {
			return true
		}
	}
	return false
}

// judgeGroup tells why the group whose ops begin at index first of the batch cannot be
// taken, nil if it can.
func (p *Pending) judgeGroup(b *Batch, first int) error {
	if !p.full() && p.rejecting == 0 && len(p.refused) == 0 || !grows(b.Ops[first:], b.Ops[first].group) {
		return nil
	}
	switch {
	case p.full():
		return ErrFull
	case p.rejecting > 0 && p.rejects(b, first):
		return ErrQueueFull
	}
	return p.refusedBefore(b, first)
}

// refuse settles the group whose ops begin at index first of the batch with err.
func (p *Pending) refuse(b *Batch, first int, err error) {
	group, end := b.Ops[first].group, first+1
	for end < len(b.Ops) && b.Ops[end].group == group {
		end++
	}
	b.Refused = append(b.Refused, Refusal{Token: b.tokens[group], First: first, End: end, Err: err})
	if p.refused == nil {
		p.refused = make(map[uint64]error)
	}
	p.refused[b.publication(first)] = err
	p.groups.close(p.groupOf[group], err)
	p.groupOf[group] = refused
	if err == ErrFull {
		p.stats.Refused++
	}
}

// addOp counts an op that is pending from now on, and gives its age.
func (p *Pending) addOp() uint32 {
	p.ops++
	return p.ages.add(p.now)
}

// restoreOp counts an op that is pending again.
func (p *Pending) restoreOp() uint32 {
	p.ops++
	return p.ages.addOldest()
}

// cancel settles a pending op that will not be written.
func (p *Pending) cancel(groups *waiters, bytes int64, age uint32) {
	p.ops--
	p.ages.drop(age)
	p.bytes -= bytes
	groups.release(p)
}

// hold makes a group wait for one more op.
func (p *Pending) hold(group int32) {
	if group != 0 {
		p.groups.all[group].left++
	}
}

// release tells a group that one of its ops is settled.
func (p *Pending) release(group int32) {
	if group == 0 {
		return
	}
	g := &p.groups.all[group]
	g.left--
	if g.left > 0 {
		return
	}
	if g.left < 0 {
		panic(fmt.Sprintf("BUG: group %d of owner %d released too often", group, g.owner))
	}
	if p.work != nil && !p.work.freeing && g.gen != p.gen {
		p.takenBytes -= g.bytes
	} else {
		p.bytes -= g.bytes
	}
	p.groups.close(group, nil)
}

// Waiting gives the figures of the moment.
func (p *Pending) Waiting() Waiting {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting()
}

func (p *Pending) waiting() Waiting {
	if p.ops == 0 {
		p.urgent = false
	}
	return Waiting{
		Ops: p.ops, Groups: p.groups.waiting, SlowGroups: p.groups.slow,
		Bytes: p.bytes, TotalBytes: p.bytes + p.takenBytes,
		Oldest: p.ages.oldest(), Slowed: p.groups.slowed, Urgent: p.urgent,
	}
}

// Stats gives the counters, and how much is queued, committed or not.
func (p *Pending) Stats() (st PendingStats, messages, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats, p.depth, p.queued
}

// messageBytes is what a message counts in all limits.
func messageBytes(m *mqtt.Message) int64 {
	return int64(len(m.Topic) + len(m.Props) + len(m.Payload))
}
