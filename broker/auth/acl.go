package auth

import (
	"slices"
	"strings"
)

// DESIGN. The ACL file is that of mosquitto (mosquitto.conf(5), acl_file):
//
//	# comment
//	topic [read|write|readwrite|deny|subscribe] <topic>
//	user <name>
//	pattern [read|write|readwrite|deny|subscribe] <topic with %u and %c>
//
// Lines "topic" before the first "user" are for anonymous clients, those after
// it for that user; "pattern" is for everybody, wherever it stands. Who has no
// rule may do nothing. Receiving needs read, publishing write.
//
// "subscribe" is ours: who has such rules may use only filters that one of
// them covers ("topic read #" with "topic subscribe site/+/temp" forbids a
// subscription to "#"). It gives no right to receive: that is read's.
//
// Where we differ from mosquitto 2, we allow less: "deny" wins everywhere,
// also that of a pattern over the allowance of a topic line; "topic read"
// without a topic is an error, not the topic "read"; and a name that contains
// a "/" does not fit %u or %c (see fits).

// acl is what an ACL file says.
type acl struct {
	users    map[string]*ruleSet // rules of each user; "": of anonymous clients
	everyone *ruleSet            // patterns that name nobody
	denials  *ruleSet            // those of them that deny
	patterns grant               // those with %u or %c
}

// grant are patterns that become rules once the client is known.
type grant struct {
	origin string
	rules  []rule // their filters are patterns
}

var allowances = map[string]allowance{
	"read":      mayRead,
	"write":     mayWrite,
	"readwrite": mayRead | mayWrite,
	"deny":      denied,
	"subscribe": maySubscribe,
}

func parseACL(f *File, p *problems) *acl {
	a := &acl{users: map[string]*ruleSet{}, patterns: grant{origin: f.Name}}
	users := map[string][]rule{}
	var everyone []rule
	user := ""
	for n, line := range f.lines() {
		if line == "" || line[0] == '#' {
			continue
		}
		word, rest := splitWord(line)
		switch word {
		case "user":
			if rest == "" {
				p.add(f.Name, n, "the user name is missing")
			}
			user = rest
		case "topic", "pattern":
			r, text := parseRule(n, line, rest)
			if text != "" {
				p.add(f.Name, n, "%s", text)
				continue
			}
			switch {
			case word == "topic":
				users[user] = append(users[user], r)
			case placeholder(r.filter):
				a.patterns.rules = append(a.patterns.rules, r)
			default:
				everyone = append(everyone, r)
			}
		default:
			p.add(f.Name, n, "%s is not one of topic, pattern, user and #", shown(word))
		}
	}
	for user, rules := range users {
		a.users[user] = newRuleSet(f.Name, rules)
	}
	a.everyone = newRuleSet(f.Name, everyone)
	a.denials = newRuleSet(f.Name, slices.DeleteFunc(everyone, func(r rule) bool { return r.what != denied }))
	return a
}

// parseRule reads what follows "topic" or "pattern". text is why it cannot.
func parseRule(n int, line, rest string) (r rule, text string) {
	what, filter := mayRead|mayWrite, rest
	word, after := splitWord(rest)
	if w, known := allowances[word]; known {
		if after == "" {
			return r, "the topic after " + word + " is missing"
		}
		what, filter = w, after
	} else if after != "" {
		return r, shown(word) + " is not one of read, write, readwrite, deny and subscribe"
	}
	if filter == "" {
		return r, "the topic is missing"
	}
	r = newRule(what, filter, n, line)
	if err := checkFilter(r.filter); err != nil {
		return r, err.Error() + ": " + shown(filter)
	}
	return r, ""
}

func splitWord(s string) (word, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

// permit compiles what a user may do under a client id.
func (a *acl) permit(user, clientID string) *Permit {
	everyone := a.everyone
	if hostile(user) || hostile(clientID) {
		everyone = a.denials
	}
	return &Permit{sets: [3]*ruleSet{a.users[user], everyone, a.patterns.fill(user, clientID)}}
}

// hostile tells of a name with a wildcard in it: to such a client no pattern
// allows anything, as in mosquitto.
func hostile(name string) bool { return strings.ContainsAny(name, "+#") }

// placeholder tells whether a filter has %u or %c in it.
func placeholder(filter []byte) bool {
	s := string(filter)
	return strings.Contains(s, "%u") || strings.Contains(s, "%c")
}

// fill makes the rules of one client. A pattern that the client's names do not
// fit allows nothing; if it denies, it denies everything from the level with
// the name on. A pattern with a name that the client does not have is no rule
// for it.
func (g *grant) fill(user, clientID string) *ruleSet {
	rules := make([]rule, 0, len(g.rules))
	for _, r := range g.rules {
		pattern := string(r.filter)
		if strings.Contains(pattern, "%u") && user == "" || strings.Contains(pattern, "%c") && clientID == "" {
			continue
		}
		filter, ok := substitute(pattern, user, clientID)
		ok = ok && !hostile(user) && !hostile(clientID)
		if !ok {
			if r.what != denied {
				continue
			}
			filter = pattern[:strings.LastIndexByte(pattern[:strings.IndexByte(pattern, '%')], '/')+1] + "#"
		}
		rules = append(rules, newRule(r.what, filter, int(r.line), r.text))
	}
	return newRuleSet(g.origin, rules)
}

// nameMax bounds the memory that the patterns take for one client; names of
// devices are a tenth of that.
const nameMax = 1024

// fits tells whether a name can stand for a part of one level: a wildcard in
// it would widen the rule, and with a "/" in it the client "a/b" would be at
// home in the topics of a client "a".
func fits(name string) bool {
	return name != "" && len(name) <= nameMax && !strings.ContainsAny(name, "+#/\x00")
}

// substitute puts the names in, in one pass: what a name contains is not
// looked at again.
func substitute(pattern, user, clientID string) (filter string, ok bool) {
	if strings.Contains(pattern, "%u") && !fits(user) || strings.Contains(pattern, "%c") && !fits(clientID) {
		return "", false
	}
	filter = strings.NewReplacer("%u", user, "%c", clientID).Replace(pattern)
	if hidden([]byte(filter)) && pattern[0] != '$' { // a client named "$SYS" does not own the broker's topics
		return "", false
	}
	return filter, true
}
