package worker

import (
	"math/rand/v2"
	"testing"
)

// Names of what has gone find nothing, those of what is there find it.
func TestTableAgainstModel(t *testing.T) {
	type name struct{ at, gen uint32 }
	r := rand.New(rand.NewPCG(1, 1))
	var tab table[*int]
	there := make(map[name]*int)
	var names []name // all that ever were
	for range 20000 {
		if r.IntN(5) < 3 && len(there) < 50 {
			v := new(int)
			at, gen := tab.put(v)
			n := name{at, gen}
			if there[n] != nil || gen == 0 || gen > genMask {
				t.Fatalf("slot %d, generation %d: %p is there", at, gen, there[n])
			}
			there[n] = v
			names = append(names, n)
		} else if len(names) > 0 {
			n := names[r.IntN(len(names))]
			if there[n] != nil {
				tab.drop(n.at)
				delete(there, n)
			}
		}
		n := name{r.Uint32N(60), r.Uint32N(8)}
		if len(names) > 0 && r.IntN(2) == 0 {
			n = names[r.IntN(len(names))]
		}
		if v, ok := tab.get(n.at, n.gen); ok != (there[n] != nil) || v != there[n] {
			t.Fatalf("get(%d, %d) = %p, %v, want %p", n.at, n.gen, v, ok, there[n])
		}
		if tab.used != len(there) {
			t.Fatalf("%d used, want %d", tab.used, len(there))
		}
	}
	seen := 0
	tab.each(func(v *int) { seen++ })
	if seen != len(there) {
		t.Errorf("each gave %d, want %d", seen, len(there))
	}
	if len(tab.slots) > 50 {
		t.Errorf("%d slots for at most 50 things", len(tab.slots))
	}
}

func TestTableGenerationWraps(t *testing.T) {
	var tab table[int]
	at, gen := tab.put(1)
	tab.slots[at].gen = genMask
	if _, ok := tab.get(at, gen); ok {
		t.Error("the first name is still good")
	}
	tab.drop(at)
	if _, gen = tab.put(2); gen != 1 {
		t.Errorf("generation %d after the last, want 1", gen)
	}
}

func TestTableDropTwice(t *testing.T) {
	var tab table[int]
	at, _ := tab.put(1)
	tab.drop(at)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	tab.drop(at)
}

// A session's id holds worker, generation and slot, and is never 0.
func TestSessionID(t *testing.T) {
	for _, x := range []struct {
		worker    int
		slot, gen uint32
	}{{0, 0, 1}, {255, 1<<32 - 1, genMask}, {7, 12, 1}} {
		id := sessionID(x.worker, x.slot, x.gen)
		if ownerOf(id) != x.worker || uint32(id) != x.slot || uint32(id>>32)&genMask != x.gen || id == 0 {
			t.Errorf("%+v: id %#x", x, id)
		}
	}
	if tag := connTag(1<<32-1, genMask); tag&listenerTag != 0 {
		t.Errorf("the tag %#x of a connection is that of a listener", tag)
	}
}
