package configs

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// DESIGN: the values that one key may have by itself are declared in its
// field's allow tag, for the check, the message and a test of the documentation:
//
//	allow:"debug|info"        one of these strings
//	allow:"1KiB..256MiB"      from, to, both included, in the unit of the field
//	allow:"0 or 1s..65535s"   the same, or 0

// walk calls visit for every field of a struct that has a key, nested ones and
// elements of arrays included, with the field's path.
func walk(v reflect.Value, path string, visit func(v reflect.Value, field reflect.StructField, path string)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		key := field.Tag.Get("toml")
		if key == "" {
			continue
		}
		at := join(path, key)
		visit(v.Field(i), field, at)
		switch {
		case field.Type.Kind() == reflect.Struct:
			walk(v.Field(i), at, visit)
		case field.Type.Kind() == reflect.Slice && field.Type.Elem().Kind() == reflect.Struct:
			for j := range v.Field(i).Len() {
				walk(v.Field(i).Index(j), index(at, j), visit)
			}
		}
	}
}

// allows says whether a value, or what it points to, obeys an allow tag.
func allows(tag string, v reflect.Value) bool {
	if v.Kind() == reflect.Pointer { // nil: the value comes from elsewhere
		return v.IsNil() || allows(tag, v.Elem())
	}
	if v.Kind() == reflect.String {
		for choice := range strings.SplitSeq(tag, "|") {
			if v.String() == choice {
				return true
			}
		}
		return false
	}
	span, zero := strings.CutPrefix(tag, "0 or ")
	low, high, ok := strings.Cut(span, "..")
	if !ok {
		panic(fmt.Sprintf("BUG: allow tag %q", tag))
	}
	n := v.Int()
	return zero && n == 0 || n >= bound(low, v.Type()) && n <= bound(high, v.Type())
}

// bound reads one end of a range in the unit of a field's type.
func bound(s string, t reflect.Type) (n int64) {
	var err error
	switch t {
	case reflect.TypeFor[Bytes]():
		var size Bytes
		size, err = ParseBytes(s)
		n = int64(size)
	case reflect.TypeFor[PerDay]():
		var size Bytes
		size, err = ParseBytes(strings.TrimSuffix(s, perDay))
		n = int64(size)
	case reflect.TypeFor[Duration]():
		var span Duration
		span, err = ParseDuration(s)
		n = int64(span)
	default:
		n, err = strconv.ParseInt(s, 10, 64)
	}
	if err != nil {
		panic(fmt.Sprintf("BUG: bound %q in the allow tag of a %v: %v", s, t, err))
	}
	return n
}

// allowText writes an allow tag for people.
func allowText(tag string) string {
	if strings.Contains(tag, "|") {
		return `"` + strings.ReplaceAll(tag, "|", `" or "`) + `"`
	}
	return strings.ReplaceAll(tag, "..", " to ")
}
