package configs

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File    string // "" if the value comes from no file
	Line    int    // 0 if it is on no line
	Key     string // such as bridge[0].route[1].qos; array elements count from 0. "" for the whole file
	Found   string
	Allowed string
	Hint    string // why, or what to do; may be ""
}

// Error writes file:line: key: found X, allowed Y (hint).
func (p Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			b.WriteByte(':')
			b.WriteString(strconv.Itoa(p.Line))
		}
		b.WriteString(": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key)
		b.WriteString(": ")
	}
	b.WriteString("found " + p.Found + ", allowed " + p.Allowed)
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return b.String()
}

// Problems is everything that is wrong, in the order of the file.
type Problems []Problem

// Error has one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the single problems to errors.As and errors.Is.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// sorted orders problems by line, those without one last, and drops all but the
// first of each key: what a wrong value entails is not worth a second line.
func (ps Problems) sorted() Problems {
	seen := map[string]bool{}
	ps = slices.DeleteFunc(slices.Clone(ps), func(p Problem) bool {
		known := seen[p.Key]
		seen[p.Key] = true
		return known
	})
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if (a.Line == 0) != (b.Line == 0) {
			return cmp.Compare(b.Line, a.Line)
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
	return ps
}

// err is nil if there is no problem: a typed nil in an error would not be.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps.sorted()
}

// positions says where in which file keys stand.
type positions struct {
	file  string
	lines map[string]int // by key path, arrays indexed
}

// find returns where a key stands or, if it is not in the file, the table that
// it belongs to.
func (at positions) find(key string) (file string, line int) {
	for path := key; path != ""; path = parent(path) {
		if line, ok := at.lines[path]; ok {
			return at.file, line
		}
	}
	return at.file, 0
}

// parent cuts the last part off a key path: a.b[1] becomes a.b, then a, then "".
func parent(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}

// forget drops a key and what is under it: its values no longer come from the file.
func (at positions) forget(key string) {
	for path := range at.lines {
		if path == key || strings.HasPrefix(path, key+".") || strings.HasPrefix(path, key+"[") {
			delete(at.lines, path)
		}
	}
}
