package session

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// DESIGN. A script in testdata is a dialogue with one session: a line that is
// not indented is an event, the indented lines after it are its effects. The
// test plays the events and compares what comes out with what is written
// there; with -update it writes it there instead, to be read before it is
// committed.
//
// A section begins with "== " and the statement it is about. It starts from
// nothing: new session, time 0, default limits. "#" begins a comment. The
// events are in world_test.go, each with its arguments.

var update = flag.Bool("update", false, "write what the scripts do into testdata")

// line is an event, a comment or an empty line of a script, with the effects
// that are written below it.
type line struct {
	text   string
	number int
	want   []string
}

func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("scripts: %v, %v", paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) { playFile(t, path) })
	}
}

func playFile(t *testing.T, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := newWorld()
	section := ""
	for _, l := range parseScript(string(data)) {
		fmt.Fprintln(&out, l.text)
		switch {
		case strings.HasPrefix(l.text, "== "):
			w, section = newWorld(), l.text[3:]
			continue
		case l.text == "" || l.text[0] == '#':
			continue
		}
		got, err := w.play(l.text)
		if err != nil {
			t.Fatalf("%s:%d: %s: %v", path, l.number, l.text, err)
		}
		for _, g := range got {
			fmt.Fprintln(&out, "    "+g)
		}
		if g, want := strings.Join(got, "\n"), strings.Join(l.want, "\n"); g != want && !*update {
			t.Errorf("%s:%d: %s\n%s\ngot:\n%s\nwant:\n%s", path, l.number, section, l.text, indent(g), indent(want))
		}
	}
	if *update && !bytes.Equal(out.Bytes(), data) {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func parseScript(s string) (lines []line) {
	for i, text := range strings.Split(strings.TrimRight(s, "\n"), "\n") {
		if effect := strings.TrimLeft(text, " \t"); effect != text && effect != "" {
			l := &lines[len(lines)-1]
			l.want = append(l.want, effect)
			continue
		}
		lines = append(lines, line{text: strings.TrimRight(text, " \t"), number: i + 1})
	}
	return lines
}

func indent(s string) string { return "\t" + strings.ReplaceAll(s, "\n", "\n\t") }

// Each statement has one section, so that its test is found by its name.
func TestStatementsAreNamedOnce(t *testing.T) {
	paths, _ := filepath.Glob("testdata/*.txt")
	seen := make(map[string]string)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, l := range strings.Split(string(data), "\n") {
			if !strings.HasPrefix(l, "== ") {
				continue
			}
			here := fmt.Sprintf("%s:%d", path, i+1)
			if before := seen[l]; before != "" {
				t.Errorf("%s: %q is at %s already", here, l, before)
			}
			seen[l] = here
			if !strings.Contains(l, "MQTT") && !strings.Contains(l, "Sluice") {
				t.Errorf("%s: %q names neither a statement, nor a section of the specification, nor Sluice's own rule", here, l)
			}
		}
	}
}
