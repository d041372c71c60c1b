package topic

import "testing"

// A share group gives nothing to a member that is away while another is there,
// and something to one of them if all are.
func TestShareGroupPassesOverWhoIsAway(t *testing.T) {
	for _, c := range []struct{ members, away int }{{1, 0}, {1, 1}, {3, 2}, {3, 3}, {20, 19}} {
		x := NewIndex()
		for i := range c.members {
			s := Subscription{Subscriber: uint64(i + 1)}
			if i < c.away {
				s.Marks = Away
			}
			x.Subscribe("$share/g/t", s)
		}
		var h Hits
		for range 100 {
			x.Match([]byte("t"), &h)
			if len(h.Subs) != 1 {
				t.Fatalf("%d of %d away: %d hits", c.away, c.members, len(h.Subs))
			}
			if h.Subs[0].Marks&Away != 0 && c.away < c.members {
				t.Fatalf("%d of %d away: member %d, who is away, was chosen", c.away, c.members, h.Subs[0].Subscriber)
			}
		}
	}
	// Who comes back has his turn again.
	x := NewIndex()
	x.Subscribe("$share/g/t", Subscription{Subscriber: 1, Marks: Away})
	x.Subscribe("$share/g/t", Subscription{Subscriber: 2})
	x.Subscribe("$share/g/t", Subscription{Subscriber: 1})
	var h Hits
	got := map[uint64]int{}
	for range 10 {
		x.Match([]byte("t"), &h)
		got[h.Subs[0].Subscriber]++
	}
	if got[1] != 5 || got[2] != 5 {
		t.Errorf("turns %v, want 5 each", got)
	}
}

func TestPick(t *testing.T) {
	x := NewIndex()
	for _, f := range []string{"$share/g/a/+", "$share/h/a/+", "$share/g/a/b", "a/+"} {
		x.Subscribe(f, Subscription{Subscriber: uint64(len(f)), ID: 7})
	}
	x.Subscribe("$share/g/a/+", Subscription{Subscriber: 1})
	got := map[uint64]int{}
	for range 10 {
		s, ok := x.Pick("$share/g/a/+")
		if !ok || !s.Shared() {
			t.Fatalf("%+v %v", s, ok)
		}
		got[s.Subscriber]++
	}
	if got[1] != 5 || got[12] != 5 {
		t.Errorf("turns %v, want 5 each", got)
	}
	for _, f := range []string{"$share/x/a/+", "$share/g/a", "$share/g/a/#", "$share/g/c"} {
		if s, ok := x.Pick(f); ok {
			t.Errorf("%s has %+v", f, s)
		}
	}
}
