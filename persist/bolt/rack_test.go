package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// DESIGN. A rack runs a store on the model of a disk that crash_test.go describes, keeps
// the account of what was settled, and makes cuts from within the writes of the store's
// committer. The committer and the test share the account, under mu.

// rack runs a store on a platter.
type rack struct {
	t    *testing.T
	rnd  *rand.Rand
	mu   sync.Mutex // guards what follows
	disk *platter
	tap  tap
	dir  string
	cutN int // one write in so many is cut

	noSync  bool
	faults  bool
	undo    func()
	dead    bool // the process is to be killed
	s       *Store
	a       *answers
	cuts    int
	lost    []string
	failed  int // syncs that failed
	kills   int
	pending map[uint32][]report // by group
	kept    map[[2]uint64]uint32
	gone    map[[2]uint64]bool
	thinned map[uint32]bool
	last    uint32 // the last group settled
	sent    uint32
}

func (r *rack) open() {
	r.t.Helper()
	r.a = newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.CommitInterval = r.dir, 0
	opt.Events = &funcEvents{
		settled: func(owner int, tokens []persist.Token, err error) {
			r.mu.Lock()
			r.settled(tokens)
			r.mu.Unlock()
			r.a.Settled(owner, tokens, err)
		},
		fetched: r.a.Fetched,
	}
	opt.hooks.backoff = 50 * time.Microsecond
	opt.hooks.opened = r.opened
	opt.hooks.confirm = func(write func() error) func() error {
		return func() error {
			if err := write(); err != nil {
				return err
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			m, _ := newestMeta(r.tap.file)
			page := make([]byte, m.pageSize)
			off := int64(m.txid%2) * int64(m.pageSize)
			if _, err := r.tap.file.ReadAt(page, off); err != nil {
				return err
			}
			r.disk.write(page, off)
			r.disk.sync()
			return nil
		}
	}
	opt.hooks.commit = r.commit
	s, err := Open(opt)
	if err != nil {
		r.t.Fatal(err)
	}
	r.s = s
}

// opened takes a fresh file for the platter's first contents.
func (r *rack) opened(db *bbolt.DB) {
	r.tap.put(db)
	db.NoSync = r.noSync
	r.tap.on(r.wrote)
	if r.disk.durable == nil {
		r.disk.durable, _ = os.ReadFile(filepath.Join(r.dir, fileName))
	}
}

// commit is around each transaction: when it was done, it was synced.
func (r *rack) commit(_ bool, write func() error) error {
	r.mu.Lock()
	dead := r.dead
	r.mu.Unlock()
	if dead {
		return errors.New("killed")
	}
	err := write()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.undo != nil:
		r.undo()
		r.undo = nil
		if r.rnd.IntN(2) == 0 {
			r.dead = true // its pages stay dirty
		} else {
			r.failed++
			r.disk.failSync()
		}
	case err == nil && !r.noSync:
		r.disk.sync()
	}
	return err
}

// wrote sees a write to the file.
func (r *rack) wrote(b []byte, off int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.undo != nil {
		r.disk.write(b, off)
		return nil
	}
	meta := off < 2*pageBytes
	if meta && !r.noSync {
		r.maybeCut()
		r.disk.sync()
	}
	r.disk.write(b, off)
	if r.faults && r.rnd.IntN(60) == 0 { // the next sync will fail
		saved, err := syscall.Dup(int(r.tap.file.Fd()))
		if err != nil {
			return err
		}
		undo := r.tap.unsyncable(r.t)
		r.tap.write = func(b []byte, off int64) (int, error) { return syscall.Pwrite(saved, b, off) }
		r.undo = func() {
			undo()
			syscall.Close(saved)
			r.tap.write = r.tap.file.WriteAt
		}
	}
	r.maybeCut()
	return nil
}

func (r *rack) settled(tokens []persist.Token) {
	for _, tok := range tokens {
		for _, p := range r.pending[tok.Index] {
			if k := [2]uint64{p.session, p.seq}; !r.gone[k] {
				r.kept[k] = p.group
			}
		}
		delete(r.pending, tok.Index)
		r.last = max(r.last, tok.Index)
	}
}

// maybeCut looks at what a cut would leave now.
func (r *rack) maybeCut() {
	if r.rnd.IntN(r.cutN) != 0 || r.last == 0 {
		return
	}
	r.cuts++
	dir := filepath.Join(r.dir, "cut")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		r.t.Error(err)
	}
	path := filepath.Join(dir, fileName)
	if err := os.WriteFile(path, r.disk.cut(), 0o600); err != nil {
		r.t.Error(err)
	}
	if info, err := r.tap.file.Stat(); err == nil && info.Mode().IsRegular() {
		if err := os.Truncate(path, info.Size()); err != nil {
			r.t.Error(err)
		}
	}
	if what := r.look(dir); what != "" {
		r.lost = append(r.lost, fmt.Sprintf("cut %d: %s", r.cuts, what))
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		os.Remove(f)
	}
}

