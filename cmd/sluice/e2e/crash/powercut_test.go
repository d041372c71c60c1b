package crash

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

var (
	cuts    = flag.Int("cuts", 100, "how often TestPowerCuts cuts the power")
	cutSeed = flag.Uint64("cutseed", 0, "of TestPowerCuts; 0: another each time")
)

var (
	program string // the program under test, as it is shipped
	self    string // this program
)

func TestMain(m *testing.M) {
	if path := os.Getenv(unsyncedKey); path != "" {
		fail(BecomeUnsynced(path))
	}
	flag.Parse()
	if os.Getenv(insideKey) == "" {
		os.Exit(inside())
	}
	if err := stay(); err != nil {
		fail(err)
	}
	os.Exit(run(m))
}

// insideKey is the environment variable that says that we are in a mount namespace of
// our own.
const insideKey = "CRASH_INSIDE"

// inside runs this program again in a mount namespace of its own, so all that it mounts
// goes with it, even if it is killed. It gives the exit code.
func inside() int {
	runtime.LockOSThread() // the signal comes when the thread ends that started the child
	again := exec.Command(os.Args[0], os.Args[1:]...)
	again.Env = append(os.Environ(), insideKey+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := again.Run()
	if again.ProcessState == nil {
		fail(fmt.Errorf("start in a mount namespace, which takes root: %w", err))
	}
	return again.ProcessState.ExitCode()
}

// lifeline is the input of the process that stay starts, open as long as we are there:
// a variable, so it is never collected and closed.
var lifeline io.WriteCloser

// stay keeps the namespace until this process has ended: by a process that ends when its
// input does. If the server of the disk were the last in the namespace, its end would
// unmount ext4, which waits for the server, for ever.
func stay() (err error) {
	last := exec.Command("cat")
	if lifeline, err = last.StdinPipe(); err != nil {
		return err
	}
	last.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C must not end it first
	return last.Start()
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sluice-crash-")
	if err != nil {
		fail(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what stays is in the system's directory for such things
	if self, err = os.Executable(); err != nil {
		fail(err)
	}
	program = filepath.Join(dir, "sluice")
	build := exec.Command("go", "build", "-o", program, "sluice/cmd/sluice")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fail(fmt.Errorf("build the program: %w", err))
	}
	return m.Run()
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "crash:", err)
	os.Exit(1)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// No cut loses what was acknowledged.
func TestPowerCuts(t *testing.T) {
	seed := *cutSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-cutseed %d", seed)
	w := newWorld(t, seed, false, false)
	start := time.Now()
	for range *cuts {
		if err := w.cut(); err != nil {
			t.Fatalf("cut %d: %v", w.cuts, err)
		}
		if w.random.IntN(5) == 0 {
			w.drain()
		}
	}
	t.Logf("%d cuts in %v, %d with unflushed writes; %d messages acknowledged, %d looked for; %d flushes", w.cuts,
		time.Since(start).Round(time.Millisecond), w.unflushed, w.account.total(), w.checked, w.disk.Flushes())
	if w.unflushed < w.cuts/20 || w.account.total() < w.cuts || w.checked < w.cuts {
		t.Error("that shows little")
	}
}

// A broker that does not sync loses messages in a cut, and so does one on a disk that
// lies; else TestPowerCuts proves nothing.
func TestPowerCutControls(t *testing.T) {
	for _, control := range []struct {
		name           string
		unsynced, lies bool
	}{{"unsynced", true, false}, {"lying", false, true}} {
		t.Run(control.name, func(t *testing.T) {
			w := newWorld(t, 1, control.unsynced, control.lies)
			lost := 0
			for range 10 {
				if err := w.cut(); err != nil {
					lost++
					t.Log(err)
				}
			}
			if lost == 0 {
				t.Errorf("%d cuts lost nothing", w.cuts)
			}
		})
	}
}
