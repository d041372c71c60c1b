package rig

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// DESIGN. A Host is a network namespace of our own, held by one thread that lives in
// it: what is done there is done on that thread. A socket belongs for ever to the
// namespace in which it was made, and a process to that of the thread that started it.
// At the end the thread goes home and lives on: any thread may have started
// processes before it came to us, and they would die with it (Pdeathsig).
//
// Two Hosts are joined by a Network. Their addresses are of 127/8 all the same, so
// that nothing in a test can ever name a machine elsewhere; the kernel has to be told
// that these may go over a wire.

// Host is one end of a Network.
type Host struct {
	IP   net.IP
	jobs chan func()
	done chan struct{}
	tap  *os.File
	home int // the namespace that the thread came from, a descriptor
}

// newHost makes a namespace with one interface, which hands its frames to us.
func newHost(ip net.IP) (*Host, error) {
	h := &Host{IP: ip, jobs: make(chan func()), done: make(chan struct{})}
	go h.live()
	if err := h.Do(func() error { return h.set() }); err != nil {
		h.close()
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return h, nil
}

func (h *Host) live() {
	defer close(h.done)
	runtime.LockOSThread()
	for job := range h.jobs {
		job()
	}
	if h.home > 0 {
		if err := unix.Setns(h.home, unix.CLONE_NEWNET); err != nil {
			panic(fmt.Sprintf("BUG: a thread does not get out of its network namespace: %v", err))
		}
		_ = unix.Close(h.home)
	}
	runtime.UnlockOSThread()
}

// Do calls f on the host: sockets that it opens and processes that it starts belong
// there, as long as f does it itself and leaves it to no other goroutine.
func (h *Host) Do(f func() error) error {
	answer := make(chan error, 1)
	h.jobs <- func() { answer <- f() }
	return <-answer
}

// Dial connects from this host. It fits ClientOptions.Dial.
func (h *Host) Dial(address string) (conn net.Conn, err error) {
	err = h.Do(func() error {
		conn, err = net.DialTimeout("tcp", address, connectMax)
		return err
	})
	return conn, err
}

const tapName = "tap0"

func (h *Host) set() error {
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		_ = unix.Close(home)
		return err
	}
	h.home = home
	if err := h.openTap(); err != nil {
		return err
	}
	for _, name := range []string{"all", tapName} {
		if err := sysctl(name, "route_localnet", "1"); err != nil {
			return err
		}
		if err := sysctl(name, "rp_filter", "0"); err != nil {
			return err
		}
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	// The kernel gives 127.0.0.1/8 to lo when it comes up; it must leave the rest to us.
	if err := up(s, "lo"); err != nil {
		return err
	}
	if err := address(s, "lo", unix.SIOCSIFNETMASK, net.IPv4bcast); err != nil {
		return err
	}
	if err := address(s, tapName, unix.SIOCSIFADDR, h.IP); err != nil {
		return err
	}
	if err := address(s, tapName, unix.SIOCSIFNETMASK, net.IPv4(255, 255, 255, 0)); err != nil {
		return err
	}
	return up(s, tapName)
}

func (h *Host) openTap() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w", err)
	}
	r, err := unix.NewIfreq(tapName)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
		return fmt.Errorf("make a TAP device: %w", err)
	}
	h.tap = os.NewFile(uintptr(fd), tapName)
	return nil
}

func sysctl(device, key, value string) error {
	return os.WriteFile("/proc/sys/net/ipv4/conf/"+device+"/"+key, []byte(value), 0o644)
}

func up(s int, device string) error {
	r, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}

func address(s int, device string, what uint, ip net.IP) error {
	r, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	if err := r.SetInet4Addr(ip.To4()); err != nil {
		return err
	}
	return unix.IoctlIfreq(s, what, r)
}

// close ends the host; what still runs there keeps the namespace alive.
func (h *Host) close() {
	if h.tap != nil {
		_ = h.tap.Close() // ends the reader
	}
	close(h.jobs)
	<-h.done
}

// hostCloseMax is how long the frames of a Network may take to stop.
const hostCloseMax = 10 * time.Second
