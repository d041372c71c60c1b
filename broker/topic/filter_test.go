package topic

import "testing"

// Matches agrees with the index.
func TestMatchesAsTheIndex(t *testing.T) {
	parts := []string{"", "a", "b", "$x", "+", "#"}
	var filters, names []string
	for _, a := range parts {
		for _, b := range parts {
			for _, c := range parts {
				for _, s := range []string{a, a + "/" + b, a + "/" + b + "/" + c} {
					if CheckFilter([]byte(s), 10) == nil {
						filters = append(filters, s)
					}
					if CheckName([]byte(s), 10) == nil {
						names = append(names, s)
					}
				}
			}
		}
	}
	var h Hits
	n := 0
	for _, f := range filters {
		x := NewIndex()
		x.Subscribe(f, Subscription{Subscriber: 1})
		for _, name := range names {
			x.Match([]byte(name), &h)
			if want := len(h.Subs) > 0; Matches(f, []byte(name)) != want {
				t.Fatalf("filter %q, name %q: the index says %v", f, name, want)
			}
			n++
		}
	}
	if n < 10_000 {
		t.Fatalf("only %d pairs", n)
	}
}
