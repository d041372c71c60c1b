package session

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"
)

func TestSubscriptionsAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	var subs subscriptions
	model := make(map[string]uint32)
	indexed, plain := 0, 0
	for step := range 20000 {
		filter := fmt.Sprint("f/", r.IntN(100))
		grow := step/1000%2 == 0
		i := subs.find([]byte(filter))
		if _, there := model[filter]; there != (i >= 0) || there && subs.list[i].Filter != filter {
			t.Fatalf("step %d: %s found at %d, is there: %v", step, filter, i, there)
		}
		switch {
		case i < 0 && (grow || r.IntN(4) == 0):
			id := r.Uint32()
			if p := subs.add(Subscription{Filter: filter, ID: id}); p.ID != id {
				t.Fatalf("step %d: another was added", step)
			}
			model[filter] = id
		case i >= 0 && (!grow || r.IntN(8) == 0):
			subs.remove(i)
			delete(model, filter)
		}
		if len(subs.list) != len(model) || subs.index != nil && len(subs.index) != len(model) {
			t.Fatalf("step %d: %d, index %d, should be %d", step, len(subs.list), len(subs.index), len(model))
		}
		for i := range subs.list {
			if id, ok := model[subs.list[i].Filter]; !ok || id != subs.list[i].ID {
				t.Fatalf("step %d: %v should not be there", step, subs.list[i])
			}
		}
		if subs.index != nil {
			indexed++
		} else {
			plain++
		}
	}
	if indexed < 1000 || plain < 1000 {
		t.Errorf("%d steps with an index, %d without", indexed, plain)
	}
}

// A session without a connection is what remains in memory of each client that
// is away, and with one of each that is idle.
func TestSessionBytes(t *testing.T) {
	size := unsafe.Sizeof(Session{})
	t.Logf("Session: %d bytes, Subscription: %d, extras: %d", size, unsafe.Sizeof(Subscription{}), unsafe.Sizeof(extras{}))
	if max := map[uintptr]uintptr{8: 328, 4: 220}[unsafe.Sizeof(size)]; size > max {
		t.Errorf("a session takes %d bytes, should be at most %d", size, max)
	}
}
