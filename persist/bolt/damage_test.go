package bolt

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// openAt opens and loads a store in a directory.
func openAt(t testing.TB, dir string) (*Store, *answers, *persist.Image) {
	t.Helper()
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval = dir, a, time.Millisecond
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	image, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return s, a, image
}

// durable submits ops and waits until they are on disk.
func durable(s *Store, a *answers, ops ...persist.Op) []persist.Op {
	var b persist.Batch
	b.Begin(persist.Token{})
	for _, op := range ops {
		b.Add(op)
	}
	b.End()
	a.mu.Lock()
	n := a.settled
	a.mu.Unlock()
	s.Submit(&b)
	a.waitSettled(n + 1)
	return b.Ops
}

func msg(s *Store, payload string) *mqtt.Message {
	return &mqtt.Message{Topic: []byte("t"), Payload: []byte(payload), ID: s.NewMessageID()}
}

func put(id uint64) persist.Op {
	return persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{ID: id, ClientID: fmt.Sprint("client", id)}}
}

func enq(id uint64, m *mqtt.Message) persist.Op {
	return persist.Op{Kind: persist.OpEnqueue, ID: id, Entry: persist.Entry{Msg: m, QoS: 1}}
}

// fill makes a store with some of everything.
func fill(t *testing.T, dir string, clean bool) {
	s, a, _ := openAt(t, dir)
	var ids []uint64
	for range 3 {
		ids = append(ids, s.NewSessionID())
		durable(s, a, put(ids[len(ids)-1]))
	}
	for i := range 60 {
		m := msg(s, fmt.Sprintf("payload-%d-%s", i, strings.Repeat("x", 50*i)))
		ops := []persist.Op{
			enq(ids[i%3], m),
			{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: &mqtt.Message{Topic: fmt.Appendf(nil, "r/%d", i%20), Payload: m.Payload}}},
			{Kind: persist.OpPutSubscription, ID: ids[i%3], Sub: &persist.Subscription{Filter: fmt.Sprint("f", i)}},
			{Kind: persist.OpPutInbound, ID: ids[i%3], PacketID: uint16(i + 1)},
		}
		if i%4 == 0 {
			ops = append(ops, enq(ids[(i+1)%3], m))
		}
		durable(s, a, ops...)
		if i%5 == 0 {
			durable(s, a, persist.Op{Kind: persist.OpDequeue, ID: ids[0], Seq: uint64(i / 5)})
		}
	}
	if !clean {
		s.kill()
	} else if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// use does a bit of everything with a store that was opened from a damaged file.
func use(t *testing.T, s *Store, a *answers, image *persist.Image) {
	t.Helper()
	id := s.NewSessionID()
	ops := []persist.Op{put(id), enq(id, msg(s, "new"))}
	for _, sess := range image.Sessions {
		if sess.ID >= id {
			t.Fatalf("new session %d, there is %d", id, sess.ID)
		}
		entries := fetchAll(s, a, sess.ID)
		for i, e := range entries {
			if i%2 == 0 {
				ops = append(ops, persist.Op{Kind: persist.OpDequeue, ID: sess.ID, Seq: e.Seq})
			}
		}
		ops = append(ops, enq(sess.ID, msg(s, "new")))
	}
	durable(s, a, ops...)
}

// TestDamagedFile damages a file in all ways, and expects that the store starts
// and works, and that the next start finds nothing wrong.
func TestDamagedFile(t *testing.T) {
	for _, clean := range []bool{true, false} {
		dir := t.TempDir()
		fill(t, dir, clean)
		whole, err := os.ReadFile(filepath.Join(dir, fileName))
		if err != nil {
			t.Fatal(err)
		}
		used := len(bytes.TrimRight(whole, "\x00"))
		moved := 0
		for seed := range uint64(120) {
			rnd := rand.New(rand.NewPCG(seed, 5))
			file := damageFile(rnd, bytes.Clone(whole), used)
			moved += tryDamaged(t, seed, file)
		}
		if moved < 30 {
			t.Fatalf("only %d files were moved aside", moved)
		}
	}
}

