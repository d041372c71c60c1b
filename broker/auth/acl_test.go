package auth

import (
	"strings"
	"testing"
)

// rulesOf makes Rules of an ACL file only.
func rulesOf(t testing.TB, acl string) *Rules {
	t.Helper()
	r, err := New(&Sources{ACL: &File{Name: "acl", Data: []byte(acl)}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func permitOf(t testing.TB, acl, user, clientID string) *Permit {
	t.Helper()
	return rulesOf(t, acl).Permit(&Identity{User: user}, clientID)
}

// check asks a permit for "p:topic", "r:topic" or "s:filter".
func check(t *testing.T, p *Permit, question string, want bool) {
	t.Helper()
	a := map[byte]Action{'p': Publish, 'r': Receive, 's': Subscribe}[question[0]]
	topic := []byte(question[2:])
	if got := p.Can(a, topic); got != want {
		t.Errorf("%s %q: %v, want %v", a, topic, got, want)
	}
	ok, why := p.Explain(a, topic)
	if ok != want || why == "" {
		t.Errorf("Explain %s %q: %v %q, want %v", a, topic, ok, why, want)
	}
}

func TestACL(t *testing.T) {
	for _, x := range []struct {
		name, acl, user, client string
		yes, no                 string
	}{
		{"without an access word a topic is read and written", "topic a/b", "", "c", "p:a/b r:a/b s:a/b", "p:a r:a/b/c s:b"},
		{"read is not write", "topic read a", "", "c", "r:a s:a", "p:a"},
		{"write is not read", "topic write a", "", "c", "p:a", "r:a s:a"},
		{"readwrite is both", "topic readwrite a/#", "", "c", "p:a r:a/x/y s:a/+", "p:b"},
		{"rules before the first user are for anonymous clients", "topic a\nuser u\ntopic b", "", "c", "p:a", "p:b"},
		{"rules before the first user are not for users", "topic a\nuser u\ntopic b", "u", "c", "p:b", "p:a"},
		{"a user without rules may do nothing", "topic a\nuser u\ntopic b", "v", "c", "", "p:a r:a s:a p:b s:#"},
		{"an empty file allows nothing", "", "u", "c", "", "p:a r:a s:#"},
		{"a user may come twice", "user u\ntopic a\nuser v\ntopic b\nuser u\ntopic c", "u", "c", "p:a p:c", "p:b"},
		{"deny wins before", "topic deny a/b\ntopic a/#", "", "c", "p:a/c r:a s:a/#", "p:a/b r:a/b s:a/b"},
		{"deny wins behind", "topic a/#\ntopic deny a/+/x", "", "c", "p:a/c", "p:a/b/x s:a/b/x s:a/+/x"},
		{"deny of a pattern wins over a topic", "user u\ntopic #\npattern deny a/%u", "u", "c", "p:a/v", "p:a/u"},
		{"deny of a topic wins over a pattern", "user u\ntopic deny a/u\npattern a/%u\npattern b/%c", "u", "c", "p:b/c", "p:a/u"},
		{"patterns are for everybody", "user x\npattern write %u/%c/out\npattern read %u/in", "u", "c", "p:u/c/out r:u/in", "p:u/d/out r:v/in r:u/c/out"},
		{"patterns without names are for everybody", "pattern read all", "", "", "r:all", "p:all"},
		{"an anonymous client has no %u", "pattern %u/a\npattern %c/a", "", "c", "p:c/a", "p:/a"},
		{"a part of a level may be a name", "pattern dev-%u/x", "u", "c", "p:dev-u/x", "p:dev-v/x"},
		{"a topic is no pattern", "topic %u/a", "", "c", "p:%u/a", "p:c/a"},
		{"# does not allow the topics of the broker", "topic #", "", "c", "p:a r:a/b s:#", "r:$SYS/a s:$SYS/#"},
		{"the broker's topics have rules of their own", "topic read $SYS/#", "", "c", "r:$SYS/a s:$SYS/+", "r:a s:# s:+/a"},
		{"a subscription needs one readable topic", "topic read a/+/c", "", "c", "s:# s:a/b/+ s:+/+/c s:a/#", "s:a s:b/# s:a/+/d"},
		{"a shared subscription is judged by its filter", "topic read a\ntopic deny b", "", "c", "s:$share/g/a s:$share/g/+", "s:$share/a/b s:$share/g/c"},
		{"subscribe rules restrict filters", "topic read #\ntopic subscribe a/+", "", "c", "s:a/b s:a/+ s:$share/g/a/b r:x", "s:# s:a/# s:b s:+/b p:a/b"},
		{"subscribe rules of patterns too", "topic read #\npattern subscribe %c/#", "", "c", "s:c s:c/+", "s:#"},
		{"subscribe alone delivers nothing", "topic subscribe a/#\ntopic read b", "", "c", "r:b", "s:a/b r:a/b s:b"},
		{"deny restricts subscribe", "topic read #\ntopic subscribe a/#\ntopic deny a/b/#", "", "c", "s:a/# s:a/c", "s:a/b s:a/b/+"},
		{"comments, blank lines, CRLF, BOM, tabs", "\ufeff# x\r\n\r\n  topic\tread\ta\r\nuser  u \r\ntopic b\r\n", "", "c", "r:a", "p:a p:b"},
		{"user names may have blanks", "user a b\ntopic x", "a b", "c", "p:x", "p:y"},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := permitOf(t, x.acl, x.user, x.client)
			for _, list := range []struct {
				questions string
				want      bool
			}{{x.yes, true}, {x.no, false}} {
				for _, q := range strings.Split(" "+list.questions, " ") {
					if len(q) > 2 && q[1] == ':' {
						check(t, p, q, list.want)
					}
				}
			}
		})
	}
}

func TestTopicWithBlanks(t *testing.T) {
	p := permitOf(t, "topic read a b/c d", "", "c")
	check(t, p, "r:a b/c d", true)
	check(t, p, "r:a b/c", false)
}

// A name must never widen a pattern (CVE-2017-7650 of mosquitto).
func TestNamesDoNotWidenPatterns(t *testing.T) {
	const acl = "pattern dev/%u/#\npattern read cl/%c\npattern %u/own\npattern deny dev/%u/secret\npattern no/#\npattern deny no/x\npattern all"
	for _, name := range []string{"+", "#", "a/b", "a/#", "+/x", "/", "a\x00b", strings.Repeat("x", nameMax+1)} {
		p := permitOf(t, acl, name, name)
		for _, q := range []string{"p:dev/a/x", "p:dev/b", "p:dev/" + name, "r:cl/a", "r:cl/" + name, "s:dev/#", "p:" + name + "/own"} {
			check(t, p, q, false)
		}
		check(t, p, "p:all", !strings.ContainsAny(name, "+#"))
		check(t, p, "p:no/x", false)
	}
	for _, name := range []string{"$SYS", "$share", "$"} {
		p := permitOf(t, acl, name, "c")
		check(t, p, "r:"+name+"/own", false)
		check(t, p, "p:dev/"+name+"/x", true)
	}
	p := permitOf(t, "pattern a/%u", "%c", "x")
	check(t, p, "p:a/%c", true)
	check(t, p, "p:a/x", false)
	check(t, permitOf(t, "pattern a/%u", "u", "#"), "p:a/u", false)
	check(t, p, "p:a/b", false)
}

// If the name does not fit, a deny pattern denies more, not nothing.
func TestDenyPatternHoldsForNamesThatDoNotFit(t *testing.T) {
	const acl = "user +\ntopic #\nuser a/b\ntopic #\nuser u\ntopic #\npattern deny dev/%u/secret"
	for _, user := range []string{"+", "a/b"} {
		p := permitOf(t, acl, user, "c")
		check(t, p, "p:dev/"+user+"/secret", false)
		check(t, p, "p:dev/other", false)
		check(t, p, "p:x", true)
	}
	check(t, permitOf(t, acl, "u", "c"), "p:dev/other", true)
}

func TestACLErrorsNameFileAndLineAllAtOnce(t *testing.T) {
	_, err := New(&Sources{ACL: &File{Name: "my%s.acl", Data: []byte(
		"topic read\ntopic\nuser\nfrob x\ntopic foo bar\ntopic a/#/b\npattern read a+\ntopic read ok\ntopic a#\npattern deny\n")}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"my%s.acl:1: the topic after read is missing", "my%s.acl:2: the topic is missing", "my%s.acl:3: the user name", `my%s.acl:4: "frob"`,
		`my%s.acl:5: "foo" is not one of`, "my%s.acl:6: # must", "my%s.acl:7: + and #", "my%s.acl:9: + and #", "my%s.acl:10: the topic after deny",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing: %s", want)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 9 {
		t.Errorf("%d problems, want 9:\n%v", n, err)
	}
}

func TestManyProblemsAreCounted(t *testing.T) {
	_, err := New(&Sources{ACL: &File{Name: "x", Data: []byte(strings.Repeat("junk\n", 1000))}})
	if n := strings.Count(err.Error(), "\n") + 1; n != problemsMax+1 || !strings.Contains(err.Error(), "and 900 more problems") {
		t.Errorf("%d lines: %.100s", n, err)
	}
}

func TestExplainNamesTheRule(t *testing.T) {
	p := permitOf(t, "user u\ntopic read a/#\ntopic deny a/x\n\npattern write dev/%u/#\npattern subscribe a/+", "u", "c")
	for _, x := range []struct {
		a     Action
		topic string
		ok    bool
		why   string
	}{
		{Receive, "a/b", true, "acl:2: topic read a/#"},
		{Receive, "a/x", false, "acl:3: topic deny a/x"},
		{Publish, "dev/u/1", true, "acl:5: pattern write dev/%u/# (dev/u/#)"},
		{Publish, "a", false, "no rule allows it"},
		{Subscribe, "a/b", true, "acl:6: pattern subscribe a/+"},
		{Subscribe, "a/#", false, "no rule allows it"},
		{Subscribe, "a/x", false, "acl:3: topic deny a/x"},
	} {
		if ok, why := p.Explain(x.a, []byte(x.topic)); ok != x.ok || why != x.why {
			t.Errorf("%s %s: %v %q, want %v %q", x.a, x.topic, ok, why, x.ok, x.why)
		}
	}
	if ok, why := (*Permit)(nil).Explain(Publish, []byte("x")); !ok || why == "" {
		t.Errorf("nil: %v %q", ok, why)
	}
}
