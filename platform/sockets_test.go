package platform

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/platform/mono"
)

// accept waits for a connection on a listener.
func accept(t testing.TB, fd int) int {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, int(patience.Milliseconds())); n != 1 {
		t.Fatalf("nobody connects: %d, %v", n, err)
	}
	conn, _, err := Accept(fd)
	must(t, err)
	return conn
}

func TestListenTCP(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "localhost:0", "[::1]:0", ":0", "0.0.0.0:0", "[::]:0"} {
		t.Run(address, func(t *testing.T) {
			fd, addr, err := Listen("tcp", address, ListenOptions{
				Backlog: 16, KeepAlive: time.Minute, UserTimeout: 30 * time.Second})
			must(t, err)
			defer unix.Close(fd)
			bound, err := netip.ParseAddrPort(addr)
			must(t, err)
			if bound.Port() == 0 {
				t.Fatalf("bound to %s", addr)
			}
			if _, _, err := Accept(fd); err != unix.EAGAIN {
				t.Fatalf("Accept without a caller: %v", err)
			}
			client, err := net.Dial("tcp", addr)
			must(t, err)
			defer client.Close()
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			unix.Poll(fds, int(patience.Milliseconds()))
			conn, remote, err := Accept(fd)
			must(t, err)
			defer unix.Close(conn)
			if want := netip.MustParseAddrPort(client.LocalAddr().String()); remote != want {
				t.Errorf("remote is %v, want %v", remote, want)
			}
			inherited := []struct{ level, option, want int }{
				{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
				{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
				{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
				{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30000},
			}
			for _, o := range inherited {
				if got, err := unix.GetsockoptInt(conn, o.level, o.option); got != o.want || err != nil {
					t.Errorf("option %d of an accepted connection is %d (%v), want %d", o.option, got, err, o.want)
				}
			}
			checkFlags(t, fd)
			checkFlags(t, conn)
		})
	}
}

// checkFlags wants a descriptor to be non-blocking and close-on-exec.
func checkFlags(t *testing.T, fd int) {
	t.Helper()
	status, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	must(t, err)
	own, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	must(t, err)
	if status&unix.O_NONBLOCK == 0 || own&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor %d: status flags %#x, descriptor flags %#x", fd, status, own)
	}
}

// The wildcard of both families takes IPv4 callers as IPv4 addresses, where the machine has IPv6 at all.
func TestWildcardTakesIPv4(t *testing.T) {
	fd, addr, err := Listen("tcp", ":0", ListenOptions{})
	must(t, err)
	defer unix.Close(fd)
	_, port, _ := net.SplitHostPort(addr)
	client, err := net.Dial("tcp4", net.JoinHostPort("127.0.0.1", port))
	must(t, err)
	defer client.Close()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	unix.Poll(fds, int(patience.Milliseconds()))
	conn, remote, err := Accept(fd)
	must(t, err)
	defer unix.Close(conn)
	if !remote.Addr().Is4() {
		t.Fatalf("remote is %v", remote)
	}
}

func TestListenErrors(t *testing.T) {
	fd, addr, err := Listen("tcp", "127.0.0.1:0", ListenOptions{})
	must(t, err)
	defer unix.Close(fd)
	tests := []struct {
		network, address string
		opts             ListenOptions
		want             error
	}{
		{"tcp", addr, ListenOptions{}, unix.EADDRINUSE},
		{"tcp", "127.0.0.1", ListenOptions{}, nil},
		{"tcp", "127.0.0.1:99999", ListenOptions{}, nil},
		{"tcp", "127.0.0.1:0", ListenOptions{Device: "no-such-device"}, unix.ENODEV},
		{"udp", "127.0.0.1:0", ListenOptions{}, nil},
		{"unix", "", ListenOptions{}, nil},
		{"unix", "/no/such/directory/s", ListenOptions{}, unix.ENOENT},
	}
	for _, test := range tests {
		fd, _, err := Listen(test.network, test.address, test.opts)
		if err == nil {
			unix.Close(fd)
			t.Errorf("%s %s: no error", test.network, test.address)
			continue
		}
		if test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s %s: %v, want %v", test.network, test.address, err, test.want)
		}
		if !strings.Contains(err.Error(), test.address) {
			t.Errorf("%q does not name %s", err, test.address)
		}
	}
}

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, addr, err := Listen("unix", path, ListenOptions{})
	must(t, err)
	if addr != path {
		t.Errorf("addr %q", addr)
	}
	client, err := net.Dial("unix", path)
	must(t, err)
	defer client.Close()
	conn, remote, err := Accept(fd)
	must(t, err)
	defer unix.Close(conn)
	if remote.IsValid() {
		t.Errorf("remote is %v", remote)
	}
	if _, _, err := Listen("unix", path, ListenOptions{}); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a living listener was replaced: %v", err)
	}
	must(t, CloseFD(fd))
	fd, _, err = Listen("unix", path, ListenOptions{}) // its file is still there
	must(t, err)
	must(t, CloseFD(fd))

	for _, mode := range []os.FileMode{0o600, 0o777} { // no umask leaves both as they are
		fd, _, err = Listen("unix", path, ListenOptions{Mode: mode})
		must(t, err)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %v, want %v (%v)", info.Mode(), mode, err)
		}
		must(t, CloseFD(fd))
	}

	file := filepath.Join(t.TempDir(), "precious")
	must(t, os.WriteFile(file, []byte("x"), 0o600))
	if _, _, err := Listen("unix", file, ListenOptions{}); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a file in the way: %v", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file that is no socket was removed: %v", err)
	}
}

