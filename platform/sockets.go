package platform

// DESIGN: the broker's sockets are plain, non-blocking, close-on-exec descriptors that a worker's Poller watches; they
// are not registered with Go's runtime poller, so an idle connection costs no goroutine and no os.File. Options that
// every connection of a listener shares (TCP_NODELAY, keepalive, user timeout) are set once on the listening socket:
// Linux lets accepted sockets inherit them.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ListenOptions says how to listen. The zero value is sensible.
type ListenOptions struct {
	// Backlog is how many connections may wait for Accept; 0 means what the kernel allows (net.core.somaxconn).
	Backlog int
	// Device binds the socket to a network interface, such as "eth0"; "" means all. TCP only.
	Device string
	// KeepAlive is how long a connection may be silent before the kernel probes the peer; 0 means never. It finds
	// dead peers that asked for no MQTT keepalive. Whole seconds, TCP only.
	KeepAlive time.Duration
	// UserTimeout is how long sent bytes may stay unacknowledged before the kernel gives the connection up; 0 means
	// the kernel's rule, which is about 15 minutes. TCP only.
	UserTimeout time.Duration
	// Mode is the permission bits of the socket's path, set before anybody can connect; 0 means what the umask leaves.
	// Unix sockets with a path only.
	Mode os.FileMode
}

// Listen opens a listening socket for network "tcp" ("host:port"; the host may be a name, an IPv4 or a bracketed IPv6
// address, or empty for all addresses of both families) or "unix" (a path, or "@name" for an abstract one). It returns
// the address it is bound to: of port 0 that is the port which the kernel chose. A socket file that nobody listens on
// any more is replaced; CloseFD does not remove the file.
func Listen(network, address string, opts ListenOptions) (fd int, addr string, err error) {
	switch network {
	case "tcp":
		fd, addr, err = listenTCP(address, opts)
	case "unix":
		fd, addr, err = listenUnix(address, opts)
	default:
		err = errors.New("unknown network, want tcp or unix")
	}
	if err != nil {
		return -1, "", fmt.Errorf("listen %s %s: %w", network, address, err)
	}
	return fd, addr, nil
}

func listenTCP(address string, opts ListenOptions) (int, string, error) {
	ap, dual, err := resolve(address)
	if err != nil {
		return -1, "", err
	}
	family := unix.AF_INET
	if ap.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err == unix.EAFNOSUPPORT && dual {
		ap, dual, family = netip.AddrPortFrom(netip.IPv4Unspecified(), ap.Port()), false, unix.AF_INET
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	}
	if err != nil {
		return -1, "", fmt.Errorf("socket: %w", err)
	}
	if err := bindTCP(fd, ap, dual, opts); err != nil {
		unix.Close(fd)
		return -1, "", err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return -1, "", fmt.Errorf("getsockname: %w", err)
	}
	return fd, addrPort(sa).String(), nil
}

func bindTCP(fd int, ap netip.AddrPort, dual bool, opts ListenOptions) error {
	set := func(level, option, value int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, value))
	}
	err := errors.Join(
		set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		set(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
	)
	if ap.Addr().Is6() {
		only := 1
		if dual {
			only = 0
		}
		err = errors.Join(err, set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only))
	}
	if opts.Device != "" {
		err = errors.Join(err, os.NewSyscallError("bind to device", unix.BindToDevice(fd, opts.Device)))
	}
	if idle := int(opts.KeepAlive / time.Second); idle > 0 {
		err = errors.Join(err,
			set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
			set(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle),
			set(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, max(1, idle/4)))
	}
	if ms := int(min(opts.UserTimeout.Milliseconds(), 1<<31-1)); ms > 0 {
		err = errors.Join(err, set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms))
	}
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, sockaddr(ap)); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return os.NewSyscallError("listen", unix.Listen(fd, backlog(opts)))
}

