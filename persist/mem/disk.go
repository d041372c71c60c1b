package mem

import (
	"cmp"
	"slices"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// DESIGN. disk is what a real store would have in its file: plain maps, changed
// only by apply, with a copy for Crash. Nothing iterates over a map in an
// order that shows.

type disk struct {
	sessions map[uint64]*record
	retained map[string]*mqtt.Message
	at       int64 // when the last commit was, ns of Options.Now
}

// record is a session with all it has. Entries are in the order of Seq.
type record struct {
	session persist.Session
	subs    map[string]persist.Subscription
	inbound map[uint16]bool
	will    *persist.Will
	entries []persist.Entry
	bytes   int64 // of the messages
	tail    uint64
}

func newDisk() *disk {
	return &disk{sessions: make(map[uint64]*record), retained: make(map[string]*mqtt.Message)}
}

// apply does what a transaction says.
func (d *disk) apply(w *persist.Work, now int64) {
	d.at = now
	for _, id := range w.Deletes {
		delete(d.sessions, id)
	}
	for _, s := range w.Puts {
		r := d.sessions[s.ID]
		if r == nil {
			r = &record{subs: make(map[string]persist.Subscription), inbound: make(map[uint16]bool), tail: 1}
			d.sessions[s.ID] = r
		}
		r.session = *s
	}
	for i := range w.Queues {
		q := &w.Queues[i]
		if r := d.sessions[q.Session]; r != nil {
			r.apply(q, now)
		}
	}
	for _, r := range w.Retained {
		if r.Msg == nil {
			delete(d.retained, r.Topic)
		} else {
			d.retained[r.Topic] = r.Msg
		}
	}
}

func (r *record) apply(q *persist.QueueWork, now int64) {
	for _, s := range q.Subs {
		if s.Sub == nil {
			delete(r.subs, s.Filter)
		} else {
			r.subs[s.Filter] = *s.Sub
		}
	}
	for _, in := range q.Inbound {
		if in.Put {
			r.inbound[in.PacketID] = true
		} else {
			delete(r.inbound, in.PacketID)
		}
	}
	if q.HasWill {
		r.will = q.Will
	}
	for i := range q.Enqueue {
		r.bytes += size(q.Enqueue[i].Msg)
		q.Enqueue[i].Until = q.Limits.Until(now)
	}
	r.entries = append(r.entries, q.Enqueue...)
	for _, seq := range q.Release {
		if i, ok := r.find(seq); ok {
			e := &r.entries[i]
			r.bytes -= size(e.Msg)
			e.Msg, e.SubIDs, e.Released, e.Shared, e.Until = nil, nil, true, false, 0
		}
	}
	r.remove(q.Dequeue)
	r.trim(q, now)
	r.tail = max(r.tail, q.Tail)
	q.Counters = persist.Counters{Tail: r.tail, Depth: int64(len(r.entries)), Bytes: r.bytes}
}

// trim removes what the limits of the queue do not permit.
func (r *record) trim(q *persist.QueueWork, now int64) {
	trim, ok := q.Trim(now)
	q.Drops = persist.Drops{}
	if !ok || len(q.Enqueue) == 0 {
		return
	}
	c := persist.Counters{Depth: int64(len(r.entries)), Bytes: r.bytes}
	var gone []uint64
	for i := range r.entries {
		e := &r.entries[i]
		h := persist.EntryHead{Bytes: size(e.Msg), Until: e.Until, QoS2: e.QoS == 2, Released: e.Released}
		remove, more := trim.Next(&c, e.Seq, &h, &q.Drops)
		if !more {
			break
		}
		if remove {
			gone = append(gone, e.Seq)
			c.Depth, c.Bytes = c.Depth-1, c.Bytes-h.Bytes
		}
	}
	r.remove(gone)
}

// remove takes the entries of these sequence numbers, which are in order, out of the queue.
func (r *record) remove(seqs []uint64) {
	for len(seqs) > 0 && len(r.entries) > 0 && seqs[0] == r.entries[0].Seq {
		r.bytes -= size(r.entries[0].Msg)
		r.entries[0] = persist.Entry{}
		r.entries, seqs = r.entries[1:], seqs[1:]
	}
	if len(seqs) == 0 {
		return
	}
	first, _ := r.find(seqs[0])
	kept := r.entries[:first]
	for _, e := range r.entries[first:] {
		for len(seqs) > 0 && seqs[0] < e.Seq {
			seqs = seqs[1:]
		}
		if len(seqs) == 0 || seqs[0] != e.Seq {
			kept = append(kept, e)
		} else {
			r.bytes -= size(e.Msg)
		}
	}
	clear(r.entries[len(kept):])
	r.entries = kept
}

func (r *record) find(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(r.entries, seq, func(e persist.Entry, seq uint64) int { return cmp.Compare(e.Seq, seq) })
}

func size(m *mqtt.Message) int64 {
	if m == nil {
		return 0
	}
	return int64(len(m.Topic) + len(m.Props) + len(m.Payload))
}

// image gives what Load gives.
func (d *disk) image() *persist.Image {
	im := &persist.Image{}
	for _, id := range sorted(d.sessions) {
		r := d.sessions[id]
		s := persist.SessionImage{Session: r.session, Head: r.tail, Tail: r.tail, QueuedBytes: r.bytes}
		if len(r.entries) > 0 {
			s.Head = r.entries[0].Seq
		}
		for _, f := range sorted(r.subs) {
			s.Subscriptions = append(s.Subscriptions, r.subs[f])
		}
		s.Inbound = sorted(r.inbound)
		if r.will != nil {
			will := *r.will
			s.Will = &will
		}
		im.Sessions = append(im.Sessions, s)
	}
	for _, topic := range sorted(d.retained) {
		im.Retained = append(im.Retained, d.retained[topic])
	}
	return im
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	if len(m) == 0 {
		return nil
	}
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// clone copies the disk for a store that is opened now: as long as the store
// was off, messages do not age.
func (d *disk) clone(now int64) *disk {
	c := newDisk()
	c.at = now
	later := func(at int64) int64 { return max(at+now-d.at, 1) }
	moved := make(map[*mqtt.Message]*mqtt.Message)
	move := func(m *mqtt.Message) *mqtt.Message {
		if m == nil || m.From == 0 && (m.Expires == 0 || now == d.at) {
			return m
		}
		if moved[m] == nil {
			n := *m
			n.From = 0 // a session's id means nothing to the next process
			if n.Expires != 0 {
				n.Expires = later(m.Expires)
			}
			moved[m] = &n
		}
		return moved[m]
	}
	for id, r := range d.sessions {
		n := &record{session: r.session, tail: r.tail, bytes: r.bytes, subs: make(map[string]persist.Subscription), inbound: make(map[uint16]bool)}
		for f, s := range r.subs {
			n.subs[f] = s
		}
		for id := range r.inbound {
			n.inbound[id] = true
		}
		n.entries = slices.Clone(r.entries)
		for i := range n.entries {
			n.entries[i].Msg = move(n.entries[i].Msg)
			if at := &n.entries[i].Until; *at != 0 {
				*at = later(*at)
			}
		}
		if r.will != nil {
			will := *r.will
			will.Msg = move(will.Msg)
			if will.Due != 0 {
				will.Due = later(will.Due)
			}
			n.will = &will
		}
		c.sessions[id] = n
	}
	for t, m := range d.retained {
		c.retained[t] = move(m)
	}
	return c
}
