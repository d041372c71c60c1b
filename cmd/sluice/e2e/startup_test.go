package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/sluice/e2e/rig"
)

// ended runs the program until it ends by itself, and returns exit code and
// output.
func ended(t testing.TB, args ...string) (int, string) {
	t.Helper()
	p, err := rig.Start("sluice", raceBinary, args...)
	must(t, err)
	t.Cleanup(p.Kill)
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatalf("sluice %v did not end:\n%s", args, p.Log())
	}
	return p.ExitCode(), p.Log()
}

func contains(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		text string
		want []string
	}{
		"unknown key":    {"workers = 1\n[limits]\ninflight_mx = 3\n", []string{"sluice.toml:3", "limits.inflight_mx", "inflight_max"}},
		"wrong type":     {"\nworkers = \"many\"\n", []string{"sluice.toml:2", "workers", "many"}},
		"out of range":   {"[limits]\n\ninflight_max = 70000\n", []string{"sluice.toml:3", "limits.inflight_max", "70000", "65535"}},
		"no TOML":        {"workers = 1\n[limits\n", []string{"sluice.toml:2"}},
		"bad address":    {"[[listener]]\naddress = \"127.0.0.1\"\n", []string{"sluice.toml:2", "listener[0].address"}},
		"open to others": {"[[listener]]\naddress = \"0.0.0.0:1883\"\n", []string{"sluice.toml:", "listener[0]", "allow_anonymous"}},
		"bridge": {"[[bridge]]\nname = \"b\"\naddress = \"http://x\"\n[[bridge.route]]\ndirection = \"up\"\nfilter = \"a/#/b\"\n",
			[]string{"sluice.toml:3", "bridge[0].address", "sluice.toml:5", "bridge[0].route[0].direction", "sluice.toml:6", "bridge[0].route[0].filter"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "sluice.toml")
			must(t, os.WriteFile(file, []byte(test.text), 0o600))
			for _, command := range []string{"run", "check"} {
				code, out := ended(t, command, "-c", file)
				if code != 2 {
					t.Errorf("%s: exit code %d, want 2", command, code)
				}
				contains(t, out, test.want...)
			}
		})
	}
	code, out := ended(t, "run", "-c", filepath.Join(t.TempDir(), "none.toml"))
	if code != 2 {
		t.Errorf("no file: exit code %d, want 2", code)
	}
	contains(t, out, "none.toml")
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	code, out := ended(t, "run", "--listen", ln.Addr().String(), "--data", t.TempDir())
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	contains(t, out, ln.Addr().String(), "address already in use")
}

// TestDataInUse: the second broker says so, and the first does not notice.
func TestDataInUse(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	control := b.control()
	code, out := ended(t, "run", "--listen", "127.0.0.1:0", "--data", b.DataDir())
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	contains(t, out, b.DataDir(), "another process")
	control.finish()
}
