package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process takes from the system.
type Usage struct {
	Threads     int
	Descriptors int
	// HeapBytes is resident memory that is no file: heap and stacks. Pages of the
	// store that the kernel has in its cache are not the process's.
	HeapBytes int64
}

// String has all of it on one line.
func (u Usage) String() string {
	return fmt.Sprintf("%d threads, %d descriptors, %.1f MiB", u.Threads, u.Descriptors, float64(u.HeapBytes)/(1<<20))
}

// Usage reads the figures of a running process.
func (p *Process) Usage() (u Usage, err error) {
	proc := filepath.Join("/proc", strconv.Itoa(p.PID()))
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch key {
		case "Threads":
			u.Threads, err = strconv.Atoi(fields[0])
		case "RssAnon":
			var kib int64
			kib, err = strconv.ParseInt(fields[0], 10, 64)
			u.HeapBytes = kib << 10
		}
		if err != nil {
			return u, fmt.Errorf("%s: %w", line, err)
		}
	}
	if u.HeapBytes == 0 {
		return u, fmt.Errorf("%s has ended", p.name)
	}
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	u.Descriptors = len(fds)
	return u, err
}

// WrittenBytes is how much the process has caused to be written to disks, 0 if
// that cannot be told. File systems in memory do not count.
func (p *Process) WrittenBytes() int64 {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "io"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "write_bytes:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// CPU is the processor time that the process has taken, to a hundredth of a second.
func (p *Process) CPU() (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "stat"))
	if err != nil {
		return 0, err
	}
	// The name before may contain anything; utime and stime are fields 14 and 15, see proc(5).
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0, fmt.Errorf("%s: %q is no stat", p.name, text)
	}
	user, err1 := strconv.ParseInt(fields[utime], 10, 64)
	system, err2 := strconv.ParseInt(fields[stime], 10, 64)
	const tick = time.Second / 100 // USER_HZ, the same on all of Linux that we run on
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}