// damageFile damages one thing.
func damageFile(rnd *rand.Rand, file []byte, used int) []byte {
	page := file[rnd.IntN(used/pageBytes+1)*pageBytes:]
	page = page[:min(pageBytes, len(page))]
	switch rnd.IntN(6) {
	case 0:
		return file[:rnd.IntN(used)]
	case 1:
		clear(page)
	case 2:
		for i := range page {
			page[i] = byte(rnd.Uint32())
		}
	case 3: // the head of a page, or of its first elements
		page[rnd.IntN(64)] ^= 1 << rnd.IntN(8)
	case 4: // a page where another should be
		other := file[rnd.IntN(used/pageBytes)*pageBytes:]
		copy(page, other[:pageBytes])
	default:
		file[rnd.IntN(used)] ^= 1 << rnd.IntN(8)
	}
	return file
}

// tryDamaged opens a damaged file, and gives 1 if it was moved aside.
func tryDamaged(t *testing.T, seed uint64, file []byte) (moved int) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s, a, image := openAt(t, dir)
	use(t, s, a, image)
	if q := s.Stats().Quarantined; q != "" {
		moved = 1
		if kept, err := os.ReadFile(q); err != nil || !bytes.Equal(kept, file) {
			t.Fatalf("seed %d: damaged file not kept: %v", seed, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	s, a, image = openAt(t, dir)
	if st := s.Stats(); st.Quarantined != "" {
		t.Fatalf("seed %d: moved aside at the second start", seed)
	}
	use(t, s, a, image)
	if err := s.Close(); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	return moved
}

// TestDamageWhileOpen destroys pages under an open store: it must survive, say
// so, and move the file aside at the next start.
func TestDamageWhileOpen(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, true)
	s, a, image := openAt(t, dir)
	f, err := os.OpenFile(filepath.Join(dir, fileName), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	junk := bytes.Repeat([]byte{0xEE}, int(s.Stats().FileBytes)-2*pageBytes)
	if _, err := f.WriteAt(junk, 2*pageBytes); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, sess := range image.Sessions {
		s.Fetch(persist.FetchRequest{Session: sess.ID, From: 1, MaxMessages: 10, MaxBytes: 1000})
		if f := a.waitFetched(); f.Err == nil && len(f.Entries) > 0 {
			t.Fatalf("read from junk: %+v", f)
		}
	}
	var b persist.Batch
	b.Enqueue(1, msg(s, "x"), 1, false, nil)
	s.Submit(&b)
	for end := time.Now().Add(20 * time.Second); s.Stats().Err == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no error")
		}
	}
	if err := s.Close(); err == nil {
		t.Fatal("closed without error")
	}
	s, a, image = openAt(t, dir)
	if s.Stats().Quarantined == "" {
		t.Fatal("not moved aside")
	}
	use(t, s, a, image)
	s.Close()
}

// edit changes the file behind the store's back.
func edit(t *testing.T, dir string, f func(b buckets) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bbolt.Tx) error { return f(bucketsOf(tx)) }); err != nil {
		t.Fatal(err)
	}
}

// spoil changes a byte of a value.
func spoil(b *bbolt.Bucket, key []byte) error {
	v := bytes.Clone(b.Get(key))
	v[len(v)-1] ^= 1
	return b.Put(key, v)
}

