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

const (
	shrinkMinBytes  = 8 << 20  // smaller files stay as they are
	shrinkMaxInUse  = 16 << 20 // to copy more would keep publishers waiting for seconds
	shrinkPause     = time.Minute
	shrinkTxnBytes  = 1 << 20
	compactFileName = ".compact"
)

// shrink is when the next compaction may be.
type shrink struct{ next time.Time }

func compactPath(path string) string { return path + compactFileName }

// compactIdle compacts the file if it is worth it. It gives how long to wait
// until it may be, 0 or less if a Submit has to come before.
func (s *Store) compactIdle(now time.Time) time.Duration {
	if s.db == nil {
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
	err := s.compact()
	s.shrink.next = time.Now().Add(shrinkPause)
	if err != nil {
		s.log.Warn("store file not compacted", zap.String("file", s.path), zap.Error(err))
		return shrinkPause
	}
	s.log.Info("store file compacted", zap.String("file", s.path), zap.Int64("before_bytes", total),
		zap.Int64("after_bytes", s.fileBytes.Load()), zap.Duration("took", time.Since(start)))
	return -1
}

// compact copies the file into a new one and goes on with that.
func (s *Store) compact() error {
	tmp := compactPath(s.path)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := lockFile(tmp)
	if err != nil {
		return err
	}
	db, err := s.copyTo(f)
	if err == nil {
		err = os.Rename(tmp, s.path)
	}
	if err != nil {
		f.Close()
		_ = os.Remove(tmp)
		return err
	}
	s.dbMu.Lock()
	old := s.db
	s.db, s.file = db, f
	s.dbMu.Unlock()
	s.clean = false
	s.fileBytes.Store(s.highWater())
	s.counters.bytesWritten.Add(uint64(s.fileBytes.Load()))
	closeBolt(old)
	return syncDir(filepath.Dir(s.path))
}

// copyTo makes a synced copy.
func (s *Store) copyTo(f *os.File) (*bbolt.DB, error) {
	db, err := openBolt(f, s.opt.MaxFileBytes)
	if err != nil {
		return nil, err
	}
	err = guard(func() error {
		db.NoSync = true
		if err := bbolt.Compact(db, s.db, shrinkTxnBytes); err != nil {
			return err
		}
		db.NoSync = false
		return db.Sync()
	})
	if err != nil {
		closeBolt(db)
		return nil, err
	}
	return db, nil
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
	s.db, s.file, s.broken, s.stuck, s.clean = db, f, false, false, false
	return nil
}
