package bolt

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// DESIGN. A commit ends with a meta page and a sync. If that sync fails, or the
// process dies before it, the page may be in the kernel's cache only: we read
// it there, and a kernel that has failed to write a page may not try again. A
// transaction that built on it would overwrite pages that the meta page before
// still needs, which is the one that a power cut would leave. So what we read is
// in doubt until the newest meta page has been written once more, and synced:
// before the first transaction after the file was opened, and after each that
// failed with its meta page written. The pages that it leads to are not in
// doubt, for their sync came before it was written.

// newestMeta reads the newer of the valid meta pages.
func newestMeta(f *os.File) (m fileMeta, ok bool) {
	c := &checker{f: f}
	err := c.readMeta()
	return c.meta, err == nil
}

// reachedMeta tells whether a failed transaction has written its meta page, as
// far as one can see.
func (s *Store) reachedMeta(txid int) bool {
	m, ok := newestMeta(s.file)
	return !ok || m.txid >= uint64(txid)
}

// confirm makes the newest meta page durable.
func (s *Store) confirm() error {
	m, ok := newestMeta(s.file)
	if !ok {
		return damaged("no valid meta page")
	}
	page := make([]byte, m.pageSize)
	off := int64(m.txid%2) * int64(m.pageSize)
	write := func() error {
		if _, err := s.file.ReadAt(page, off); err != nil {
			return err
		}
		if _, err := s.file.WriteAt(page, off); err != nil {
			return err
		}
		return fdatasync(s.file)
	}
	if hook := s.opt.hooks.confirm; hook != nil {
		write = hook(write)
	}
	if err := write(); err != nil {
		return fmt.Errorf("last commit in doubt: %w", err)
	}
	s.account(m.pageSize, 0)
	s.doubt = false
	return nil
}

// fdatasync does not use File.Fd, which would make the descriptor blocking.
func fdatasync(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := c.Control(func(fd uintptr) { serr = unix.Fdatasync(int(fd)) }); err != nil {
		return err
	}
	return serr
}
