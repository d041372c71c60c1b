package worker

import (
	"testing"
	"time"

	"sluice/platform/mono"
)

func TestChunkClasses(t *testing.T) {
	for n := 1; n <= 1<<20; n += 1 + n/7 {
		class := chunkFor(n)
		size := chunkMinBytes << class
		if size < n && class != chunkClasses-1 || class > 0 && size/2 >= n {
			t.Errorf("%d bytes: class %d of %d bytes", n, class, size)
		}
		if n < chunkMinBytes {
			continue
		}
		c := chunkClass(n)
		if low := chunkMinBytes << c; low > n || 2*low <= n {
			t.Errorf("a chunk of %d bytes is of class %d, of %d bytes", n, c, low)
		}
	}
}

func TestChunksAreUsedAgain(t *testing.T) {
	var p chunks
	for class := range uint8(chunkClasses) {
		size := chunkMinBytes << class
		b := p.get(class)
		if len(b) != 0 || cap(b) != size {
			t.Fatalf("class %d: %d of %d bytes", class, len(b), cap(b))
		}
		p.put(append(b, 1, 2, 3))
		again := p.get(class)
		if len(again) != 0 || &again[:1][0] != &b[:1][0] {
			t.Errorf("class %d: not used again", class)
		}
		if other := p.get(class); cap(other) != size {
			t.Errorf("class %d: %d bytes", class, cap(other))
		}
	}
}

// What comes back may have grown, or never have been a chunk; the pool never
// gives out less than it promises, and keeps a bounded amount.
func TestChunksOfAnySize(t *testing.T) {
	var p chunks
	kept := 0
	for range 100 {
		for n := 1; n <= 1<<20; n = n*3/2 + 1 {
			p.put(make([]byte, 0, n))
		}
	}
	for class := range p.free {
		for _, b := range p.free[class] {
			kept += cap(b)
			if cap(b) < chunkMinBytes<<class {
				t.Fatalf("class %d holds a chunk of %d bytes", class, cap(b))
			}
		}
	}
	if kept == 0 || kept > 2*chunkClasses*chunkKeepBytes {
		t.Errorf("%d bytes kept", kept)
	}
}

func TestLogLimit(t *testing.T) {
	var l logLimit
	now := mono.Time(time.Second)
	wrote := 0
	for range 50 {
		if skipped, ok := l.allow(now); ok {
			wrote++
			if skipped != 0 {
				t.Errorf("%d skipped before any was", skipped)
			}
		}
		now = now.Add(10 * time.Millisecond)
	}
	if wrote != logsPerSecond {
		t.Errorf("%d lines in half a second, want %d", wrote, logsPerSecond)
	}
	now = now.Add(time.Second)
	if skipped, ok := l.allow(now); !ok || skipped != 50-logsPerSecond {
		t.Errorf("a second later: %d skipped, %v", skipped, ok)
	}
	if skipped, ok := l.allow(now); !ok || skipped != 0 {
		t.Errorf("and then: %d skipped, %v", skipped, ok)
	}
}