func listenUnix(path string, opts ListenOptions) (int, string, error) {
	sa := &unix.SockaddrUnix{Name: path}
	if err := removeStale(path, sa); err != nil {
		return -1, "", err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, "", fmt.Errorf("socket: %w", err)
	}
	if err := os.NewSyscallError("bind", unix.Bind(fd, sa)); err != nil {
		unix.Close(fd)
		return -1, "", err
	}
	if opts.Mode != 0 && path[0] != '@' {
		err = os.Chmod(path, opts.Mode.Perm())
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, backlog(opts)))
	}
	if err != nil {
		unix.Close(fd)
		if path[0] != '@' {
			os.Remove(path) // bind made it
		}
		return -1, "", err
	}
	return fd, path, nil
}

// removeStale removes the socket file of a process that is gone: only if it is a socket and refuses connections.
func removeStale(path string, sa *unix.SockaddrUnix) error {
	if path == "" {
		return errors.New("empty path")
	}
	info, err := os.Lstat(path)
	if path[0] == '@' || err != nil || info.Mode().Type() != os.ModeSocket {
		return nil // bind says what is wrong, if anything is
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	if unix.Connect(fd, sa) != unix.ECONNREFUSED {
		return nil
	}
	return os.Remove(path)
}

// backlog is the argument of listen(2); the kernel cuts it down to net.core.somaxconn.
func backlog(opts ListenOptions) int {
	if opts.Backlog > 0 {
		return opts.Backlog
	}
	return 1<<16 - 1
}

// resolve turns "host:port" into an address to bind. dual says that the wildcard of both families is meant. Of a name
// with several addresses it takes the first IPv4 one, as net.Listen does.
func resolve(address string) (ap netip.AddrPort, dual bool, err error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, false, err
	}
	port, err := net.LookupPort("tcp", service)
	if err != nil {
		return netip.AddrPort{}, false, err
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(port)), true, nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		ips, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host)
		if err != nil {
			return netip.AddrPort{}, false, err
		}
		ip = ips[0]
		for _, candidate := range ips {
			if candidate.Unmap().Is4() {
				ip = candidate
				break
			}
		}
	}
	ip = ip.Unmap()
	return netip.AddrPortFrom(ip, uint16(port)), ip == netip.IPv6Unspecified(), nil
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16(), ZoneId: zoneID(ap.Addr().Zone())}
}

// zoneID is the index of an interface given by name or number; 0 if there is none.
func zoneID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if iface, err := net.InterfaceByName(zone); err == nil {
		return uint32(iface.Index)
	}
	n, err := strconv.ParseUint(zone, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// addrPort is the zero value for a unix socket, which has no port.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// Accept takes a waiting connection, non-blocking and close-on-exec. remote is the zero value for a unix socket.
// unix.EAGAIN means that none is waiting (another poller was faster); unix.ECONNABORTED that one left while it waited;
// unix.EMFILE and unix.ENFILE that descriptors have run out, and then the listener stays readable: the caller must
// pause it rather than spin.
func Accept(fd int) (conn int, remote netip.AddrPort, err error) {
	for {
		conn, sa, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, netip.AddrPort{}, err
		}
		return conn, addrPort(sa), nil
	}
}

// CloseFD closes a descriptor. On Linux it is closed whatever is returned, so it must not be tried again.
func CloseFD(fd int) error { return unix.Close(fd) }

// pairBufferBytes is asked for in each direction of a Socketpair, so that a window of messages fits without a
// wake-up per packet; the kernel caps it at net.core.wmem_max.
const pairBufferBytes = 256 << 10

// Socketpair connects a worker with a library that wants a net.Conn: brokerFD is a non-blocking descriptor for a
// Poller, conn the other end under Go's runtime poller. Each end is closed by its owner.
func Socketpair() (brokerFD int, conn net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("socketpair: %w", err)
	}
	for _, fd := range fds {
		// A smaller buffer than asked for is slower but not wrong.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, pairBufferBytes)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, pairBufferBytes)
	}
	file := os.NewFile(uintptr(fds[1]), "socketpair")
	defer file.Close() // FileConn works on a duplicate
	conn, err = net.FileConn(file)
	if err != nil {
		unix.Close(fds[0])
		return -1, nil, fmt.Errorf("socketpair: %w", err)
	}
	return fds[0], conn, nil
}
