package sim

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/broker/worker"
)

// DESIGN. In some runs users may not do everything, and what they may changes as
// rules are loaded anew. Rules are in force from when they are loaded; the old
// ones may still be until every worker has got the news. When the broker wrote
// what a client gets now the client cannot know, but for this: it was after all
// that a later PINGRESP or the connection's beginning proves. So what arrives must
// have been allowed by rules that were in force at some time since then; what
// rules allowed all the time must arrive as if there were none; and what was
// published must have been allowed to its publisher.

// permission is what a rule gives.
type permission uint8

const (
	toRead permission = 1 << iota
	toWrite
	toSubscribe
	toNothing
)

type rule struct {
	what   permission
	filter string
}

// edition is one state of the rules.
type edition struct {
	users [users][]rule
	until int64 // stamp of when it surely was out of force; 0: it is not yet
}

var permissions = map[permission]string{
	toRead: "read", toWrite: "write", toRead | toWrite: "readwrite", toSubscribe: "subscribe", toNothing: "deny",
}

// ruleFilters are what rules are about; likely are more often than others.
var ruleFilters = []string{"#", "#", "t/#", "t/#", "t/a", "t/b", "+/a", "t/a/#", "u/#", "r/#", "r/+", "s/#", "t/+/pressure"}

// newEdition draws rules for all users.
func (w *World) newEdition() *edition {
	e := &edition{}
	for i := range e.users {
		add := func(what permission, filter string) { e.users[i] = append(e.users[i], rule{what, filter}) }
		if w.chance(0.7) {
			add(toRead|toWrite, "#")
		} else {
			for range w.between(0, 4) {
				add(pick(w, toRead, toWrite, toRead|toWrite), pick(w, ruleFilters...))
			}
		}
		for w.chance(0.4) {
			add(toNothing, pick(w, ruleFilters[2:]...))
		}
		if w.chance(0.1) {
			add(toSubscribe, pick(w, ruleFilters...))
			add(toSubscribe, "r/#")
		}
	}
	return e
}

// text is the ACL file. The hostile clients' publications are told apart by
// their topics, and the probe sees everything.
func (e *edition) text() []byte {
	b := []byte("user hostile\ntopic readwrite junk/#\ntopic readwrite junk\ntopic read #\nuser probe\ntopic readwrite #\n")
	for i, rules := range e.users {
		b = fmt.Appendf(b, "user user-%d\n", i)
		for _, r := range rules {
			b = fmt.Appendf(b, "topic %s %s\n", permissions[r.what], r.filter)
		}
	}
	return b
}

// rules makes what the broker judges by now.
func (w *World) rules() *auth.Rules {
	s := auth.Sources{Passwords: &auth.File{Name: "passwd", Data: passwords()}, Secret: []byte("secret")}
	if w.cfg.acl {
		if w.editions == nil {
			w.editions = append(w.editions, w.newEdition())
		}
		s.ACL = &auth.File{Name: "acl", Data: w.editions[len(w.editions)-1].text()}
	}
	r, err := auth.New(&s)
	if err != nil {
		w.fail("rules", "%v", err)
	}
	return r
}

// reload replaces the rules.
func (h *host) reload() {
	w := h.w
	w.editions = append(w.editions, w.newEdition())
	e := w.editions[len(w.editions)-1]
	w.note("reload", "host", int64(len(w.editions)), 0, string(e.text()))
	w.counts.Reloads++
	h.group.Reload(w.rules())
	n := 0
	for _, x := range h.group.Workers() {
		x.Call(func(*worker.Worker) {
			if n++; n == len(h.group.Workers()) {
				w.outdate(e)
			}
		})
	}
}

// outdate notes that no worker judges by rules before e any more.
func (w *World) outdate(e *edition) {
	stamp := w.next()
	for _, o := range w.editions {
		if o == e {
			return
		}
		if o.until == 0 {
			o.until = stamp
		}
	}
}

// may tells whether rules allow something.
func may(rules []rule, what permission, topic string) bool {
	ok := false
	for _, r := range rules {
		if r.what&(what|toNothing) != 0 && matches(r.filter, topic) {
			if r.what == toNothing {
				return false
			}
			ok = true
		}
	}
	return ok
}

