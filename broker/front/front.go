// Package front holds what stands between the network and the workers: the
// listening sockets. (TLS handshakes and password hashing, which take long and
// so cannot run on a worker, belong here as well when they come.)
//
// DESIGN. A listening socket is a plain descriptor that all workers watch; each
// accepts for itself. Front opens and closes them, and nothing else touches
// them.
package front

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"

	"sluice/platform"
)

// Listener is one address to listen on.
type Listener struct {
	// Address is host:port, or unix:/path.
	Address        string
	ConnectionsMax int // 0: no limit of its own
}

// Socket is an open listener.
type Socket struct {
	Listener
	FD    int
	Bound string        // the address it is bound to: with the real port if port 0 was asked for
	Open  *atomic.Int64 // connections that came by it
	path  string        // of a unix socket
}

// Open opens all listeners, or none.
func Open(ls []Listener) ([]*Socket, error) {
	var open []*Socket
	for _, l := range ls {
		s, err := listen(l)
		if err != nil {
			return nil, errors.Join(err, Close(open))
		}
		open = append(open, s)
	}
	return open, nil
}

func listen(l Listener) (*Socket, error) {
	network, address := "tcp", l.Address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	} else if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("listener %q: %w; give host:port, [ipv6]:port or unix:/path", l.Address, err)
	}
	fd, bound, err := platform.Listen(network, address, platform.ListenOptions{})
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", l.Address, err)
	}
	s := &Socket{Listener: l, FD: fd, Bound: bound, Open: new(atomic.Int64)}
	if network == "unix" {
		s.path = address
	}
	return s, nil
}

// Close closes listeners, and removes the paths of unix sockets.
func Close(ss []*Socket) error {
	var errs []error
	for _, s := range ss {
		errs = append(errs, platform.CloseFD(s.FD))
		if s.path != "" {
			errs = append(errs, os.Remove(s.path))
		}
	}
	return errors.Join(errs...)
}
