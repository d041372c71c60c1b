package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// DESIGN. A file that was removed, or whose directory was, goes on to exist for
// who has it open, and takes commits that nobody will ever find. So each
// commit looks whether the file is still under its name before it counts. If
// not, what is in it is copied into a new file of that name, and the commit is
// done again there; until that works, everything is pending, as with any disk
// that fails. A file that somebody has put there meanwhile is left alone: then
// commits fail until it is gone. And if the directory is on another file
// system than before, the disk itself is gone from under it, and is not
// replaced by what happens to lie beneath.

// errVanished says that a commit went into a file that has lost its name.
var errVanished = errors.New("the file is not there any more")

// checkName gives errVanished if the file is not under its name.
func (s *Store) checkName() error {
	if sameFile(s.file, s.path) {
		return nil
	}
	s.lost = true
	return errVanished
}

// putThere makes a new file of what is in the one that has lost its name.
func (s *Store) putThere() error {
	if s.db == nil || s.broken {
		return fmt.Errorf("%w, and cannot be read", errVanished)
	}
	if sameFile(s.file, s.path) { // it is back
		s.lost = false
		return nil
	}
	if _, err := os.Lstat(s.path); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("another file has taken the place of the store file: move it away"), err)
	}
	dir := filepath.Dir(s.path)
	there := dir
	for there != "/" && there != "." {
		if _, err := os.Lstat(there); err == nil {
			break
		}
		there = filepath.Dir(there)
	}
	if a, b := device(s.file.Name(), s.file), device(there, nil); a != b {
		return fmt.Errorf("%w, and its directory is on another file system than before: is the disk mounted?", errVanished)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := s.compact(never); err != nil {
		return fmt.Errorf("%w, and could not be written anew: %w", errVanished, err)
	}
	s.lost = false
	s.log.Error("store file was removed while in use: written anew", zap.String("file", s.path))
	return nil
}

// device is the file system of an open file, or of a path; 0 if it is not known.
func device(path string, f *os.File) uint64 {
	var st unix.Stat_t
	if f == nil {
		if unix.Stat(path, &st) != nil {
			return 0
		}
		return uint64(st.Dev)
	}
	c, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	var serr error
	if err := c.Control(func(fd uintptr) { serr = unix.Fstat(int(fd), &st) }); err != nil || serr != nil {
		return 0
	}
	return uint64(st.Dev)
}

// lockHolder says who has locked a file, as far as the kernel tells.
func lockHolder(path string) string {
	var st unix.Stat_t
	list, err := os.ReadFile("/proc/locks")
	if err == nil {
		err = unix.Stat(path, &st)
	}
	if err != nil {
		return "another process"
	}
	// 1: FLOCK  ADVISORY  WRITE 4711 fe:00:123456 0 EOF
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], fmt.Sprintf(":%d", st.Ino)) {
			continue
		}
		if f[5] != fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino) {
			continue
		}
		if f[4] == "0" || f[4] == "-1" { // in another namespace
			break
		}
		return "another process: pid " + f[4]
	}
	return "another process"
}
