package configs

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// defaulter is an element of an array of tables that does not start from zero.
type defaulter interface{ setDefaults() }

// lay lays a file over c and notes where its keys stand. Arrays in the file
// replace those in c. What is wrong leaves its field as it was.
func (c *Config) lay(text, file string) Problems {
	var tree map[string]any
	if _, err := toml.Decode(text, &tree); err != nil {
		return Problems{syntaxProblem(err, text, file)}
	}
	c.at = positions{file: file, lines: keyLines(text)}
	d := decoder{at: c.at}
	d.table(reflect.ValueOf(c).Elem(), tree, "")
	return d.problems
}

// syntaxProblem says where the text stops being TOML. The library's line is one too
// far where it stumbles over the end of a line; its offset is right, but may be -1.
func syntaxProblem(err error, text, file string) Problem {
	p := Problem{File: file, Found: "no TOML: " + err.Error(), Allowed: "TOML"}
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		return p
	}
	p.Line = 1 + strings.Count(text[:max(0, min(parse.Position.Start, len(text)))], "\n")
	p.Key, p.Found = parse.LastKey, "no TOML: "+parse.Message
	if strings.HasSuffix(p.Key, "password") || p.Key == "bridge.proxy" || p.Key == "proxy" || strings.HasSuffix(p.Key, "_env") { // the message may repeat what stands there
		p.Found, p.Allowed = "no TOML", "a string in quotes"
	}
	return p
}

// decoder lays a tree over structs.
type decoder struct {
	at       positions
	problems Problems
}

func (d *decoder) problem(path, found, allowed, hint string) {
	file, line := d.at.find(path)
	d.problems = append(d.problems, Problem{file, line, path, found, allowed, hint})
}

// table lays a table over a struct.
func (d *decoder) table(v reflect.Value, tree map[string]any, path string) {
	fields := fieldsOf(v.Type())
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		if i, ok := fields[key]; ok {
			d.value(v.Field(i), v.Type().Field(i), tree[key], join(path, key))
			continue
		}
		known := slices.Sorted(maps.Keys(fields))
		hint := ""
		if near := nearest(key, known); near != "" {
			hint = "did you mean " + near + "?"
		}
		d.problem(join(path, quoteKey(key)), "an unknown key", strings.Join(known, ", "), hint)
	}
}

// fieldsOf gives the fields of a struct by their keys.
func fieldsOf(t reflect.Type) map[string]int {
	fields := map[string]int{}
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("toml"); key != "" {
			fields[key] = i
		}
	}
	return fields
}

// value lays a value over a field.
func (d *decoder) value(v reflect.Value, field reflect.StructField, x any, path string) {
	var ok bool
	switch v.Kind() {
	case reflect.Struct:
		var tree map[string]any
		if tree, ok = x.(map[string]any); ok {
			d.table(v, tree, path)
		}
	case reflect.Slice:
		ok = d.slice(v, x, path)
	case reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		if ok = setScalar(fresh.Elem(), x); ok {
			v.Set(fresh)
		}
	default:
		ok = setScalar(v, x)
	}
	if !ok {
		d.problem(path, describe(x, field.Tag.Get("secret") != ""), wanted(v.Type(), path), "")
	}
}

// slice lays an array over a slice of structs or strings.
func (d *decoder) slice(v reflect.Value, x any, path string) bool {
	var elements []any
	switch x := x.(type) {
	case string:
		if v.Type() != reflect.TypeFor[Addresses]() {
			return false
		}
		elements = []any{x}
	case []any:
		elements = x
	case []map[string]any:
		for _, tree := range x {
			elements = append(elements, tree)
		}
	default:
		return false
	}
	list := reflect.MakeSlice(v.Type(), len(elements), len(elements))
	for i, x := range elements {
		element := list.Index(i)
		if s, ok := element.Addr().Interface().(defaulter); ok {
			s.setDefaults()
		}
		d.value(element, reflect.StructField{}, x, index(path, i))
	}
	v.Set(list)
	return true
}

// setScalar sets v if x has its type.
func setScalar(v reflect.Value, x any) bool {
	switch target := v.Addr().Interface().(type) {
	case *Bytes:
		size, err := ParseBytes(fmt.Sprint(x))
		if _, float := x.(float64); float || err != nil {
			return false
		}
		*target = size
		return true
	case *PerDay:
		size, err := ParsePerDay(fmt.Sprint(x))
		if err != nil {
			return false
		}
		*target = size
		return true
	case *Duration:
		span, err := ParseDuration(fmt.Sprint(x))
		if _, text := x.(string); err != nil || !text && x != int64(0) {
			return false
		}
		*target = span
		return true
	}
	switch x := x.(type) {
	case string:
		if v.Kind() != reflect.String {
			return false
		}
		v.SetString(x)
	case bool:
		if v.Kind() != reflect.Bool {
			return false
		}
		v.SetBool(x)
	case int64:
		if v.Kind() != reflect.Int || v.OverflowInt(x) {
			return false
		}
		v.SetInt(x)
	default:
		return false
	}
	return true
}

// wanted says what a field of that type takes.
func wanted(t reflect.Type, path string) string {
	switch t {
	case reflect.TypeFor[Bytes]():
		return `a size such as "64KiB" or 65536`
	case reflect.TypeFor[PerDay]():
		return `a size per day such as "2GiB/day", or 0`
	case reflect.TypeFor[Duration]():
		return `a duration such as "1m30s" or "7d"`
	case reflect.TypeFor[Addresses]():
		return `an address such as "tls://host:8883", or an array of them`
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Int:
		return "a whole number that fits"
	case reflect.Bool:
		return "true or false"
	case reflect.Pointer:
		return wanted(t.Elem(), path)
	case reflect.Struct:
		return "a table"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return `an array of strings such as ["a", "b"]`
		}
		return "tables, each beginning with [[" + withoutIndexes(path) + "]]"
	}
	panic(fmt.Sprintf("BUG: configuration field of type %v at %s", t, path))
}

// withoutIndexes turns bridge[0].route into bridge.route.
func withoutIndexes(path string) string {
	var b strings.Builder
	for path != "" {
		before, after, _ := strings.Cut(path, "[")
		b.WriteString(before)
		_, path, _ = strings.Cut(after, "]")
	}
	return b.String()
}

// foundMax is how much of a text a message repeats.
const foundMax = 80

// describe writes a value for a message, a secret only by its type.
func describe(x any, secret bool) string {
	switch x := x.(type) {
	case string:
		if secret {
			return "a string"
		}
		if len(x) > foundMax {
			x = x[:foundMax] + "..."
		}
		return strconv.Quote(x)
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "an array"
	}
	if secret {
		return "a value that is no string"
	}
	return fmt.Sprint(x)
}

// quoteKey quotes a key that is not a bare one.
func quoteKey(key string) string {
	for _, c := range key {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return strconv.Quote(key)
		}
	}
	return key
}
