package platform

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestRaiseNoFile(t *testing.T) {
	var saved syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &saved))
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &saved)
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: saved.Max / 2, Max: saved.Max}))
	got, err := RaiseNoFile()
	if err != nil || got != saved.Max {
		t.Fatalf("got %d, %v; want %d", got, err, saved.Max)
	}
	var now syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now))
	if now.Cur != saved.Max {
		t.Fatalf("the limit in force is %d, want %d", now.Cur, saved.Max)
	}
}

func TestMemoryLimit(t *testing.T) {
	tests := []struct {
		name, proc string
		files      map[string]string
		want       int64
		ok         bool
	}{
		{"no control group", "", nil, 0, false},
		{"v2", "0::/system.slice/sluice.service\n",
			map[string]string{"system.slice/sluice.service/memory.max": "67108864\n"}, 64 << 20, true},
		{"v2, none set", "0::/a\n", map[string]string{"a/memory.max": "max\n"}, 0, false},
		{"v2, the parent is tighter", "0::/a/b\n",
			map[string]string{"a/b/memory.max": "134217728\n", "a/memory.max": "33554432\n"}, 32 << 20, true},
		{"v2, high is tighter than max", "0::/a\n",
			map[string]string{"a/memory.max": "134217728\n", "a/memory.high": "67108864\n"}, 64 << 20, true},
		{"v2 in a container", "0::/../../outside\n", map[string]string{"memory.max": "33554432\n"}, 32 << 20, true},
		{"v1", "5:cpu,cpuacct:/x\n4:memory:/box\n",
			map[string]string{"memory/box/memory.limit_in_bytes": "33554432\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"},
			32 << 20, true},
		{"v1, none set", "4:memory:/box\n",
			map[string]string{"memory/box/memory.limit_in_bytes": "9223372036854771712\n"}, 0, false},
		{"v1 in a container", "4:memory:/docker/0123\n",
			map[string]string{"memory/memory.limit_in_bytes": "33554432\n"}, 32 << 20, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			proc := filepath.Join(dir, "proc")
			must(t, os.WriteFile(proc, []byte(test.proc), 0o600))
			for name, text := range test.files {
				name = filepath.Join(dir, "cgroup", name)
				must(t, os.MkdirAll(filepath.Dir(name), 0o700))
				must(t, os.WriteFile(name, []byte(text), 0o600))
			}
			got, ok := memoryLimit(proc, filepath.Join(dir, "cgroup"))
			if ok != test.ok || ok && got != test.want {
				t.Fatalf("got %d, %v; want %d, %v", got, ok, test.want, test.ok)
			}
		})
	}
}
