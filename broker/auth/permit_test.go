package auth

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestNilPermitAllowsEverything(t *testing.T) {
	var p *Permit
	for _, q := range []string{"p:a", "r:$SYS/x", "s:#"} {
		check(t, p, q, true)
	}
	if !p.Covers([]byte("#")) {
		t.Error("nil does not cover #")
	}
}

func TestWithoutACLThereIsNothingToRestrict(t *testing.T) {
	r, err := New(&Sources{})
	if err != nil {
		t.Fatal(err)
	}
	if p := r.Permit(&Identity{}, "c"); p != nil {
		t.Errorf("%+v", p)
	}
}

func TestCovers(t *testing.T) {
	p := permitOf(t, "topic read a/#\ntopic deny a/x/+\ntopic write b\ntopic read c/+/d", "", "c")
	for filter, want := range map[string]bool{
		"a": true, "a/b": true, "a/b/#": true, "a/+": true, "a/x": true, "$share/g/a/b": true, "c/1/d": true, "c/+/d": true,
		"a/#": false, "a/+/+": false, "a/x/1": false, "#": false, "b": false, "c/#": false, "$share/g/#": false, "+/b": false,
	} {
		if got := p.Covers([]byte(filter)); got != want {
			t.Errorf("%q: %v, want %v", filter, got, want)
		}
	}
}

// What Covers says and what Receive says must agree, for any rules.
func TestCoversNeverAllowsWhatReceiveDenies(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	list, names := filters(t), topics()
	covered := 0
	for range 300 {
		var acl strings.Builder
		for range 1 + rnd.IntN(4) {
			fmt.Fprintf(&acl, "topic %s %s\n", []string{"read", "read", "deny", "readwrite"}[rnd.IntN(4)], nonEmpty(list, rnd))
		}
		p := permitOf(t, acl.String(), "", "c")
		for range 20 {
			f := list[rnd.IntN(len(list))]
			if f == "" || !p.Covers([]byte(f)) {
				continue
			}
			covered++
			if !p.Can(Subscribe, []byte(f)) {
				t.Errorf("%q is covered but cannot be subscribed to:\n%s", f, acl.String())
			}
			for _, topic := range names {
				if naive(f, topic) && !p.Can(Receive, []byte(topic)) {
					t.Fatalf("%q is covered but %q is denied:\n%s", f, topic, acl.String())
				}
			}
		}
	}
	if covered < 100 {
		t.Errorf("only %d filters were covered", covered)
	}
}

func nonEmpty(list []string, rnd *rand.Rand) string {
	for {
		if f := list[rnd.IntN(len(list))]; strings.TrimSpace(f) != "" {
			return f
		}
	}
}

// Many rules without wildcards go through a map: it must say the same.
func TestManyExactRulesSayTheSame(t *testing.T) {
	var acl strings.Builder
	for i := range 100 {
		fmt.Fprintf(&acl, "topic %s t/%d\n", []string{"read", "write", "readwrite", "deny"}[i%4], i)
	}
	acl.WriteString("topic read t/#\ntopic deny t/+/x\ntopic write t/3\ntopic subscribe #\n")
	p := permitOf(t, acl.String(), "", "c")
	if p.sets[0].exact == nil {
		t.Fatal("no map")
	}
	for i := range 101 {
		for _, a := range []Action{Publish, Receive, Subscribe} {
			for _, topic := range []string{fmt.Sprintf("t/%d", i), fmt.Sprintf("t/%d/x", i)} {
				ok, why := p.Explain(a, []byte(topic))
				if got := p.Can(a, []byte(topic)); got != ok {
					t.Errorf("%s %s: Can %v, Explain %v %s", a, topic, got, ok, why)
				}
			}
		}
	}
	check(t, p, "p:t/1", true)
	check(t, p, "p:t/0", false)
	check(t, p, "r:t/1", true)
	check(t, p, "r:t/3", false)
}

const busyACL = `
user u
topic read site/+/sensor/#
topic write site/4/cmd
topic deny site/+/sensor/secret
pattern write dev/%u/#
pattern read dev/%u/cmd/%c
pattern read news/#
`

func TestCanDoesNotAllocate(t *testing.T) {
	p := permitOf(t, busyACL, "u", "c")
	var exact strings.Builder
	for i := range 50 {
		fmt.Fprintf(&exact, "topic t/%d\n", i)
	}
	q := permitOf(t, exact.String(), "", "c")
	pub, sub, share, mapped := []byte("dev/u/a/rather/long/topic/that/does/not/fit/32/bytes"), []byte("site/+/sensor/#"), []byte("$share/g/news/+"), []byte("t/33")
	for range 2 {
		if n := testing.AllocsPerRun(100, func() {
			if !p.Can(Publish, pub) || p.Can(Receive, pub) || !p.Can(Subscribe, sub) || !p.Can(Subscribe, share) || p.Covers(sub) || !q.Can(Publish, mapped) || q.Can(Receive, pub) {
				panic("wrong answer")
			}
		}); n != 0 {
			t.Fatalf("%v allocations", n)
		}
	}
}

func BenchmarkCan(b *testing.B) {
	for _, x := range []struct {
		name, acl, topic string
		want             bool
	}{
		{"few", busyACL, "dev/u/temp", true},
		{"denied", busyACL, "other/u/temp", false},
		{"plus", "user u\ntopic write a/+/b/+/c/#", "a/1/b/2/c/3/4", true},
		{"100wild", "user u\n" + strings.Repeat("topic write x/y/+/z\n", 100) + "topic write dev/#", "dev/u/temp", true},
	} {
		b.Run(x.name, func(b *testing.B) {
			p, topic := permitOf(b, x.acl, "u", "c"), []byte(x.topic)
			b.ReportAllocs()
			for b.Loop() {
				if p.Can(Publish, topic) != x.want {
					b.Fatal("wrong")
				}
			}
		})
	}
}

func BenchmarkPermit(b *testing.B) {
	r := rulesOf(b, busyACL)
	b.ReportAllocs()
	for b.Loop() {
		r.Permit(&Identity{User: "u"}, "c")
	}
}
