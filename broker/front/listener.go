package front

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sluice/broker/wire"
	"sluice/platform"
)

// DESIGN. A listening socket is a plain descriptor that all workers watch; each
// accepts for itself. Front opens and closes them, and nothing else touches
// them.

// How a certificate names its user (Listener.CertificateUser).
const (
	UserCommonName = "common_name" // the subject's common name
	UserSubject    = "subject"     // the whole subject, RFC 2253
)

const (
	// keepAliveDefault: a peer without an MQTT keepalive that lost its power is found after six minutes or so. More
	// often would wake sleeping radios for nothing.
	keepAliveDefault = 5 * time.Minute

	// userTimeoutDefault: a radio cell that is out of reach for a minute may come back; two minutes of unsent data
	// say that it does not, and the messages are better kept by the session than by the kernel.
	userTimeoutDefault = 2 * time.Minute
)

// Listener is one address to listen on.
type Listener struct {
	// Address is host:port, or unix:/path.
	Address        string
	ConnectionsMax int // 0: no limit of its own

	Device   string      // take connections of this network interface only; "": all. TCP only
	UnixMode os.FileMode // of the socket's path: who may write to it may connect; 0: as the umask says

	TLS             *TLS                   // nil: none
	WebSocket       *wire.WebSocketOptions // nil: plain MQTT
	Proxy           bool                   // connections begin with a PROXY protocol header
	Anonymous       bool                   // who shows no credentials is let in
	CertificateUser string                 // how a client's certificate names its user; "": it does not

	// KeepAlive is how long a connection is silent before the kernel asks the peer whether it lives; UserTimeout how
	// long sent bytes, such a question included, may stay unconfirmed. TCP only. 0: 5 and 2 minutes; negative: never
	// asked, and the kernel's rule.
	KeepAlive, UserTimeout time.Duration
}

// Socket is an open listener.
type Socket struct {
	Listener
	FD    int
	Bound string        // the address it is bound to: with the real port if port 0 was asked for
	Open  *atomic.Int64 // connections that came by it
	path  string        // of a unix socket that has one
}

// Open opens all listeners, or none; then its error lists what was wrong with each.
func Open(ls []Listener) ([]*Socket, error) {
	var open []*Socket
	var errs []error
	for _, l := range ls {
		s, err := listen(l)
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %q: %w", l.Address, err))
			continue
		}
		open = append(open, s)
	}
	if len(errs) > 0 {
		return nil, errors.Join(append(errs, Close(open))...)
	}
	return open, nil
}

func listen(l Listener) (*Socket, error) {
	if err := l.validate(); err != nil {
		return nil, err
	}
	network, address := "tcp", l.Address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	fd, bound, err := platform.Listen(network, address, platform.ListenOptions{
		Device:      l.Device,
		Mode:        l.UnixMode,
		KeepAlive:   orDefault(l.KeepAlive, keepAliveDefault),
		UserTimeout: orDefault(l.UserTimeout, userTimeoutDefault),
	})
	if err != nil {
		if r := remedy(network, address, l.Device, err); r != "" {
			err = fmt.Errorf("%w; %s", err, r)
		}
		return nil, err
	}
	s := &Socket{Listener: l, FD: fd, Bound: bound, Open: new(atomic.Int64)}
	if network == "unix" && !strings.HasPrefix(address, "@") {
		s.path = address
	}
	return s, nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return max(d, 0)
}

// validate lists what is wrong with l itself.
func (l Listener) validate() error {
	var errs []error
	if !strings.HasPrefix(l.Address, "unix:") {
		if _, _, err := net.SplitHostPort(l.Address); err != nil {
			errs = append(errs, fmt.Errorf("%w; give host:port, [ipv6]:port or unix:/path", err))
		}
		if l.UnixMode != 0 {
			errs = append(errs, errors.New("a mode is for unix sockets only"))
		}
	} else if l.Device != "" {
		errs = append(errs, errors.New("a unix socket has no network interface"))
	}
	switch l.CertificateUser {
	case "":
	case UserCommonName, UserSubject:
		if l.TLS == nil || l.TLS.opt.ClientCertificate == CertificateNone {
			errs = append(errs, errors.New("users are to be named by their certificates, but clients are asked for none"))
		}
	default:
		errs = append(errs, fmt.Errorf("user by certificate %q, want %q, %q or nothing", l.CertificateUser, UserCommonName, UserSubject))
	}
	return errors.Join(errs...)
}

// remedy says what can be done about an error of Listen; "": nothing better than the error itself.
func remedy(network, address, device string, err error) string {
	_, port, _ := net.SplitHostPort(address)
	switch {
	case errors.Is(err, unix.EADDRINUSE) && network == "unix":
		return "another process listens there, or what is there is no socket: stop it, remove the path, or use another one"
	case errors.Is(err, unix.EADDRINUSE):
		return "another process has the port, often another broker; find it with: ss -ltnp 'sport = :" + port + "', or use another port"
	case errors.Is(err, unix.EACCES) && network == "unix":
		return "the broker's user may not create files in that directory; change its owner, or use /run with RuntimeDirectory= of systemd"
	case errors.Is(err, unix.EACCES) && lowPort(port):
		return "ports below 1024 need a privilege: AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, " +
			"or sysctl net.ipv4.ip_unprivileged_port_start=" + port + ", or use a higher port"
	case errors.Is(err, unix.ENODEV):
		return "there is no network interface " + device + "; there are: " + interfaces()
	case errors.Is(err, unix.EPERM) && device != "":
		return "binding to an interface needs CAP_NET_RAW on this kernel: AmbientCapabilities=CAP_NET_RAW in the systemd unit"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return "the address is not one of this machine, or not yet: listen on all addresses and name the interface instead, " +
			"or start after network-online.target"
	case errors.Is(err, unix.EAFNOSUPPORT):
		return "this kernel has no support for that kind of address; use IPv4, as in 0.0.0.0:" + port
	case errors.Is(err, fs.ErrNotExist) && network == "unix":
		return "the directory does not exist; create it, or use RuntimeDirectory= of systemd"
	case errors.Is(err, unix.EINVAL) && network == "unix":
		return "a socket's path has at most 107 bytes; use a shorter one"
	}
	return ""
}

func lowPort(port string) bool {
	n, err := strconv.Atoi(port)
	return err != nil || n < 1024 // a service's name is one of a low port, as a rule
}

// interfaces lists the names of the network interfaces.
func interfaces() string {
	all, _ := net.Interfaces()
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}

// Close closes listeners, and removes the paths of unix sockets.
func Close(ss []*Socket) error {
	var errs []error
	for _, s := range ss {
		errs = append(errs, platform.CloseFD(s.FD))
		if s.path != "" {
			if err := os.Remove(s.path); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
