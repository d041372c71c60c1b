package conformance

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write docs/statements.md")

// document is what docs/statements.md says.
func document() []byte {
	var b bytes.Buffer
	b.WriteString(`# Statements of the MQTT specifications

Made from the tables in broker/conformance by ` + "`go test ./broker/conformance -run TestDocument -update`" + `; do not edit.

The numbers of MQTT 3.1.1 and 5.0 are those of the OASIS specifications; MQTT 3.1 has none, there a rule is named by its section and a
letter of ours. Each statement that is tested has a test of its number: ` + "`go test ./broker/conformance -run 'TestStatements/v5/MQTT-3.1.2-24'`" + `.

`)
	b.WriteString("| version | statements |")
	for k := range kinds {
		fmt.Fprintf(&b, " %v |", k)
	}
	b.WriteString("\n|---|---|")
	for range kinds {
		b.WriteString("---|")
	}
	for _, tab := range tables() {
		n := counts(tab)
		fmt.Fprintf(&b, "\n| %s | %d |", tab.title, len(tab.statements))
		for k := range kinds {
			fmt.Fprintf(&b, " %d |", n[k])
		}
	}
	b.WriteString("\n\n## Statements without a test, or not followed\n\n| version | statement | what it says | | why |\n|---|---|---|---|---|\n")
	for _, tab := range tables() {
		for _, s := range tab.statements {
			if s.kind != tested {
				fmt.Fprintf(&b, "| %s | %s | %s | %v | %s |\n", tab.title, s.id, s.text, s.kind, s.why)
			}
		}
	}
	return b.Bytes()
}

func counts(tab table) (n [kinds]int) {
	for _, s := range tab.statements {
		n[s.kind]++
	}
	return n
}

func TestDocument(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "statements.md")
	want := document()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s does not say what the tables say; run this test with -update", path)
	}
}

// The names of the cases, by statement: go test -run TestCases -v.
func TestCases(t *testing.T) {
	for _, tab := range tables() {
		for _, s := range tab.statements {
			if s.run != nil {
				t.Logf("%s %s %s", tab.name, s.id, caseName(s.run))
			}
		}
	}
}
