package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/persist"
)

// openTapped opens a store whose writes pass through a tap.
func openTapped(t *testing.T, dir string) (*Store, *answers, *tap) {
	t.Helper()
	a, p := newAnswers(), &tap{}
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval = dir, a, time.Millisecond
	opt.hooks.opened, opt.hooks.backoff = p.put, time.Millisecond
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return s, a, p
}

func (p *tap) on(f func(b []byte, off int64) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onWrite = f
}

// An error of a write, at any page of a commit, loses nothing and needs no
// restart.
func TestWriteError(t *testing.T) {
	for _, failure := range []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		dir := t.TempDir()
		s, a, p := openTapped(t, dir)
		durable(s, a, put(1))
		for nth := range 8 {
			n, failed := 0, 0
			p.on(func(b []byte, off int64) error {
				if n++; n == nth+1 && failed < 3 {
					n, failed = 0, failed+1
					return failure
				}
				return nil
			})
			before := s.Stats().CommitErrors
			durable(s, a, enq(1, msg(s, fmt.Sprint("x", nth))))
			if nth < 2 && s.Stats().CommitErrors != before+3 {
				t.Fatalf("%v at page %d: %d commits failed", failure, nth, s.Stats().CommitErrors-before)
			}
		}
		p.on(nil)
		if n := len(fetchAll(s, a, 1)); n != 8 {
			t.Fatalf("%d messages", n)
		}
		s.kill()
		s, a, _ = openAt(t, dir)
		if n := len(fetchAll(s, a, 1)); n != 8 || s.Stats().Quarantined != "" {
			t.Fatalf("%d messages after a restart", n)
		}
		s.Close()
	}
}

// When the sync after the meta page fails, that page is written and synced once
// more before anything else is written.
func TestMetaPageInDoubt(t *testing.T) {
	dir := t.TempDir()
	a, p := newAnswers(), &tap{}
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval = dir, a, time.Millisecond
	opt.hooks.opened, opt.hooks.backoff = p.put, time.Millisecond
	var undo func()
	confirmed, tries, early := 0, 0, 0
	opt.hooks.confirm = func(write func() error) func() error {
		return func() error {
			if tries++; tries == 1 {
				return errors.New("still failing")
			}
			confirmed++
			return write()
		}
	}
	opt.hooks.commit = func(_ bool, write func() error) error {
		err := write()
		if undo != nil { // the disk is back
			undo()
			undo = nil
		}
		return err
	}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	durable(s, a, put(1))
	armed := true
	p.on(func(b []byte, off int64) error {
		if !armed && confirmed == 0 {
			early++
		}
		if armed && off < 2*pageBytes {
			armed = false
			if _, err := p.write(b, off); err != nil {
				t.Error(err)
			}
			undo = p.unsyncable(t)
			p.write = func(b []byte, _ int64) (int, error) { return len(b), nil }
		}
		return nil
	})
	durable(s, a, enq(1, msg(s, "x")))
	if confirmed != 1 || early != 0 {
		t.Fatalf("confirmed %d times, %d pages written before", confirmed, early)
	}
	if e := fetchAll(s, a, 1); len(e) != 1 {
		t.Fatalf("%d messages", len(e))
	}
	durable(s, a, enq(1, msg(s, "y")))
	if confirmed != 1 {
		t.Fatalf("confirmed %d times", confirmed)
	}
	s.Close()
	s, a, _ = openAt(t, dir)
	if e := fetchAll(s, a, 1); len(e) != 2 {
		t.Fatalf("%d messages", len(e))
	}
	s.Close()
}

// A file that was opened is in doubt too: the process that wrote it may have
// died before its last sync.
func TestDoubtAfterOpen(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, false)
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval = dir, a, 0
	confirmed := 0
	opt.hooks.confirm = func(write func() error) func() error { confirmed++; return write }
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		durable(s, a, enq(1, msg(s, "x")))
	}
	if s.Close(); confirmed != 1 {
		t.Fatalf("confirmed %d times", confirmed)
	}
}

// A store whose directory is removed under it is written anew with the next
// commit, with all that was in it.
func TestDirectoryVanishes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s, a, _ := openAt(t, dir)
	durable(s, a, put(1), enq(1, msg(s, "before")))
	for round := range 3 {
		if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
			t.Fatal(err)
		}
		if round < 2 {
			durable(s, a, enq(1, msg(s, "after")))
			if _, err := os.Stat(filepath.Join(dir, fileName)); err != nil {
				t.Fatal("settled, and the file is not there")
			}
		}
	}
	if err := s.Close(); err != nil { // which finds it gone
		t.Fatal(err)
	}
	s, a, _ = openAt(t, dir)
	if e := fetchAll(s, a, 1); len(e) != 3 {
		t.Fatalf("%d messages", len(e))
	}
	s.Close()
}