// maySubscribe tells whether rules allow a subscription: something of it may be
// received, it is not denied as a whole, and if there are rules about
// subscriptions, one covers it. A member of a share group must be able to
// receive all of it.
func maySubscribe(rules []rule, filter string) bool {
	_, filter, shared := cutShare(filter)
	some, covered, limited, whole, partly := false, false, false, false, false
	for _, r := range rules {
		n, all := meet(r.filter, filter)
		if r.what == toNothing && all {
			return false
		}
		some = some || r.what&toRead != 0 && n
		whole = whole || r.what&toRead != 0 && all
		partly = partly || r.what == toNothing && n
		limited = limited || r.what == toSubscribe
		covered = covered || r.what == toSubscribe && all
	}
	if shared && (partly || !whole) {
		return false
	}
	return some && (covered || !limited)
}

// topics are enough to tell how the filters of this package meet: any two of
// them that differ do so by one of these.
var topics = sync.OnceValue(func() (all []string) {
	first := strings.Split("t u r s x", " ")
	second := strings.Split("a b x pressure temperature 0 1 2 3 4 5 6 7", " ")
	for _, a := range first {
		all = append(all, a)
		for _, b := range second {
			all = append(all, a+"/"+b)
			for _, c := range []string{"a", "b", "x", "pressure"} {
				all = append(all, a+"/"+b+"/"+c, a+"/"+b+"/"+c+"/x")
			}
		}
	}
	return all
})

type meeting struct{ some, all bool }

var meetings sync.Map // of two filters

// meet tells whether rule matches some, or all, of the topics that filter does.
func meet(rule, filter string) (some, all bool) {
	key := [2]string{rule, filter}
	if m, ok := meetings.Load(key); ok {
		return m.(meeting).some, m.(meeting).all
	}
	m := meeting{all: true}
	for _, t := range topics() {
		if matches(filter, t) {
			m.some = m.some || matches(rule, t)
			m.all = m.all && matches(rule, t)
		}
	}
	meetings.Store(key, m)
	return m.some, m.all
}

// allowed tells whether f holds for some, and for all, of the rules of a device
// that were in force at any time since a stamp.
func (d *device) allowed(since int64, f func([]rule) bool) (ever, always bool) {
	if d.user == "" || !d.w.cfg.acl {
		return true, true
	}
	always = true
	for _, e := range d.w.editions {
		if e.until != 0 && e.until < since {
			continue
		}
		ok := f(e.users[d.n%users])
		ever, always = ever || ok, always && ok
	}
	return ever, always
}

func (d *device) allowedTo(since int64, what permission, topic string) (ever, always bool) {
	return d.allowed(since, func(r []rule) bool { return may(r, what, topic) })
}

// judgeRules: what may not be received does not arrive, nor what might not be
// published.
func (l *link) judgeRules(p *pub) {
	d := l.d
	if ever, _ := d.allowedTo(l.sure, toRead, p.topic); !ever && !(knownQueueRules && (d.book.ended(p.topic) || l.sharedToo(p))) {
		l.fail("forbidden", "publication %d on %q arrives, which %s may not read", p.n, p.topic, d.user)
	}
	if ever, _ := p.from.allowedTo(p.first, toWrite, p.topic); !ever {
		l.fail("forbidden", "publication %d on %q arrives, which %s might not publish", p.n, p.topic, p.from.user)
	}
}

// ended tells whether a subscription that matches a topic has ended.
func (b *book) ended(topic string) bool {
	return slices.ContainsFunc(b.grants, func(g *grant) bool { return g.unsent != 0 && matches(g.filter, topic) })
}

// judgeDenied holds the reason of a PUBACK or PUBREC against the rules. It tells
// whether the message is surely on its way.
func (d *device) judgeDenied(l *link, a *mqtt.Ack, p *pub) (sure bool) {
	ever, always := d.allowedTo(p.first, toWrite, p.topic)
	denied := a.Reason == mqtt.NotAuthorized
	if denied && always || !denied && !ever && l.version == mqtt.V5 {
		l.fail("denied", "%v with reason %q for publication %d on %q, which is allowed now or then: %v, always: %v", a.Type, a.Reason, p.n, p.topic, ever, always)
	}
	if denied || !ever {
		d.w.counts.Denied++
	}
	return !denied && (always || l.version == mqtt.V5 && p.sends == 1)
}
