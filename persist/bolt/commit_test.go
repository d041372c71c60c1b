package bolt

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/persist"
)

// A record that stays as it is costs nothing.
func TestSameAgainWritesNothing(t *testing.T) {
	dir := t.TempDir()
	s, a, _ := openAt(t, dir)
	sub := persist.Op{Kind: persist.OpPutSubscription, ID: 1, Sub: &persist.Subscription{Filter: "a/#", QoS: 1}}
	retained := func() persist.Op {
		return persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: msg(s, "same")}}
	}
	durable(s, a, put(1), sub, retained())
	before := s.Stats().BytesWritten
	durable(s, a, put(1), sub, retained(), persist.Op{Kind: persist.OpDequeue, ID: 1, Seq: 5}, persist.Op{Kind: persist.OpDeleteInbound, ID: 1, PacketID: 7})
	if n := s.Stats().BytesWritten - before; n != 0 {
		t.Fatalf("%d bytes written", n)
	}
	s.Close()
}

// A message for many sessions is written once.
func TestPayloadOnce(t *testing.T) {
	s, a, _ := openAt(t, t.TempDir())
	defer s.Close()
	const sessions = 10
	var ops []persist.Op
	for id := uint64(1); id <= sessions; id++ {
		durable(s, a, put(s.NewSessionID()))
	}
	for _, size := range []int{300, 100_000} {
		m := msg(s, strings.Repeat("p", size))
		ops = ops[:0]
		for id := uint64(1); id <= sessions; id++ {
			ops = append(ops, enq(id, m))
		}
		before := s.Stats().BytesWritten
		durable(s, a, ops...)
		if n := s.Stats().BytesWritten - before; n > uint64(size+size/10+40_000) {
			t.Fatalf("%d bytes for %d sessions: %d written", size, sessions, n)
		}
	}
}

// When a group is reported settled, a power cut at that moment loses nothing
// of it.
func TestSettledFileIsComplete(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, fileName)
	type copied struct {
		tokens []persist.Token
		file   []byte
	}
	var mu sync.Mutex
	var copies []copied
	opt := DefaultOptions()
	opt.Path, opt.CommitInterval = dir, time.Millisecond
	opt.Events = &funcEvents{settled: func(_ int, tokens []persist.Token, err error) {
		b, rerr := os.ReadFile(file)
		if err != nil || rerr != nil {
			t.Error(err, rerr)
		}
		mu.Lock()
		copies = append(copies, copied{tokens, b})
		mu.Unlock()
	}}
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	var b persist.Batch
	b.Add(put(1))
	s.Submit(&b)
	seqs := make(map[uint32]uint64)
	for i := range uint32(60) {
		b.Reset()
		b.Begin(persist.Token{Index: i})
		b.Enqueue(1, msg(s, strings.Repeat("x", int(i)*37)), 1, false, nil)
		b.End()
		s.Submit(&b)
		seqs[i] = b.Ops[0].Seq
		if i%7 == 0 {
			eventually(t, "commit", func() bool { return s.Stats().PendingBytes == 0 })
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	settled := make(map[uint32]bool)
	for _, c := range copies {
		for _, tok := range c.tokens {
			settled[tok.Index] = true
		}
		other := t.TempDir()
		if err := os.WriteFile(filepath.Join(other, fileName), c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		s, a, _ := openAt(t, other)
		have := make(map[uint64]bool)
		for _, e := range fetchAll(s, a, 1) {
			have[e.Seq] = true
		}
		for i := range settled {
			if !have[seqs[i]] {
				t.Fatalf("group %d was settled, and its message is not in the file", i)
			}
		}
		s.kill()
	}
	if len(settled) != 60 || len(copies) < 5 {
		t.Fatalf("%d groups settled in %d commits", len(settled), len(copies))
	}
}
