package auth

import (
	"bytes"
	"errors"
)

// DESIGN. Filters in rules are compared with topic names (matches) and with
// the filters of subscriptions (covers, overlaps), level by level. None of it
// allocates. As in MQTT5 4.7.2, a wildcard in the first level stands for no
// level that begins with $.

// share is what the filter of a shared subscription begins with (MQTT5 4.8.2).
var share = []byte("$share/")

// unshared is the filter of a subscription without $share and group: those
// decide who gets a message, not which.
func unshared(filter []byte) []byte {
	if !bytes.HasPrefix(filter, share) {
		return filter
	}
	if _, rest, ok := bytes.Cut(filter[len(share):], []byte{'/'}); ok {
		return rest
	}
	return filter
}

// checkFilter tells why filter is none (MQTT5 4.7.1).
func checkFilter(filter []byte) error {
	switch {
	case len(filter) == 0:
		return errors.New("the topic is empty")
	case len(filter) > 65535:
		return errors.New("the topic is longer than 65535 bytes")
	case bytes.IndexByte(filter, 0) >= 0:
		return errors.New("the topic contains a zero byte")
	}
	for rest, more := filter, true; more; {
		var level []byte
		level, rest, more = cut(rest)
		if len(level) > 1 && bytes.ContainsAny(level, "+#") {
			return errors.New("+ and # stand for a whole level, they cannot be a part of one")
		}
		if more && hash(level) {
			return errors.New("# must be the last level")
		}
	}
	return nil
}

// cut splits the first level off. more: there is another one, perhaps empty.
func cut(s []byte) (level, rest []byte, more bool) {
	if i := bytes.IndexByte(s, '/'); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, nil, false
}

func plus(level []byte) bool { return len(level) == 1 && level[0] == '+' }
func hash(level []byte) bool { return len(level) == 1 && level[0] == '#' }
func wild(level []byte) bool { return plus(level) || hash(level) }

// hidden tells that a wildcard in the first level does not stand for s.
func hidden(s []byte) bool { return len(s) > 0 && s[0] == '$' }

// matchLevels tells whether filter f matches topic t, apart from the rule
// about $. Both begin at the beginning of a level.
func matchLevels(f, t []byte) bool {
	i, j := 0, 0
	for {
		switch {
		case i < len(f) && f[i] == '#':
			return true
		case i < len(f) && f[i] == '+':
			i++
			for j < len(t) && t[j] != '/' {
				j++
			}
		default:
			for i < len(f) && f[i] != '/' {
				if j == len(t) || t[j] != f[i] {
					return false
				}
				i, j = i+1, j+1
			}
		}
		switch {
		case j == len(t): // "a/#" matches "a" as well [MQTT-4.7.1-1]
			return i == len(f) || len(f)-i == 2 && f[i+1] == '#'
		case i == len(f) || t[j] != '/':
			return false
		}
		i, j = i+1, j+1
	}
}

// covers tells whether every topic that filter b matches is matched by filter
// a. It may say no where it takes two levels together to see it ("+/#" covers
// "#"), never yes where it is not so.
func covers(a, b []byte) bool {
	if la, _, _ := cut(a); wild(la) && hidden(b) {
		return false
	}
	for {
		la, ra, moreA := cut(a)
		lb, rb, moreB := cut(b)
		switch {
		case hash(la):
			return true
		case hash(lb), !plus(la) && !bytes.Equal(la, lb):
			return false
		case !moreB:
			return !moreA || hash(ra)
		case !moreA:
			return false
		}
		a, b = ra, rb
	}
}

// overlaps tells whether there is a topic that both filters match.
func overlaps(a, b []byte) bool {
	la, _, _ := cut(a)
	lb, _, _ := cut(b)
	if wild(la) && hidden(b) || wild(lb) && hidden(a) {
		return false
	}
	for {
		la, ra, moreA := cut(a)
		lb, rb, moreB := cut(b)
		switch {
		case hash(la) || hash(lb):
			return true
		case !plus(la) && !plus(lb) && !bytes.Equal(la, lb):
			return false
		case !moreA && !moreB:
			return true
		case !moreA:
			return hash(rb)
		case !moreB:
			return hash(ra)
		}
		a, b = ra, rb
	}
}