// Two pollers share a listener: every one of many connections is accepted, whoever gets it.
func TestSharedListenerLosesNoConnection(t *testing.T) {
	const connections = 400
	fd, addr, err := Listen("tcp", "127.0.0.1:0", ListenOptions{Backlog: connections})
	must(t, err)
	defer unix.Close(fd)
	var accepted, woken, empty atomic.Int64
	var group sync.WaitGroup
	var pollers []*Poller
	for range 2 {
		p := newPoller(t)
		pollers = append(pollers, p)
		must(t, p.AddListener(fd, 1))
		group.Go(func() {
			dst := make([]Event, 4)
			for {
				n, stop, err := p.Wait(dst, mono.Now().Add(patience))
				if stop || err != nil {
					return
				}
				if n == 0 {
					t.Errorf("no connection for %v, %d accepted", patience, accepted.Load())
					return
				}
				woken.Add(1)
				conn, _, err := Accept(fd) // one per event: the rest is reported again
				if err == unix.EAGAIN {
					empty.Add(1)
					continue
				}
				if err != nil {
					t.Errorf("accept: %v", err)
					return
				}
				unix.Close(conn)
				if accepted.Add(1) == connections {
					for _, p := range pollers {
						p.Wake()
					}
				}
			}
		})
	}
	for range connections {
		client, err := net.Dial("tcp", addr)
		must(t, err)
		defer client.Close()
	}
	group.Wait()
	t.Logf("%d accepted in %d wake-ups, %d of them for nothing", accepted.Load(), woken.Load(), empty.Load())
	if accepted.Load() != connections {
		t.Fatalf("%d of %d connections accepted", accepted.Load(), connections)
	}
}

func TestReadAndWrite(t *testing.T) {
	a, b := pair(t)
	defer unix.Close(a)
	buf := make([]byte, 64<<10)
	if _, err := Read(a, buf); err != unix.EAGAIN {
		t.Fatalf("read from an empty socket: %v", err)
	}
	if n, err := Write(a, nil); n != 0 || err != nil {
		t.Fatalf("empty write: %d, %v", n, err)
	}
	// Until it is full, and then all of it arrives.
	pattern := bytes.Repeat([]byte("0123456789"), 1000)
	sent, received := 0, 0
	for {
		n, err := Write(b, pattern)
		sent += n
		if err == unix.EAGAIN {
			break
		}
		must(t, err)
	}
	unix.Close(b)
	for {
		n, err := Read(a, buf)
		received += n
		if err == io.EOF {
			break
		}
		must(t, err)
	}
	if received != sent || sent == 0 {
		t.Fatalf("sent %d, received %d", sent, received)
	}
	if _, err := Write(a, pattern); err != unix.EPIPE {
		t.Fatalf("write to a closed peer: %v", err)
	}
}

func TestWritev(t *testing.T) {
	a, b := pair(t)
	defer unix.Close(a)
	defer unix.Close(b)
	if n, err := Writev(a, [][]byte{nil, {}}); n != 0 || err != nil {
		t.Fatalf("nothing to write: %d, %v", n, err)
	}
	bufs := [][]byte{[]byte("ab"), nil, []byte("c"), {}, []byte("def")}
	if n, err := Writev(a, bufs); n != 6 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	many := make([][]byte, 100)
	for i := range many {
		many[i] = []byte{byte(i)}
	}
	if n, err := Writev(a, many); n != iovMax || err != nil {
		t.Fatalf("of 100 buffers it wrote %d bytes, %v; want %d", n, err, iovMax)
	}
	buf := make([]byte, 200)
	n, err := Read(b, buf)
	must(t, err)
	if want := append([]byte("abcdef"), byte(0)); !bytes.HasPrefix(buf[:n], want) || n != 6+iovMax || buf[n-1] != iovMax-1 {
		t.Fatalf("received % x", buf[:n])
	}
	if n := testing.AllocsPerRun(100, func() {
		Writev(a, bufs)
		Read(b, buf)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSocketpair(t *testing.T) {
	fd, conn, err := Socketpair()
	must(t, err)
	checkFlags(t, fd)
	if size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF); size < pairBufferBytes/2 || err != nil {
		t.Errorf("send buffer of %d bytes, %v", size, err)
	}
	p := newPoller(t)
	must(t, p.Add(fd, 5, false))

	payload := bytes.Repeat([]byte("x"), 1<<20)
	done := make(chan error, 1)
	go func() {
		if _, err := conn.Write(payload); err != nil {
			done <- err
			return
		}
		echo := make([]byte, 4)
		_, err := io.ReadFull(conn, echo)
		conn.Close()
		if err == nil && string(echo) != "done" {
			err = errors.New(string(echo))
		}
		done <- err
	}()
	buf := make([]byte, 32<<10)
	for received := 0; ; {
		events, _ := wait(t, p)
		if len(events) != 1 {
			t.Fatalf("%d bytes received, then %+v", received, events)
		}
		n, err := Read(fd, buf)
		if err == io.EOF {
			break
		}
		if err == unix.EAGAIN {
			continue
		}
		must(t, err)
		if received += n; received == len(payload) {
			mustWrite(t, fd, "done")
		}
	}
	must(t, <-done)
	must(t, p.Remove(fd))
	must(t, CloseFD(fd))
}
