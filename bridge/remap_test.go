package bridge

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/broker/topic"
)

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		routes string // direction filter local-prefix remote-prefix qos; several with ';'
		dir    Direction
		name   string
		want   string // topic:qos ...
	}{
		{"out # - - 1", Out, "a/b", "a/b:1"},
		{"out # - - 0", Out, "a/b", "a/b:0"},
		{"out # - r/ 1", Out, "a/b", "r/a/b:1"},
		{"out # l/ - 1", Out, "l/b", "b:1"},
		{"out # l/ r/ 1", Out, "l/b", "r/b:1"},
		{"out # l/ r/ 1", Out, "x/b", ""},
		{"out +/t l/ r/ 1", Out, "l/a/t", "r/a/t:1"},
		{"out +/t l/ r/ 1", Out, "l/a/u", ""},
		{"out - l/x r/y 1", Out, "l/x", "r/y:1"},
		{"out /c ab r 1", Out, "ab/c", "r/c:1"},
		{"in # l/ r/ 1", In, "r/b", "l/b:1"},
		{"in # l/ r/ 1", Out, "r/b", ""},
		{"in # l/ r/ 1", In, "l/b", ""},

		// A multi-level wildcard matches the parent level.
		{"out # l/ r/ 1", Out, "l", "r:1"},
		{"out # l/ - 1", Out, "l", ""},
		{"out # l/ r- 1", Out, "l", ""},
		{"out # a/b/ c/ 1", Out, "a/b", "c:1"},

		// $ topics need a route that names them [MQTT-4.7.2-1].
		{"out # - - 1", Out, "$SYS/x", ""},
		{"out +/x - - 1", Out, "$SYS/x", ""},
		{"out x $SYS/ r/ 1", Out, "$SYS/x", "r/x:1"},
		{"out # $SYS/ r/ 1", Out, "$SYS/x/y", "r/x/y:1"},

		// Several routes: each name once, the first route decides.
		{"out # - r/ 0; out a - r/ 1", Out, "a", "r/a:0"},
		{"out a - r/ 1; out # - r/ 0", Out, "a", "r/a:1"},
		{"out a - r/ 1; out # - s/ 0", Out, "a", "r/a:1 s/a:0"},
		{"out # - - 1; in # - - 1", Out, "a", "a:1"},

		// Empty levels are levels.
		{"out a//b - r/ 1", Out, "a//b", "r/a//b:1"},
		{"out +/+ - - 1", Out, "/", "/:1"},
		{"out /# - - 1", Out, "/a", "/a:1"},
		{"out /# - - 1", Out, "a", ""},
		{"out a/+ - - 1", Out, "a", ""},
		{"out a/+/# - - 1", Out, "a/b", "a/b:1"},
		{"out a/# - - 1", Out, "ab", ""},
	} {
		var got []string
		for _, g := range targets(nil, compile(parseRoutes(c.routes), c.dir), c.name) {
			got = append(got, fmt.Sprintf("%s:%d", g.topic, g.qos))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %v %q goes to %q, want %q", c.routes, c.dir, c.name, s, c.want)
		}
	}
}

func TestExcludedTopicsDoNotGo(t *testing.T) {
	out := Route{Direction: Out, Filter: "#", LocalPrefix: "l/", RemotePrefix: "r/", QoS: 1, Exclude: []string{"debug/#", "+/raw"}}
	in := out
	in.Direction = In
	other := Route{Direction: Out, Filter: "debug/keep", LocalPrefix: "l/", RemotePrefix: "s/", QoS: 1}
	for _, c := range []struct {
		dir        Direction
		name, want string
	}{
		{Out, "l/a", "r/a"},
		{Out, "l/debug/a/b", ""},
		{Out, "l/debug", ""}, // the parent level (MQTT5 4.7.1.2)
		{Out, "l/debugger", "r/debugger"},
		{Out, "l/x/raw", ""},
		{Out, "l/x/y/raw", "r/x/y/raw"},
		{Out, "l/debug/keep", "s/debug/keep"}, // what one route excludes another may carry
		{In, "r/a", "l/a"},
		{In, "r/debug/a", ""}, // with the prefix of the side it comes from
	} {
		got := ""
		for _, g := range targets(nil, compile([]Route{out, in, other}, c.dir), c.name) {
			got += g.topic
		}
		if got != c.want {
			t.Errorf("%v %q goes to %q, want %q", c.dir, c.name, got, c.want)
		}
	}
	for _, x := range []string{"a/#/b", "a+"} {
		out.Exclude = []string{x}
		if out.validate() == nil {
			t.Errorf("exclude %q is accepted", x)
		}
	}
}

