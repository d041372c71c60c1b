package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sluice/persist"
)

// DESIGN. The file is opened and locked by us, checked, and then handed to
// bbolt, so that nobody can come in between. Whatever goes wrong with the
// contents is a damageError, whether we find it, or bbolt panics over it, or a
// read faults: then the file is moved aside, and we begin with an empty one.

const (
	fileName     = "sluice.db"
	lockTimeout  = time.Second
	lockInterval = 20 * time.Millisecond

	// pageBytes is the same on all systems, so that a commit writes no more
	// where the kernel's pages have 16 or 64 KiB, and files can be moved.
	pageBytes = 4096

	// growBytes is by how much the file grows; each time costs a sync.
	growBytes = 4 << 20

	// The map is made this long from the start: it is only addresses, and to
	// map anew makes readers and the committer wait for each other.
	mapBytes   = 1 << 30
	mapBytes32 = 8 << 20

	// reserveBytes of the permitted size are kept for transactions that only
	// remove.
	reserveBytes = 256 << 10
)

// filePath gives the path of the file, and makes its directories.
func filePath(path string) (string, error) {
	if info, err := os.Stat(path); filepath.Ext(path) != ".db" || err == nil && info.IsDir() {
		path = filepath.Join(path, fileName)
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", fmt.Errorf("store directory: %w", err)
		}
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return "", err
		}
	}
	return path, nil
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("store directory: %w", err)
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("store directory %s: %w", dir, err)
	}
	return nil
}

// lockFile opens the file, creating it if need be, and locks it. The lock goes
// with the last descriptor, so with the process at the latest.
func lockFile(path string) (*os.File, error) {
	deadline := time.Now().Add(lockTimeout)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("store file: %w", err)
		}
		err = flock(f)
		if err == nil && sameFile(f, path) {
			return f, nil
		}
		f.Close()
		switch {
		case err != nil && !errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("store file %s: lock: %w", path, err)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("store file %s is in use by %s", path, lockHolder(path))
		}
		time.Sleep(lockInterval)
	}
}

func flock(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var lerr error
	if err := c.Control(func(fd uintptr) { lerr = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		return err
	}
	return lerr
}

// mappable tells whether a file of so many bytes can be mapped.
func mappable(bytes int64, path string, is32bit bool) error {
	if is32bit && bytes > maxMappedBytes {
		return fmt.Errorf("store file %s has %d bytes, a 32-bit system can map at most %d: drain or compact it on a 64-bit system, or move it away", path, bytes, maxMappedBytes)
	}
	return nil
}

// sameFile tells whether path still names f: while we waited for the lock, the
// other process may have moved the file and made another.
func sameFile(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// openFile opens the file and reads what Load gives. A damaged file is moved
// aside once, and what could be read of it is put in its place.
func (s *Store) openFile() error {
	if err := finishSalvage(s.path); err != nil {
		return err
	}
	err := s.openOnce()
	if !isDamage(err) {
		return err
	}
	report, serr := salvageTo(s.path, salvagePath(s.path), s.opt.MaxFileBytes)
	if serr != nil {
		s.log.Error("nothing could be salvaged of the damaged store file", zap.String("file", s.path), zap.Error(serr))
	}
	moved, merr := quarantine(s.path)
	if merr == nil {
		merr = finishSalvage(s.path)
	}
	if merr != nil {
		return errors.Join(err, merr)
	}
	s.quarantined, s.salvaged = moved, report.Records()
	s.log.Error("store file is damaged: moved aside, going on with what could be read of it",
		zap.String("file", s.path), zap.String("moved_to", moved), zap.Error(err),
		zap.Int("sessions", report.Sessions), zap.Int("messages", report.Messages), zap.Int("retained", report.Retained),
		zap.Int("damaged_pages", report.BadPages), zap.Int("damaged_records", report.BadRecords))
	return s.openOnce()
}

// openOnce opens the file as it is.
func (s *Store) openOnce() error {
	f, err := lockFile(s.path)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("store file: %w", err)
	}
	if err := mappable(info.Size(), s.path, is32bit); err != nil {
		f.Close()
		return err
	}
	fresh := info.Size() == 0
	s.clean = !fresh
	if !fresh {
		if s.clean, err = checkFile(f, info.Size()); err != nil {
			f.Close()
			return err
		}
	}
	if fresh {
		empty := f
		defer empty.Close() // and with it the lock: by then the new file has its name, and is locked
		if f, err = newFile(s.path + partialNew); err != nil {
			return err
		}
	}
	db, err := openBolt(f, s.opt.MaxFileBytes)
	if err != nil {
		f.Close() // also drops the lock, if bbolt panicked and left the file open
		return err
	}
	s.opened(db)
	if err := s.readFile(db, fresh); err != nil {
		closeBolt(db)
		return err
	}
	if fresh {
		if err := replaceFile(s.path+partialNew, s.path); err != nil {
			closeBolt(db)
			return err
		}
	}
	s.db, s.file, s.doubt = db, f, !fresh
	return nil
}

// partialNew ends the name of a new file until it is complete: who is killed while he
// makes the first one must not find half of it, and take it for a damaged one.
const partialNew = ".new"

// newFile opens and locks an empty file; what was left of an earlier attempt goes.
func newFile(path string) (*os.File, error) {
	f, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, fmt.Errorf("store file: %w", err)
	}
	return f, nil
}

