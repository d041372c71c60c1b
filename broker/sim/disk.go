package sim

import (
	"cmp"
	"maps"
	"slices"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// DESIGN. disk is a store over persist.Pending, as persist/bolt is, without a
// file: a transaction is taken in one step and on the disk in a later one, and a
// fetch looks at what is uncommitted in one step and at the disk in a later
// one. A crash in between leaves the transaction written or not. One that
// failed may have been written all the same, which shows after a crash.

type disk struct {
	w         *World
	events    persist.Events
	pending   *persist.Pending
	sessionID uint64
	messageID uint64

	now     *platter
	ghost   *platter // what a failed transaction may have left; nil: none
	work    *persist.Work
	taken   int64 // stamp of the Take
	err     error // commits fail with it
	queue   []persist.FetchRequest
	waiting []persist.FetchRequest // for a commit
	reading *persist.Overlay       // of queue[0], whose second step is due
}

// platter is what is written. It changes only as a whole transaction.
type platter struct {
	sessions map[uint64]*saved
	retained map[string]*mqtt.Message
}

// saved is one session. Entries are in the order of Seq.
type saved struct {
	record  persist.Session
	subs    map[string]persist.Subscription
	inbound map[uint16]bool
	entries []persist.Entry
	tail    uint64
}

func newDisk(w *World, events persist.Events) *disk {
	return &disk{w: w, events: events, pending: persist.NewPending(w.cfg.pending, 0),
		now: &platter{sessions: make(map[uint64]*saved), retained: make(map[string]*mqtt.Message)}}
}

// Load implements persist.Store.
func (d *disk) Load() (*persist.Image, error) {
	im := &persist.Image{}
	for _, id := range slices.Sorted(maps.Keys(d.now.sessions)) {
		s := d.now.sessions[id]
		i := persist.SessionImage{Session: s.record, Head: s.tail, Tail: s.tail, Inbound: slices.Sorted(maps.Keys(s.inbound))}
		if len(s.entries) > 0 {
			i.Head = s.entries[0].Seq
		}
		for _, f := range slices.Sorted(maps.Keys(s.subs)) {
			i.Subscriptions = append(i.Subscriptions, s.subs[f])
		}
		im.Sessions = append(im.Sessions, i)
	}
	for _, t := range slices.Sorted(maps.Keys(d.now.retained)) {
		im.Retained = append(im.Retained, d.now.retained[t])
	}
	return im, nil
}

// NewSessionID implements persist.Store.
func (d *disk) NewSessionID() uint64 { d.sessionID++; return d.sessionID }

// NewMessageID implements persist.Store.
func (d *disk) NewMessageID() uint64 { d.messageID++; return d.messageID }

// Submit implements persist.Store.
func (d *disk) Submit(b *persist.Batch) {
	settled, _ := d.pending.Submit(b, int64(d.w.now), nil)
	d.tell(settled)
}

func (d *disk) tell(settled []persist.Settlement) {
	for _, s := range settled {
		d.events.Settled(s.Owner, s.Tokens, s.Err)
	}
}

// Fetch implements persist.Store.
func (d *disk) Fetch(r persist.FetchRequest) { d.queue = append(d.queue, r) }

// Stats implements persist.Store.
func (d *disk) Stats() persist.Stats {
	p, messages, bytes := d.pending.Stats()
	return persist.Stats{Enqueued: p.Enqueued, Dequeued: p.Dequeued, Cancelled: p.Cancelled, Refused: p.Refused,
		QueuedMessages: messages, QueuedBytes: bytes, PendingBytes: d.pending.Waiting().TotalBytes}
}

// Close implements persist.Store.
func (d *disk) Close() error {
	for did := true; did; {
		did, _ = d.step()
	}
	return d.err
}

func (d *disk) step() (did bool, on int64) {
	if d.work != nil {
		return true, d.finish()
	}
	d.taken = d.w.next()
	if d.work = d.pending.Take(); d.work != nil {
		return true, 0
	}
	return d.again(), d.taken
}

// finish ends the transaction under way.
func (d *disk) finish() (on int64) {
	w := d.work
	d.work = nil
	if d.err != nil {
		if d.w.chance(0.5) {
			d.ghost = d.now.clone()
			d.ghost.apply(w)
		}
		d.tell(d.pending.Committed(w, d.err, nil))
		return 0
	}
	d.ghost = nil
	d.now.apply(w)
	d.tell(d.pending.Committed(w, nil, nil))
	d.again()
	return d.taken
}

// again makes the fetches that waited for a commit be answered.
func (d *disk) again() bool {
	if len(d.waiting) == 0 {
		return false
	}
	d.queue = append(d.queue, d.waiting...)
	d.waiting = nil
	return true
}

func (d *disk) read() bool {
	if len(d.queue) == 0 {
		return false
	}
	r := d.queue[0]
	if d.reading == nil {
		if o, ok := d.pending.Overlay(r.Session, r.From, r.MaxMessages); ok {
			d.reading = &o
			return true
		}
		d.queue = d.queue[1:]
		d.events.Fetched(r.Owner, persist.Fetched{Tag: r.Tag, Epoch: r.Epoch, Session: r.Session, From: r.From, Next: r.From})
		return true
	}
	f, wait := d.reading.Answer(r, d.now.reader(r))
	d.queue, d.reading = d.queue[1:], nil
	if wait {
		d.waiting = append(d.waiting, r)
		return true
	}
	d.events.Fetched(r.Owner, f)
	return true
}

func (d *disk) failCommits(err error) { d.err = err }

func (d *disk) crash() storage {
	c := newDisk(d.w, d.events)
	c.sessionID, c.messageID, c.now, c.err = d.sessionID, d.messageID, d.now, d.err
	switch {
	case d.work != nil && d.w.chance(0.5):
		c.now.apply(d.work)
	case d.ghost != nil && d.w.chance(0.5):
		c.now = d.ghost
	}
	for _, id := range slices.Sorted(maps.Keys(c.now.sessions)) {
		s := c.now.sessions[id]
		if d.w.chance(0.1) {
			// Numbers need not be dense for ever, and only so one gets to those
			// where packet ids begin anew.
			ids := uint64(49151)
			if _, priority := persist.OfPriority(id); priority {
				ids = 16384
			}
			s.tail = max(s.tail, s.tail/ids*ids+ids-uint64(d.w.rng.IntN(100)))
		}
		c.pending.Restore(id, s.counters())
	}
	return c
}

func (s *saved) counters() persist.Counters {
	c := persist.Counters{Tail: s.tail, Depth: int64(len(s.entries))}
	for i := range s.entries {
		if m := s.entries[i].Msg; m != nil {
			c.Bytes += int64(m.Size())
		}
	}
	return c
}

func (p *platter) clone() *platter {
	c := &platter{sessions: make(map[uint64]*saved), retained: maps.Clone(p.retained)}
	for id, s := range p.sessions {
		c.sessions[id] = &saved{record: s.record, subs: maps.Clone(s.subs), inbound: maps.Clone(s.inbound),
			entries: slices.Clone(s.entries), tail: s.tail}
	}
	return c
}

// apply does what a transaction says; parts of it may have been done before.
func (p *platter) apply(w *persist.Work) {
	for _, id := range w.Deletes {
		delete(p.sessions, id)
	}
	for _, s := range w.Puts {
		if p.sessions[s.ID] == nil {
			p.sessions[s.ID] = &saved{subs: make(map[string]persist.Subscription), inbound: make(map[uint16]bool), tail: 1}
		}
		p.sessions[s.ID].record = *s
	}
	for i := range w.Queues {
		q := &w.Queues[i]
		if s := p.sessions[q.Session]; s != nil {
			s.apply(q)
			q.Counters = s.counters()
		}
	}
	for _, r := range w.Retained {
		if r.Msg == nil {
			delete(p.retained, r.Topic)
		} else {
			p.retained[r.Topic] = r.Msg
		}
	}
}

func (s *saved) apply(q *persist.QueueWork) {
	for _, c := range q.Subs {
		if c.Sub == nil {
			delete(s.subs, c.Filter)
		} else {
			s.subs[c.Filter] = *c.Sub
		}
	}
	for _, c := range q.Inbound {
		if c.Put {
			s.inbound[c.PacketID] = true
		} else {
			delete(s.inbound, c.PacketID)
		}
	}
	entries := slices.Clone(s.entries) // readers may have the old ones
	for _, e := range q.Enqueue {
		if i, found := find(entries, e.Seq); found {
			entries[i] = e
		} else {
			entries = slices.Insert(entries, i, e)
		}
	}
	for _, seq := range q.Release {
		if i, found := find(entries, seq); found {
			entries[i] = persist.Entry{Seq: seq, QoS: entries[i].QoS, Retain: entries[i].Retain, Released: true}
		}
	}
	for _, seq := range q.Dequeue {
		if i, found := find(entries, seq); found {
			entries = slices.Delete(entries, i, i+1)
		}
	}
	s.entries, s.tail = entries, max(s.tail, q.Tail)
}

func find(entries []persist.Entry, seq uint64) (int, bool) {
	return slices.BinarySearchFunc(entries, seq, func(e persist.Entry, seq uint64) int { return cmp.Compare(e.Seq, seq) })
}

// reader reads a queue from r.From on.
func (p *platter) reader(r persist.FetchRequest) *reader {
	s := p.sessions[r.Session]
	if s == nil {
		return &reader{}
	}
	i, _ := find(s.entries, r.From)
	return &reader{s.entries[i:]}
}

type reader struct{ entries []persist.Entry }

// Next implements persist.Reader.
func (r *reader) Next() (e persist.Entry, ok bool, err error) {
	if len(r.entries) == 0 {
		return e, false, nil
	}
	e, r.entries = r.entries[0], r.entries[1:]
	return e, true, nil
}
