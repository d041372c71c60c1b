package front

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// DESIGN. Certificates are renewed in many ways: written in place, renamed over the old one,
// by a symbolic link to another directory (Kubernetes), as two files one
// after the other. Looking at what each path leads to, every few seconds, notices
// them all, on every file system, and costs a stat per file. A change is told when two
// looks in a row saw the same, so that a file is not read when half of it is written.

// look is what tells the versions of a file apart; the zero value is a missing file.
type look struct {
	device, inode  uint64
	size           int64
	written, moded unix.Timespec // content; content, mode or owner
}

func lookAt(path string) look {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return look{}
	}
	return look{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
}

// watched is a file under watch.
type watched struct {
	last   look // as last seen
	unsaid bool // it has changed since changed was called
}

// Watcher watches files. Its methods may be called from any goroutine, but Close not from changed.
type Watcher struct {
	changed func(files []string)
	end     chan struct{}
	ended   chan struct{}
	once    sync.Once

	mu    sync.Mutex
	files map[string]watched
}

// Watch looks at files at intervals of every, on one goroutine, and there calls changed with the sorted paths of
// those that have changed since this call, or since they were told of last; one that has vanished has
// changed, too. So call it before reading the files. The interval must be positive.
func Watch(files []string, every time.Duration, changed func(files []string)) *Watcher {
	w := &Watcher{changed: changed, end: make(chan struct{}), ended: make(chan struct{})}
	w.Set(files)
	go w.run(time.NewTicker(every))
	return w
}

// Set replaces the files. What was seen of those that stay is kept.
func (w *Watcher) Set(files []string) {
	next := make(map[string]watched, len(files))
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range files {
		old, ok := w.files[f]
		if !ok {
			old = watched{last: lookAt(f)}
		}
		next[f] = old
	}
	w.files = next
}

// Close ends the watch. When it returns, changed has returned and is not called any more.
func (w *Watcher) Close() {
	w.once.Do(func() { close(w.end) })
	<-w.ended
}

func (w *Watcher) run(tick *time.Ticker) {
	defer close(w.ended)
	defer tick.Stop()
	for {
		select {
		case <-w.end:
			return
		case <-tick.C:
			if files := w.settled(); len(files) > 0 {
				w.changed(files)
			}
		}
	}
}

// settled looks at all files. While one of them has just changed, none is told of: a key may follow its certificate.
func (w *Watcher) settled() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	moving := false
	var files []string
	for path, f := range w.files {
		now := lookAt(path)
		switch {
		case now != f.last:
			moving = true
			w.files[path] = watched{last: now, unsaid: true}
		case f.unsaid:
			files = append(files, path)
		}
	}
	if moving {
		return nil
	}
	for _, path := range files {
		w.files[path] = watched{last: w.files[path].last}
	}
	slices.Sort(files)
	return files
}
