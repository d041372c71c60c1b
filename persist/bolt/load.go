package bolt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"go.etcd.io/bbolt"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// DESIGN. Loading reads sessions, subscriptions, packet ids and retained
// messages, and of each queue its ends and its counters. A damaged record is
// left out and counted. What belongs to a session whose record is gone is
// cleared away like that of a deleted session; counters that are gone are
// counted anew. So the time is that of the sessions and retained messages, not
// of the messages queued.

// loader reads one file.
type loader struct {
	b       buckets
	now     int64 // of Options.Now
	clk     persist.Clock
	image   *persist.Image
	at      map[uint64]int     // session -> index in image.Sessions
	queues  []persist.Counters // of image.Sessions
	dead    map[uint64]bool
	state   persist.State
	skipped uint64
}

func newLoader(tx *bbolt.Tx, now int64) *loader {
	return &loader{b: bucketsOf(tx), now: now, image: &persist.Image{}, at: make(map[uint64]int), dead: make(map[uint64]bool)}
}

// read reads everything.
func (l *loader) read() {
	l.loadState()
	l.clk = persist.Clock{Seconds: l.state.Seconds, Mono: l.now}
	l.loadSessions()
	l.loadSubscriptions()
	l.loadInbound()
	l.loadWills()
	l.loadQueues()
	l.loadRetained()
}

// load reads the file into s.
func (s *Store) load(tx *bbolt.Tx) error {
	l := newLoader(tx, s.opt.Now())
	l.read()
	s.clk, s.image = l.clk, l.image
	s.boot, s.firstCommit = l.state.Boot+1, l.state.Commit
	l.image.Boot = s.boot
	s.meter.restore(l.state.Spent, l.state.Day, l.state.DayBytes)
	s.sessionID.Store(l.state.SessionID)
	s.messageID.Store(l.state.MessageID)
	s.skipped.Store(l.skipped)
	s.pending = persist.NewPending(s.opt.MaxPendingBytes, int64(s.opt.CommitInterval/16))
	for i := range l.queues {
		rec := &l.image.Sessions[i].Session
		s.pending.Restore(rec.ID, l.queues[i])
		s.pending.Limit(rec.ID, rec.Queue)
	}
	s.dead = nil
	for id := range l.dead {
		s.dead = append(s.dead, id)
	}
	slices.Sort(s.dead)
	return nil
}

// loadState reads the store's state. Ids are never lower than what is in use,
// whatever became of the record.
func (l *loader) loadState() {
	var err error
	if rec := l.b.meta.Get(keyState); rec != nil {
		if l.state, err = persist.DecodeState(keyState, rec); err != nil {
			l.state = persist.State{}
			l.skipped++
		}
	}
	for _, b := range []*bbolt.Bucket{l.b.session, l.b.queue, l.b.counter, l.b.sub, l.b.inbound} {
		k, _ := lastOfSessions(b)
		if len(k) >= 8 {
			l.state.SessionID = max(l.state.SessionID, binary.BigEndian.Uint64(k))
		}
		if k, _ = b.Cursor().Last(); len(k) >= 8 { // or what is left of a session
			id, _ := persist.OfPriority(binary.BigEndian.Uint64(k))
			l.state.SessionID = max(l.state.SessionID, id)
		}
	}
	if k, _ := l.b.message.Cursor().Last(); len(k) >= 8 {
		l.state.MessageID = max(l.state.MessageID, binary.BigEndian.Uint64(k))
	}
}

// lastOfSessions gives the last record that does not belong to a queue for
// messages with priority: those come behind all others.
func lastOfSessions(b *bbolt.Bucket) (k, v []byte) {
	c := b.Cursor()
	if k, _ = c.Seek(binary.BigEndian.AppendUint64(nil, persist.PriorityOf(0))); k == nil {
		return c.Last()
	}
	return c.Prev()
}

func (l *loader) loadSessions() {
	c := l.b.session.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		id, ok := idOf(k)
		if !ok {
			l.skipped++
			continue
		}
		rec, err := persist.DecodeSession(k, v)
		if err != nil || rec.ID != id {
			l.skipped++
			l.dead[id] = true
			continue
		}
		l.at[id] = len(l.image.Sessions)
		l.image.Sessions = append(l.image.Sessions, persist.SessionImage{Session: rec})
	}
}

// session gives the session that a key belongs to; if there is none, what
// belongs to it is to be cleared away.
func (l *loader) session(key []byte) *persist.SessionImage {
	id, ok := idOf(key)
	if !ok {
		l.skipped++
		return nil
	}
	i, ok := l.at[id]
	if !ok {
		l.dead[id] = true
		return nil
	}
	return &l.image.Sessions[i]
}

