package platform

// DESIGN: an epoll instance is itself pollable. Its descriptor is registered, non-blocking, with Go's runtime poller,
// and the instance is only ever drained with a zero timeout: a worker that waits is parked as a goroutine and holds no
// OS thread, and a worker that is busy pays for one system call per turn. The runtime poller is edge-triggered and
// remembers an edge that comes while nobody is parked, and RawConn.Read looks once more before it parks: nothing is
// lost in between. Sockets are level-triggered, so what a turn leaves unread comes back by itself in the next one.
//
// Events carry the caller's Tag and not the descriptor: a descriptor closed and reused within one batch of events
// would otherwise hit the wrong client.

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/platform/mono"
)

// Tag names what a descriptor stands for: slot and generation, packed as the caller likes. The value of all ones is
// the poller's own.
type Tag uint64

// wakeTag marks the poller's eventfd.
const wakeTag = ^Tag(0)

// Event is the readiness of one descriptor. Readable and Writable say that a call would not return EAGAIN; Hangup
// that the peer has gone or has at least shut down its sending half (there may still be bytes to read: Readable).
type Event struct {
	Tag      Tag
	Readable bool
	Writable bool
	Hangup   bool
}

// batchMax is how many events one Wait returns at most. At 12 to 16 bytes each it keeps a poller at 4 KiB, and one
// turn of a worker short enough for its timers.
const batchMax = 256

// Poller is one epoll instance with an eventfd. All methods but Wake belong to the goroutine that owns the poller.
type Poller struct {
	epfd  int
	file  *os.File        // epfd under the runtime poller; closing it closes epfd
	raw   syscall.RawConn // of file
	ready func(uintptr) bool

	events  [batchMax]unix.EpollEvent
	max     int   // how many of events the current Wait may fill
	n       int   // how many it has filled
	err     error // of the last drain, while parked
	armed   mono.Time
	expired bool // the armed deadline has passed: the runtime refuses to wait until it is set anew

	wakeMu sync.RWMutex // read: Wake, any goroutine; write: Close
	wakefd int          // -1 once closed
}

// NewPoller opens a poller. Close releases it.
func NewPoller() (*Poller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(epfd, true); err != nil {
		unix.Close(epfd)
		return nil, fmt.Errorf("epoll: set non-blocking: %w", err)
	}
	p := &Poller{epfd: epfd, file: os.NewFile(uintptr(epfd), "epoll"), wakefd: -1}
	if err := p.open(); err != nil {
		p.file.Close()
		return nil, err
	}
	return p, nil
}

func (p *Poller) open() error {
	// Fails where the runtime poller did not take the descriptor; without it Wait would hold a thread.
	if err := p.file.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("epoll under the runtime poller: %w", err)
	}
	raw, err := p.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("epoll under the runtime poller: %w", err)
	}
	p.raw = raw
	p.ready = p.drain
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if err := p.control(unix.EPOLL_CTL_ADD, wakefd, wakeTag, unix.EPOLLIN); err != nil {
		unix.Close(wakefd)
		return err
	}
	p.wakefd = wakefd
	return nil
}

// Close releases the poller. It must not run beside Wait. The registered descriptors stay open: they are their
// owners'. A Wake that comes later does nothing.
func (p *Poller) Close() error {
	p.wakeMu.Lock()
	defer p.wakeMu.Unlock()
	if p.wakefd < 0 {
		return os.ErrClosed
	}
	unix.Close(p.wakefd)
	p.wakefd = -1
	return p.file.Close()
}

// Add watches a socket for incoming bytes and for the peer's leaving, and for room in the send buffer if writable.
func (p *Poller) Add(fd int, tag Tag, writable bool) error {
	checkTag(tag)
	return p.control(unix.EPOLL_CTL_ADD, fd, tag, interest(true, writable))
}

// AddListener watches a listening socket that several pollers share. A connection makes every poller that is parked
// look (the kernel's exclusive wake-up does not reach through a nested epoll), but EPOLLEXCLUSIVE still spares those
// that are busy; the first Accept gets the connection and the others get EAGAIN. Modify is not allowed for it.
func (p *Poller) AddListener(fd int, tag Tag) error {
	checkTag(tag)
	return p.control(unix.EPOLL_CTL_ADD, fd, tag, unix.EPOLLIN|unix.EPOLLEXCLUSIVE)
}

// Modify changes what a descriptor is watched for, and its tag. With readable false a peer that only shut down its
// sending half is not reported either (it would be, without end, while the owner must not read); a connection that
// is gone in both directions always is.
func (p *Poller) Modify(fd int, tag Tag, readable, writable bool) error {
	checkTag(tag)
	return p.control(unix.EPOLL_CTL_MOD, fd, tag, interest(readable, writable))
}

// AwaitHangup is Modify with readable false, but a peer that only shut down its sending half is reported, too: the
// owner is to close the connection then, for it will be reported without end.
func (p *Poller) AwaitHangup(fd int, tag Tag, writable bool) error {
	checkTag(tag)
	return p.control(unix.EPOLL_CTL_MOD, fd, tag, interest(false, writable)|unix.EPOLLRDHUP)
}

