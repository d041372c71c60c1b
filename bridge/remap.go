package bridge

import (
	"slices"
	"strings"
	"unicode/utf8"

	"sluice/broker/topic"
)

// DESIGN. Pure functions from a topic name on one side to names on the other.
// Messages are matched by their topic and not by the subscription that brought
// them: what was queued under yesterday's routes is routed by today's, and a
// message that matches no route any more is seen to do so.

// route is one Route, seen from the side its messages come from.
type route struct {
	filter   string   // complete, with the prefix
	exclude  []string // likewise
	from, to string   // prefixes
	qos      uint8
	queue    string // whose session brings its messages
	index    int    // in Options.Routes
}

// target is where a message goes.
type target struct {
	topic string
	qos   uint8  // at most
	queue string // of the route
	route int    // in Options.Routes
}

// source returns the complete filter on the side the messages come from.
func (r *Route) source() string {
	if r.Direction == In {
		return r.RemotePrefix + r.Filter
	}
	return r.LocalPrefix + r.Filter
}

// target returns the same on the other side.
func (r *Route) target() string {
	if r.Direction == In {
		return r.LocalPrefix + r.Filter
	}
	return r.RemotePrefix + r.Filter
}

// excluded returns the complete filters of Exclude.
func (r *Route) excluded() []string {
	prefix := r.LocalPrefix
	if r.Direction == In {
		prefix = r.RemotePrefix
	}
	var all []string
	for _, x := range r.Exclude {
		all = append(all, prefix+x)
	}
	return all
}

// compile returns the routes of one direction, in their order.
func compile(routes []Route, d Direction) []route {
	var out []route
	for i := range routes {
		r := &routes[i]
		if r.Direction != d {
			continue
		}
		c := route{filter: r.source(), exclude: r.excluded(), from: r.LocalPrefix, to: r.RemotePrefix, qos: r.QoS, queue: r.Queue, index: i}
		if d == In {
			c.from, c.to = c.to, c.from
		}
		out = append(out, c)
	}
	return out
}

// targets appends to dst where a message of the given topic goes: every route
// that matches, each resulting name once, the first route first.
func targets(dst []target, routes []route, name string) []target {
	for i := range routes {
		r := &routes[i]
		if !matches(r.filter, name) || slices.ContainsFunc(r.exclude, func(x string) bool { return matches(x, name) }) {
			continue
		}
		renamed, ok := r.rename(name)
		if !ok || slices.ContainsFunc(dst, func(t target) bool { return t.topic == renamed }) {
			continue
		}
		dst = append(dst, target{topic: renamed, qos: r.qos, queue: r.queue, route: r.index})
	}
	return dst
}

// matches tells whether a valid filter matches a topic name (MQTT5 4.7).
func matches(filter, name string) bool {
	if strings.HasPrefix(name, "$") && !strings.HasPrefix(filter, "$") {
		return false // [MQTT-4.7.2-1]
	}
	for more := true; ; {
		level, rest, deeper := strings.Cut(filter, "/")
		if level == "#" {
			return true // also when the name has ended: a/# matches a
		}
		if !more {
			return false
		}
		var have string
		have, name, more = strings.Cut(name, "/")
		if level != "+" && level != have {
			return false
		}
		if !deeper {
			return !more
		}
		filter = rest
	}
}

// rename exchanges the prefix. It reports false if the result is no topic name
// that a broker must accept.
//
// A filter such as a/# also matches a itself, the parent level (MQTT5 4.7.1.2),
// which lacks the prefix a/. It becomes the other side's parent level.
func (r *route) rename(name string) (string, bool) {
	renamed := ""
	switch rest, ok := strings.CutPrefix(name, r.from); {
	case ok:
		renamed = r.to + rest
	case name+"/" == r.from && strings.HasSuffix(r.to, "/"):
		renamed = strings.TrimSuffix(r.to, "/")
	}
	return renamed, publishable(renamed)
}

// publishable tells whether name is valid down to its bytes. paho checks
// nothing of what it receives.
func publishable(name string) bool {
	return topic.CheckName([]byte(name), 0) == nil && utf8.ValidString(name) && strings.IndexByte(name, 0) < 0
}

// subscription is one filter to subscribe.
type subscription struct {
	filter string
	qos    uint8
}

// subscriptions returns what to subscribe so that every route gets its
// messages: each filter once, and none that another one covers at the same
// or a higher QoS, since a broker may send a message once per matching filter.
func subscriptions(routes []route) []subscription {
	var all []subscription
	for _, r := range routes {
		if i := slices.IndexFunc(all, func(s subscription) bool { return s.filter == r.filter }); i >= 0 {
			all[i].qos = max(all[i].qos, r.qos)
			continue
		}
		all = append(all, subscription{r.filter, r.qos})
	}
	var kept []subscription
	for i, s := range all {
		covered := slices.ContainsFunc(all, func(o subscription) bool {
			return o.filter != all[i].filter && o.qos >= s.qos && covers(o.filter, s.filter)
		})
		if !covered {
			kept = append(kept, s)
		}
	}
	return kept
}

// covers tells whether every topic name that b matches is matched by a.
func covers(a, b string) bool {
	if strings.HasPrefix(b, "$") && !strings.HasPrefix(a, "$") {
		return false // [MQTT-4.7.2-1]
	}
	al, bl := strings.Split(a, "/"), strings.Split(b, "/")
	for i, level := range al {
		if level == "#" {
			return true // also if b ends here: a/# covers a
		}
		if i >= len(bl) || bl[i] == "#" {
			return false
		}
		if level != "+" && level != bl[i] {
			return false
		}
	}
	return len(al) == len(bl)
}

// localSubscriptions are those of the out routes of a queue.
func localSubscriptions(routes []Route, queue string) []subscription {
	own := compile(routes, Out)
	return subscriptions(slices.DeleteFunc(own, func(r route) bool { return r.queue != queue }))
}
