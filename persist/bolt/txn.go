package bolt

import (
	"bytes"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// DESIGN. txn carries one Work into one bbolt transaction. It looks at what is
// there before it changes anything: a record that stays as it is, as when a
// client subscribes anew to what it was subscribed to, costs no page; and a
// transaction that is done a second time, after a failure that was none,
// changes nothing. If in the end nothing has changed, nothing is written.

type txn struct {
	s       *Store
	b       buckets
	clk     persist.Clock
	now     int64 // of Options.Now
	again   bool
	changed bool
	values  []byte // memory for values: they must stay until the commit
	shares  map[*mqtt.Message]*share
	refs    map[uint64]int64 // change in the number of references, by message
	created map[uint64]bool  // messages that this transaction writes
	dead    []uint64
}

// write does w, which may be nil, and some of the clearing away of dead
// sessions.
func (s *Store) write(w *persist.Work, freeing bool) error {
	if hook := s.opt.hooks.commit; hook != nil {
		return hook(freeing, func() error { return s.transaction(w, freeing) })
	}
	return s.transaction(w, freeing)
}

func (s *Store) transaction(w *persist.Work, freeing bool) error {
	if s.lost {
		if err := s.putThere(); err != nil {
			return err
		}
	}
	if s.db == nil || s.broken {
		if err := s.reopen(); err != nil {
			return err
		}
	}
	s.setLimit(freeing)
	return guard(func() error {
		tx, err := s.db.Begin(true)
		if err != nil {
			s.broken = true
			return err
		}
		defer s.rollback(tx)
		if tx.Bucket(bucketWill) == nil {
			if err := upgrade(tx); err != nil {
				return err
			}
		}
		t := &txn{s: s, b: bucketsOf(tx), clk: s.clk, now: s.opt.Now(), values: s.values[:0], refs: make(map[uint64]int64)}
		t.b.fill()
		t.dead = append(t.dead, s.dead...)
		if err := t.apply(w); err != nil {
			return err
		}
		if s.doubt { // also if it is there already: then it is what is in doubt
			if err := s.confirm(); err != nil {
				return err
			}
		}
		if !t.changed {
			s.dead = t.dead
			return nil
		}
		start, id := time.Now(), tx.ID()
		if err := tx.Commit(); err != nil {
			if s.reachedMeta(id) {
				s.doubt, s.broken = true, true
			}
			if st := tx.Stats(); st.GetWrite() > 0 { // at least this
				s.account(uint64(st.GetWrite())*pageBytes, 0)
			}
			return err
		}
		took := int64(time.Since(start))
		s.counters.commitTime.Store(took)
		s.counters.commitTimeMax.Store(max(s.counters.commitTimeMax.Load(), took))
		s.wrote(tx, t)
		return s.checkName()
	})
}

// rollback ends a transaction that was not committed, be it for an error, for a
// panic, or because there is nothing to write.
func (s *Store) rollback(tx *bbolt.Tx) {
	if tx.DB() == nil {
		return
	}
	if err := guard(tx.Rollback); err != nil {
		s.broken, s.stuck = true, true
	}
}

// setLimit keeps some of the permitted size for transactions that only remove.
func (s *Store) setLimit(freeing bool) {
	if s.opt.MaxFileBytes == 0 {
		return
	}
	s.db.MaxSize = int(s.opt.MaxFileBytes)
	if !freeing {
		s.db.MaxSize -= reserveBytes
	}
}

// valuesKept is how much memory for values is kept from one transaction to the next.
const valuesKept = 1 << 20

// wrote notes what a commit did.
func (s *Store) wrote(tx *bbolt.Tx, t *txn) {
	s.clean = false
	s.dead = t.dead
	if s.values = t.values; cap(s.values) > valuesKept {
		s.values = nil
	}
	st := tx.Stats()
	s.account(uint64(st.GetPageAlloc())+pageBytes, 1)
	s.fileBytes.Store(s.highWater())
}

// apply does all of w.
func (t *txn) apply(w *persist.Work) error {
	if w != nil {
		t.again = w.Again
		if err := t.sessions(w); err != nil {
			return err
		}
		t.share(w)
		for i := range w.Queues {
			if err := t.queue(&w.Queues[i]); err != nil {
				return err
			}
		}
		for i := range w.Retained {
			if err := t.retain(&w.Retained[i]); err != nil {
				return err
			}
		}
	}
	if err := t.clearDead(); err != nil {
		return err
	}
	if err := t.countRefs(); err != nil {
		return err
	}
	if !t.changed {
		return nil
	}
	start := t.room(96)
	t.values = persist.AppendState(t.values, keyState, t.s.state())
	return t.put(t.b.meta, keyState, t.values[start:])
}

// state is what the store notes about itself with each transaction.
func (s *Store) state() persist.State {
	spent, day, dayBytes := s.meter.saved()
	return persist.State{
		Spent: spent, Day: day, DayBytes: dayBytes,
		Seconds: s.clk.At(s.opt.Now()), SessionID: s.sessionID.Load(), MessageID: s.messageID.Load(),
		Boot: s.boot, Commit: s.firstCommit + s.counters.commits.Load() + 1,
	}
}

// room makes room for a value of about n bytes, and gives where it will begin.
func (t *txn) room(n int) int {
	if cap(t.values)-len(t.values) < n {
		t.values = make([]byte, 0, max(n, 64<<10))
	}
	return len(t.values)
}

// put writes a record, unless it is there already.
func (t *txn) put(b *bbolt.Bucket, key, value []byte) error {
	if old := b.Get(key); old != nil && bytes.Equal(old, value) {
		return nil
	}
	t.changed = true
	return b.Put(key, value)
}

// remove removes a record if it is there.
func (t *txn) remove(b *bbolt.Bucket, key []byte) error {
	if k, _ := b.Cursor().Seek(key); !bytes.Equal(k, key) {
		return nil
	}
	t.changed = true
	return b.Delete(key)
}

// sessions does the session records.
func (t *txn) sessions(w *persist.Work) error {
	for _, id := range w.Deletes {
		k := idKey(id)
		if err := t.remove(t.b.session, k[:]); err != nil {
			return err
		}
		t.dead = append(t.dead, id)
	}
	for _, rec := range w.Puts {
		k := idKey(rec.ID)
		start := t.room(64 + len(rec.ClientID) + len(rec.Username))
		t.values = persist.AppendSession(t.values, k[:], rec)
		if err := t.put(t.b.session, k[:], t.values[start:]); err != nil {
			return err
		}
	}
	return nil
}

// queue does what changes for one session.
func (t *txn) queue(q *persist.QueueWork) error {
	for i := range q.Subs {
		if err := t.subscription(q.Session, &q.Subs[i]); err != nil {
			return err
		}
	}
	for _, in := range q.Inbound {
		k := inboundKey(q.Session, in.PacketID)
		var err error
		if in.Put {
			err = t.put(t.b.inbound, k[:], []byte{})
		} else {
			err = t.remove(t.b.inbound, k[:])
		}
		if err != nil {
			return err
		}
	}
	if q.HasWill {
		if err := t.will(q.Session, q.Will); err != nil {
			return err
		}
	}
	if len(q.Enqueue) == 0 && len(q.Release) == 0 && len(q.Dequeue) == 0 {
		return nil
	}
	return t.messages(q)
}

func (t *txn) will(id uint64, w *persist.Will) error {
	k := idKey(id)
	if w == nil {
		return t.remove(t.b.will, k[:])
	}
	start := t.room(64 + int(messageBytes(w.Msg)))
	t.values = persist.AppendWill(t.values, k[:], w, t.clk)
	return t.put(t.b.will, k[:], t.values[start:])
}

func (t *txn) subscription(id uint64, sub *persist.SubscriptionWork) error {
	k := subKey(id, sub.Filter)
	if sub.Sub == nil {
		return t.remove(t.b.sub, k)
	}
	start := t.room(32 + len(sub.Filter))
	t.values = persist.AppendSubscription(t.values, k, sub.Sub)
	return t.put(t.b.sub, k, t.values[start:])
}

// messages does what changes in a queue, and its counters. They are taken from
// the disk, for there they always agree with the queue; what the pending set
// knows is only for a record that is damaged.
func (t *txn) messages(q *persist.QueueWork) error {
	k := idKey(q.Session)
	c := q.Counters
	if rec := t.b.counter.Get(k[:]); rec != nil {
		if stored, err := persist.DecodeCounters(k[:], rec); err == nil {
			c = stored
		}
	}
	for i := range q.Enqueue {
		q.Enqueue[i].Until = q.Limits.Until(t.now)
		if err := t.enqueue(q.Session, &q.Enqueue[i], &c); err != nil {
			return err
		}
	}
	for _, seq := range q.Release {
		if err := t.release(q.Session, seq, &c); err != nil {
			return err
		}
	}
	for _, seq := range q.Dequeue {
		if err := t.dequeue(q.Session, seq, &c); err != nil {
			return err
		}
	}
	if err := t.trim(q, &c); err != nil {
		return err
	}
	if c.Depth <= 0 {
		c.Depth, c.Bytes = 0, 0
	}
	c.Tail = max(c.Tail, q.Tail)
	c.Bytes = max(c.Bytes, 0)
	q.Counters = c
	if !t.changed { // a tail that moved over messages that were never written can wait
		return nil
	}
	start := t.room(64)
	t.values = persist.AppendCounters(t.values, k[:], c)
	return t.put(t.b.counter, k[:], t.values[start:])
}

func (t *txn) enqueue(id uint64, e *persist.Entry, c *persist.Counters) error {
	k := queueKey(id, e.Seq)
	if t.again && t.b.queue.Get(k[:]) != nil {
		return nil
	}
	var ref uint64
	size := int64(0)
	if e.Msg != nil {
		size = messageBytes(e.Msg)
		if sh := t.shares[e.Msg]; sh != nil {
			ref = sh.id
			if err := t.addRef(sh, e.Msg); err != nil {
				return err
			}
		}
	}
	n := 64 + 5*len(e.SubIDs)
	if ref == 0 {
		n += int(size)
	}
	start := t.room(n)
	t.values = persist.AppendEntry(t.values, k[:], e, ref, t.clk)
	t.changed = true
	c.Depth++
	c.Bytes += size
	return t.b.queue.Put(k[:], t.values[start:])
}

// head reads the head of a queue entry; ok is false if there is no such entry.
// A damaged one has the zero head.
func (t *txn) head(key []byte) (h persist.EntryHead, ok bool) {
	rec := t.b.queue.Get(key)
	if rec == nil {
		return h, false
	}
	h, err := persist.DecodeEntryHead(key, rec, t.clk)
	if err != nil {
		return persist.EntryHead{}, true
	}
	return h, true
}

func (t *txn) release(id, seq uint64, c *persist.Counters) error {
	k := queueKey(id, seq)
	h, ok := t.head(k[:])
	if !ok {
		return nil
	}
	e, _, err := persist.DecodeEntry(k[:], t.b.queue.Get(k[:]), t.clk)
	if err != nil {
		e = persist.Entry{QoS: 2}
	}
	e.Released = true
	t.dropRef(h.Ref)
	c.Bytes -= h.Bytes
	start := t.room(32)
	t.values = persist.AppendEntry(t.values, k[:], &e, 0, t.clk)
	return t.put(t.b.queue, k[:], t.values[start:])
}

func (t *txn) dequeue(id, seq uint64, c *persist.Counters) error {
	k := queueKey(id, seq)
	h, ok := t.head(k[:])
	if !ok {
		return nil
	}
	t.dropRef(h.Ref)
	c.Depth--
	c.Bytes -= h.Bytes
	t.changed = true
	return t.b.queue.Delete(k[:])
}

// retain replaces a retained message.
func (t *txn) retain(r *persist.RetainedWork) error {
	k := retainedKey(r.Topic)
	old := t.b.retained.Get(k)
	oldRef, _ := persist.DecodeNumber(k, old)
	if r.Msg == nil {
		t.dropRef(oldRef)
		return t.remove(t.b.retained, k)
	}
	sh := t.shares[r.Msg]
	if sh == nil {
		t.dropRef(oldRef)
		// Without its id, a message that is published again is the same record.
		msg := *r.Msg
		msg.ID = 0
		start := t.room(64 + int(messageBytes(r.Msg)))
		t.values = persist.AppendMessage(t.values, k, &msg, t.clk)
		return t.put(t.b.retained, k, t.values[start:])
	}
	if oldRef == sh.id { // the same message is there
		return nil
	}
	t.dropRef(oldRef)
	if err := t.addRef(sh, r.Msg); err != nil {
		return err
	}
	start := t.room(32)
	t.values = persist.AppendNumber(t.values, k, sh.id)
	return t.put(t.b.retained, k, t.values[start:])
}

// messageBytes is what a message counts in all limits.
func messageBytes(m *mqtt.Message) int64 {
	return int64(len(m.Topic) + len(m.Props) + len(m.Payload))
}

// seal makes the file as a proper close leaves it: with the list of free
// pages, and the store's clock.
func (s *Store) seal() error {
	if s.clean || s.broken {
		return nil
	}
	before := written(s.db)
	err := guard(func() error {
		if s.doubt {
			if err := s.confirm(); err != nil {
				return err
			}
		}
		s.db.NoFreelistSync = false
		return s.db.Update(func(tx *bbolt.Tx) error {
			if err := upgrade(tx); err != nil {
				return err
			}
			return tx.Bucket(bucketMeta).Put(keyState, persist.AppendState(nil, keyState, s.state()))
		})
	})
	if err == nil {
		s.account(written(s.db)-before+pageBytes, 1)
	}
	if err != nil {
		s.log.Warn("store not closed properly: the next start takes longer", zap.String("file", s.path), zap.Error(err))
		return fmt.Errorf("store file %s: %w", s.path, err)
	}
	return nil
}
