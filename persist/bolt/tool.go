package bolt

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"sluice/persist"
)

// DESIGN. The tools work on the file of a store that is not running: they take
// its lock, so that none can be started meanwhile, and say who has it if they
// cannot. Inspect, Check and Dump change nothing and do not need the file to
// be writable. What they give are plain structs, to be printed as text or JSON.

// stopped is the file of a store that is not running, opened for reading.
type stopped struct {
	f     *os.File
	db    *bbolt.DB
	path  string
	bytes int64
	clean bool
}

// openStopped opens and locks a store's file; Path as in Options. A damaged
// file is an error for which IsDamaged holds.
func openStopped(path string) (*stopped, error) {
	path = existingFile(path)
	f, err := lockExisting(path)
	if err != nil {
		return nil, err
	}
	s := &stopped{f: f, path: path}
	info, err := f.Stat()
	if err == nil {
		s.bytes = info.Size()
		err = mappable(s.bytes, path, is32bit)
	}
	if err == nil {
		s.clean, err = checkFile(f, s.bytes)
	}
	if err == nil {
		s.db, err = openReadOnly(f)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("store file %s: %w", path, err)
	}
	return s, nil
}

func (s *stopped) close() { closeBolt(s.db) }

// view runs f in a transaction.
func (s *stopped) view(f func(tx *bbolt.Tx) error) error {
	return guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			if err := checkSchema(tx, s.path); err != nil {
				return err
			}
			return f(tx)
		})
	})
}

// IsDamaged tells whether err says that a store's file is damaged: then Repair
// may help.
func IsDamaged(err error) bool { return isDamage(err) }

// existingFile gives the path of the file; it makes no directories.
func existingFile(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, fileName)
	}
	return path
}

// lockExisting opens a file for reading, and locks it.
func lockExisting(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("store file: %w", err)
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("store file %s is in use by %s: stop it first (%w)", path, lockHolder(path), err)
	}
	return f, nil
}

// openReadOnly gives a locked file to bbolt. It does not look for free pages.
func openReadOnly(f *os.File) (db *bbolt.DB, err error) {
	opt := bbolt.Options{
		ReadOnly: true, PageSize: pageBytes,
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	}
	err = guard(func() error {
		db, err = bbolt.Open(f.Name(), 0o600, &opt)
		return err
	})
	return db, err
}

// CompactReport says what Compact did.
type CompactReport struct {
	Path        string `json:"path"`
	BytesBefore int64  `json:"bytes_before"`
	BytesAfter  int64  `json:"bytes_after"`
}

// Compact copies what is in use into a new file, which takes the place of the
// old one. It needs room for both.
func Compact(path string) (r CompactReport, err error) {
	s, err := openStopped(path)
	if err != nil {
		return r, err
	}
	defer s.close()
	r.Path, r.BytesBefore = s.path, s.bytes
	tmp := compactPath(s.path)
	_ = os.Remove(tmp)
	f, err := lockFile(tmp)
	if err != nil {
		return r, err
	}
	db, err := openBolt(f, 0)
	if err != nil {
		f.Close()
		return r, err
	}
	db.NoSync, db.NoFreelistSync, db.AllocSize = true, false, pageBytes
	err = s.view(func(tx *bbolt.Tx) error { return copyBuckets(db, tx, func() error { return nil }) })
	if err == nil {
		err = db.Sync()
	}
	if err == nil {
		err = os.Rename(tmp, s.path)
	}
	closeBolt(db)
	if err != nil {
		_ = os.Remove(tmp)
		return r, fmt.Errorf("store file %s: %w", s.path, err)
	}
	if info, err := os.Stat(s.path); err == nil {
		r.BytesAfter = info.Size()
	}
	return r, syncDir(filepath.Dir(s.path))
}

// Repair copies what can be read of a store, damaged or not, into a new file,
// which must not exist. The old one is not changed.
func Repair(from, to string) (r SalvageReport, err error) {
	from = existingFile(from)
	if _, err := os.Lstat(to); err == nil {
		return r, fmt.Errorf("%s exists", to)
	}
	f, err := lockExisting(from)
	if err != nil {
		return r, err
	}
	defer f.Close()
	r, err = salvageTo(from, to, 0)
	if err != nil {
		return r, fmt.Errorf("store file %s: %w", from, err)
	}
	return r, nil
}

// Backup writes a copy of a running store, as of some commit, and gives its
// size and number (Stats.CommitNumber). Commits go on meanwhile, but do not use
// again the pages that they free: the file may grow by what is written until
// Backup returns. On 32-bit systems, where a commit that makes the file grow
// would wait for a slow writer, the copy is made in a file beside the store
// first. It is opened like any store; it is not compacted.
func (s *Store) Backup(w io.Writer) (bytes int64, commit uint64, err error) {
	if !is32bit {
		return s.copyOut(w)
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), fileName+".backup-*")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return 0, 0, err
	}
	if bytes, commit, err = s.copyOut(f); err != nil {
		return bytes, commit, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, 0, err
	}
	bytes, err = io.Copy(w, f)
	return bytes, commit, err
}

// copyOut writes a copy within one transaction.
func (s *Store) copyOut(w io.Writer) (bytes int64, commit uint64, err error) {
	s.dbMu.RLock() // a compaction waits
	defer s.dbMu.RUnlock()
	if s.db == nil || s.broken {
		return 0, 0, errClosed
	}
	out := &failing{w: w}
	err = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			if st, err := persist.DecodeState(keyState, tx.Bucket(bucketMeta).Get(keyState)); err == nil {
				commit = st.Commit
			}
			bytes, err = tx.WriteTo(out)
			return err
		})
	})
	if err != nil && out.err != nil {
		err = out.err // not the store's fault
	}
	return bytes, commit, err
}

// failing remembers the error of a writer.
type failing struct {
	w   io.Writer
	err error
}

func (f *failing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil {
		f.err = err
		err = errors.Join(errors.New("backup"), err)
	}
	return n, err
}
