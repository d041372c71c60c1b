package topic

import (
	"bytes"
	"testing"

	"sluice/broker/mqtt"
)

// FuzzFilter: the checks never panic, what they accept makes Index and Retained
// agree with the naive matcher, and what was put in can be taken out.
func FuzzFilter(f *testing.F) {
	for _, c := range specMatches {
		for _, topic := range append(c.yes, c.no...) {
			f.Add([]byte(c.filter), []byte(topic))
			f.Add([]byte("$share/g/"+c.filter), []byte(topic))
		}
	}
	for _, bad := range []string{"", "$share/", "$share//a", "$share/+/a", "a#", "+a", "#/a", "$share/g/"} {
		f.Add([]byte(bad), []byte(bad))
	}
	f.Fuzz(func(t *testing.T, filter, topic []byte) {
		filterErr, topicErr := CheckFilter(filter, 100), CheckName(topic, 100)
		if topicErr == nil && CheckFilter(topic, 100) != nil && !bytes.HasPrefix(topic, []byte(sharePrefix)) {
			t.Fatalf("%q is a name but no filter", topic)
		}
		if filterErr != nil || topicErr != nil {
			return
		}
		group, rest, shared := SplitShare(string(filter))
		if shared && (group == "" || rest == "") {
			t.Fatalf("%q: group %q, rest %q", filter, group, rest)
		}
		want := naiveMatch(rest, string(topic))

		x := NewIndex()
		x.Subscribe("+/b/#", Subscription{Subscriber: 1})
		x.Subscribe(string(filter), Subscription{Subscriber: 2})
		var h Hits
		x.Match(topic, &h)
		got := false
		for _, s := range h.Subs {
			if s.Subscriber == 2 {
				got = true
			}
			if s.Shared() != (shared && s.Subscriber == 2) {
				t.Fatalf("shared: %+v", s)
			}
		}
		if got != want {
			t.Fatalf("filter %q, topic %q: match %v, want %v", filter, topic, got, want)
		}
		if err := x.Check(); err != nil {
			t.Fatal(err)
		}
		if !x.Unsubscribe(string(filter), 2) || !x.Unsubscribe("+/b/#", 1) || x.root.bulk.Load() != nil {
			t.Fatal("something is left")
		}

		r := NewRetained()
		r.Set(&mqtt.Message{Topic: []byte("a-")})
		r.Set(&mqtt.Message{Topic: topic})
		found := false
		for _, m := range r.Match(rest, nil) {
			found = found || string(m.Topic) == string(topic)
		}
		if found != want {
			t.Fatalf("filter %q, retained topic %q: match %v, want %v", rest, topic, found, want)
		}
	})
}