// Another file under the name is not touched: commits fail until it is gone.
func TestFileReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	s, a, _ := openTapped(t, dir)
	durable(s, a, put(1))
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	publish(s, enq(1, msg(s, "x")))
	eventually(t, "error", func() bool {
		err := s.Stats().Err
		return err != nil && strings.Contains(err.Error(), "another file")
	})
	if b, err := os.ReadFile(path); err != nil || string(b) != "not ours" {
		t.Fatalf("the other file: %q, %v", b, err)
	}
	os.Remove(path)
	eventually(t, "recovery", func() bool { return s.Stats().Err == nil && s.Stats().PendingBytes == 0 })
	s.Close()
	s, a, _ = openAt(t, dir)
	if e := fetchAll(s, a, 1); len(e) != 1 {
		t.Fatalf("%d messages", len(e))
	}
	s.Close()
}

// While a commit takes seconds, messages are accepted up to the limit, settled
// by their receivers, and fetched.
func TestSlowDisk(t *testing.T) {
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval, opt.MaxPendingBytes = t.TempDir(), a, time.Millisecond, 50_000
	gate := make(chan struct{}, 1)
	gate <- struct{}{}
	opt.hooks.commit = func(_ bool, write func() error) error {
		<-gate
		defer func() { gate <- struct{}{} }()
		return write()
	}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	durable(s, a, put(1), enq(1, msg(s, "first")), persist.Op{Kind: persist.OpAttach, ID: 1})
	<-gate // the disk stands still
	stored := publish(s, enq(1, msg(s, "stuck")))[0].Seq
	eventually(t, "the commit to begin", func() bool { return s.pending.Waiting().Ops == 0 })
	a.mu.Lock()
	before := a.settled
	a.mu.Unlock()
	seq := publish(s, enq(1, msg(s, "quick")))[0].Seq
	var b persist.Batch
	b.Dequeue(1, seq)
	s.Submit(&b)
	a.waitSettled(before + 1) // acknowledged by its receiver, with no disk
	s.Fetch(persist.FetchRequest{Session: 1, From: 1, MaxMessages: 10, MaxBytes: 1000})
	if f := a.waitFetched(); len(f.Entries) != 2 || f.Entries[1].Seq != stored {
		t.Fatalf("%+v", f)
	}
	accepted := 0
	for publish(s, enq(1, msg(s, strings.Repeat("x", 1000))))[0].Seq != 0 {
		if accepted++; accepted > 100 {
			t.Fatal("accepted without end")
		}
	}
	gate <- struct{}{}
	a.waitSettled(before + 1 + 1 + accepted + 1)
	if a.failed != 1 {
		t.Fatalf("%d groups refused", a.failed)
	}
	if n := len(fetchAll(s, a, 1)); n != 2+accepted {
		t.Fatalf("%d messages, %d accepted", n, accepted)
	}
	s.Close()
}

// A file that is too long for a 32-bit system is refused, not moved aside.
func TestMappable(t *testing.T) {
	for _, x := range []struct {
		bytes int64
		is32  bool
		ok    bool
	}{{1 << 40, false, true}, {maxMappedBytes, true, true}, {maxMappedBytes + 1, true, false}, {3 << 30, true, false}} {
		if err := mappable(x.bytes, "f", x.is32); (err == nil) != x.ok || isDamage(err) {
			t.Errorf("%+v: %v", x, err)
		}
	}
	dir := t.TempDir()
	fill(t, dir, true)
	if err := os.Truncate(filepath.Join(dir, fileName), int64(3<<30)); err != nil { // sparse
		t.Fatal(err)
	}
	opt := DefaultOptions()
	opt.Path, opt.Events = dir, newAnswers()
	s, err := Open(opt)
	if is32bit && err == nil || !is32bit && err != nil {
		t.Fatal(err)
	}
	if s != nil {
		s.Close()
	}
	if moved, _ := filepath.Glob(filepath.Join(dir, "*.corrupt*")); len(moved) > 0 {
		t.Fatal("moved aside")
	}
}

// childMounts has a file system of its own, of 6 MiB, which it fills, makes
// read-only, and makes writable again.
func childMounts() {
	dir := os.Getenv(dirEnv)
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(unix.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"))
	opt := DefaultOptions()
	opt.Path, opt.CommitInterval, opt.MaxPendingBytes = dir, time.Millisecond, 1<<20
	must(fillAndDrain(opt, 2))

	a := newAnswers()
	opt.Events = a
	opt.hooks.backoff = time.Millisecond
	s, err := Open(opt)
	must(err)
	image, err := s.Load()
	must(err)
	for seq := image.Sessions[0].Head; seq < image.Sessions[0].Tail; seq++ { // room for what follows
		publish(s, persist.Op{Kind: persist.OpDequeue, ID: 1, Seq: seq})
	}
	a.waitSettled(int(image.Sessions[0].Tail - image.Sessions[0].Head))
	must(s.Close())
	must(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err = Open(opt)
	if err == nil || !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), filepath.Join(dir, fileName)) {
		must(fmt.Errorf("opened on a read-only file system: %w", err))
	}
	must(unix.Mount("", dir, "", unix.MS_REMOUNT, ""))
	s, err = Open(opt)
	must(err)
	must(s.Close())
	fmt.Println("done")
}