func TestNamesTooLongForTheOtherSideGoNowhere(t *testing.T) {
	rs := compile(parseRoutes("out # - prefix/ 1"), Out)
	if got := targets(nil, rs, strings.Repeat("x", 65535-7)); len(got) != 1 {
		t.Error("65535 bytes are not too long")
	}
	if got := targets(nil, rs, strings.Repeat("x", 65535-6)); len(got) != 0 {
		t.Error("65536 bytes are too long [MQTT-4.7.3-3]")
	}
}

func parseRoutes(s string) (routes []Route) {
	for _, one := range strings.Split(s, ";") {
		f := strings.Fields(strings.ReplaceAll(one, " - ", " \x01 "))
		for i := range f {
			if f[i] == "-" || f[i] == "\x01" {
				f[i] = ""
			}
		}
		r := Route{Direction: Out, Filter: f[1], LocalPrefix: f[2], RemotePrefix: f[3], QoS: f[4][0] - '0'}
		if f[0] == "in" {
			r.Direction = In
		}
		routes = append(routes, r)
	}
	return routes
}

func TestSubscriptions(t *testing.T) {
	for _, c := range []struct{ routes, want string }{
		{"out a - - 1", "a:1"},
		{"out a - - 0; out a - x/ 1", "a:1"},
		{"out # - - 1; out a - x/ 1; out b/+ - x/ 0", "#:1"},
		{"out # - - 0; out a - x/ 1", "#:0 a:1"},
		{"out a/+ - - 1; out +/b - - 1", "a/+:1 +/b:1"},
		{"out a/# - - 1; out a - x/ 1", "a/#:1"},
		{"out # - - 1; out x $SYS/ - 1", "#:1 $SYS/x:1"},
		{"out +/# - - 1; out # - x/ 1", "#:1"},
		{"in a - - 1", ""},
	} {
		var got []string
		for _, s := range localSubscriptions(parseRoutes(c.routes), "") {
			got = append(got, fmt.Sprintf("%s:%d", s.filter, s.qos))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: subscribes %q, want %q", c.routes, s, c.want)
		}
	}
}

// randomTopic draws from so few words that filters and names often meet.
func randomTopic(r *rand.Rand, filter bool) string {
	words := []string{"", "a", "b", "$x"}
	if filter {
		words = append(words, "+", "+")
	}
	var levels []string
	for range 1 + r.IntN(4) {
		levels = append(levels, words[r.IntN(len(words))])
	}
	if filter && r.IntN(3) == 0 {
		levels[len(levels)-1] = "#"
	}
	if s := strings.Join(levels, "/"); s != "" {
		return s
	}
	return "a"
}

// matches agrees with the index of the broker, which is written independently.
func TestMatchesAgreesWithTheIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	hits := 0
	for range 50_000 {
		filter, name := randomTopic(r, true), randomTopic(r, false)
		x := topic.NewIndex()
		x.Subscribe(filter, topic.Subscription{Subscriber: 1})
		var h topic.Hits
		x.Match([]byte(name), &h)
		if got, want := matches(filter, name), len(h.Subs) == 1; got != want {
			t.Fatalf("matches(%q, %q) is %t, the index says %t", filter, name, got, want)
		}
		hits += len(h.Subs)
	}
	if hits < 5000 {
		t.Errorf("only %d hits", hits)
	}
}

func TestCoversImpliesMatches(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		a, b := randomTopic(r, true), randomTopic(r, true)
		counter := "" // a name that b matches and a does not
		for range 300 {
			if n := randomTopic(r, false); matches(b, n) && !matches(a, n) {
				counter = n
				break
			}
		}
		if covers(a, b) && counter != "" {
			t.Fatalf("covers(%q, %q), but only the second matches %q", a, b, counter)
		}
	}
}

// Whatever comes, the result is publishable, and the way back leads home.
func FuzzTargets(f *testing.F) {
	f.Add("l/", "r/", "#", "l/a/b")
	f.Add("", "", "+/x", "$SYS/x")
	f.Add("a", "b/", "/#", "a/\xff")
	f.Fuzz(func(t *testing.T, local, remote, filter, name string) {
		r := Route{Direction: Out, Filter: filter, LocalPrefix: local, RemotePrefix: remote, QoS: 1}
		if r.validate() != nil {
			return
		}
		back := r
		back.Direction = In
		for _, there := range targets(nil, compile([]Route{r}, Out), name) {
			if !publishable(there.topic) {
				t.Fatalf("%+v sends %q to %q", r, name, there.topic)
			}
			if !strings.HasPrefix(name, local) || !publishable(name) {
				continue // the parent level, which may be ambiguous on the way back
			}
			// Over the border a name may become or cease to be a $ topic,
			// which wildcards do not match.
			if strings.HasPrefix(there.topic, "$") != strings.HasPrefix(remote+filter, "$") {
				continue
			}
			home := targets(nil, compile([]Route{back}, In), there.topic)
			if len(home) != 1 || home[0].topic != name {
				t.Fatalf("%+v: %q -> %q -> %v", r, name, there.topic, home)
			}
		}
	})
}
