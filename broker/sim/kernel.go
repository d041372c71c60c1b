package sim

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"sluice/platform"
	"sluice/platform/mono"
)

// DESIGN. kernel is the operating system as the workers see it: one table of
// descriptors for the process, and an epoll instance (vnet) for each worker.
// It is stricter than Linux: a call with a descriptor that is closed, is
// registered where it must not be, or belongs to another worker is a violation
// even if Linux would only return an error, for in a busy process the number
// could have been given to somebody else by then. Half of the seeds reuse
// numbers at once, as Linux does; the others never, so that no such use can
// hide.

// listenFD is the descriptor of the listening socket that all workers share.
const listenFD = 3

type kernel struct {
	w       *World
	files   []*file // by descriptor; nil: not open
	open    int
	backlog []*sock
}

// file is an open descriptor of a connection.
type file struct {
	sock     *sock
	holder   int // the worker that may use it; nobody while it is handed over
	watched  bool
	lent     bool // to a handshake: whoever ends it empties it first, as always
	tag      platform.Tag
	readable bool // what it is watched for
	writable bool
	hangup   bool // it is not read, but must be seen to leave
}

const nobody = -1

func newKernel(w *World) *kernel { return &kernel{w: w, files: make([]*file, listenFD+1)} }

// put opens a descriptor.
func (k *kernel) put(s *sock, holder int) int {
	fd := len(k.files)
	if k.w.cfg.reuseFDs {
		for i := listenFD + 1; i < len(k.files); i++ {
			if k.files[i] == nil {
				fd = i
				break
			}
		}
	}
	if fd == len(k.files) {
		k.files = append(k.files, nil)
	}
	k.files[fd] = &file{sock: s, holder: holder}
	s.fd = fd
	k.open++
	return fd
}

// vnet is the worker.Net of one worker.
type vnet struct {
	k         *kernel
	id        int
	woken     bool
	listening bool
	listenTag platform.Tag
	closed    bool
	events    []platform.Event
}

// use finds an open descriptor that this worker may use.
func (v *vnet) use(fd int, what string) *file {
	if fd < 0 || fd >= len(v.k.files) || v.k.files[fd] == nil {
		v.k.w.fail("descriptor", "worker %d: %s of descriptor %d, which is not open", v.id, what, fd)
	}
	f := v.k.files[fd]
	if f.holder != v.id && (f.holder != nobody || what != "add" && what != "close" && !(f.lent && what == "read")) {
		v.k.w.fail("descriptor", "worker %d: %s of descriptor %d, which belongs to worker %d", v.id, what, fd, f.holder)
	}
	return f
}

// Add implements worker.Net.
func (v *vnet) Add(fd int, tag platform.Tag, writable bool) error {
	f := v.use(fd, "add")
	if f.watched {
		v.k.w.fail("descriptor", "worker %d: add of descriptor %d, which is watched", v.id, fd)
	}
	f.lent = false
	f.holder, f.watched, f.tag, f.readable, f.writable = v.id, true, tag, true, writable
	return nil
}

// AddListener implements worker.Net.
func (v *vnet) AddListener(fd int, tag platform.Tag) error {
	if fd != listenFD || v.listening {
		v.k.w.fail("descriptor", "worker %d: listener %d added, listening %v", v.id, fd, v.listening)
	}
	v.listening, v.listenTag = true, tag
	return nil
}

// Modify implements worker.Net.
func (v *vnet) Modify(fd int, tag platform.Tag, readable, writable bool) error {
	f := v.use(fd, "modify")
	if !f.watched {
		v.k.w.fail("descriptor", "worker %d: modify of descriptor %d, which is not watched", v.id, fd)
	}
	f.tag, f.readable, f.writable, f.hangup = tag, readable, writable, false
	return nil
}

// AwaitHangup implements worker.Net.
func (v *vnet) AwaitHangup(fd int, tag platform.Tag, writable bool) error {
	err := v.Modify(fd, tag, false, writable)
	v.use(fd, "modify").hangup = true
	return err
}

