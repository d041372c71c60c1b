package configs

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var (
	docHeading = regexp.MustCompile("^##+ `\\[+([a-z.]+)\\]+`$")
	docRow     = regexp.MustCompile("^\\| `([a-z0-9_]+)` \\| ([^|]*) \\| ([^|]*) \\| ([^|]+) \\|$")
)

// Every key is documented once, with the default and the range that the code has.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	type row struct{ fallback, allowed string }
	rows, table := map[string]row{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if m := docHeading.FindStringSubmatch(line); m != nil {
			table = m[1]
		}
		if m := docRow.FindStringSubmatch(line); m != nil {
			key := join(table, m[1])
			if _, twice := rows[key]; twice {
				t.Errorf("%s is documented twice", key)
			}
			rows[key] = row{m[2], m[3]}
		}
	}
	c := Default()
	c.Bridges = make([]Bridge, 1)
	c.Bridges[0].setDefaults()
	c.Bridges[0].Queues = make([]BridgeQueue, 1)
	c.Bridges[0].Queues[0].setDefaults()
	c.Bridges[0].Routes = make([]Route, 1)
	c.Bridges[0].Routes[0].setDefaults()
	c.Queue.Classes = make([]QueueClass, 1)
	walk(reflect.ValueOf(c).Elem(), "", func(v reflect.Value, f reflect.StructField, path string) {
		if f.Type.Kind() == reflect.Struct || f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
			return
		}
		key := withoutIndexes(path)
		r, there := rows[key]
		delete(rows, key)
		if !there {
			t.Errorf("%s is not documented", key)
			return
		}
		if want := documented(v); r.fallback != want && r.fallback != "required" && !sameSpan(r.fallback, v) {
			t.Errorf("%s: the default is documented as %s, it is %s", key, r.fallback, want)
		}
		if tag := f.Tag.Get("allow"); tag != "" && r.allowed != allowText(tag) {
			t.Errorf("%s: documented is %s, allowed is %s", key, r.allowed, allowText(tag))
		}
		if required := r.fallback == "required"; required != (key == "bridge.name" || key == "bridge.address" || key == "bridge.route.direction") {
			t.Errorf("%s: documented as required: %v", key, required)
		}
	})
	for key := range rows {
		t.Errorf("%s is documented but does not exist", key)
	}
}

// documented writes a default as the documentation does.
func documented(v reflect.Value) string {
	text := fmt.Sprint(v.Interface())
	switch {
	case v.Kind() == reflect.Slice && v.Len() > 0:
		text = `["` + strings.Join(v.Interface().([]string), `", "`) + `"]`
	case v.Kind() == reflect.Pointer && v.IsNil():
		return "not set"
	case v.Kind() == reflect.String || v.Type() == reflect.TypeFor[Duration]() || v.Type() == reflect.TypeFor[Bytes]() && !v.IsZero():
		text = `"` + text + `"`
	}
	return "`" + text + "`"
}

// sameSpan says whether a documented default is a duration field's value: 60s may be written for 1m.
func sameSpan(text string, v reflect.Value) bool {
	d, err := ParseDuration(strings.Trim(text, "`\""))
	return v.Type() == reflect.TypeFor[Duration]() && err == nil && int64(d) == v.Int()
}
