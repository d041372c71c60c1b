package bolt

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"sluice/persist"
)

// A file of a newer version is refused, and not touched.
func TestNewerVersion(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, true)
	edit(t, dir, func(b buckets) error { return b.meta.Put(keySchema, persist.AppendNumber(nil, keySchema, schema+1)) })
	before, _ := os.ReadFile(filepath.Join(dir, fileName))
	opt := DefaultOptions()
	opt.Path, opt.Events = dir, newAnswers()
	_, err := Open(opt)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("format %d", schema+1)) {
		t.Fatalf("error %v", err)
	}
	after, _ := os.ReadFile(filepath.Join(dir, fileName))
	if !bytes.Equal(before, after) {
		t.Fatal("the file was changed")
	}
}

// What is not a store is moved aside, and names do not collide.
func TestForeignFile(t *testing.T) {
	dir := t.TempDir()
	for n := 1; n <= 3; n++ {
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte("not a store"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, _, _ := openAt(t, dir)
		if want := filepath.Join(dir, fmt.Sprintf("%s.corrupt-%d", fileName, n)); s.Stats().Quarantined != want {
			t.Fatalf("moved to %s", s.Stats().Quarantined)
		}
		s.Close()
	}
}

// Modes of the directory and the file; and the two forms of Path.
func TestPath(t *testing.T) {
	base := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(base, "a", "b"):        filepath.Join(base, "a", "b", fileName),
		filepath.Join(base, "c", "mine.db"):  filepath.Join(base, "c", "mine.db"),
		base:                                 filepath.Join(base, fileName),
		filepath.Join(base, "d") + "/":       filepath.Join(base, "d", fileName),
		filepath.Join(base, "e", "x.sqlite"): filepath.Join(base, "e", "x.sqlite", fileName),
	} {
		s, _, _ := openAt(t, path)
		info, err := os.Stat(want)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%s: %v, %v", path, err, info)
		}
		if info, err := os.Stat(filepath.Dir(want)); err != nil || filepath.Dir(want) != base && info.Mode().Perm() != 0o700 {
			t.Fatalf("%s: %v, %v", path, err, info.Mode())
		}
		s.Close()
	}
	for _, opt := range []Options{
		{}, {Path: "x"}, {Path: "x", Events: newAnswers(), CommitInterval: -1},
		{Path: "x", Events: newAnswers(), MaxPendingBytes: -1}, {Path: "x", Events: newAnswers(), MaxFileBytes: 5},
	} {
		if _, err := Open(opt); err == nil {
			t.Fatalf("%+v was accepted", opt)
		}
	}
}

// Who is killed while he makes the first file leaves nothing that looks damaged.
func TestKilledAtBirth(t *testing.T) {
	dir, image := t.TempDir(), t.TempDir()
	opt := DefaultOptions()
	opt.Path, opt.Events = dir, newAnswers()
	opt.hooks.opened = func(*bbolt.DB) { // no bucket is there yet
		if err := os.CopyFS(image, os.DirFS(dir)); err != nil {
			t.Error(err)
		}
	}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if names, _ := filepath.Glob(filepath.Join(image, "*")); len(names) != 2 {
		t.Fatalf("the crash left %q", names)
	}
	for range 2 { // and once more with what that one has made
		again, _, _ := openAt(t, image)
		if st := again.Stats(); st.Quarantined != "" {
			t.Errorf("moved to %s", st.Quarantined)
		}
		again.Close()
		if names, _ := filepath.Glob(filepath.Join(image, "*")); len(names) != 1 {
			t.Errorf("%q", names)
		}
	}
}
