package worker

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"sluice/platform"
	"sluice/platform/mono"
)

// sock is one end of a connection: the worker's. The test plays the other.
type sock struct {
	fd                 int
	in                 []byte // sent to the worker and not read
	out                []byte // written by the worker
	room               int    // what the worker may still write; below 0: anything
	end                error  // what Read gives when in is empty; nil: EAGAIN
	net                *fakeNet
	tag                platform.Tag
	readable, writable bool // what it is watched for
	hangup             bool
	closed             bool
	remote             netip.AddrPort
	writes             int
}

// fakeNet is the operating system of one worker.
type fakeNet struct {
	r       *rig
	watched []*sock
	listens bool
	backlog []int // connections to be accepted
	buf     []platform.Event
	wakes   int
}

func (n *fakeNet) sock(fd int) *sock {
	s := n.r.socks[fd]
	if s.closed {
		panic(fmt.Sprintf("BUG: descriptor %d is used after it was closed", fd))
	}
	return s
}

func (n *fakeNet) Add(fd int, tag platform.Tag, writable bool) error {
	s := n.sock(fd)
	if s.net != nil {
		panic(fmt.Sprintf("BUG: descriptor %d is watched twice", fd))
	}
	s.net, s.tag, s.readable, s.writable = n, tag, true, writable
	n.watched = append(n.watched, s)
	return nil
}

func (n *fakeNet) AddListener(int, platform.Tag) error {
	n.listens = true
	return nil
}

func (n *fakeNet) Modify(fd int, tag platform.Tag, readable, writable bool) error {
	s := n.sock(fd)
	if s.net != n || s.tag != tag {
		panic(fmt.Sprintf("BUG: descriptor %d has tag %#x, not %#x", fd, s.tag, tag))
	}
	s.readable, s.writable, s.hangup = readable, writable, false
	return nil
}

func (n *fakeNet) AwaitHangup(fd int, tag platform.Tag, writable bool) error {
	err := n.Modify(fd, tag, false, writable)
	n.sock(fd).hangup = true
	return err
}

func (n *fakeNet) Remove(fd int) error {
	if fd == listenFD {
		n.listens = false
		return nil
	}
	s := n.sock(fd)
	s.net = nil
	n.watched = slices.DeleteFunc(n.watched, func(x *sock) bool { return x == s })
	return nil
}

func (n *fakeNet) Accept(int) (int, netip.AddrPort, error) {
	if len(n.backlog) == 0 {
		return 0, netip.AddrPort{}, unix.EAGAIN
	}
	fd := n.backlog[0]
	n.backlog = n.backlog[1:]
	return fd, n.r.socks[fd].remote, nil
}

func (n *fakeNet) Read(fd int, b []byte) (int, error) {
	s := n.sock(fd)
	if len(s.in) == 0 {
		if s.end != nil {
			return 0, s.end
		}
		return 0, unix.EAGAIN
	}
	c := copy(b, s.in)
	s.in = s.in[c:]
	return c, nil
}

func (n *fakeNet) Write(fd int, b []byte) (int, error) {
	s := n.sock(fd)
	if s.room == 0 {
		return 0, unix.EAGAIN
	}
	if s.room > 0 {
		b = b[:min(len(b), s.room)]
		s.room -= len(b)
	}
	s.writes++
	s.out = append(s.out, b...)
	return len(b), nil
}

func (n *fakeNet) CloseFD(fd int) error {
	s := n.sock(fd)
	if s.net != nil {
		if err := s.net.Remove(fd); err != nil {
			return err
		}
	}
	s.closed = true
	return nil
}

func (n *fakeNet) Wait([]platform.Event, mono.Time) (int, bool, error) { return 0, false, nil }
func (n *fakeNet) Wake()                                               { n.wakes++ }
func (n *fakeNet) Close() error                                        { return nil }

// events gives what a level-triggered poller would report.
func (n *fakeNet) events() []platform.Event {
	n.buf = n.buf[:0]
	if n.listens && len(n.backlog) > 0 {
		n.buf = append(n.buf, platform.Event{Tag: listenerTag, Readable: true})
	}
	slices.SortFunc(n.watched, func(a, b *sock) int { return cmp.Compare(a.fd, b.fd) })
	for _, s := range n.watched {
		e := platform.Event{Tag: s.tag, Readable: s.readable && (len(s.in) > 0 || s.end != nil), Writable: s.writable && s.room != 0}
		e.Hangup = s.end == io.EOF && (s.readable || s.hangup) || s.end != nil && s.end != io.EOF
		if e.Readable || e.Writable || e.Hangup {
			n.buf = append(n.buf, e)
		}
	}
	return n.buf
}
