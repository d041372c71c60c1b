package bolt

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"sluice/persist"
)

// edit changes the file behind the store's back.
func edit(t *testing.T, dir string, f func(b buckets) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bbolt.Tx) error { return f(bucketsOf(tx)) }); err != nil {
		t.Fatal(err)
	}
}

// spoil changes a byte of a value.
func spoil(b *bbolt.Bucket, key []byte) error {
	v := bytes.Clone(b.Get(key))
	v[len(v)-1] ^= 1
	return b.Put(key, v)
}

// keys counts the records of a bucket that begin with an id.
func keys(t *testing.T, s *Store, bucket []byte, id uint64) (n int) {
	t.Helper()
	s.dbMu.RLock()
	defer s.dbMu.RUnlock()
	p := idKey(id)
	if err := s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		for k, _ := c.Seek(p[:]); bytes.HasPrefix(k, p[:]); k, _ = c.Next() {
			n++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// A damaged record is left out and counted, the rest is there.
func TestDamagedEntry(t *testing.T) {
	dir := t.TempDir()
	s, a, _ := openAt(t, dir)
	durable(s, a, put(1))
	for i := range 5 {
		durable(s, a, enq(1, msg(s, fmt.Sprint(i))))
	}
	s.Close()
	edit(t, dir, func(b buckets) error {
		k := queueKey(1, 3)
		return spoil(b.queue, k[:])
	})
	s, a, _ = openAt(t, dir)
	if n := len(fetchAll(s, a, 1)); n != 4 {
		t.Fatalf("%d messages", n)
	}
	if n := s.Stats().Skipped; n != 1 {
		t.Fatalf("%d records skipped", n)
	}
	eventually(t, "removal of the damaged entry", func() bool { return keys(t, s, bucketQueue, 1) == 4 })
	s.Close()
	s, a, _ = openAt(t, dir)
	if n := len(fetchAll(s, a, 1)); n != 4 || s.Stats().Skipped != 0 {
		t.Fatalf("%d messages, %d records skipped", n, s.Stats().Skipped)
	}
	s.Close()
}

// When all that is left is damaged, the answer goes on behind it.
func TestDamagedEnd(t *testing.T) {
	dir := t.TempDir()
	s, a, _ := openAt(t, dir)
	durable(s, a, put(1))
	durable(s, a, enq(1, msg(s, "x")))
	s.Close()
	edit(t, dir, func(b buckets) error {
		k := queueKey(1, 1)
		return spoil(b.queue, k[:])
	})
	s, a, _ = openAt(t, dir)
	s.Fetch(persist.FetchRequest{Session: 1, From: 1, MaxMessages: 10, MaxBytes: 10})
	if f := a.waitFetched(); f.Next != 2 || len(f.Entries) != 0 || f.Err != nil {
		t.Fatalf("%+v", f)
	}
	s.Close()
}

// What belongs to a session whose record is damaged is cleared away; counters
// and the state are made anew.
func TestDamagedRecords(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, true)
	s, a, image := openAt(t, dir)
	bytes2, head2 := image.Sessions[1].QueuedBytes, image.Sessions[1].Head
	_ = a
	s.Close()
	edit(t, dir, func(b buckets) error {
		one, two := idKey(1), idKey(2)
		if err := spoil(b.session, one[:]); err != nil {
			return err
		}
		if err := spoil(b.counter, two[:]); err != nil {
			return err
		}
		if err := spoil(b.sub, subKey(2, "f1")); err != nil {
			return err
		}
		if err := spoil(b.retained, retainedKey("r/0")); err != nil {
			return err
		}
		return spoil(b.meta, keyState)
	})
	s, a, image = openAt(t, dir)
	if n := s.Stats().Skipped; n != 5 {
		t.Fatalf("%d records skipped", n)
	}
	if len(image.Sessions) != 2 || image.Sessions[0].ID != 2 || len(image.Retained) != 19 {
		t.Fatalf("%d sessions, %d retained messages", len(image.Sessions), len(image.Retained))
	}
	two := image.Sessions[0]
	if two.QueuedBytes != bytes2 || two.Head != head2 || len(two.Subscriptions) != 19 {
		t.Fatalf("session 2 has %d bytes from %d, %d subscriptions", two.QueuedBytes, two.Head, len(two.Subscriptions))
	}
	eventually(t, "clearing away of session 1", func() bool {
		return keys(t, s, bucketQueue, 1)+keys(t, s, bucketSub, 1)+keys(t, s, bucketInbound, 1)+keys(t, s, bucketSession, 1) == 0
	})
	use(t, s, a, image)
	s.Close()
}
