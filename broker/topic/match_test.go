package topic

import (
	"slices"
	"strings"
	"testing"

	"sluice/broker/mqtt"
)

// specMatches are the examples of MQTT 5 section 4.7, by statement.
var specMatches = []struct {
	statement, filter string
	yes, no           []string
}{
	{"4.7.1.2", "sport/tennis/player1/#",
		[]string{"sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"},
		[]string{"sport/tennis", "sport/tennis/player10", "sport/tennis/player2"}},
	{"4.7.1.2", "sport/#", []string{"sport", "sport/", "sport/a"}, []string{"sports", "/sport"}},
	{"4.7.1.2", "#", []string{"a", "a/b", "/", "/a"}, []string{"$SYS", "$SYS/a"}},
	{"4.7.1.3", "sport/tennis/+",
		[]string{"sport/tennis/player1", "sport/tennis/player2", "sport/tennis/"},
		[]string{"sport/tennis/player1/ranking", "sport/tennis"}},
	{"4.7.1.3", "sport/+", []string{"sport/"}, []string{"sport"}},
	{"4.7.1.3", "+/tennis/#", []string{"sport/tennis", "/tennis", "sport/tennis/a/b"}, []string{"tennis", "a/b/tennis"}},
	{"4.7.1.3", "sport/+/player1", []string{"sport/tennis/player1", "sport//player1"}, []string{"sport/player1"}},
	{"4.7.1.3", "+/+", []string{"/finance", "a/b", "/"}, []string{"finance", "a/b/c"}},
	{"4.7.1.3", "/+", []string{"/finance", "/"}, []string{"finance", "a/finance"}},
	{"4.7.1.3", "+", []string{"finance"}, []string{"/finance", "$SYS"}},
	{"MQTT-4.7.2-1", "+/monitor/Clients", nil, []string{"$SYS/monitor/Clients"}},
	{"MQTT-4.7.2-1", "$SYS/#", []string{"$SYS", "$SYS/", "$SYS/monitor/Clients"}, []string{"$SYSTEM", "SYS/a"}},
	{"MQTT-4.7.2-1", "$SYS/monitor/+", []string{"$SYS/monitor/Clients"}, []string{"$SYS/monitor"}},
	{"MQTT-4.7.2-1", "a/+", []string{"a/$SYS"}, nil}, // only the first level counts
	{"4.7.3 case sensitive", "ACCOUNTS", []string{"ACCOUNTS"}, []string{"Accounts"}},
	{"4.7.3 spaces", "Accounts payable", []string{"Accounts payable"}, []string{"Accountspayable"}},
	{"4.7.3 separators count", "/A", []string{"/A"}, []string{"A", "A/", "//A"}},
	{"MQTT-4.7.3-4", "caf\u00e9", []string{"caf\u00e9"}, []string{"cafe\u0301"}}, // not normalized
}

func TestMatchSpec(t *testing.T) {
	for _, c := range specMatches {
		for _, share := range []string{"", "$share/g/"} {
			x := NewIndex()
			x.Subscribe(share+c.filter, Subscription{Subscriber: 1})
			var h Hits
			for i, topic := range slices.Concat(c.yes, c.no) {
				x.Match([]byte(topic), &h)
				if got, want := len(h.Subs) == 1, i < len(c.yes); got != want {
					t.Errorf("%s: %q matches %q: %v, want %v", c.statement, share+c.filter, topic, got, want)
				}
			}
		}
	}
}

func TestRetainedMatchSpec(t *testing.T) {
	for _, c := range specMatches {
		for i, topic := range slices.Concat(c.yes, c.no) {
			r := NewRetained()
			r.Set(&mqtt.Message{Topic: []byte(topic)})
			if got, want := len(r.Match(c.filter, nil)) == 1, i < len(c.yes); got != want {
				t.Errorf("%s: %q matches retained %q: %v, want %v", c.statement, c.filter, topic, got, want)
			}
		}
	}
}

func TestNaiveMatchSpec(t *testing.T) {
	for _, c := range specMatches {
		for i, topic := range slices.Concat(c.yes, c.no) {
			if got, want := naiveMatch(c.filter, topic), i < len(c.yes); got != want {
				t.Errorf("%s: %q matches %q: %v, want %v", c.statement, c.filter, topic, got, want)
			}
		}
	}
}

// A name can have 65536 levels if no limit is set.
func TestMatchDeepest(t *testing.T) {
	x, r := NewIndex(), NewRetained()
	deepest := strings.Repeat("/", LengthMax)
	x.Subscribe(deepest, Subscription{Subscriber: 1})
	x.Subscribe("+/"+strings.Repeat("/", LengthMax-3)+"#", Subscription{Subscriber: 2})
	x.Subscribe(strings.Repeat("+/", LengthMax/2)+"#", Subscription{Subscriber: 3})
	r.Set(&mqtt.Message{Topic: []byte(deepest)})
	var h Hits
	x.Match([]byte(deepest), &h)
	if len(h.Subs) != 3 {
		t.Errorf("hits %v", h.Subs)
	}
	if n := len(r.Match(strings.Repeat("+/", LengthMax/2)+"#", nil)); n != 1 {
		t.Errorf("%d retained messages", n)
	}
	x.Unsubscribe(deepest, 1)
	x.Unsubscribe("+/"+strings.Repeat("/", LengthMax-3)+"#", 2)
	x.Unsubscribe(strings.Repeat("+/", LengthMax/2)+"#", 3)
	if x.root.bulk.Load() != nil || x.Len() != 0 {
		t.Errorf("%d subscriptions left", x.Len())
	}
	if cap(x.path) > 1024 || cap(x.buf) > 1024 {
		t.Errorf("writer keeps %d levels and %d bytes", cap(x.path), cap(x.buf))
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	x := NewIndex()
	for i, f := range []string{"a/b/c", "a/+/c", "#", "a/#", "+/+/+", "$share/g/a/b/c", "$share/h/a/#", "a/b/c/d"} {
		x.Subscribe(f, Subscription{Subscriber: uint64(i + 1)})
	}
	for i := range 500 {
		x.Subscribe("a/b/c", Subscription{Subscriber: uint64(i + 100)})
	}
	topic := []byte("a/b/c")
	var h Hits
	if n := testing.AllocsPerRun(1000, func() { x.Match(topic, &h) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if len(h.Subs) != 507 || !h.Overlap {
		t.Errorf("%d hits, overlap %v", len(h.Subs), h.Overlap)
	}
}
