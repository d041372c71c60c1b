package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"sluice/persist"
)

// DESIGN. What can be read of a damaged file is copied into a new one: we walk
// through the trees from the newest meta page, leave out the pages that are not
// what they should be, with all below them, and take each record whose checksum
// is right. Pages that no tree leads to are not looked at: they hold what was
// removed, and would bring back messages long delivered. If the page that leads
// to all the others is damaged, we go on from the older meta page, one
// transaction back.
//
// Packet ids received (inbound) have no checksum, and count if their page is
// sound. At the end the counters of queues and of references are made anew, and
// what lacks its session or its message goes.
//
// The new file is whole, synced and named last of all (salvageName); only then
// is the damaged one moved aside, and the new one takes its name. A crash in
// between leaves it for the next start (finishSalvage).

const (
	salvageName    = ".salvaged"
	salvagePartial = ".partial"
)

func salvagePath(path string) string { return path + salvageName }

// SalvageReport says what was read of a damaged file.
type SalvageReport struct {
	Sessions      int `json:"sessions"` // records taken over
	Subscriptions int `json:"subscriptions"`
	Inbound       int `json:"inbound"`
	Wills         int `json:"wills"`
	Messages      int `json:"messages"` // in queues
	Retained      int `json:"retained"`

	BadPages   int  `json:"bad_pages"`   // that could not be read, each with all that only it leads to
	BadRecords int  `json:"bad_records"` // with a wrong checksum, or without their session or message
	OlderMeta  bool `json:"older_meta"`  // the last transaction is missing
}

// Records is how many records were taken over.
func (r *SalvageReport) Records() int {
	return r.Sessions + r.Subscriptions + r.Inbound + r.Wills + r.Messages + r.Retained
}

// finishSalvage puts a salvaged file in its place, if a crash prevented that.
func finishSalvage(path string) error {
	_ = os.Remove(salvagePath(path) + salvagePartial)
	from := salvagePath(path)
	if _, err := os.Lstat(from); err != nil {
		return nil
	}
	if _, err := os.Lstat(path); err == nil { // the damaged one is still there: once more
		return os.Remove(from)
	}
	return replaceFile(from, path)
}

// salvageTo makes a new file of what can be read of a damaged one.
func salvageTo(from, to string, maxBytes int64) (r SalvageReport, err error) {
	src, err := os.Open(from)
	if err != nil {
		return r, err
	}
	defer src.Close()
	partial := to + salvagePartial
	f, err := lockFile(partial)
	if err != nil {
		return r, err
	}
	defer os.Remove(partial)
	db, err := openBolt(f, maxBytes)
	if err != nil {
		f.Close()
		return r, err
	}
	db.NoSync = true
	sv := &salvage{db: db, r: &r}
	defer func() {
		if sv.tx != nil { // or Close would wait for it for ever
			_ = guard(sv.tx.Rollback)
		}
		closeBolt(db)
	}()
	err = guard(func() error {
		if err := db.Update(createBuckets); err != nil {
			return err
		}
		if err := sv.read(src); err != nil {
			return err
		}
		if err := sv.mend(); err != nil {
			return err
		}
		db.NoSync = false
		return db.Sync()
	})
	if err != nil {
		return SalvageReport{}, err
	}
	if err := os.Rename(partial, to); err != nil {
		return SalvageReport{}, err
	}
	return r, syncDir(filepath.Dir(to))
}

// salvage is one run.
type salvage struct {
	db    *bbolt.DB
	r     *SalvageReport
	c     *checker
	tx    *bbolt.Tx
	bytes int
}

// read copies all records that can be read.
func (s *salvage) read(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	metas := allMetas(f)
	if len(metas) == 0 {
		return errors.New("no valid meta page")
	}
	for i, m := range metas {
		m.high = min(m.high, uint64(info.Size())/m.pageSize)
		s.c = &checker{f: f, size: info.Size(), meta: m, seen: make([]uint64, m.high/64+1)}
		s.c.seen[0] = 3
		bad := s.r.BadPages
		if err := s.tree(m.root, 0, -1); err != nil {
			return err
		}
		if s.r.Records() > 0 || s.r.BadPages == bad {
			s.r.OlderMeta = i > 0
			break
		}
	}
	if s.r.Records() == 0 && s.r.BadPages > 0 {
		return errors.New("no page leads to the records")
	}
	return s.commit()
}

