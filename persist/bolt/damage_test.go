package bolt

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/persist"
)

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