// Remove stops watching. Closing a descriptor that has no duplicate does the same. Events of the batch that Wait
// has already returned still carry its tag.
func (p *Poller) Remove(fd int) error {
	if err := unix.EpollCtl(p.epfd, unix.EPOLL_CTL_DEL, fd, nil); err != nil {
		return fmt.Errorf("epoll_ctl: remove %d: %w", fd, err)
	}
	return nil
}

func checkTag(tag Tag) {
	if tag == wakeTag {
		panic(fmt.Sprintf("BUG: tag %#x is the poller's own", uint64(tag)))
	}
}

func interest(readable, writable bool) uint32 {
	var mask uint32
	if readable {
		mask |= unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if writable {
		mask |= unix.EPOLLOUT
	}
	return mask
}

// control puts the tag into the 64 bits of user data, which x/sys splits into Fd and Pad.
func (p *Poller) control(op, fd int, tag Tag, mask uint32) error {
	ev := unix.EpollEvent{Events: mask, Fd: int32(uint32(tag)), Pad: int32(uint32(tag >> 32))}
	if err := unix.EpollCtl(p.epfd, op, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: op %d on %d: %w", op, fd, err)
	}
	return nil
}

// Wake makes the current Wait, or the next one, return with woken set. Any goroutine may call it. Every call costs a
// system call: callers that wake often keep a flag (clear it before draining their mail, look again after).
func (p *Poller) Wake() {
	p.wakeMu.RLock()
	defer p.wakeMu.RUnlock()
	if p.wakefd < 0 {
		return
	}
	one := [8]byte{7: 1} // any non-zero number does, so its byte order is of no matter
	// EAGAIN: the counter is full, so a wake-up is pending already.
	if _, err := Write(p.wakefd, one[:]); err != nil && err != unix.EAGAIN {
		panic(fmt.Sprintf("BUG: write to eventfd %d: %v", p.wakefd, err))
	}
}

// Wait fills dst with what is ready, at most batchMax events, and parks the goroutine while nothing is. It returns
// n = 0 and woken = false once the deadline has passed; 0 means no deadline. A deadline in the past makes it a poll.
func (p *Poller) Wait(dst []Event, deadline mono.Time) (n int, woken bool, err error) {
	if len(dst) == 0 {
		panic("BUG: Wait without room for an event")
	}
	p.max = min(len(dst), batchMax)
	p.n, p.err = 0, nil
	if err := p.park(deadline); err != nil {
		return 0, false, err
	}
	if p.err != nil {
		return 0, false, fmt.Errorf("epoll_wait: %w", p.err)
	}
	return p.translate(dst)
}

// park waits in the runtime poller until drain finds something or the deadline passes.
func (p *Poller) park(deadline mono.Time) error {
	for {
		now := mono.Now()
		if deadline != 0 && now >= deadline {
			p.drain(0)
			return nil
		}
		if err := p.arm(deadline, now); err != nil {
			return err
		}
		err := p.raw.Read(p.ready)
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("epoll under the runtime poller: %w", err)
		}
		p.expired = true
	}
}

// arm sets the runtime's deadline only if the armed one is missing, too late or spent. One that is too early is left:
// most waits end before it, and when it does strike park arms the right one. So timers that move away with every
// packet, which is what keepalive does, cost nothing.
func (p *Poller) arm(deadline, now mono.Time) error {
	if !p.expired && (deadline == p.armed || p.armed != 0 && (deadline == 0 || p.armed < deadline)) {
		return nil
	}
	var t time.Time
	if deadline != 0 {
		t = time.Now().Add(deadline.Sub(now))
	}
	if err := p.file.SetReadDeadline(t); err != nil {
		return fmt.Errorf("epoll under the runtime poller: %w", err)
	}
	p.armed, p.expired = deadline, false
	return nil
}

// drain looks, without waiting, for what is ready; true means that there is something to return. It is also called by
// RawConn.Read, each time before that parks and after a wake-up.
func (p *Poller) drain(uintptr) bool {
	p.n, p.err = epollPoll(p.epfd, p.events[:p.max])
	return p.n > 0 || p.err != nil
}

func (p *Poller) translate(dst []Event) (n int, woken bool, err error) {
	for i := range p.events[:p.n] {
		ev := &p.events[i]
		tag := Tag(uint32(ev.Fd)) | Tag(uint32(ev.Pad))<<32
		if tag == wakeTag {
			woken = true
			var count [8]byte
			if _, err := Read(p.wakefd, count[:]); err != nil && err != unix.EAGAIN {
				return n, true, fmt.Errorf("read eventfd: %w", err)
			}
			continue
		}
		dst[n] = Event{
			Tag:      tag,
			Readable: ev.Events&unix.EPOLLIN != 0,
			Writable: ev.Events&unix.EPOLLOUT != 0,
			Hangup:   ev.Events&(unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLRDHUP) != 0,
		}
		n++
	}
	return n, woken, nil
}
