package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// attach makes a loop device over a file. It goes by itself when the result is closed
// and it is not mounted.
func attach(backing int) (*os.File, error) {
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/loop-control: %w", err)
	}
	defer func() { _ = unix.Close(control) }() // nothing is written to it
	const triesMax = 100                       // others may take a free device before us
	for range triesMax {
		n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("look for a free loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
			Fd: uint32(backing), Size: sectorBytes, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}})
		if err == nil {
			return device, nil
		}
		_ = device.Close() // it was not configured
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("make %s: %w", device.Name(), err)
		}
	}
	return nil, errors.New("no loop device is free for long enough")
}

// mountImage mounts the file system in a file, by way of a loop device that goes when it
// is unmounted.
func mountImage(backing int, at string) error {
	device, err := attach(backing)
	if err != nil {
		return err
	}
	err = unix.Mount(device.Name(), at, "ext4", unix.MS_NOATIME, "")
	if err != nil {
		err = fmt.Errorf("mount: %w", err)
	}
	return errors.Join(err, device.Close())
}

// newExt4 makes an image with an empty file system.
func newExt4(dir string, bytes int64) ([]byte, error) {
	path := filepath.Join(dir, "empty.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(path, bytes); err != nil {
		return nil, err
	}
	make := exec.Command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", path)
	make.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin") // where Debian has it
	if make.Err != nil {
		make.Path, make.Err = "/usr/sbin/mkfs.ext4", nil
	}
	if text, err := make.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mkfs.ext4: %w: %s", err, text)
	}
	return os.ReadFile(path)
}

// Disk is a Platter with a mounted file system.
type Disk struct {
	*Platter
	Dir   string // where it is mounted
	offer *Offer
}

// NewDisk makes a disk of so many bytes and mounts it in a directory below dir.
func NewDisk(dir string, bytes int64, lies bool) (*Disk, error) {
	image, err := newExt4(dir, bytes)
	if err != nil {
		return nil, err
	}
	d := &Disk{Platter: NewPlatter(image, lies), Dir: filepath.Join(dir, "live")}
	file := filepath.Join(dir, "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(d.Dir, 0o700)); err != nil {
		return nil, err
	}
	if d.offer, err = OfferAt(file, d.Platter); err != nil {
		return nil, err
	}
	backing, err := unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(mountImage(backing, d.Dir), unix.Close(backing))
	}
	if err != nil {
		return nil, errors.Join(err, d.offer.Close())
	}
	return d, nil
}

// Close unmounts it.
func (d *Disk) Close() error {
	if err := unix.Unmount(d.Dir, 0); err != nil {
		return fmt.Errorf("unmount the file system: %w", err)
	}
	return d.offer.Close()
}

// MountCopy mounts an image at a directory. Unmounting frees it.
func MountCopy(image []byte, at string) error {
	fd, err := unix.MemfdCreate("cut", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "cut")
	if _, err = f.Write(image); err == nil {
		err = mountImage(fd, at)
	}
	return errors.Join(err, f.Close())
}
