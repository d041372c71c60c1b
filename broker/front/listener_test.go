package front

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/platform"
)

func TestListeners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	abstract := "@sluice-front-test-" + filepath.Base(t.TempDir()) + time.Now().String()
	ss, err := Open([]Listener{
		{Address: "127.0.0.1:0"},
		{Address: "127.0.0.1:0", Device: "lo", KeepAlive: time.Minute, UserTimeout: -1},
		{Address: "unix:" + path, UnixMode: 0o660},
		{Address: "unix:" + abstract},
	})
	must(t, err)
	for i, s := range ss {
		network := "tcp"
		if i >= 2 {
			network = "unix"
		}
		conn, err := net.Dial(network, s.Bound)
		must(t, err)
		readable(t, s.FD)
		fd, _, err := platform.Accept(s.FD)
		must(t, err)
		if i < 2 {
			for option, want := range map[int][2]int{unix.TCP_KEEPIDLE: {300, 60}, unix.TCP_USER_TIMEOUT: {120000, 0}} {
				if got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, option); got != want[i] || err != nil {
					t.Errorf("listener %d: option %d is %d (%v), want %d", i, option, got, err, want[i])
				}
			}
		}
		platform.CloseFD(fd)
		conn.Close()
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	must(t, Close(ss))
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket's path is left: %v", err)
	}
}

// Errors name the cause and what can be done; all listeners are tried, and none is left open.
func TestListenErrors(t *testing.T) {
	s := newSite(t)
	noCertificates := s.tls(t)
	taken, err := Open([]Listener{{Address: "127.0.0.1:0"}})
	must(t, err)
	defer Close(taken)
	file := s.file(t, "file", []byte("content"))
	tests := []struct {
		l    Listener
		want []string
	}{
		{Listener{Address: taken[0].Bound}, []string{taken[0].Bound, "another process has the port", "ss -ltnp"}},
		{Listener{Address: "127.0.0.1:0", Device: "no-such"}, []string{"no network interface no-such", "lo"}},
		{Listener{Address: "192.0.2.1:0"}, []string{"not one of this machine"}},
		{Listener{Address: "127.0.0.1"}, []string{"give host:port"}},
		{Listener{Address: "unix:" + file}, []string{file, "is no socket"}},
		{Listener{Address: "unix:/no/such/s"}, []string{"the directory does not exist"}},
		{Listener{Address: "unix:/" + strings.Repeat("x", 200)}, []string{"at most 107 bytes"}},
		{Listener{Address: "unix:/s", Device: "lo"}, []string{"no network interface"}},
		{Listener{Address: "127.0.0.1:0", UnixMode: 0o600}, []string{"unix sockets only"}},
		{Listener{Address: "127.0.0.1:0", CertificateUser: "cn"}, []string{`"cn"`, UserCommonName, UserSubject}},
		{Listener{Address: "127.0.0.1:0", CertificateUser: UserSubject}, []string{"asked for none"}},
		{Listener{Address: "127.0.0.1:0", CertificateUser: UserCommonName, TLS: noCertificates}, []string{"asked for none"}},
	}
	files := openFiles(t)
	var all []Listener
	var wants []string
	for _, test := range tests {
		all, wants = append(all, test.l, Listener{Address: "127.0.0.1:0"}), append(wants, test.want...)
		_, err := Open([]Listener{{Address: "127.0.0.1:0"}, test.l})
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", test.l, err, want)
			}
		}
	}
	_, err = Open(all)
	for _, want := range wants {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("all at once: %q is missing", want)
		}
	}
	if now := openFiles(t); now != files {
		t.Errorf("%d files were open, now %d", files, now)
	}
}

// These need a user without privileges, or an odd kernel.
func TestRemedies(t *testing.T) {
	tests := []struct {
		network, address, device string
		err                      error
		want                     string
	}{
		{"tcp", ":883", "", unix.EACCES, "CAP_NET_BIND_SERVICE"},
		{"tcp", ":1883", "", unix.EACCES, ""},
		{"unix", "/run/s", "", unix.EACCES, "RuntimeDirectory="},
		{"tcp", ":1883", "eth0", unix.EPERM, "CAP_NET_RAW"},
		{"tcp", "[::1]:1883", "", unix.EAFNOSUPPORT, "0.0.0.0:1883"},
		{"tcp", ":1883", "", unix.ENOBUFS, ""},
	}
	for _, test := range tests {
		got := remedy(test.network, test.address, test.device, os.NewSyscallError("x", test.err))
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%v: %q, want %q", test, got, test.want)
		}
	}
}
