package bolt

import (
	"bytes"
	"encoding/binary"

	"sluice/persist"
)

// trimRecords is how many records of a queue a transaction looks at in order to
// trim it; what is left is for the next one that adds to the queue.
const trimRecords = 1 << 16

// trim removes from a queue what its limits do not permit.
func (t *txn) trim(q *persist.QueueWork, c *persist.Counters) error {
	trim, ok := q.Trim(t.now)
	q.Drops = persist.Drops{}
	if !ok || len(q.Enqueue) == 0 {
		return nil
	}
	p := idKey(q.Session)
	cur := t.b.queue.Cursor()
	k, v := cur.Seek(p[:])
	for range trimRecords {
		if len(k) != 16 || !bytes.HasPrefix(k, p[:]) {
			return nil
		}
		seq := binary.BigEndian.Uint64(k[8:])
		h, err := persist.DecodeEntryHead(k, v, t.clk)
		if err != nil {
			h = persist.EntryHead{}
		}
		remove, more := trim.Next(c, seq, &h, &q.Drops)
		if !more {
			return nil
		}
		if remove {
			if err := t.dequeue(q.Session, seq, c); err != nil {
				return err
			}
			next := queueKey(q.Session, seq+1) // a cursor does not survive a change
			k, v = cur.Seek(next[:])
		} else {
			k, v = cur.Next()
		}
	}
	return nil
}