// look opens an image and says what is wrong with it.
func (r *rack) look(dir string) string {
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events = dir, a
	s, err := Open(opt)
	if err != nil {
		return err.Error()
	}
	defer s.kill()
	image, err := s.Load()
	if st := s.Stats(); err != nil || st.Quarantined != "" || st.Skipped != 0 {
		return fmt.Sprintf("%v, moved aside %q, %d damaged records", err, st.Quarantined, st.Skipped)
	}
	found := make(map[[2]uint64]uint32)
	groups := make(map[uint32]int)
	for _, sess := range image.Sessions {
		for _, e := range fetchAll(s, a, sess.ID) {
			g := groupOf(e.Msg)
			found[[2]uint64{sess.ID, e.Seq}] = g
			groups[g]++
		}
	}
	for k, g := range r.kept {
		if found[k] != g {
			return fmt.Sprintf("queue %d seq %d was settled with group %d, and has %d", k[0], k[1], g, found[k])
		}
	}
	for g, n := range groups {
		if n != 2 && !r.thinned[g] || g == 0 || g > r.sent {
			return fmt.Sprintf("%d messages of group %d", n, g)
		}
	}
	var g uint32
	if len(image.Retained) > 0 {
		g = groupOf(image.Retained[0])
	}
	if g < r.last {
		return fmt.Sprintf("retained message of group %d, settled was %d", g, r.last)
	}
	return ""
}

// publish submits one group, and at times dequeues something.
func (r *rack) publish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent++
	m := &mqtt.Message{Topic: []byte("t"), ID: r.s.NewMessageID(), Payload: fmt.Appendf(nil, "%d %s", r.sent, make([]byte, r.rnd.IntN(20)*r.rnd.IntN(60)))}
	var b persist.Batch
	b.Begin(persist.Token{Index: r.sent})
	b.Enqueue(1, m, 1, false, nil)
	b.Enqueue(2, m, 1, false, nil)
	b.Add(persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: m}})
	b.End()
	r.s.Submit(&b) // it cannot be settled before the lock is free
	for i, id := range []uint64{1, 2} {
		r.pending[r.sent] = append(r.pending[r.sent], report{'S', r.sent, id, b.Ops[i].Seq})
		delete(r.gone, [2]uint64{id, b.Ops[i].Seq}) // numbers that never reached the disk are used again
	}
	b.Reset()
	for k, g := range r.kept {
		if r.rnd.IntN(3) > 0 && len(r.kept) > 30 {
			r.gone[k], r.thinned[g] = true, true
			delete(r.kept, k)
			b.Dequeue(k[0], k[1])
		}
		if len(b.Ops) > 3 {
			break
		}
	}
	r.s.Submit(&b)
}

// run publishes until there were so many cuts, and gives what they lost.
func (r *rack) run(cuts int) {
	r.dir = r.t.TempDir()
	r.pending, r.kept = make(map[uint32][]report), make(map[[2]uint64]uint32)
	r.gone, r.thinned = make(map[[2]uint64]bool), make(map[uint32]bool)
	r.open()
	r.s.Load()
	urgent(r.s, r.a, put(1), put(2))
	r.mu.Lock()
	r.last = 0
	r.disk.sync()
	r.mu.Unlock()
	for deadline := time.Now().Add(3 * time.Minute); ; {
		r.mu.Lock()
		done, dead := r.cuts >= cuts || len(r.lost) > 20, r.dead
		r.mu.Unlock()
		if done || time.Now().After(deadline) {
			break
		}
		if dead {
			r.restart()
		}
		for range 1 + r.rnd.IntN(6) {
			r.publish()
		}
		if r.rnd.IntN(4) > 0 { // most of the time the disk keeps up
			for end := time.Now().Add(5 * time.Millisecond); r.s.Stats().PendingBytes > 0 && time.Now().Before(end); {
				time.Sleep(20 * time.Microsecond)
			}
		}
	}
	r.s.kill()
}

// restart kills the process and starts the next, on the page cache as it is.
func (r *rack) restart() {
	r.s.kill()
	r.mu.Lock()
	r.kills++
	r.dead = false
	for g := range r.pending {
		delete(r.pending, g)
		r.thinned[g] = true
	}
	r.mu.Unlock()
	r.open()
	r.s.Load()
	var b persist.Batch
	for id := uint64(1); id <= 2; id++ { // what was not settled may be there
		for _, e := range fetchAll(r.s, r.a, id) {
			k := [2]uint64{id, e.Seq}
			r.mu.Lock()
			if _, kept := r.kept[k]; !kept {
				r.gone[k], r.thinned[groupOf(e.Msg)] = true, true
				b.Dequeue(id, e.Seq)
			}
			r.mu.Unlock()
		}
	}
	r.s.Submit(&b)
}

// groupOf gives the number that a payload begins with.
func groupOf(m *mqtt.Message) uint32 {
	text, _, _ := bytes.Cut(m.Payload, []byte(" "))
	n, _ := strconv.ParseUint(string(text), 10, 32)
	return uint32(n)
}

func newRack(t *testing.T, seed uint64) *rack {
	rnd := rand.New(&sharedSource{src: rand.NewPCG(seed, 8)})
	return &rack{t: t, rnd: rnd, disk: &platter{rnd: rand.New(rand.NewPCG(seed, 9))}, cutN: 4}
}

// sharedSource is drawn from by the test and by the store's committer.
type sharedSource struct {
	mu  sync.Mutex
	src rand.Source
}

func (s *sharedSource) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.src.Uint64()
}
