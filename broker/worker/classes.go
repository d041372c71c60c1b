package worker

import (
	"strings"

	"sluice/broker/session"
	"sluice/persist"
)

// DESIGN. Sessions of one class have one value of limits in common, so a class
// costs a session nothing. Which class a session belongs to follows from its client
// id and its user: it is looked up when a client connects and when a session is
// restored, and what has changed by then is written into the store.

// QueueClass is what may wait for some sessions, in place of Limits.Queue.
type QueueClass struct {
	Name string
	// Patterns: * is any text, ? one character. None: any. A session must be of both.
	ClientIDs, Users []string
	Queue            session.Queue
}

// class is a QueueClass with the limits for its sessions.
type class struct {
	QueueClass
	limits session.Limits
}

// setClasses makes the limits of all classes.
func (g *Group) setClasses(all []QueueClass) {
	for _, c := range all {
		x := &class{QueueClass: c, limits: g.opt.Limits}
		x.limits.Queue = c.Queue
		g.classes = append(g.classes, x)
	}
	g.internal = g.opt.Limits
	g.internal.Queue = session.Queue{}
}

// limitsOf gives the limits for a session. Those of Sluice itself have none but the
// store's, unless a class names them.
func (g *Group) limitsOf(clientID, user string) *session.Limits {
	for _, c := range g.classes {
		if oneMatches(c.ClientIDs, clientID) && oneMatches(c.Users, user) {
			return &c.limits
		}
	}
	if strings.HasPrefix(clientID, session.InternalPrefix) {
		return &g.internal
	}
	return g.limits
}

// oneMatches tells whether one of the patterns matches, or there is none. Sessions
// of Sluice itself have to be named: "*" does not mean them.
func oneMatches(patterns []string, s string) bool {
	for _, p := range patterns {
		if like(p, s) && (!strings.HasPrefix(s, session.InternalPrefix) || strings.HasPrefix(p, "$")) {
			return true
		}
	}
	return len(patterns) == 0 && !strings.HasPrefix(s, session.InternalPrefix)
}

// like tells whether a text is as a pattern says. It takes at most len(p)*len(s)
// steps.
func like(p, s string) bool {
	i, star, from := 0, -1, 0 // star: the last * of p, which stands for s[from:j]
	for j := 0; j < len(s); {
		switch {
		case i < len(p) && p[i] == '*':
			star, from = i, j
			i++
		case i < len(p) && (p[i] == s[j] || p[i] == '?'):
			i++
			j++
			for p[i-1] == '?' && j < len(s) && s[j]&0xC0 == 0x80 { // the rest of the character
				j++
			}
		case star >= 0:
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(p[i:], "*") == ""
}

// classify gives a session the limits of its class.
func (w *Worker) classify(x *client, user string) {
	if len(w.g.classes) > 0 {
		x.SetLimits(w.g.limitsOf(x.ClientID, user))
	}
}

// relimit brings the limits of a restored session's queue in the store up to date
// with the configuration.
func (w *Worker) relimit(x *client, im *persist.SessionImage) {
	if now := x.Limits().Queue.QueueLimits; now != im.Queue {
		s := im.Session
		s.Queue = now
		w.batch.Add(persist.Op{Kind: persist.OpPutSession, ID: x.Durable, Sess: &s})
	}
}
