package configs

import (
	"maps"
	"testing"

	"github.com/BurntSushi/toml"
)

const tricky = `# comment = 1
a = 1 # b = 2
"quoted.key" = '[not a table]'
s = """
x = 1 \"""
""" # three quotes
l = '''
y = 1''''
arr = [ # comment ]
  "]", '[', [1, 2],
  3 # ,
]
dotted . key = { inner = [1], "x y" = "}" , deep.er = 5 }
date = 1979-05-27 07:32:00
[ table ]
k = true
[table.sub]
k = 1.5
[[list]]
n = 1
[[list.sub]]
m = 1
[[list.sub]]
m = 2
[list.one]
o = 1
[[list]]
[[list.sub]]
m = 3
inline = [ {p = 1},
  {p = 2,
   q = [{r = 1}]} ]
last = 0`

func TestKeyLines(t *testing.T) {
	want := map[string]int{
		"a": 2, "quoted.key": 3, "s": 4, "l": 7, "arr": 9, "arr[0]": 10, "arr[1]": 10, "arr[2]": 10, "arr[2][0]": 10, "arr[2][1]": 10, "arr[3]": 11,
		"dotted": 13, "dotted.key": 13, "dotted.key.inner": 13, "dotted.key.inner[0]": 13, "dotted.key.x y": 13, "dotted.key.deep": 13, "dotted.key.deep.er": 13,
		"date": 14, "table": 15, "table.k": 16, "table.sub": 17, "table.sub.k": 18,
		"list": 19, "list[0]": 19, "list[0].n": 20, "list[0].sub": 21, "list[0].sub[0]": 21, "list[0].sub[0].m": 22,
		"list[0].sub[1]": 23, "list[0].sub[1].m": 24, "list[0].one": 25, "list[0].one.o": 26,
		"list[1]": 27, "list[1].sub": 28, "list[1].sub[0]": 28, "list[1].sub[0].m": 29,
		"list[1].sub[0].inline": 30, "list[1].sub[0].inline[0]": 30, "list[1].sub[0].inline[0].p": 30,
		"list[1].sub[0].inline[1]": 31, "list[1].sub[0].inline[1].p": 31, "list[1].sub[0].inline[1].q": 32,
		"list[1].sub[0].inline[1].q[0]": 32, "list[1].sub[0].inline[1].q[0].r": 32, "list[1].sub[0].last": 33,
	}
	if _, err := toml.Decode(tricky, new(map[string]any)); err != nil {
		t.Fatalf("the text of the test is no TOML: %v", err)
	}
	got := keyLines(tricky)
	for path, line := range want {
		if got[path] != line {
			t.Errorf("%s is on line %d, want %d", path, got[path], line)
		}
		delete(got, path)
	}
	for path := range maps.Keys(got) {
		t.Errorf("%s on line %d is no key", path, got[path])
	}
}

// FuzzParse: no text makes the parser panic or loop, and of text that is TOML every
// key that the library sees has a line.
func FuzzParse(f *testing.F) {
	f.Add(tricky)
	f.Add(DefaultFile())
	f.Add(uncommented(DefaultFile()))
	f.Add("[[a]]\n[a.b]\nc=1\n[[a]]\nx = [[{y=1}]]")
	f.Add("[")
	f.Add("\x00 = [\x00")
	f.Add("a = \"\"\"\"\"\"\"\"")
	f.Fuzz(func(t *testing.T, text string) {
		parse(text, "f.toml")
		lines := keyLines(text)
		var tree map[string]any
		if _, err := toml.Decode(text, &tree); err != nil {
			return
		}
		for key := range tree {
			if plain := quoteKey(key) == key && key != ""; plain && lines[key] == 0 {
				t.Errorf("key %q has no line in %q", key, text)
			}
		}
	})
}
