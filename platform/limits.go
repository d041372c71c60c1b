package platform

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// RaiseNoFile raises the soft limit of open files to the hard limit and returns the limit now in force. Go does so at
// start-up too, but takes it back for a process that it executes, so after a hand-off it is needed.
func RaiseNoFile() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("getrlimit: %w", err)
	}
	if limit.Cur < limit.Max {
		raised := syscall.Rlimit{Cur: limit.Max, Max: limit.Max}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
			return limit.Cur, fmt.Errorf("setrlimit: %w", err)
		}
		limit = raised
	}
	return limit.Cur, nil
}

// unlimitedBytes is where a limit stops being one: control groups of version 1 write "none" as a number near 2^63.
const unlimitedBytes = 1 << 60

// MemoryLimit returns the tightest memory limit that a control group, of version 1 or 2, sets on this process, in
// bytes; ok is false if there is none.
func MemoryLimit() (bytes int64, ok bool) { return memoryLimit("/proc/self/cgroup", "/sys/fs/cgroup") }

// memoryLimit reads lines "id:controllers:path" and asks each directory from path up to the mount for its limit: a
// parent's limit holds for its children. In a container the path may lead outside of what is mounted; the mount's own
// directory, which ends the walk, is then the container's.
func memoryLimit(procFile, mount string) (bytes int64, ok bool) {
	f, err := os.Open(procFile)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	bytes = unlimitedBytes
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		parts := strings.SplitN(scanner.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		root, files := mount, []string{"memory.max", "memory.high"}
		if controllers := strings.Split(parts[1], ","); parts[1] != "" {
			if !slices.Contains(controllers, "memory") {
				continue
			}
			root, files = path.Join(mount, "memory"), []string{"memory.limit_in_bytes"}
		}
		for dir := path.Clean("/" + parts[2]); ; dir = path.Dir(dir) {
			for _, name := range files {
				if n, ok := readBytes(path.Join(root, dir, name)); ok {
					bytes = min(bytes, n)
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return bytes, bytes < unlimitedBytes
}

func readBytes(name string) (int64, bool) {
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is no number
	return n, err == nil && n > 0
}
