package auth

import (
	"strings"
	"testing"
)

// all joins up to n levels of the alphabet in every way.
func all(alphabet []string, n int) (list []string) {
	last := []string{""}
	for i := range n {
		var next []string
		for _, head := range last {
			for _, level := range alphabet {
				if i > 0 {
					next = append(next, head+"/"+level)
				} else {
					next = append(next, level)
				}
			}
		}
		list, last = append(list, next...), next
	}
	return list
}

func filters(t *testing.T) (list []string) {
	for _, f := range all([]string{"a", "$a", "", "+", "#"}, 3) {
		if checkFilter([]byte(f)) == nil {
			list = append(list, f)
		}
	}
	if len(list) < 80 {
		t.Fatalf("only %d filters", len(list))
	}
	return list
}

// naive is the definition of MQTT5 4.7, level by level.
func naive(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		if level == "#" {
			return true
		}
		if i == len(t) || level != "+" && level != t[i] {
			return false
		}
		if i == len(t)-1 && i+2 == len(f) && f[i+1] == "#" {
			return true
		}
	}
	return len(f) == len(t)
}

func topics() (list []string) {
	for _, topic := range all([]string{"a", "$a", "", "b"}, 4) {
		if topic != "" {
			list = append(list, topic)
		}
	}
	return list
}

func TestRuleMatchesAsTheDefinitionDoes(t *testing.T) {
	for _, f := range filters(t) {
		r := newRule(mayRead, f, 1, "")
		for _, topic := range topics() {
			if got, want := r.matches([]byte(topic)), naive(f, topic); got != want {
				t.Errorf("%q matches %q: %v, want %v", f, topic, got, want)
			}
		}
	}
}

func TestOverlapIsACommonTopic(t *testing.T) {
	list, names := filters(t), append(topics(), "") // "+" and "/#" meet in the empty topic, which nobody can publish to
	for _, a := range list {
		for _, b := range list {
			want := false
			for _, topic := range names {
				want = want || naive(a, topic) && naive(b, topic)
			}
			if got := overlaps([]byte(a), []byte(b)); got != want {
				t.Errorf("%q overlaps %q: %v, want %v", a, b, got, want)
			}
		}
	}
}

func TestCoverIsEveryTopic(t *testing.T) {
	list, names := filters(t), topics()
	missed := 0
	for _, a := range list {
		for _, b := range list {
			want := true
			for _, topic := range names {
				want = want && (naive(a, topic) || !naive(b, topic))
			}
			got := covers([]byte(a), []byte(b))
			if got && !want {
				t.Errorf("%q covers %q: true, but it does not", a, b)
			}
			if want && !got {
				missed++
			}
		}
		if !covers([]byte(a), []byte(a)) {
			t.Errorf("%q does not cover itself", a)
		}
	}
	if missed > len(list) { // "+/#" and "#" and the like
		t.Errorf("%d covers of %d pairs not seen", missed, len(list)*len(list))
	}
}

func TestSharedFilterIsJudgedByItsFilter(t *testing.T) {
	for filter, want := range map[string]string{
		"$share/g/a/b": "a/b", "$share/g/#": "#", "$share/g//a": "/a", "$share": "$share", "$share/g": "$share/g", "a/$share/g/b": "a/$share/g/b",
	} {
		if got := string(unshared([]byte(filter))); got != want {
			t.Errorf("%q: %q, want %q", filter, got, want)
		}
	}
}
