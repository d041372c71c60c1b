package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The programs under test.
var (
	raceBinary  string // with the race detector
	plainBinary string // as it is shipped, for what measures memory
)

// patience is how long a test waits for something that should come soon.
const patience = 90 * time.Second

// parallel is how many tests run at once: they wait more than they compute.
const parallel = "6"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", parallel); err != nil {
		os.Exit(fail(err))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sluice-e2e-")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what stays is in the system's directory for such things
	raceBinary, plainBinary = filepath.Join(dir, "sluice-race"), filepath.Join(dir, "sluice")
	for _, args := range [][]string{{"build", "-race", "-o", raceBinary}, {"build", "-o", plainBinary}} {
		build := exec.Command("go", append(args, "sluice/cmd/sluice")...)
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			return fail(fmt.Errorf("build the program: %w", err))
		}
	}
	if err := raiseFiles(); err != nil {
		return fail(err)
	}
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// raiseFiles lets this process, which holds the clients' ends, open as many
// files as it may.
func raiseFiles() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

// eventually polls cond until it holds. what says what is waited for.
func eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", within, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