// TestSmallFileSystem runs out of a real file system's space, and meets one that
// is read-only.
func TestSmallFileSystem(t *testing.T) {
	cmd := child(t, "mounts", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.Output()
	if err != nil || string(out) != "done\n" {
		t.Fatalf("%v: %s", err, out)
	}
}

// Of a damaged file everything is there at the next start that does not depend
// on the damaged page; and nothing that was removed comes back.
func TestSalvage(t *testing.T) {
	dir := t.TempDir()
	s, a, _ := openAt(t, dir)
	durable(s, a, put(1), put(2))
	shared := msg(s, strings.Repeat("shared", 100))
	for i := range 300 {
		ops := []persist.Op{enq(1, msg(s, fmt.Sprintf("%d %s", i, strings.Repeat("x", 300))))}
		if i%50 == 0 {
			ops = append(ops, enq(1, shared), enq(2, shared))
		}
		durable(s, a, append(ops, persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: msg(s, "r")}})...)
		if i%3 == 0 {
			durable(s, a, persist.Op{Kind: persist.OpDequeue, ID: 1, Seq: uint64(i + 1)})
		}
	}
	all := make(map[uint64]string)
	for _, e := range fetchAll(s, a, 1) {
		all[e.Seq] = string(e.Msg.Payload)
	}
	s.Close()
	path := filepath.Join(dir, fileName)
	page := leafOf(t, dir, 1, 150)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("junk junk junk junk"), page*pageBytes); err != nil {
		t.Fatal(err)
	}
	f.Close()
	s, a, image := openAt(t, dir)
	st := s.Stats()
	if st.Quarantined == "" || st.Salvaged < 150 || len(image.Sessions) != 2 || len(image.Retained) != 1 {
		t.Fatalf("%+v, %d sessions, %d retained", st, len(image.Sessions), len(image.Retained))
	}
	got := fetchAll(s, a, 1)
	for _, e := range got {
		if all[e.Seq] != string(e.Msg.Payload) {
			t.Fatalf("message %d is not as it was, or was removed", e.Seq)
		}
	}
	if lost := len(all) - len(got); lost < 1 || lost > 20 {
		t.Fatalf("%d of %d messages lost with one page", lost, len(all))
	}
	if _, there := slices.BinarySearchFunc(got, uint64(150), func(e persist.Entry, seq uint64) int { return int(int64(e.Seq) - int64(seq)) }); there {
		t.Fatal("the message on the damaged page is there")
	}
	if n := len(fetchAll(s, a, 2)); n != 6 {
		t.Fatalf("%d messages in the other queue", n)
	}
	if int64(len(got)+6) != st.QueuedMessages {
		t.Fatalf("%d messages, the counters say %d", len(got)+6, st.QueuedMessages)
	}
	var ops []persist.Op // drains with all references
	for id := uint64(1); id <= 2; id++ {
		for _, e := range fetchAll(s, a, id) {
			ops = append(ops, persist.Op{Kind: persist.OpDequeue, ID: id, Seq: e.Seq})
		}
	}
	durable(s, a, ops...)
	if n := keys(t, s, bucketMessage, shared.ID) + keys(t, s, bucketRef, shared.ID); n != 0 {
		t.Fatalf("%d records left of a message that nobody has", n)
	}
	s.Close()
	s, _, _ = openAt(t, dir)
	if st := s.Stats(); st.Quarantined != "" || st.Skipped != 0 {
		t.Fatalf("second start: %+v", st)
	}
	s.Close()
}

// A crash between the two renames of a salvage loses nothing.
func TestSalvageCutShort(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, true)
	path := filepath.Join(dir, fileName)
	if _, err := salvageTo(path, salvagePath(path), 0); err != nil {
		t.Fatal(err)
	}
	s, a, before := openAt(t, dir) // the old file is still there, and sound: it counts
	durable(s, a, put(s.NewSessionID()))
	s.Close()
	if _, err := salvageTo(path, salvagePath(path), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := quarantine(path); err != nil {
		t.Fatal(err)
	}
	s, _, after := openAt(t, dir)
	if len(after.Sessions) != len(before.Sessions)+1 || len(after.Retained) != len(before.Retained) {
		t.Fatalf("%d sessions, %d retained", len(after.Sessions), len(after.Retained))
	}
	s.Close()
}

// leafOf finds the page that a queue entry is on.
func leafOf(t *testing.T, dir string, id, seq uint64) int64 {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	key := queueKey(id, seq)
	f, err := os.Open(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := &checker{f: f, size: int64(len(raw)), names: make(map[string]bool)}
	if err := c.readMeta(); err != nil {
		t.Fatal(err)
	}
	c.seen = make([]uint64, c.meta.high/64+1)
	if err := c.checkTree(c.meta.root, nil, nil, 0, true); err != nil {
		t.Fatal(err)
	}
	for page := int64(2); page < int64(c.meta.high); page++ {
		b := raw[page*pageBytes : (page+1)*pageBytes]
		if c.seen[page/64]>>(page%64)&1 != 0 && b[8] == flagLeaf && strings.Contains(string(b), string(key[:])) {
			return page
		}
	}
	t.Fatal("no page has the entry")
	return 0
}
