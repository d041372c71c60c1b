package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// screen is where the demo tells what happens: lines, and on a terminal below
// them one that is written again and again. Elsewhere that one becomes a plain
// line each second.
type screen struct {
	w        io.Writer
	terminal bool
	dirty    bool // the status line is on the terminal
	last     time.Time
}

func newScreen(f *os.File) *screen {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &screen{w: f, terminal: err == nil}
}

// say tells of an event.
func (s *screen) say(format string, args ...any) {
	s.clear()
	s.print("* %s\n", fmt.Sprintf(format, args...))
}

// status shows how things are.
func (s *screen) status(format string, args ...any) {
	const plainEvery = time.Second
	text := fmt.Sprintf(format, args...)
	switch now := time.Now(); {
	case s.terminal:
		s.print("\r%s\x1b[K", text)
		s.dirty = true
	case now.Sub(s.last) >= plainEvery:
		s.print("%s\n", text)
		s.last = now
	}
}

// clear removes the status line.
func (s *screen) clear() {
	if s.dirty {
		s.print("\r\x1b[K")
		s.dirty = false
	}
}

func (s *screen) print(format string, args ...any) {
	_, _ = fmt.Fprintf(s.w, format, args...) // without a screen the play goes on
}

// count writes a number with thousands apart.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size writes a number of bytes.
func size(n int64) string {
	switch {
	case n < 1<<10:
		return strconv.FormatInt(n, 10) + " B"
	case n < 1<<20:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
