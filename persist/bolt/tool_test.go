package bolt

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/persist"
)

// The tools see what is in a store, change nothing, and refuse one that runs.
func TestTools(t *testing.T) {
	dir := unpackGolden(t, "testdata/schema2.db.gz")
	path := filepath.Join(dir, fileName)
	before, _ := os.ReadFile(path)
	in, err := Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(in.Sessions) != 3 || in.QueuedMessages != 8 || in.RetainedMessages != 3 || in.Schema != 2 || !in.Clean || !in.Sessions[1].Will ||
		in.Sessions[2].Limits.Policy != persist.DropOldest || in.Sessions[0].Inbound != 1 || in.DamagedRecords != 0 || in.Boot != 1 {
		t.Fatalf("%+v", in)
	}
	kinds := make(map[string]int)
	err = Dump(path, func(r *Record) error {
		b, err := json.Marshal(r)
		if err != nil || r.Damaged {
			t.Errorf("%s: %v", b, err)
		}
		kinds[r.Kind]++
		if r.Topic == "w" && *r.DueIn != 600 || r.Topic == "plant/7/temperature" && (*r.ExpiresIn < 499 || *r.ExpiresIn > 500) {
			t.Errorf("%s", b)
		}
		return nil
	})
	if err != nil || kinds["session"] != 3 || kinds["entry"] != 8 || kinds["retained"] != 3 || kinds["will"] != 1 || kinds["subscription"] != 3 || kinds["inbound"] != 1 {
		t.Fatalf("%v, %v", kinds, err)
	}
	stop := errors.New("enough")
	if err := Dump(path, func(*Record) error { return stop }); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if r, err := Check(dir); err != nil || !r.Sound || r.Records != 19 {
		t.Fatalf("%+v, %v", r, err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Fatal("the file was changed")
	}
	s, _ := openGolden(t, dir)
	defer s.Close()
	for name, tool := range map[string]func() error{
		"inspect": func() error { _, err := Inspect(dir); return err },
		"check":   func() error { _, err := Check(dir); return err },
		"dump":    func() error { return Dump(dir, nil) },
		"compact": func() error { _, err := Compact(dir); return err },
		"repair":  func() error { _, err := Repair(dir, path+"2"); return err },
	} {
		if err := tool(); err == nil || !strings.Contains(err.Error(), "in use by another process: pid ") {
			t.Fatalf("%s on a running store: %v", name, err)
		}
	}
	if _, err := Inspect(filepath.Join(dir, "nothing")); err == nil {
		t.Fatal("inspected nothing")
	}
}

// Check finds damaged pages, damaged records, and counters that are wrong.
func TestCheckFinds(t *testing.T) {
	for name, harm := range map[string]func(b buckets) error{
		"entry": func(b buckets) error { k := queueKey(1, 15); return spoil(b.queue, k[:]) },
		"counters": func(b buckets) error {
			k := idKey(1)
			return b.counter.Put(k[:], persist.AppendCounters(nil, k[:], persist.Counters{Tail: 3}))
		},
		"session": func(b buckets) error { k := idKey(2); return b.session.Delete(k[:]) },
		"message": func(b buckets) error { k, _ := b.message.Cursor().First(); return b.message.Delete(k) },
	} {
		dir := t.TempDir()
		fill(t, dir, true)
		if r, err := Check(dir); err != nil || !r.Sound {
			t.Fatalf("sound: %+v, %v", r, err)
		}
		edit(t, dir, harm)
		if r, err := Check(dir); err != nil || r.Sound || len(r.Problems) == 0 {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		to := filepath.Join(dir, "repaired.db")
		if r, err := Repair(dir, to); err != nil || r.Sessions == 0 {
			t.Fatalf("%s: repaired: %+v, %v", name, r, err)
		}
		if _, err := Repair(dir, to); err == nil {
			t.Fatal("an existing file was overwritten")
		}
		if r, err := Check(to); err != nil || name != "session" && !r.Sound {
			t.Fatalf("%s: repaired, and not sound: %+v, %v", name, r, err)
		}
	}
	dir := t.TempDir()
	fill(t, dir, true)
	if err := os.Truncate(filepath.Join(dir, fileName), 5*pageBytes); err != nil {
		t.Fatal(err)
	}
	if r, err := Check(dir); err != nil || r.Sound {
		t.Fatalf("cut short: %+v, %v", r, err)
	}
	if _, err := Inspect(dir); !IsDamaged(err) {
		t.Fatal(err)
	}
}

// Compact gives room back and changes nothing else; Repair of a sound store is
// a copy.
func TestCompactAndRepair(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, false)
	s, a := openGolden(t, dir)
	want := dumpStore(t, s, a)
	var ops []persist.Op
	for range 3000 {
		ops = append(ops, enq(1, msg(s, strings.Repeat("x", 1000))))
	}
	var drop []persist.Op
	for _, op := range durable(s, a, ops...) {
		drop = append(drop, persist.Op{Kind: persist.OpDequeue, ID: 1, Seq: op.Seq})
	}
	durable(s, a, drop...)
	s.kill()
	r, err := Compact(dir)
	if err != nil || r.BytesAfter >= r.BytesBefore {
		t.Fatalf("%+v, %v", r, err)
	}
	to := filepath.Join(t.TempDir(), fileName)
	rep, err := Repair(dir, to)
	if err != nil || rep.BadPages+rep.BadRecords != 0 || rep.Sessions != 3 {
		t.Fatalf("%+v, %v", rep, err)
	}
	for _, d := range []string{dir, to} {
		if r, err := Check(d); err != nil || !r.Sound {
			t.Fatalf("%+v, %v", r, err)
		}
		s, a := openGolden(t, d)
		got := dumpStore(t, s, a)
		got, want := afterTail(got), afterTail(want)
		if got != want || s.Stats().Quarantined != "" {
			t.Fatalf("%s\nwant\n%s", got, want)
		}
		s.Close()
	}
}

// afterTail leaves out the tails, which have moved.
func afterTail(dump string) string {
	var b strings.Builder
	for l := range strings.Lines(dump) {
		if head, rest, ok := strings.Cut(l, " tail "); ok {
			_, rest, _ = strings.Cut(rest, " ")
			l = head + " " + rest
		}
		b.WriteString(l)
	}
	return b.String()
}

// slowWriter blocks until it is told to go on.
type slowWriter struct {
	buf           bytes.Buffer
	started, goOn chan struct{}
	once          bool
}

func (w *slowWriter) Write(p []byte) (int, error) {
	if !w.once {
		w.once = true
		close(w.started)
		<-w.goOn
	}
	return w.buf.Write(p)
}

// A backup is a store as of one commit; commits, fetches and growth of the file
// go on while it is written.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, false)
	s, a := openGolden(t, dir)
	want := dumpStore(t, s, a)
	w := &slowWriter{started: make(chan struct{}), goOn: make(chan struct{})}
	type result struct {
		bytes int64
		err   error
	}
	done := make(chan result)
	go func() {
		n, _, err := s.Backup(w)
		done <- result{n, err}
	}()
	<-w.started
	start := time.Now()
	for range 20 {
		durable(s, a, enq(1, msg(s, strings.Repeat("x", 1<<20))))
	}
	durable(s, a, persist.Op{Kind: persist.OpDeleteSession, ID: 2})
	t.Logf("commits of 20 MiB during a backup took %v", time.Since(start))
	close(w.goOn)
	if r := <-done; r.err != nil || r.bytes != int64(w.buf.Len()) || r.bytes > 5<<20 {
		t.Fatalf("%d bytes, %v", r.bytes, r.err)
	}
	s.Close()
	if _, _, err := s.Backup(w); err == nil {
		t.Fatal("a closed store was copied")
	}
	to := filepath.Join(t.TempDir(), fileName)
	if err := os.WriteFile(to, w.buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := Check(to); err != nil || !r.Sound {
		t.Fatalf("%+v, %v", r, err)
	}
	s, a = openGolden(t, to)
	if got := dumpStore(t, s, a); got != want {
		t.Fatalf("%s\nwant\n%s", got, want)
	}
	s.Close()
}
