package bolt

import (
	"bytes"
	"encoding/binary"
	"slices"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// DESIGN. Where a message goes is decided once for each transaction, when it is
// known how many receivers are left. One that gets a record of its own is
// a share; the changes in the number of references are summed up and written
// at the end, in the order of the keys.

const (
	// partBytes is the length of the parts of a message record: with their
	// keys, two fill a page.
	partBytes = 1900

	// inlineBytes is the length up to which a message may be in the queue
	// entry: with less than half a page, entries can share pages.
	inlineBytes = partBytes

	// shareBytes is about what it costs to write a message apart: two keys
	// and heads of elements, and the count of references twice.
	shareBytes = 128
)

// share is a message that gets, or has, a record of its own.
type share struct {
	id      uint64
	written bool
}

// apart tells whether a message with so many receivers is to be written apart.
func apart(size int64, receivers int) bool {
	return size > inlineBytes || int64(receivers-1)*size > shareBytes
}

// share finds the messages that are to be written apart.
func (t *txn) share(w *persist.Work) {
	receivers := make(map[*mqtt.Message]int)
	for i := range w.Queues {
		q := &w.Queues[i]
		for j := range q.Enqueue {
			if e := &q.Enqueue[j]; e.Msg != nil && !t.present(q.Session, e.Seq) {
				receivers[e.Msg]++
			}
		}
	}
	for i := range w.Retained {
		if m := w.Retained[i].Msg; m != nil && messageBytes(m) > inlineBytes {
			receivers[m]++
		}
	}
	for m, n := range receivers {
		if !apart(messageBytes(m), n) {
			continue
		}
		if t.shares == nil {
			t.shares, t.created = make(map[*mqtt.Message]*share), make(map[uint64]bool)
		}
		t.shares[m] = &share{id: m.ID}
	}
}

// present tells whether an entry is on disk already, which can only be after a failure.
func (t *txn) present(id, seq uint64) bool {
	k := queueKey(id, seq)
	return t.again && t.b.queue.Get(k[:]) != nil
}

// addRef counts a reference to m, and writes m if it is not there.
func (t *txn) addRef(sh *share, m *mqtt.Message) error {
	if sh.id == 0 {
		sh.id = t.s.NewMessageID()
	}
	t.refs[sh.id]++
	if sh.written {
		return nil
	}
	sh.written = true
	k := partKey(sh.id, 0)
	if t.created[sh.id] || t.b.message.Get(k[:]) != nil {
		return nil
	}
	t.created[sh.id] = true
	t.changed = true
	p := idKey(sh.id)
	start := t.room(64 + int(messageBytes(m)))
	t.values = persist.AppendMessage(t.values, p[:], m, t.clk)
	rec := t.values[start:]
	for part := uint32(0); ; part++ {
		k := partKey(sh.id, part)
		n := min(len(rec), partBytes)
		if err := t.b.message.Put(k[:], rec[:n:n]); err != nil {
			return err
		}
		rec = rec[n:]
		if n < partBytes { // the last part is always a short one
			return nil
		}
	}
}

// dropRef counts a reference less.
func (t *txn) dropRef(id uint64) {
	if id != 0 {
		t.refs[id]--
	}
}

// countRefs writes the numbers of references that have changed. A number of
// one is not written; a message with none is removed.
func (t *txn) countRefs() error {
	ids := make([]uint64, 0, len(t.refs))
	for id, change := range t.refs {
		if change != 0 || t.created[id] {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		n := t.refs[id]
		k := idKey(id)
		old := t.b.ref.Get(k[:])
		if !t.created[id] {
			n += t.count(id, old)
		}
		var err error
		switch {
		case n <= 0:
			err = t.removeMessage(id)
			fallthrough
		case n == 1:
			if err == nil {
				err = t.remove(t.b.ref, k[:])
			}
		default:
			start := t.room(32)
			t.values = persist.AppendNumber(t.values, k[:], uint64(n))
			err = t.put(t.b.ref, k[:], t.values[start:])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// count gives the number of references to a message on disk. If the record is
// damaged nobody knows: then the message stays for ever, which harms less than
// to lose it.
func (t *txn) count(id uint64, rec []byte) int64 {
	if rec == nil {
		return 1
	}
	k := idKey(id)
	n, err := persist.DecodeNumber(k[:], rec)
	if err != nil {
		return 1 << 30
	}
	return int64(n)
}

// removeMessage removes all parts of a message.
func (t *txn) removeMessage(id uint64) error {
	p := idKey(id)
	var keys [][12]byte
	c := t.b.message.Cursor()
	for k, _ := c.Seek(p[:]); len(k) == 12 && bytes.HasPrefix(k, p[:]); k, _ = c.Next() {
		keys = append(keys, partKey(id, binary.BigEndian.Uint32(k[8:])))
	}
	for i := range keys {
		t.changed = true
		if err := t.b.message.Delete(keys[i][:]); err != nil {
			return err
		}
	}
	return nil
}