// replaceFile gives a complete file its name, durably.
func replaceFile(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("store file: %w", err)
	}
	return syncDir(filepath.Dir(to))
}

func (s *Store) opened(db *bbolt.DB) {
	if hook := s.opt.hooks.opened; hook != nil {
		hook(db)
	}
}

// readFile prepares a fresh file, or checks and loads an old one.
func (s *Store) readFile(db *bbolt.DB, fresh bool) error {
	if fresh {
		if err := db.Update(createBuckets); err != nil {
			return fmt.Errorf("store file %s: %w", s.path, err)
		}
	}
	err := guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			s.fileBytes.Store(tx.Size())
			if err := checkSchema(tx, s.path); err != nil {
				return err
			}
			return s.load(tx)
		})
	})
	if err == nil && fresh {
		s.account(freshBytes+written(db)+pageBytes, 1)
	}
	return err
}

// freshBytes is what bbolt writes into an empty file.
const freshBytes = 4 * pageBytes

// written gives the bytes of all pages that transactions of db have written,
// without the one meta page for each.
func written(db *bbolt.DB) uint64 {
	st := db.Stats().TxStats
	return uint64(st.GetPageAlloc())
}

func checkSchema(tx *bbolt.Tx, path string) error {
	for _, name := range bucketNames[:bucketsFirst] {
		if tx.Bucket(name) == nil {
			return damaged("no bucket %q", name)
		}
	}
	version, err := persist.DecodeNumber(keySchema, tx.Bucket(bucketMeta).Get(keySchema))
	if err != nil {
		return damaged("no version")
	}
	if version > schema {
		return fmt.Errorf("store file %s has format %d, this program knows formats up to %d: go back to the newer program, or move the file away", path, version, schema)
	}
	return nil
}

// openBolt gives a locked file to bbolt.
func openBolt(f *os.File, maxBytes int64) (db *bbolt.DB, err error) {
	opt := bbolt.Options{
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		PageSize:        pageBytes,
		InitialMmapSize: mapBytes,
		MaxSize:         int(maxBytes),
		OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	}
	if is32bit {
		opt.InitialMmapSize = mapBytes32
	}
	if opt.MaxSize > 0 {
		opt.MaxSize -= reserveBytes
		opt.InitialMmapSize = min(opt.InitialMmapSize, int(maxBytes))
	}
	err = guard(func() error {
		db, err = bbolt.Open(f.Name(), 0o600, &opt)
		if err != nil && !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.ENOSPC) {
			return damaged("%v", err)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	db.AllocSize = growBytes
	return db, nil
}

// closeBolt closes a file that is not used for writing.
func closeBolt(db *bbolt.DB) { _ = guard(db.Close) }

// guard turns a panic over a damaged file, and a fault of the memory that it is
// mapped to, into a damageError.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if msg := fmt.Sprint(r); strings.HasPrefix(msg, "BUG: ") {
				panic(r)
			}
			err = damaged("%v", r)
		}
	}()
	return f()
}

// quarantine moves the file aside, to the first free name of the form
// sluice.db.corrupt-<n>.
func quarantine(path string) (string, error) {
	for n := 1; ; n++ {
		moved := fmt.Sprintf("%s.corrupt-%d", path, n)
		if _, err := os.Lstat(moved); err == nil {
			continue
		}
		if err := os.Rename(path, moved); err != nil {
			return "", fmt.Errorf("store file: %w", err)
		}
		return moved, syncDir(filepath.Dir(path))
	}
}
