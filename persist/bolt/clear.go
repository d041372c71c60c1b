package bolt

import (
	"bytes"

	"go.etcd.io/bbolt"

	"sluice/persist"
)

// DESIGN. A deleted session's record goes with the transaction that deletes it,
// and its id is never used again: so nobody can see the rest, and it can go
// bit by bit. Each transaction clears away so many records; when nothing else
// is to be done, the committer makes transactions for this alone. Which
// sessions are not done need not be on disk: load finds what has no session.

// clearBudget is how many records of dead sessions a transaction removes. At
// twenty in a page they are fifty pages, which is what a usual commit writes.
const clearBudget = 1024

// clearDead clears away dead sessions, as far as the budget goes.
func (t *txn) clearDead() error {
	budget := clearBudget
	left := t.dead[:0]
	for _, id := range t.dead {
		done, err := t.clearSession(id, &budget)
		if err != nil {
			return err
		}
		if !done {
			left = append(left, id)
		}
	}
	t.dead = left
	return nil
}

// clearSession removes what is left of a session, and tells whether that was all.
func (t *txn) clearSession(id uint64, budget *int) (done bool, err error) {
	p := idKey(id)
	if err := t.remove(t.b.session, p[:]); err != nil {
		return false, err
	}
	if err := t.remove(t.b.counter, p[:]); err != nil {
		return false, err
	}
	if err := t.remove(t.b.will, p[:]); err != nil {
		return false, err
	}
	for _, b := range []*bbolt.Bucket{t.b.queue, t.b.sub, t.b.inbound} {
		if err := t.clearBucket(b, p[:], budget); err != nil {
			return false, err
		}
		if *budget == 0 {
			return false, nil // there may be more
		}
	}
	return true, nil
}

// clearBucket removes the records whose keys begin with p.
func (t *txn) clearBucket(b *bbolt.Bucket, p []byte, budget *int) error {
	var keys [][]byte
	c := b.Cursor()
	for k, v := c.Seek(p); bytes.HasPrefix(k, p) && *budget > 0; k, v = c.Next() {
		*budget--
		keys = append(keys, bytes.Clone(k))
		if b == t.b.queue {
			if h, err := persist.DecodeEntryHead(k, v, t.clk); err == nil {
				t.dropRef(h.Ref)
			}
		}
	}
	for _, k := range keys {
		t.changed = true
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
