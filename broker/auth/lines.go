package auth

import (
	"errors"
	"fmt"
	"iter"
	"strings"
)

// File is a file that the caller has read.
type File struct {
	Name string // for errors and Explain only
	Data []byte
}

// lines yields the lines with their numbers, from 1, without the white space
// around them. A byte order mark at the start is no part of the text. The
// strings share one copy of the data.
func (f *File) lines() iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		n := 0
		for line := range strings.Lines(strings.TrimPrefix(string(f.Data), "\ufeff")) {
			if n++; !yield(n, strings.TrimSpace(line)) {
				return
			}
		}
	}
}

// problemsMax is how many problems of one snapshot are told apart: enough to
// correct a file in one go, and a wrong file (a picture, say) does not flood
// the log.
const problemsMax = 100

// problems collects what is wrong with files.
type problems struct {
	list []error
	more int
}

// add notes a problem of a line of a file; line 0: the file as a whole. The
// text must not contain secrets.
func (p *problems) add(file string, line int, format string, args ...any) {
	if len(p.list) >= problemsMax {
		p.more++
		return
	}
	where := file
	if line > 0 {
		where = fmt.Sprintf("%s:%d", file, line)
	}
	p.list = append(p.list, fmt.Errorf(prefix(where)+format, args...))
}

// prefix protects a file name with percent signs from being a format.
func prefix(where string) string {
	if where == "" {
		return ""
	}
	return strings.ReplaceAll(where, "%", "%%") + ": "
}

func (p *problems) err() error {
	if p.more > 0 {
		return errors.Join(append(p.list, fmt.Errorf("and %d more problems", p.more))...)
	}
	return errors.Join(p.list...)
}

// shown quotes text of a file for an error, shortened.
func shown(s string) string {
	const max = 60
	if len(s) > max {
		s = s[:max] + "..."
	}
	return fmt.Sprintf("%q", s)
}
