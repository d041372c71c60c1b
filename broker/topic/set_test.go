package topic

import "testing"

// A set of filters is as each of them, and costs nothing.
func TestSet(t *testing.T) {
	filters := []string{"alarms/#", "+/urgent", "$SYS/x", "a/very/long/filter/with/many/levels/and/more/than/32/bytes/+"}
	s := NewSet(filters)
	for name, want := range map[string]bool{
		"alarms": true, "alarms/a/b": true, "alarm": false, "x/urgent": true, "$x/urgent": false, "x/y/urgent": false, "$SYS/x": true,
		"a/very/long/filter/with/many/levels/and/more/than/32/bytes/x": true, "": false,
	} {
		some := false
		for _, f := range filters {
			some = some || Matches(f, []byte(name))
		}
		if got := s.Has([]byte(name)); got != want || some != want {
			t.Errorf("%q: %v, one by one %v, want %v", name, got, some, want)
		}
	}
	if NewSet(nil).Has([]byte("a")) {
		t.Error("an empty set has something")
	}
	name := []byte("a/very/long/filter/with/many/levels/and/more/than/32/bytes/x")
	if n := testing.AllocsPerRun(100, func() { s.Has(name) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