// Remove implements worker.Net.
func (v *vnet) Remove(fd int) error {
	if fd == listenFD {
		if !v.listening {
			v.k.w.fail("descriptor", "worker %d: listener removed twice", v.id)
		}
		v.listening = false
		return nil
	}
	f := v.use(fd, "remove")
	if !f.watched {
		v.k.w.fail("descriptor", "worker %d: remove of descriptor %d, which is not watched", v.id, fd)
	}
	f.watched, f.holder = false, nobody
	return nil
}

// Accept implements worker.Net.
func (v *vnet) Accept(fd int) (int, netip.AddrPort, error) {
	w := v.k.w
	if fd != listenFD {
		w.fail("descriptor", "worker %d: accept on descriptor %d", v.id, fd)
	}
	if len(v.k.backlog) == 0 {
		return 0, netip.AddrPort{}, unix.EAGAIN
	}
	if !w.healing && w.chance(w.cfg.emfile) {
		w.note("emfile", "kernel", int64(v.id), 0, "")
		return 0, netip.AddrPort{}, unix.EMFILE
	}
	s := v.k.backlog[0]
	v.k.backlog = v.k.backlog[1:]
	if s.reset && w.chance(0.5) {
		s.closed = true
		return 0, netip.AddrPort{}, unix.ECONNABORTED
	}
	n := v.k.put(s, v.id)
	w.note("accept", "kernel", int64(s.n), int64(n), "")
	return n, s.remote, nil
}

// Read implements worker.Net.
func (v *vnet) Read(fd int, b []byte) (int, error) {
	if len(b) == 0 {
		v.k.w.fail("descriptor", "worker %d: read of descriptor %d into an empty buffer", v.id, fd)
	}
	return v.use(fd, "read").sock.read(v.k.w, b)
}

// Write implements worker.Net.
func (v *vnet) Write(fd int, b []byte) (int, error) {
	return v.use(fd, "write").sock.write(v.k.w, b)
}

// CloseFD implements worker.Net.
func (v *vnet) CloseFD(fd int) error {
	f := v.use(fd, "close")
	v.k.w.note("close", "kernel", int64(f.sock.n), int64(fd), "")
	v.k.files[fd] = nil
	v.k.open--
	f.sock.closeByBroker(v.k.w)
	return nil
}

// Wake implements worker.Net.
func (v *vnet) Wake() { v.woken = true }

// Close implements worker.Net.
func (v *vnet) Close() error {
	v.closed = true
	return nil
}

// ready appends the events of all that is ready, in the order of the
// descriptors.
func (v *vnet) ready(dst []platform.Event) []platform.Event {
	if v.listening && len(v.k.backlog) > 0 {
		dst = append(dst, platform.Event{Tag: v.listenTag, Readable: true})
	}
	for _, f := range v.k.files {
		if f == nil || !f.watched || f.holder != v.id {
			continue
		}
		s := f.sock
		e := platform.Event{Tag: f.tag,
			Readable: f.readable && (len(s.rx) > 0 || s.rxEnd || s.reset),
			Writable: f.writable && (len(s.tx) < s.txBytes || s.reset),
			// That the peer only finished sending is told to those who read.
			Hangup: s.reset || s.rxEnd && (f.readable || f.hangup),
		}
		if e.Readable || e.Writable || e.Hangup {
			dst = append(dst, e)
		}
	}
	return dst
}

// take gives some of what is ready, in any order, as epoll might.
func (v *vnet) take() []platform.Event {
	w := v.k.w
	v.events = v.ready(v.events[:0])
	w.rng.Shuffle(len(v.events), func(i, j int) { v.events[i], v.events[j] = v.events[j], v.events[i] })
	if n := len(v.events); n > 1 && w.chance(0.3) {
		v.events = v.events[:w.between(1, n)]
	}
	return v.events
}

// isReady tells whether take would give anything.
func (v *vnet) isReady() bool {
	v.events = v.ready(v.events[:0])
	return len(v.events) > 0
}

// Wait implements worker.Net. Nobody calls it: the world gives the turns.
func (v *vnet) Wait([]platform.Event, mono.Time) (int, bool, error) {
	panic("BUG: Wait in the simulator")
}