// allMetas gives the valid meta pages, the newest first.
func allMetas(f *os.File) (list []fileMeta) {
	c := &checker{f: f}
	if c.readMeta() != nil {
		return nil
	}
	list = append(list, c.meta)
	if m, ok := c.metaAt(int64(1-c.meta.txid%2) * int64(c.meta.pageSize)); ok && m.txid != c.meta.txid {
		list = append(list, m)
	}
	return list
}

// tree walks through a tree; bucket is its index in bucketNames, -1 for the
// bucket of buckets.
func (s *salvage) tree(id uint64, level, bucket int) error {
	if level > maxTreeLevels {
		s.r.BadPages++
		return nil
	}
	p, flags, count, err := s.c.page(id, level)
	if err != nil || flags != flagBranch && flags != flagLeaf {
		s.r.BadPages++
		return nil
	}
	return s.page(p, flags == flagLeaf, count, level, bucket)
}

func (s *salvage) page(p []byte, leaf bool, count, level, bucket int) error {
	for i := range count {
		e, ok := elemAt(p, leaf, count, i)
		if !ok {
			s.r.BadRecords++
			continue
		}
		var err error
		switch {
		case !leaf:
			err = s.tree(e.child, level+1, bucket)
		case bucket < 0:
			err = s.bucket(&e, level)
		default:
			err = s.record(bucket, e.key, e.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *salvage) bucket(e *elem, level int) error {
	for i, name := range bucketNames {
		if !bytes.Equal(name, e.key) || !e.bucket || len(e.value) < bucketHead {
			continue
		}
		if id := binary.LittleEndian.Uint64(e.value); id != 0 {
			return s.tree(id, level+1, i)
		}
		if p := e.value[bucketHead:]; len(p) >= pageHead && binary.LittleEndian.Uint16(p[8:]) == flagLeaf {
			return s.page(bytes.Clone(p), true, int(binary.LittleEndian.Uint16(p[10:])), level+1, i)
		}
	}
	s.r.BadPages++
	return nil
}

// record takes over a record. Counters are made anew later; what a message
// consists of shows when all its parts are there.
func (s *salvage) record(bucket int, k, v []byte) error {
	ok, count := false, new(int)
	switch name := bucketNames[bucket]; {
	case bytes.Equal(name, bucketMeta):
		_, err := persist.DecodeState(k, v)
		ok = err == nil && bytes.Equal(k, keyState)
	case bytes.Equal(name, bucketSession):
		rec, err := persist.DecodeSession(k, v)
		id, isID := idOf(k)
		ok, count = err == nil && isID && id == rec.ID, &s.r.Sessions
	case bytes.Equal(name, bucketSub):
		_, err := persist.DecodeSubscription(k, v)
		ok, count = err == nil, &s.r.Subscriptions
	case bytes.Equal(name, bucketInbound):
		ok, count = len(k) == 10 && len(v) == 0, &s.r.Inbound
	case bytes.Equal(name, bucketCounter):
		_, err := persist.DecodeCounters(k, v)
		ok = err == nil
	case bytes.Equal(name, bucketQueue):
		_, err := persist.DecodeEntryHead(k, v, persist.Clock{})
		ok, count = err == nil && len(k) == 16, &s.r.Messages
	case bytes.Equal(name, bucketMessage):
		ok = len(k) == 12
	case bytes.Equal(name, bucketRetained):
		_, err := persist.DecodeNumber(k, v)
		if err != nil {
			_, err = persist.DecodeMessage(k, v, persist.Clock{})
		}
		ok, count = err == nil, &s.r.Retained
	case bytes.Equal(name, bucketWill):
		_, err := persist.DecodeWill(k, v, persist.Clock{})
		ok, count = err == nil, &s.r.Wills
	case bytes.Equal(name, bucketRef):
		return nil
	}
	if !ok {
		if !bytes.Equal(k, keySchema) {
			s.r.BadRecords++
		}
		return nil
	}
	*count++
	return s.put(bucket, k, v)
}

func (s *salvage) put(bucket int, k, v []byte) error {
	if err := s.begin(); err != nil {
		return err
	}
	b := s.tx.Bucket(bucketNames[bucket])
	b.FillPercent = 1
	if err := b.Put(bytes.Clone(k), bytes.Clone(v)); err != nil {
		return err
	}
	if s.bytes += len(k) + len(v); s.bytes < shrinkTxnBytes {
		return nil
	}
	return s.commit()
}

func (s *salvage) begin() (err error) {
	if s.tx == nil {
		s.tx, err = s.db.Begin(true)
	}
	return err
}

func (s *salvage) commit() error {
	if s.tx == nil {
		return nil
	}
	tx := s.tx
	s.tx, s.bytes = nil, 0
	return tx.Commit()
}

// mend removes what lacks its session or message, and makes the counters anew.
func (s *salvage) mend() error {
	refs := make(map[uint64]int64)
	var drop [][2][]byte // bucket, key
	queues := make(map[uint64]*persist.Counters)
	err := s.db.View(func(tx *bbolt.Tx) error {
		b := bucketsOf(tx)
		m := mender{b: b, refs: refs, queues: queues, sound: make(map[uint64]bool)}
		m.look()
		drop = m.drop
		s.r.BadRecords += m.bad
		s.r.Messages -= m.badMessages
		s.r.Retained -= m.badRetained
		return nil
	})
	if err != nil {
		return err
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		for _, d := range drop {
			if err := tx.Bucket(d[0]).Delete(d[1]); err != nil {
				return err
			}
		}
		b := bucketsOf(tx)
		for id, n := range refs {
			if n > 1 {
				k := idKey(id)
				if err := b.ref.Put(k[:], persist.AppendNumber(nil, k[:], uint64(n))); err != nil {
					return err
				}
			}
		}
		for id, c := range queues {
			k := idKey(id)
			if err := b.counter.Put(k[:], persist.AppendCounters(nil, k[:], *c)); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// mender looks for what does not belong together.
type mender struct {
	b      buckets
	refs   map[uint64]int64
	sound  map[uint64]bool // messages that were read
	queues map[uint64]*persist.Counters
	drop   [][2][]byte

	bad, badMessages, badRetained int
}

func (m *mender) remove(bucket, key []byte) {
	m.drop = append(m.drop, [2][]byte{bucket, bytes.Clone(key)})
}

// readable tells whether a message with a record of its own can be read, and
// counts the reference.
func (m *mender) readable(id uint64) bool {
	ok, known := m.sound[id]
	if !known {
		_, err := readMessage(m.b.message, id, persist.Clock{})
		ok = err == nil
		m.sound[id] = ok
	}
	if ok {
		m.refs[id]++
	}
	return ok
}

func (m *mender) look() {
	c := m.b.counter.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		id, ok := idOf(k)
		rec, err := persist.DecodeCounters(k, v)
		if !ok || err != nil || m.b.session.Get(k[:8]) == nil {
			m.remove(bucketCounter, k)
			continue
		}
		m.queues[id] = &persist.Counters{Tail: rec.Tail}
	}
	c = m.b.queue.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		h, err := persist.DecodeEntryHead(k, v, persist.Clock{})
		if err != nil || m.b.session.Get(k[:8]) == nil || h.Ref != 0 && !m.readable(h.Ref) {
			m.bad++
			m.badMessages++
			m.remove(bucketQueue, k)
			continue
		}
		id := binary.BigEndian.Uint64(k)
		q := m.queues[id]
		if q == nil {
			q = &persist.Counters{}
			m.queues[id] = q
		}
		q.Tail = max(q.Tail, binary.BigEndian.Uint64(k[8:])+1)
		q.Depth++
		q.Bytes += h.Bytes
	}
	c = m.b.retained.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if id, err := persist.DecodeNumber(k, v); err == nil && !m.readable(id) {
			m.bad++
			m.badRetained++
			m.remove(bucketRetained, k)
		}
	}
	c = m.b.message.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if id, ok := idOf(k); !ok || m.refs[id] == 0 {
			m.remove(bucketMessage, k)
		}
	}
}
