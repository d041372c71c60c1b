package broker

import "testing"

func TestTrimmerWaitsForQuietAndTrimsOnce(t *testing.T) {
	var h heap
	x := trimmer{read: func() heap { return h }}
	for i, c := range []struct {
		heap heap
		want bool
		why  string
	}{
		{heap{allocated: 64 << 20, free: 8 << 20, objects: 32 << 20, live: 2 << 20}, false, "a burst"},
		{heap{allocated: 64<<20 + quietBytes, free: 0, objects: 32 << 20, live: 2 << 20}, true, "quiet, and 30 MiB of garbage"},
		{heap{allocated: 64<<20 + quietBytes, free: 8 << 20, objects: 2 << 20, live: 2 << 20}, false, "nothing allocated since it trimmed"},
		{heap{allocated: 66<<20 + quietBytes, free: 8 << 20, objects: 4 << 20, live: 2 << 20}, false, "the next burst"},
		{heap{allocated: 66<<20 + quietBytes, free: 8 << 20, objects: 2 << 20, live: 3 << 20}, true, "quiet again, and 8 MiB free"},
		{heap{allocated: 99 << 20}, false, "one more burst"},
		{heap{allocated: 99 << 20, free: idleBytes / 2, objects: 3 << 20, live: 3<<20 - idleBytes/2}, false, "quiet, but little to gain"},
	} {
		h = c.heap
		if got := x.due(); got != c.want {
			t.Errorf("look %d, %s: %v", i, c.why, got)
		}
	}
}

// The names of the metrics are right: a wrong one would panic.
func TestHeapIsReadable(t *testing.T) {
	if h := readHeap()(); h.allocated == 0 || h.objects == 0 {
		t.Errorf("%+v", h)
	}
}
