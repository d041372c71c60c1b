package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// DESIGN. bbolt never gives room back. After an outage the file is mostly free
// pages, whose numbers take memory; so when the committer has nothing to do and
// copying costs little compared with what was written to make the file that
// big, it copies what is in use into a new file, syncs it, and puts it in the
// place of the old one. Until the new name is there the old file is whole;
// after that the new one is. Both are locked all the time.
//
// Meanwhile messages are accepted, cancelled and fetched as ever; only what has
// to be written waits. The copy is synced bit by bit and looks after each bit
// whether somebody waits: after shrinkPatience it is given up, and tried again
// after a pause. So a compaction delays an acknowledgement by no more than
// shrinkPatience, a bit of 1 MiB, and the sync of it.

const (
	shrinkMinBytes = 8 << 20 // smaller files stay as they are

	// shrinkMaxInUse is the most that is copied. What is in use then is little
	// against what the outage has written, and at 10 MB/s it takes 25 s.
	shrinkMaxInUse = 256 << 20

	// shrinkPatience is how long somebody may wait for a compaction.
	shrinkPatience = 500 * time.Millisecond

	shrinkPause     = time.Minute
	shrinkPauseMax  = time.Hour
	shrinkTxnBytes  = 1 << 20
	compactFileName = ".compact"
)

// shrink is when the next compaction may be.
type shrink struct {
	next  time.Time
	pause time.Duration // doubles with each that is given up or fails
}

// errGivenUp ends a compaction that keeps somebody waiting.
var errGivenUp = errors.New("somebody waits for the store")

// never is for a copy that is not given up.
func never() bool { return false }

func compactPath(path string) string { return path + compactFileName }

// compactIdle compacts the file if it is worth it. It gives how long to wait
// until it may be, 0 or less if a Submit has to come before.
func (s *Store) compactIdle(now time.Time) time.Duration {
	if s.db == nil || s.doubt || s.lost {
		return -1
	}
	st := s.db.Stats()
	total, free := s.fileBytes.Load(), int64(st.FreePageN+st.PendingPageN)*pageBytes
	if total < shrinkMinBytes || free < total/4*3 || total-free > shrinkMaxInUse {
		return -1
	}
	if wait := s.shrink.next.Sub(now); wait > 0 {
		return wait
	}
	start := time.Now()
	err := s.compact(s.somebodyWaits)
	if err == nil {
		s.shrink = shrink{next: time.Now().Add(shrinkPause)}
		s.log.Info("store file compacted", zap.String("file", s.path), zap.Int64("before_bytes", total),
			zap.Int64("after_bytes", s.fileBytes.Load()), zap.Duration("took", time.Since(start)))
		return -1
	}
	s.shrink.pause = min(max(2*s.shrink.pause, shrinkPause), shrinkPauseMax)
	s.shrink.next = time.Now().Add(s.shrink.pause)
	if !errors.Is(err, errGivenUp) {
		s.log.Warn("store file not compacted", zap.String("file", s.path), zap.Error(err))
	}
	return s.shrink.pause
}

// somebodyWaits tells whether what is pending has waited for longer than it
// should.
func (s *Store) somebodyWaits() bool {
	select {
	case <-s.closing:
		return true
	default:
	}
	w := s.pending.Waiting()
	age := time.Since(s.start) - time.Duration(w.Oldest)
	return w.Ops > 0 && w.Groups > 0 && (age > max(shrinkPatience, s.opt.CommitInterval) || w.Urgent && age > shrinkPatience/2)
}

// compact copies the file into a new one and goes on with that, unless giveUp.
func (s *Store) compact(giveUp func() bool) error {
	tmp := compactPath(s.path)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := lockFile(tmp)
	if err != nil {
		return err
	}
	db, err := s.copyTo(f, giveUp)
	if err == nil {
		if err = os.Rename(tmp, s.path); err != nil {
			closeBolt(db)
		}
	}
	if err != nil {
		f.Close()
		_ = os.Remove(tmp)
		return err
	}
	s.opened(db)
	s.dbMu.Lock()
	old := s.db
	s.db, s.file = db, f
	s.dbMu.Unlock()
	s.clean, s.doubt = false, false
	s.fileBytes.Store(s.highWater())
	closeBolt(old)
	return syncDir(filepath.Dir(s.path))
}

// copyTo makes a synced copy.
func (s *Store) copyTo(f *os.File, giveUp func() bool) (*bbolt.DB, error) {
	db, err := openBolt(f, s.opt.MaxFileBytes)
	if err != nil {
		return nil, err
	}
	commits := uint64(0)
	err = guard(func() error {
		db.NoSync = true
		err := s.db.View(func(tx *bbolt.Tx) error {
			return copyBuckets(db, tx, func() error {
				commits++
				if giveUp() {
					return errGivenUp
				}
				return db.Sync()
			})
		})
		db.NoSync = false
		if err == nil {
			err = db.Sync()
		}
		return err
	})
	s.account(freshBytes+written(db)+commits*pageBytes, 0)
	if err != nil {
		closeBolt(db)
		return nil, err
	}
	return db, nil
}

// copyBuckets copies all records, in transactions of shrinkTxnBytes; after each
// it calls done.
func copyBuckets(dst *bbolt.DB, src *bbolt.Tx, done func() error) error {
	var tx *bbolt.Tx
	var err error
	defer func() {
		if tx != nil {
			_ = tx.Rollback()
		}
	}()
	bytes := 0
	commit := func() error {
		err := tx.Commit()
		tx, bytes = nil, 0
		if err == nil {
			err = done()
		}
		return err
	}
	for _, name := range bucketNames {
		from := src.Bucket(name)
		if from == nil { // of an older schema
			continue
		}
		c := from.Cursor()
		var to *bbolt.Bucket
		for k, v := c.First(); k != nil || to == nil; k, v = c.Next() {
			if tx == nil {
				if tx, err = dst.Begin(true); err != nil {
					return err
				}
				to = nil
			}
			if to == nil {
				if to, err = tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
				to.FillPercent = 1
				if k == nil {
					break
				}
			}
			if err := to.Put(k, v); err != nil {
				return err
			}
			if bytes += len(k) + len(v); bytes >= shrinkTxnBytes {
				if err := commit(); err != nil {
					return err
				}
			}
		}
	}
	if tx == nil {
		return nil
	}
	return commit()
}

// highWater gives how much of the file has ever been used.
func (s *Store) highWater() (n int64) {
	_ = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			n = tx.Size()
			return nil
		})
	})
	return n
}

// reopen opens the file again, after bbolt has lost its map of it or has not
// survived a damaged page.
func (s *Store) reopen() error {
	s.dbMu.Lock()
	defer s.dbMu.Unlock()
	if _, err := os.Lstat(s.path); err != nil { // what we have open is all there is
		return fmt.Errorf("store file: %w", err)
	}
	if s.db != nil {
		if s.stuck { // its locks are not free any more
			s.file.Close()
		} else {
			closeBolt(s.db)
		}
		s.db = nil
	}
	f, err := lockFile(s.path)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = checkFile(f, info.Size())
	}
	var db *bbolt.DB
	if err == nil {
		db, err = openBolt(f, s.opt.MaxFileBytes)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("store file %s: %w", s.path, err)
	}
	s.opened(db)
	s.db, s.file, s.broken, s.stuck, s.clean, s.doubt = db, f, false, false, false, true
	return nil
}