func (l *loader) loadSubscriptions() {
	c := l.b.sub.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		s := l.session(k)
		if s == nil {
			continue
		}
		sub, err := persist.DecodeSubscription(k, v)
		if err != nil {
			l.skipped++
			continue
		}
		s.Subscriptions = append(s.Subscriptions, sub)
	}
	for i := range l.image.Sessions {
		slices.SortFunc(l.image.Sessions[i].Subscriptions, func(a, b persist.Subscription) int { return cmp.Compare(a.Filter, b.Filter) })
	}
}

func (l *loader) loadInbound() {
	c := l.b.inbound.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if s := l.session(k); s != nil && len(k) == 10 {
			s.Inbound = append(s.Inbound, binary.BigEndian.Uint16(k[8:]))
		}
	}
}

func (l *loader) loadWills() {
	if l.b.will == nil { // an older schema
		return
	}
	c := l.b.will.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		s := l.session(k)
		if s == nil {
			continue
		}
		if w, err := persist.DecodeWill(k, v, l.clk); err != nil {
			l.skipped++
		} else {
			s.Will = &w
		}
	}
}

// loadQueues finds the ends of the queues, going from one session to the next.
func (l *loader) loadQueues() {
	for i := range l.image.Sessions {
		l.queues = append(l.queues, l.loadQueue(&l.image.Sessions[i]))
	}
	c := l.b.queue.Cursor()
	for k, _ := c.First(); k != nil; {
		l.session(k)
		id, ok := idOf(k)
		if !ok || id == 1<<64-1 {
			return
		}
		next := idKey(id + 1)
		k, _ = c.Seek(next[:])
	}
}

func (l *loader) loadQueue(s *persist.SessionImage) persist.Counters {
	p := idKey(s.ID)
	counters, err := persist.Counters{Tail: 1}, error(nil)
	rec := l.b.counter.Get(p[:])
	if rec != nil {
		if counters, err = persist.DecodeCounters(p[:], rec); err != nil {
			l.skipped++
		}
	}
	c := l.b.queue.Cursor()
	first, last := ends(c, s.ID)
	if first != 0 && (rec == nil || err != nil) {
		counters = countQueue(c, s.ID, l.clk)
	}
	counters.Tail = max(counters.Tail, last+1, 1)
	s.Tail, s.Head = counters.Tail, first
	if first == 0 {
		s.Head, counters.Depth, counters.Bytes = s.Tail, 0, 0
	}
	s.QueuedBytes = counters.Bytes
	return counters
}

// ends gives the lowest and the highest sequence number of a queue, 0 and 0 if
// it is empty.
func ends(c *bbolt.Cursor, id uint64) (first, last uint64) {
	p := idKey(id)
	k, _ := c.Seek(p[:])
	if !bytes.HasPrefix(k, p[:]) || len(k) != 16 {
		return 0, 0
	}
	first = binary.BigEndian.Uint64(k[8:])
	end := queueKey(id, 1<<64-1)
	if k, _ = c.Seek(end[:]); k == nil {
		k, _ = c.Last()
	} else if !bytes.HasPrefix(k, p[:]) {
		k, _ = c.Prev()
	}
	if !bytes.HasPrefix(k, p[:]) || len(k) != 16 {
		return first, first
	}
	return first, binary.BigEndian.Uint64(k[8:])
}

// countQueue counts a queue whose counters are lost.
func countQueue(c *bbolt.Cursor, id uint64, clk persist.Clock) (n persist.Counters) {
	n.Tail = 1
	p := idKey(id)
	for k, v := c.Seek(p[:]); bytes.HasPrefix(k, p[:]) && len(k) == 16; k, v = c.Next() {
		n.Tail = binary.BigEndian.Uint64(k[8:]) + 1
		n.Depth++
		if h, err := persist.DecodeEntryHead(k, v, clk); err == nil {
			n.Bytes += h.Bytes
		}
	}
	return n
}

func (l *loader) loadRetained() {
	c := l.b.retained.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		m, err := l.retained(k, v)
		if err != nil {
			l.skipped++
			continue
		}
		l.state.MessageID++
		m.ID = l.state.MessageID
		l.image.Retained = append(l.image.Retained, m)
	}
	slices.SortFunc(l.image.Retained, func(a, b *mqtt.Message) int { return bytes.Compare(a.Topic, b.Topic) })
}

// retained reads a retained message, which is here or has a record of its own.
func (l *loader) retained(key, rec []byte) (m *mqtt.Message, err error) {
	if id, nerr := persist.DecodeNumber(key, rec); nerr == nil {
		m, err = readMessage(l.b.message, id, l.clk)
	} else {
		m, err = persist.DecodeMessage(key, rec, l.clk)
	}
	if err == nil && !bytes.Equal(retainedKey(string(m.Topic)), key) {
		err = persist.ErrRecord
	}
	return m, err
}
