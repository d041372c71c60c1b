package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// DESIGN. A FUSE file system may consist of one regular file, mounted upon a file: then
// there are no names and no directories, and a dozen opcodes do. The file is a Platter.
// One goroutine reads requests from /dev/fuse and answers each at once. FOPEN_DIRECT_IO
// keeps the kernel's page cache out of it: what the loop device writes is written here,
// and its flush arrives as FSYNC. The protocol is that of linux/fuse.h, version 7.31.

// Opcodes.
const (
	opForget      = 2
	opGetattr     = 3
	opSetattr     = 4
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opRelease     = 18
	opFsync       = 20
	opFlush       = 25
	opInit        = 26
	opInterrupt   = 36
	opDestroy     = 38
	opBatchForget = 42
)

const (
	inHeaderBytes  = 40
	outHeaderBytes = 16
	writeBytesMax  = 1 << 20
	flagBigWrites  = 1 << 5
	flagMaxPages   = 1 << 22
	openDirectIO   = 1
	fileMode       = unix.S_IFREG | 0o600
)

// Offer is a Platter that is offered as a file.
type Offer struct {
	path    string
	fd      int
	platter *Platter
	task    sync.WaitGroup
	err     error // why the server ended, nil in order; valid after task
}

// OfferAt mounts a platter upon the file at path.
func OfferAt(path string, p *Platter) (*Offer, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other", fd, fileMode)
	if err := unix.Mount("crash", path, "fuse", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		_ = unix.Close(fd) // the error that matters is known
		return nil, fmt.Errorf("mount the disk: %w", err)
	}
	o := &Offer{path: path, fd: fd, platter: p}
	o.task.Go(func() { o.err = o.serve() })
	return o, nil
}

// Close ends it. Nobody may have the file open.
func (o *Offer) Close() error {
	if err := unix.Unmount(o.path, 0); err != nil {
		return fmt.Errorf("unmount the disk: %w", err)
	}
	o.task.Wait()
	return errors.Join(o.err, unix.Close(o.fd))
}

func (o *Offer) serve() error {
	buf := make([]byte, writeBytesMax+4096)
	for {
		n, err := unix.Read(o.fd, buf)
		switch {
		case err == unix.ENODEV: // unmounted
			return nil
		case err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT: // ENOENT: the request was taken back
			continue
		case err != nil:
			return fmt.Errorf("read from /dev/fuse: %w", err)
		case n < inHeaderBytes:
			return fmt.Errorf("a request of %d bytes", n)
		}
		if err := o.answer(buf[:n]); err != nil {
			return err
		}
	}
}

// answer handles one request.
func (o *Offer) answer(request []byte) error {
	le := binary.NativeEndian
	body := request[inHeaderBytes:]
	var out []byte
	var errno unix.Errno
	switch op := le.Uint32(request[4:]); op {
	case opForget, opBatchForget, opInterrupt:
		return nil // these have no answer
	case opInit:
		out = initAnswer(le.Uint32(body[8:]))
	case opGetattr, opSetattr:
		out = o.attributes()
	case opOpen:
		out = make([]byte, 16)
		le.PutUint32(out[8:], openDirectIO)
	case opRead:
		out = make([]byte, le.Uint32(body[16:]))
		out = out[:o.platter.Read(out, int64(le.Uint64(body[8:])))]
	case opWrite:
		size := le.Uint32(body[16:])
		if !o.platter.Write(body[40:40+size], int64(le.Uint64(body[8:]))) {
			errno = unix.ENOSPC
			break
		}
		out = make([]byte, 8)
		le.PutUint32(out, size)
	case opFsync:
		o.platter.Flush()
	case opFlush, opRelease, opDestroy:
	default:
		errno = unix.ENOSYS
	}
	answer := make([]byte, outHeaderBytes, outHeaderBytes+len(out))
	le.PutUint32(answer, uint32(outHeaderBytes+len(out)))
	le.PutUint32(answer[4:], uint32(-int32(errno)))
	copy(answer[8:], request[8:16]) // the request's number
	_, err := unix.Write(o.fd, append(answer, out...))
	if err != nil && err != unix.ENOENT && err != unix.ENODEV { // the request was taken back, or all is over
		return fmt.Errorf("write to /dev/fuse: %w", err)
	}
	return nil
}

// initAnswer is struct fuse_init_out.
func initAnswer(readAhead uint32) []byte {
	le, out := binary.NativeEndian, make([]byte, 64)
	le.PutUint32(out, 7)
	le.PutUint32(out[4:], 31)
	le.PutUint32(out[8:], readAhead)
	le.PutUint32(out[12:], flagBigWrites|flagMaxPages)
	le.PutUint16(out[16:], 64) // requests under way
	le.PutUint16(out[18:], 48) // from which on the kernel thinks us busy
	le.PutUint32(out[20:], writeBytesMax)
	le.PutUint32(out[24:], 1) // ns, of times
	le.PutUint16(out[28:], writeBytesMax/4096)
	return out
}

// attributes is struct fuse_attr_out.
func (o *Offer) attributes() []byte {
	le, out := binary.NativeEndian, make([]byte, 104)
	a := out[16:]
	le.PutUint64(a, 1) // the root's number
	le.PutUint64(a[8:], uint64(o.platter.Bytes()))
	le.PutUint64(a[16:], uint64(o.platter.Bytes()/sectorBytes))
	le.PutUint32(a[60:], fileMode)
	le.PutUint32(a[64:], 1) // links
	le.PutUint32(a[80:], 4096)
	return out
}
