package session

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// naiveWindow is the window with maps and without arithmetic.
type naiveWindow struct {
	flights map[uint64]flight // those not done
	byID    map[uint16]uint64

	priority bool
}

func (n *naiveWindow) low() (low uint64, some bool) {
	for seq := range n.flights {
		if !some || seq < low {
			low, some = seq, true
		}
	}
	return low, some
}

func (n *naiveWindow) check(w *window, next uint64) error {
	if w.inflight != len(n.flights) {
		return fmt.Errorf("inflight %d, want %d", w.inflight, len(n.flights))
	}
	low, some := n.low()
	if some != (w.low < w.end) {
		return fmt.Errorf("low %d, end %d, but %d in flight", w.low, w.end, len(n.flights))
	}
	if some && (w.low != low || w.end > next) {
		return fmt.Errorf("low %d, end %d, want low %d, end at most %d", w.low, w.end, low, next)
	}
	for seq := w.low; seq < w.end; seq++ {
		f, open := n.flights[seq]
		if got, state := w.find(packetID(seq, n.priority), n.priority); got != seq || state != f || open != (f != flightDone) {
			return fmt.Errorf("find(%d) gives %d in state %d, want %d in state %d", packetID(seq, n.priority), got, state, seq, f)
		}
	}
	for seq, f := range n.flights {
		if got, state := w.find(packetID(seq, n.priority), n.priority); got != seq || state != f {
			return fmt.Errorf("find(%d) gives %d in state %d, want %d in state %d", packetID(seq, n.priority), got, state, seq, f)
		}
	}
	return nil
}

func TestWindowAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		// Begin anywhere, often shortly before packet ids wrap around.
		ids, priority := uint64(normalIDs), seed%4 >= 2
		if priority {
			ids = priorityIDs
		}
		next := 1 + r.Uint64N(10)*ids + r.Uint64N(ids)
		if seed%2 == 0 {
			next = ids*(1+r.Uint64N(1<<20)) - r.Uint64N(50)
		}
		var w window
		w.reset(next)
		n := naiveWindow{flights: make(map[uint64]flight), byID: make(map[uint16]uint64), priority: priority}
		for i := range 4000 {
			// More is sent than acknowledged, until the ring is large; then
			// less, until nothing is under way.
			eager := 0
			if i%2000 < 600 {
				eager = 4
			}
			if err := windowStep(r, &w, &n, &next, eager); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if i%16 != 0 {
				continue
			}
			if err := n.check(&w, next); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
}

func windowStep(r *rand.Rand, w *window, n *naiveWindow, next *uint64, eager int) error {
	if r.IntN(5) < eager && len(n.flights) < 400 { // put
		*next += r.Uint64N(3) * r.Uint64N(2) // some numbers are skipped
		low, some := n.low()
		want := !some || *next-low < spanMax
		if w.room(*next) != want {
			return fmt.Errorf("room for %d from %d: %v", *next, low, !want)
		}
		if !want {
			return nil
		}
		id := packetID(*next, n.priority)
		if seq, used := n.byID[id]; used || id == 0 {
			return fmt.Errorf("packet id %d of %d is used by %d", id, *next, seq)
		}
		f := flightPuback + flight(r.IntN(2))
		w.put(*next, f)
		n.flights[*next], n.byID[id] = f, *next
		*next++
		return nil
	}
	id := uint16(r.Uint32N(normalIDs + 1))
	if n.priority {
		id = priorityIDMin + uint16(r.Uint32N(priorityIDs))
	}
	if low, some := n.low(); some && r.IntN(8) > 0 { // a likely one
		id = packetID(low+r.Uint64N(2)*r.Uint64N(*next-low), n.priority)
	}
	seq, f := w.find(id, n.priority)
	if want, used := n.byID[id]; used != (f != flightDone) || used && seq != want {
		return fmt.Errorf("find(%d) gives %d in state %d, want %d", id, seq, f, want)
	}
	if f == flightDone {
		return nil
	}
	if to := flight(r.IntN(int(flightPubcomp) + 1)); to != flightDone && r.IntN(4) == 0 {
		w.set(seq, to)
		n.flights[seq] = to
		return nil
	}
	w.set(seq, flightDone)
	delete(n.flights, seq)
	delete(n.byID, id)
	return nil
}

// A client that never acknowledges one message cannot make the window grow
// without end, and packet ids stay unique.
func TestWindowSpan(t *testing.T) {
	for _, priority := range []bool{false, true} {
		first := uint64(normalIDs - 10)
		if priority {
			first = priorityIDs - 10
		}
		var w window
		w.reset(first)
		w.put(first, flightPuback)
		used := map[uint16]bool{packetID(first, priority): true}
		seq := first + 1
		for ; w.room(seq); seq++ {
			if id := packetID(seq, priority); used[id] || id == 0 || priority != (id >= priorityIDMin) {
				t.Fatalf("packet id %d of %d is in use, or of the other lane", id, seq)
			}
			used[packetID(seq, priority)] = true
			w.put(seq, flightPuback)
			w.set(seq, flightDone)
		}
		if got := seq - first; got != spanMax {
			t.Errorf("span %d, want %d", got, spanMax)
		}
		if len(w.ring) > spanMax {
			t.Errorf("ring of %d states for a span of %d", len(w.ring), spanMax)
		}
		w.set(first, flightDone)
		if !w.room(seq) || w.ring != nil {
			t.Errorf("all acknowledged: room %v, ring of %d", w.room(seq), len(w.ring))
		}
	}
}

func TestPacketIDs(t *testing.T) {
	const p = true
	for _, x := range []struct {
		seq      uint64
		priority bool
		want     uint16
	}{
		{1, false, 1}, {49151, false, 49151}, {49152, false, 1}, {2 * 49151, false, 49151}, {2*49151 + 1, false, 1},
		{1, p, 49152}, {16384, p, 65535}, {16385, p, 49152}, {2 * 16384, p, 65535},
		{1<<63 + 5, false, uint16((uint64(1<<63)+4)%49151) + 1}, {1<<63 + 5, p, 49152 + 4},
	} {
		if got := packetID(x.seq, x.priority); got != x.want {
			t.Errorf("packetID(%d, %v) = %d, want %d", x.seq, x.priority, got, x.want)
		}
	}
	var w window
	w.reset(5)
	if _, f := w.find(5, false); f != flightDone {
		t.Error("an empty window knows a packet id")
	}
	w.put(5, flightPuback)
	if _, f := w.find(0, false); f != flightDone {
		t.Error("packet id 0 is known")
	}
}

// Few messages in flight cost no allocation.
func TestWindowAllocates(t *testing.T) {
	var w window
	w.reset(1)
	seq := uint64(1)
	if n := testing.AllocsPerRun(1000, func() {
		for range 16 {
			w.put(seq, flightPuback)
			seq++
		}
		for q := seq - 16; q < seq; q++ {
			w.set(q, flightDone)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