// keys counts the records of a bucket that begin with an id.
func keys(t *testing.T, s *Store, bucket []byte, id uint64) (n int) {
	t.Helper()
	s.dbMu.RLock()
	defer s.dbMu.RUnlock()
	p := idKey(id)
	if err := s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		for k, _ := c.Seek(p[:]); bytes.HasPrefix(k, p[:]); k, _ = c.Next() {
			n++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

// A damaged record is left out and counted, the rest is there.
func TestDamagedEntry(t *testing.T) {
	dir := t.TempDir()
	s, a, _ := openAt(t, dir)
	durable(s, a, put(1))
	for i := range 5 {
		durable(s, a, enq(1, msg(s, fmt.Sprint(i))))
	}
	s.Close()
	edit(t, dir, func(b buckets) error {
		k := queueKey(1, 3)
		return spoil(b.queue, k[:])
	})
	s, a, _ = openAt(t, dir)
	if n := len(fetchAll(s, a, 1)); n != 4 {
		t.Fatalf("%d messages", n)
	}
	if n := s.Stats().Skipped; n != 1 {
		t.Fatalf("%d records skipped", n)
	}
	eventually(t, "removal of the damaged entry", func() bool { return keys(t, s, bucketQueue, 1) == 4 })
	s.Close()
	s, a, _ = openAt(t, dir)
	if n := len(fetchAll(s, a, 1)); n != 4 || s.Stats().Skipped != 0 {
		t.Fatalf("%d messages, %d records skipped", n, s.Stats().Skipped)
	}
	s.Close()
}

// When all that is left is damaged, the answer goes on behind it.
func TestDamagedEnd(t *testing.T) {
	dir := t.TempDir()
	s, a, _ := openAt(t, dir)
	durable(s, a, put(1))
	durable(s, a, enq(1, msg(s, "x")))
	s.Close()
	edit(t, dir, func(b buckets) error {
		k := queueKey(1, 1)
		return spoil(b.queue, k[:])
	})
	s, a, _ = openAt(t, dir)
	s.Fetch(persist.FetchRequest{Session: 1, From: 1, MaxMessages: 10, MaxBytes: 10})
	if f := a.waitFetched(); f.Next != 2 || len(f.Entries) != 0 || f.Err != nil {
		t.Fatalf("%+v", f)
	}
	s.Close()
}

// What belongs to a session whose record is damaged is cleared away; counters
// and the state are made anew.
func TestDamagedRecords(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, true)
	s, a, image := openAt(t, dir)
	bytes2, head2 := image.Sessions[1].QueuedBytes, image.Sessions[1].Head
	_ = a
	s.Close()
	edit(t, dir, func(b buckets) error {
		one, two := idKey(1), idKey(2)
		if err := spoil(b.session, one[:]); err != nil {
			return err
		}
		if err := spoil(b.counter, two[:]); err != nil {
			return err
		}
		if err := spoil(b.sub, subKey(2, "f1")); err != nil {
			return err
		}
		if err := spoil(b.retained, retainedKey("r/0")); err != nil {
			return err
		}
		return spoil(b.meta, keyState)
	})
	s, a, image = openAt(t, dir)
	if n := s.Stats().Skipped; n != 5 {
		t.Fatalf("%d records skipped", n)
	}
	if len(image.Sessions) != 2 || image.Sessions[0].ID != 2 || len(image.Retained) != 19 {
		t.Fatalf("%d sessions, %d retained messages", len(image.Sessions), len(image.Retained))
	}
	two := image.Sessions[0]
	if two.QueuedBytes != bytes2 || two.Head != head2 || len(two.Subscriptions) != 19 {
		t.Fatalf("session 2 has %d bytes from %d, %d subscriptions", two.QueuedBytes, two.Head, len(two.Subscriptions))
	}
	eventually(t, "clearing away of session 1", func() bool {
		return keys(t, s, bucketQueue, 1)+keys(t, s, bucketSub, 1)+keys(t, s, bucketInbound, 1)+keys(t, s, bucketSession, 1)+keys(t, s, bucketDead, 1) == 0
	})
	use(t, s, a, image)
	s.Close()
}

// A file of a newer version is refused, and not touched.
func TestNewerVersion(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, true)
	edit(t, dir, func(b buckets) error { return b.meta.Put(keySchema, persist.AppendNumber(nil, keySchema, schema+1)) })
	before, _ := os.ReadFile(filepath.Join(dir, fileName))
	opt := DefaultOptions()
	opt.Path, opt.Events = dir, newAnswers()
	_, err := Open(opt)
	if err == nil || !strings.Contains(err.Error(), "format 2") {
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
