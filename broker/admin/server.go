package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bridge"
	"sluice/broker/worker"
	"sluice/persist"
)

// SocketName is the name of the socket in the data directory.
const SocketName = "control.sock"

// Source is what the server tells about.
type Source struct {
	Version string
	Stats   func() (worker.Stats, persist.Stats)
	Bridges func() []bridge.Status // nil: there are none
	// Backup writes a copy of the store and gives its size and commit number; nil: the store
	// has no file.
	Backup func(w io.Writer) (bytes int64, commit uint64, err error)
}

// connectionsMax is how many questions may be asked at once. Who comes later waits.
const connectionsMax = 8

// Server answers on the socket.
type Server struct {
	source Source
	began  time.Time
	http   http.Server
	path   string
	info   os.FileInfo // of the socket
	tasks  sync.WaitGroup
}

// Listen makes the socket in dir and begins to answer. A socket that a dead process left is
// replaced, that of a living one is an error.
func Listen(dir string, source Source) (*Server, error) {
	s := &Server{source: source, began: time.Now(), path: filepath.Join(dir, SocketName)}
	if c, err := Dial(context.Background(), dir); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("control socket %s: another process answers there", s.path)
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := within(dir, func(path string) (net.Listener, error) { return net.Listen("unix", path) })
	if err == nil {
		l.(*net.UnixListener).SetUnlinkOnClose(false) // its name may not be its path; and see Close
		err = os.Chmod(s.path, 0o600)
	}
	if err == nil {
		s.info, err = os.Lstat(s.path)
	}
	if err != nil {
		if l != nil {
			_ = l.Close()
		}
		return nil, fmt.Errorf("control socket %s: %w", s.path, err)
	}
	mux := http.NewServeMux()
	for path, serve := range map[string]http.HandlerFunc{
		"/api/v1/health": s.health, "/api/v1/status": s.status, "/api/v1/store/backup": s.backup, "/metrics": s.metrics,
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			s.tasks.Add(1)
			defer s.tasks.Done()
			serve(w, r)
		})
	}
	s.http = http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 5 * time.Second, MaxHeaderBytes: 8 << 10}
	bounded := &bounded{Listener: l, free: make(chan struct{}, connectionsMax), closed: make(chan struct{})}
	s.tasks.Go(func() { _ = s.http.Serve(bounded) }) // ends with Close
	return s, nil
}

// Close ends all connections, waits for their goroutines, and takes the socket away, unless
// it is another process's by now.
func (s *Server) Close() error {
	err := s.http.Close()
	s.tasks.Wait()
	if now, lerr := os.Lstat(s.path); lerr == nil && os.SameFile(now, s.info) {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}

// Dial connects to the server of the broker that has its data in dir.
func Dial(ctx context.Context, dir string) (net.Conn, error) {
	return within(dir, func(path string) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) })
}

// within calls f with a path of the socket that is short enough for the kernel, which takes
// 107 bytes: by way of a descriptor of the directory if need be.
func within[T any](dir string, f func(path string) (T, error)) (T, error) {
	path := filepath.Join(dir, SocketName)
	if len(path) < 100 {
		return f(path)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		var none T
		return none, fmt.Errorf("%s: %w", dir, err)
	}
	defer func() { _ = unix.Close(fd) }()
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", fd, SocketName))
}

// bounded is a listener with at most cap(free) connections open.
type bounded struct {
	net.Listener
	free   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.free <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.free
		return nil, err
	}
	return &counted{Conn: c, free: b.free}, nil
}

func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

type counted struct {
	net.Conn
	free chan struct{}
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { <-c.free })
	return c.Conn.Close()
}
