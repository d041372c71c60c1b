package front

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// rounds lets the watcher look n times.
func rounds(n int) {
	time.Sleep(time.Duration(n) * time.Second) // the bubble's time, not ours
	synctest.Wait()
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) {
		t.Helper()
		must(t, os.WriteFile(path(name), []byte(content), 0o600))
	}
	synctest.Test(t, func(t *testing.T) {
		for _, name := range []string{"a", "b", "c"} {
			write(name, name)
		}
		must(t, os.Mkdir(path("v1"), 0o700))
		must(t, os.Mkdir(path("v2"), 0o700))
		write("v1/cert", "same")
		write("v2/cert", "same")
		must(t, os.Symlink("v1", path("link")))
		var mu sync.Mutex // guards calls
		var calls [][]string
		w := Watch([]string{path("a"), path("b"), path("link/cert"), path("missing")}, time.Second, func(files []string) {
			for i, f := range files {
				files[i], _ = filepath.Rel(dir, f)
			}
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, files)
		})
		defer w.Close()
		expect := func(what string, want ...string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if len(want) == 0 && len(calls) == 0 || len(calls) == 1 && slices.Equal(calls[0], want) {
				calls = nil
				return
			}
			t.Fatalf("%s: told %q, want %q", what, calls, want)
		}
		rounds(5)
		expect("nothing")
		write("a", "longer")
		rounds(1)
		expect("just written")
		rounds(1)
		expect("written in place", "a")
		rounds(5)
		expect("nothing more")

		write("new", "b")
		must(t, os.Rename(path("new"), path("b")))
		rounds(2)
		expect("renamed over", "b")

		must(t, os.Symlink("v2", path("link2")))
		must(t, os.Rename(path("link2"), path("link")))
		rounds(2)
		expect("link to another directory", "link/cert")

		for i := range 5 {
			write("a", "still being written"[:10+i])
			rounds(1)
			expect("half written")
		}
		write("b", "its companion")
		rounds(1)
		expect("the companion is not settled yet")
		rounds(1)
		expect("both", "a", "b")

		must(t, os.Chmod(path("a"), 0o644))
		rounds(2)
		expect("mode", "a")
		must(t, os.Remove(path("a")))
		write("missing", "no more")
		rounds(2)
		expect("come and gone", "a", "missing")

		write("b", "changed before Set")
		rounds(1)
		w.Set([]string{path("b"), path("c")})
		rounds(1)
		expect("what was seen is kept", "b")
		write("c", "watched now")
		write("missing", "not watched any more")
		rounds(2)
		expect("after Set", "c")

		write("c", "changed before Close")
		w.Close()
		rounds(5)
		expect("closed")
		w.Close()
	})
}
