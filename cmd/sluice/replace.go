package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// DESIGN. A file is replaced, never written into: a new one is written beside it, synced,
// and takes its name. Whoever reads it, and whatever happens, sees the old content or the
// new one. It keeps owner and permissions, or the broker, which is not root, could not
// read what root has changed.

// edit replaces the content of a file by what change makes of it. Two that edit at
// once do so one after the other. create: the file must not exist, and is made for
// its owner only.
func edit(path string, create bool, change func(old []byte) ([]byte, error)) (err error) {
	if path, err = resolve(path, create); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }() // which ends the lock
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	old, err := os.ReadFile(path)
	switch {
	case create && err == nil:
		return fmt.Errorf("%s is there already: leave out -c to change it", path)
	case create && errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is not there: -c creates it", path)
	case err != nil:
		return err
	}
	text, err := change(old)
	if err != nil {
		return err
	}
	temp, err := writeBeside(path, text)
	if err == nil {
		if err = os.Rename(temp, path); err == nil {
			return dir.Sync()
		}
	}
	return errors.Join(err, removeIfThere(temp))
}

// resolve follows symbolic links, so that the file and not the link is replaced.
func resolve(path string, create bool) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		if create {
			return path, nil
		}
		return "", fmt.Errorf("%s is not there: -c creates it", path)
	}
	return real, err
}

// writeBeside writes a new file with the permissions and the owner of the one at
// path, if there is one, and syncs it. After an error the file may be there.
func writeBeside(path string, text []byte) (name string, err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if info, statErr := os.Stat(path); statErr == nil {
		var owner unix.Stat_t
		if err := unix.Stat(path, &owner); err != nil {
			return file.Name(), err
		}
		var mine unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &mine); err != nil {
			return file.Name(), err
		}
		if owner.Uid != mine.Uid || owner.Gid != mine.Gid {
			if err := file.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
				return file.Name(), fmt.Errorf("the file would not keep its owner: %w", err)
			}
		}
		if err := file.Chmod(info.Mode().Perm()); err != nil { // after the owner: a change of that may clear bits
			return file.Name(), err
		}
	}
	if _, err := file.Write(text); err != nil {
		return file.Name(), err
	}
	return file.Name(), file.Sync()
}

func removeIfThere(name string) error {
	if name == "" {
		return nil
	}
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
