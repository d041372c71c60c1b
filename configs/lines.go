package configs

import (
	"strconv"
	"strings"
)

// DESIGN: the TOML library has checked the text before, so this scanner only has
// to find where keys begin and to step over their values; it knows strings,
// arrays, inline tables and comments, and takes everything else as it comes. On
// text that is no TOML its result means nothing, but it ends.

// keyLines returns the line, from 1, of each key and each table, array
// elements that are tables indexed: bridge[0].route[1].qos.
func keyLines(text string) map[string]int {
	s := &lineScanner{text: text, line: 1, lines: map[string]int{}, elements: map[string]int{}}
	table := ""
	for s.space(); s.pos < len(s.text); s.space() {
		if s.peek() == '[' {
			table = s.header()
		} else {
			s.assignment(table)
		}
	}
	return s.lines
}

type lineScanner struct {
	text     string
	pos      int // of the next byte
	line     int // that pos is on
	lines    map[string]int
	elements map[string]int // how many elements an array of tables has so far
}

// peek returns the next byte, 0 at the end.
func (s *lineScanner) peek() byte {
	if s.pos >= len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

// next steps over n bytes and counts the lines in them.
func (s *lineScanner) next(n int) {
	end := min(s.pos+n, len(s.text))
	s.line += strings.Count(s.text[s.pos:end], "\n")
	s.pos = end
}

// blank steps over spaces on the line.
func (s *lineScanner) blank() {
	for c := s.peek(); c == ' ' || c == '\t'; c = s.peek() {
		s.next(1)
	}
}

// space steps over spaces, line ends and comments.
func (s *lineScanner) space() {
	for {
		switch s.peek() {
		case ' ', '\t', '\r', '\n':
			s.next(1)
		case '#':
			if end := strings.IndexByte(s.text[s.pos:], '\n'); end >= 0 {
				s.next(end)
			} else {
				s.next(len(s.text))
			}
		default:
			return
		}
	}
}

// record notes the line of a key the first time that it is met.
func (s *lineScanner) record(path string, line int) {
	if _, known := s.lines[path]; !known {
		s.lines[path] = line
	}
}

// header reads [a.b] or [[a.b]] and returns the path of the table.
func (s *lineScanner) header() string {
	line, brackets := s.line, 0
	for s.peek() == '[' {
		brackets++
		s.next(1)
	}
	path := ""
	parts := s.key()
	for i, part := range parts {
		path = join(path, part)
		s.record(path, line)
		if i == len(parts)-1 && brackets > 1 {
			s.elements[path]++
		}
		if n := s.elements[path]; n > 0 {
			path = index(path, n-1)
			s.record(path, line)
		}
	}
	s.next(brackets)
	return path
}

// assignment reads a.b = value.
func (s *lineScanner) assignment(table string) {
	line, path := s.line, table
	for _, part := range s.key() {
		path = join(path, part)
		s.record(path, line)
	}
	s.next(1) // the equals sign; on text that is no TOML it is progress
	s.value(path)
}

// key reads a dotted key, which may be quoted, and the spaces around it.
func (s *lineScanner) key() (parts []string) {
	for {
		s.blank()
		start := s.pos
		if c := s.peek(); c == '"' || c == '\'' {
			s.quoted()
			parts = append(parts, strings.Trim(s.text[start:s.pos], string(c)))
		} else {
			for c := s.peek(); c != 0 && !strings.ContainsRune(" \t\r\n.=]#", rune(c)); c = s.peek() {
				s.next(1)
			}
			parts = append(parts, s.text[start:s.pos])
		}
		s.blank()
		if s.peek() != '.' {
			return parts
		}
		s.next(1)
	}
}

// quoted steps over a string of any of the four kinds.
func (s *lineScanner) quoted() {
	mark := s.text[s.pos : s.pos+1]
	if triple := strings.Repeat(mark, 3); strings.HasPrefix(s.text[s.pos:], triple) {
		mark = triple
	}
	s.next(len(mark))
	for s.pos < len(s.text) && !strings.HasPrefix(s.text[s.pos:], mark) {
		if s.peek() == '\\' && mark[0] == '"' {
			s.next(1)
		}
		s.next(1)
	}
	s.next(len(mark))
	for len(mark) == 3 && s.peek() == mark[0] {
		s.next(1) // up to two quotes may stand before the closing three
	}
}

// value steps over a value and records the keys in it.
func (s *lineScanner) value(path string) {
	s.blank()
	switch s.peek() {
	case '"', '\'':
		s.quoted()
	case '[':
		s.next(1)
		for i := 0; ; i++ {
			s.space()
			if s.peek() == ']' || s.peek() == 0 {
				s.next(1)
				return
			}
			s.record(index(path, i), s.line)
			s.value(index(path, i))
			s.space()
			if s.peek() == ',' {
				s.next(1)
			}
		}
	case '{':
		s.next(1)
		for {
			s.space()
			if s.peek() == '}' || s.peek() == 0 {
				s.next(1)
				return
			}
			s.assignment(path)
			s.space()
			if s.peek() == ',' {
				s.next(1)
			}
		}
	default:
		start := s.pos
		for c := s.peek(); c != 0 && !strings.ContainsRune(",]}#\r\n", rune(c)); c = s.peek() {
			s.next(1)
		}
		if s.pos == start {
			s.next(1)
		}
	}
}

func join(path, part string) string {
	if path == "" {
		return part
	}
	return path + "." + part
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
