package auth

import (
	"bytes"
	"fmt"
	"strings"
)

// DESIGN. A Permit is a handful of rule sets: those that it shares with other
// clients (the user's rules, patterns without %u and %c) and one of its own
// (patterns with the names put in). A set keeps its deny rules first. Most
// rules are decided by comparing the bytes before the first wildcard; a set
// with many rules without wildcards finds those in a map.

// Permit is what one client may do. It is immutable and may be asked from any
// goroutine. A nil Permit allows everything, one without rules nothing.
type Permit struct {
	sets [3]*ruleSet // of the user or the token, for everybody, of this client; each may be nil
}

// allowance is what a rule is about.
type allowance uint8

const (
	mayRead allowance = 1 << iota
	mayWrite
	maySubscribe
	denied
)

// rule is one line of an ACL file, or one entry of a token's claim.
type rule struct {
	filter  []byte
	literal int // bytes of filter before the first wildcard level; len(filter): there is none
	what    allowance
	line    int32  // 0: not from a file
	text    string // as it is written there
}

func newRule(what allowance, filter string, line int, text string) rule {
	r := rule{filter: []byte(filter), what: what, line: int32(line), text: text}
	for rest, more := r.filter, true; more; {
		var level []byte
		if level, rest, more = cut(rest); wild(level) {
			return r
		}
		r.literal = len(r.filter) - len(rest)
	}
	r.literal = len(r.filter)
	return r
}

func (r *rule) exact() bool { return r.literal == len(r.filter) }

func (r *rule) matches(topic []byte) bool {
	n := r.literal
	if len(topic) < n {
		return n == len(r.filter)-1 && r.filter[n] == '#' && string(topic) == string(r.filter[:n-1])
	}
	if string(topic[:n]) != string(r.filter[:n]) {
		return false
	}
	if n == len(r.filter) {
		return len(topic) == n
	}
	return (n > 0 || !hidden(topic)) && matchLevels(r.filter[n:], topic[n:])
}

// mapMin is how many rules without wildcards make a map pay: below, comparing
// them one by one is as fast and takes no memory.
const mapMin = 12

// ruleSet is immutable once made.
type ruleSet struct {
	origin string               // a file name, or what a token calls itself
	rules  []rule               // deny first, in the order of the file otherwise
	wild   []rule               // those that Can walks; all, if exact is nil
	exact  map[string]allowance // of the rules without wildcards; nil: few
}

func newRuleSet(origin string, rules []rule) *ruleSet {
	if len(rules) == 0 {
		return nil
	}
	s := &ruleSet{origin: origin, rules: make([]rule, 0, len(rules))}
	exact := 0
	for _, deny := range []bool{true, false} {
		for _, r := range rules {
			if (r.what == denied) == deny {
				s.rules = append(s.rules, r)
			}
		}
	}
	for i := range rules {
		if rules[i].exact() {
			exact++
		}
	}
	if s.wild = s.rules; exact < mapMin {
		return s
	}
	s.wild, s.exact = nil, make(map[string]allowance, exact)
	for _, r := range s.rules {
		if r.exact() {
			s.exact[string(r.filter)] |= r.what
		} else {
			s.wild = append(s.wild, r)
		}
	}
	return s
}

// judge collects what the rules of the set that match topic say, at least as
// far as want and denied are concerned.
func (s *ruleSet) judge(topic []byte, want allowance) (found allowance) {
	if s.exact != nil {
		found = s.exact[string(topic)]
	}
	for i := range s.wild {
		r := &s.wild[i]
		if r.what&(want|denied) == 0 || !r.matches(topic) {
			continue
		}
		if found |= r.what; found&denied != 0 || found&want != 0 { // deny stands first: no denial comes after an allowance
			return found
		}
	}
	return found
}

// Can tells whether the client may do a with a topic name, or filter for
// Subscribe. It does not allocate. A subscription is allowed if something
// that it asks for may be received and it is not denied as a whole; what is
// then delivered is for Receive to say, message by message. If the client has
// subscribe rules, one of them must cover the filter besides. The filter of a
// shared subscription is judged without $share and group.
func (p *Permit) Can(a Action, topic []byte) bool {
	if p == nil {
		return true
	}
	want := mayRead
	switch a {
	case Publish:
		want = mayWrite
	case Subscribe:
		ok, _, _ := p.subscription(unshared(topic))
		return ok
	}
	found := allowance(0)
	for _, s := range p.sets {
		if s == nil {
			continue
		}
		if found |= s.judge(topic, want); found&denied != 0 {
			return false
		}
	}
	return found&want != 0
}

// find returns the first rule of p that is about what and fits.
func (p *Permit) find(what allowance, fits func(r *rule) bool) (*ruleSet, *rule) {
	for _, s := range p.sets {
		if s == nil {
			continue
		}
		for i := range s.rules {
			if r := &s.rules[i]; r.what&what != 0 && fits(r) {
				return s, r
			}
		}
	}
	return nil, nil
}

// subscription judges a filter. The rule is the one that decides; nil: none
// allows it.
func (p *Permit) subscription(filter []byte) (bool, *ruleSet, *rule) {
	covering := func(r *rule) bool { return covers(r.filter, filter) }
	if s, r := p.find(denied, covering); r != nil {
		return false, s, r
	}
	s, r := p.find(mayRead, func(r *rule) bool { return overlaps(r.filter, filter) })
	if r == nil {
		return false, nil, nil
	}
	if _, any := p.find(maySubscribe, func(*rule) bool { return true }); any != nil {
		s, r = p.find(maySubscribe, covering)
	}
	return r != nil, s, r
}

// Covers tells whether every topic that filter matches may be received, so
// that no message of a subscription to it needs to be checked. It may say
// false where two rules together would allow everything.
func (p *Permit) Covers(filter []byte) bool {
	if p == nil {
		return true
	}
	filter = unshared(filter)
	if _, r := p.find(denied, func(r *rule) bool { return overlaps(r.filter, filter) }); r != nil {
		return false
	}
	_, r := p.find(mayRead, func(r *rule) bool { return covers(r.filter, filter) })
	return r != nil
}

// Explain answers as Can does, and names the rule that decides as
// "file:line: text".
func (p *Permit) Explain(a Action, topic []byte) (ok bool, why string) {
	if p == nil {
		return true, "there are no rules: everything is allowed"
	}
	var s *ruleSet
	var r *rule
	if a == Subscribe {
		ok, s, r = p.subscription(unshared(topic))
	} else {
		matching := func(r *rule) bool { return r.matches(topic) }
		if s, r = p.find(denied, matching); r == nil {
			want := mayRead
			if a == Publish {
				want = mayWrite
			}
			s, r = p.find(want, matching)
			ok = r != nil
		}
	}
	if r == nil {
		return false, "no rule allows it"
	}
	return ok, s.name(r)
}

// name is where a rule stands and how it reads, also after the names of the
// client have been put in.
func (s *ruleSet) name(r *rule) string {
	var b strings.Builder
	b.WriteString(s.origin)
	if r.line > 0 {
		fmt.Fprintf(&b, ":%d", r.line)
	}
	b.WriteString(": " + r.text)
	if !bytes.HasSuffix([]byte(r.text), r.filter) {
		fmt.Fprintf(&b, " (%s)", r.filter)
	}
	return b.String()
}
