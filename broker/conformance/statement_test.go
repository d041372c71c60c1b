package conformance

import (
	"reflect"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"sluice/broker/mqtt"
)

// kind says what becomes of a statement.
type kind uint8

const (
	tested  kind = iota // by a case
	client              // binds clients alone; why says what the broker makes of it
	absent              // about a server without an optional feature that Sluice has
	unseen              // cannot be seen from outside
	differs             // Sluice does something else on purpose; the case shows what
	kinds
)

func (k kind) String() string {
	return [...]string{"tested", "clients only", "feature not left out", "not visible from outside", "departs on purpose"}[k]
}

// statement is one line of a table.
type statement struct {
	id   string
	text string // in our words
	kind kind
	run  func(*trial)
	why  string // of any kind but tested
}

func test(id, text string, run func(*trial)) statement {
	return statement{id: id, text: text, run: run}
}

func onlyClients(id, text, why string) statement {
	return statement{id: id, text: text, kind: client, why: why}
}

func notAbsent(id, text, why string) statement {
	return statement{id: id, text: text, kind: absent, why: why}
}

func notVisible(id, text, why string) statement {
	return statement{id: id, text: text, kind: unseen, why: why}
}

func departs(id, text, why string, run func(*trial)) statement {
	return statement{id: id, text: text, kind: differs, why: why, run: run}
}

// table is all statements of a version, in their order.
type table struct {
	name       string // of its subtests
	title      string
	v          mqtt.Version
	statements []statement
	// numbers is how far the numbers of each section go, for the versions that
	// have numbers: "3.1.0-2" means that there are 3.1.0-1 and 3.1.0-2.
	numbers string
	gaps    map[string]string // numbers that do not exist, and why
}

func tables() []table {
	return []table{
		{name: "v31", title: "MQTT 3.1", v: mqtt.V31, statements: statements31},
		{name: "v311", title: "MQTT 3.1.1", v: mqtt.V311, statements: statements311(), numbers: numbers311},
		{name: "v5", title: "MQTT 5.0", v: mqtt.V5, statements: statements5(), numbers: numbers5, gaps: gaps5},
	}
}

func TestStatements(t *testing.T) {
	for _, tab := range tables() {
		t.Run(tab.name, func(t *testing.T) {
			t.Parallel()
			b := start(t, options())
			for _, s := range tab.statements {
				if s.run == nil {
					continue
				}
				t.Run(s.id, func(t *testing.T) {
					t.Parallel()
					s.run(newTrial(t, tab.v, b))
				})
			}
		})
	}
}

// No statement is missing from the tables, and none is there twice; each has a
// case or a reason.
func TestTables(t *testing.T) {
	for _, tab := range tables() {
		seen := map[string]bool{}
		for _, s := range tab.statements {
			if seen[s.id] {
				t.Errorf("%s: %s is there twice", tab.name, s.id)
			}
			seen[s.id] = true
			if s.text == "" || (s.run != nil) != (s.kind == tested || s.kind == differs) || (s.why != "") != (s.kind != tested) {
				t.Errorf("%s: %s: %v, with a case: %v, text %q, reason %q", tab.name, s.id, s.kind, s.run != nil, s.text, s.why)
			}
		}
		if tab.numbers == "" {
			continue
		}
		want := expand(t, tab)
		for id := range want {
			if !seen[id] {
				t.Errorf("%s: %s is missing", tab.name, id)
			}
		}
		for id := range seen {
			if !want[id] {
				t.Errorf("%s: there is no %s", tab.name, id)
			}
		}
	}
}

var last = regexp.MustCompile(`^(\d+\.\d+\.\d+)-(\d+)$`)

// expand gives all numbers that a specification has.
func expand(t *testing.T, tab table) map[string]bool {
	all := map[string]bool{}
	for _, f := range strings.Fields(tab.numbers) {
		m := last.FindStringSubmatch(f)
		if m == nil {
			t.Fatalf("%s: %q is no number", tab.name, f)
		}
		n, _ := strconv.Atoi(m[2])
		for i := range n {
			id := "MQTT-" + m[1] + "-" + strconv.Itoa(i+1)
			if tab.gaps[id] == "" {
				all[id] = true
			}
		}
	}
	return all
}

// caseName is the name of a case's function.
func caseName(run func(*trial)) string {
	name := runtime.FuncForPC(reflect.ValueOf(run).Pointer()).Name()
	return name[strings.LastIndexByte(name, '.')+1:]
}
