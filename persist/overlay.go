package persist

// DESIGN. A queue is read in two parts: what is uncommitted from the pending
// set, the rest from the disk, in this order, so that nothing is missed when a
// commit comes in between. Then a message may be found twice: it counts as on
// disk. Sequence numbers below Base are on disk or gone, those from Base on
// are in Entries or gone.

// Overlay is the uncommitted part of a queue.
type Overlay struct {
	Base    uint64  // sequence numbers below are on disk or gone
	Tail    uint64  // sequence number of the next message
	Entries []Entry // from Base on, in order
	Handed  uint64  // messages of QoS 2 below may have been given to the client, if the queue has limits

	marks   map[uint64]mark // pending ops on what is below Base
	limited bool            // messages may be removed by Trim
	gen     uint32          // Pending.gen
}

// Overlay gives the uncommitted part of a queue: at most max entries from
// sequence number from on. ok is false if there is no such queue.
func (p *Pending) Overlay(id, from uint64, max int) (o Overlay, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.live[id]
	if s == nil {
		return o, false
	}
	o.Base, o.Tail, o.gen = s.tail, s.tail, p.gen
	if s.quota != nil {
		o.Handed, o.limited = s.quota.handed, true
	}
	u := s.un
	if u == nil {
		return o, true
	}
	if u.len() > 0 {
		o.Base = u.base
	}
	first := 0
	if from > o.Base {
		first = int(min(from-o.Base, uint64(u.len())))
	}
	for i := u.off + first; i < len(u.slots) && len(o.Entries) < max; i++ {
		if u.slots[i].flags&slotLive != 0 {
			o.Entries = append(o.Entries, u.slots[i].entry(o.Base+uint64(i-u.off)))
		}
	}
	o.note(u.takenMarks, from)
	o.note(u.marks.list, from)
	return o, true
}

func (o *Overlay) note(marks []change[uint64, mark], from uint64) {
	for i := range marks {
		if m := &marks[i]; m.key >= from && m.key < o.Base {
			if o.marks == nil {
				o.marks = make(map[uint64]mark)
			}
			o.marks[m.key] = max(o.marks[m.key], m.val)
		}
	}
}

// Reader reads the queue on disk: each call of Next gives the next entry, in
// order, from FetchRequest.From on; ok is false after the last.
type Reader interface {
	Next() (e Entry, ok bool, err error)
}

// Answer makes the answer to r of the overlay and the disk. wait is true if
// the answer has to wait for a commit: then it is to be made again, from a
// new overlay.
func (o *Overlay) Answer(r FetchRequest, disk Reader) (f Fetched, wait bool) {
	f = Fetched{Tag: r.Tag, Epoch: r.Epoch, Session: r.Session, From: r.From, Next: r.From}
	a := answer{f: &f, r: r}
	e, ok, err := disk.Next()
	for ; ok && err == nil && e.Seq < o.Base; e, ok, err = disk.Next() {
		switch o.marks[e.Seq] {
		case markDequeue:
			continue
		case markRelease:
			e.Msg, e.SubIDs, e.Released, e.Shared = nil, nil, true, false
		}
		if !a.add(e) {
			return f, false
		}
	}
	for i := range o.Entries {
		if err != nil {
			break
		}
		mine := &o.Entries[i]
		if mine.Seq < r.From {
			continue
		}
		for ok && err == nil && e.Seq < mine.Seq {
			e, ok, err = disk.Next()
		}
		durable := ok && err == nil && e.Seq == mine.Seq
		if mine.QoS == 2 && !durable {
			f.Next = max(mine.Seq, r.From)
			return f, len(f.Entries) == 0
		}
		if !a.add(*mine) {
			return f, false
		}
	}
	if err != nil {
		if len(f.Entries) == 0 {
			f.Err = err
		}
		return f, false
	}
	if len(o.Entries) == 0 || !a.full() {
		f.Next = max(r.From, o.Tail)
	}
	return f, false
}

// answer collects entries within the limits of a request.
type answer struct {
	f     *Fetched
	r     FetchRequest
	bytes int64
}

// add appends the entry, unless the limits forbid it.
func (a *answer) add(e Entry) bool {
	size := int64(0)
	if e.Msg != nil {
		size = messageBytes(e.Msg)
	}
	if n := len(a.f.Entries); n > 0 && (a.full() || a.bytes+size > int64(a.r.MaxBytes)) {
		return false
	}
	a.bytes += size
	a.f.Entries = append(a.f.Entries, e)
	a.f.Next = e.Seq + 1
	return true
}

func (a *answer) full() bool { return len(a.f.Entries) >= a.r.MaxMessages }
