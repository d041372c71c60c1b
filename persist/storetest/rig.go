package storetest

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// Handle is an open store, and how to end it.
type Handle struct {
	Store persist.Store

	// Reopen closes the store and opens it again.
	Reopen func() persist.Store

	// Crash ends the store as SIGKILL would, and opens it again: what was not
	// committed is lost. After it the old store tells nothing any more.
	Crash func() persist.Store
}

// Opener opens an empty store. now is the monotonic clock.
type Opener func(t *testing.T, ev persist.Events, now func() int64) Handle

// rig is a store under test with its model.
type rig struct {
	t     *testing.T
	h     Handle
	st    persist.Store
	image *persist.Image // of the last Load
	model *model
	now   atomic.Int64
	next  uint32 // of tokens
	acted []bool // what model.apply said of the last batch

	mu       sync.Mutex
	settled  map[persist.Token]settlement
	order    []persist.Token
	fetched  []persist.Fetched
	inFetch  string // the goroutine that is in Fetch
	violated string
}

type settlement struct {
	owner int
	err   error
}

// deadline is how long a test waits for what must happen soon.
const deadline = 20 * time.Second

func newRig(t *testing.T, open Opener) *rig {
	r := &rig{t: t, model: newModel(), settled: make(map[persist.Token]settlement)}
	r.now.Store(int64(time.Hour))
	r.h = open(t, r, r.now.Load)
	r.st = r.h.Store
	r.load()
	return r
}

// Settled implements persist.Events.
func (r *rig) Settled(owner int, tokens []persist.Token, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, tok := range tokens {
		if _, ok := r.settled[tok]; ok {
			r.violated = fmt.Sprintf("token %+v settled twice", tok)
		}
		r.settled[tok] = settlement{owner, err}
		r.order = append(r.order, tok)
	}
}

// Fetched implements persist.Events.
func (r *rig) Fetched(_ int, f persist.Fetched) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inFetch != "" && r.inFetch == goroutine() {
		r.violated = "Fetched was called from within Fetch"
	}
	r.fetched = append(r.fetched, f)
}

func goroutine() string {
	buf := make([]byte, 64)
	id, _, _ := bytes.Cut(buf[:runtime.Stack(buf, false)], []byte(" ["))
	return string(id)
}

func (r *rig) load() {
	r.t.Helper()
	var err error
	if r.image, err = r.st.Load(); err != nil {
		r.t.Fatal(err)
	}
}

// until waits for a condition; f is called with the lock held.
func (r *rig) until(what string, f func() bool) {
	r.t.Helper()
	for end := time.Now().Add(deadline); ; {
		r.mu.Lock()
		ok, violated := f(), r.violated
		r.mu.Unlock()
		if violated != "" {
			r.t.Fatal(violated)
		}
		if ok {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("waited too long: %s", what)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// submit submits and keeps the model up to date.
func (r *rig) submit(b *persist.Batch) {
	r.t.Helper()
	r.st.Submit(b)
	r.acted = r.acted[:0]
	for i := range b.Ops {
		acted, err := r.model.apply(&b.Ops[i])
		if err != nil {
			r.t.Fatal(err)
		}
		r.acted = append(r.acted, acted)
	}
}

// group submits ops as one group and gives its token and the ops as submitted.
func (r *rig) group(ops ...persist.Op) (persist.Token, []persist.Op) {
	r.t.Helper()
	var b persist.Batch
	tok := r.token()
	b.Begin(tok)
	for _, op := range ops {
		b.Add(op)
	}
	b.End()
	r.submit(&b)
	return tok, b.Ops
}

func (r *rig) token() persist.Token {
	r.next++
	return persist.Token{Session: 7, Index: r.next, Epoch: 3}
}

// isSettled tells whether a group is settled now.
func (r *rig) isSettled(tok persist.Token) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.settled[tok]
	return ok
}

// await waits until a group is settled, without error.
func (r *rig) await(tok persist.Token) {
	r.t.Helper()
	r.until(fmt.Sprintf("settlement of %+v", tok), func() bool { _, ok := r.settled[tok]; return ok })
	if err := r.settlement(tok).err; err != nil {
		r.t.Fatalf("group %+v settled with %v", tok, err)
	}
}

// settlement is how a settled group was settled.
func (r *rig) settlement(tok persist.Token) settlement {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.settled[tok]
}

// durable submits ops and waits until they are on disk.
func (r *rig) durable(ops ...persist.Op) []persist.Op {
	r.t.Helper()
	tok, done := r.group(ops...)
	r.await(tok)
	return done
}

// session makes a session that is on disk.
func (r *rig) session(client string) uint64 {
	r.t.Helper()
	id := r.st.NewSessionID()
	r.durable(putSession(id, client))
	return id
}

func putSession(id uint64, client string) persist.Op {
	return persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{
		ID: id, ClientID: client, Username: "user of " + client, Version: mqtt.V5, ExpirySeconds: 3600,
	}}
}

func (r *rig) message(topic, payload string) *mqtt.Message {
	return &mqtt.Message{Topic: []byte(topic), Payload: []byte(payload), QoS: 1, ID: r.st.NewMessageID()}
}

func enqueue(id uint64, m *mqtt.Message, qos mqtt.QoS) persist.Op {
	return persist.Op{Kind: persist.OpEnqueue, ID: id, Entry: persist.Entry{Msg: m, QoS: qos}}
}

func dequeue(id, seq uint64) persist.Op {
	return persist.Op{Kind: persist.OpDequeue, ID: id, Seq: seq}
}

func release(id, seq uint64) persist.Op {
	return persist.Op{Kind: persist.OpRelease, ID: id, Seq: seq}
}

// ask sends a request.
func (r *rig) ask(q persist.FetchRequest) {
	r.mu.Lock()
	r.inFetch = goroutine()
	r.mu.Unlock()
	r.st.Fetch(q)
	r.mu.Lock()
	r.inFetch = ""
	r.mu.Unlock()
}

// answer waits for the next answer.
func (r *rig) answer() persist.Fetched {
	r.t.Helper()
	r.until("answer to a fetch", func() bool { return len(r.fetched) > 0 })
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.fetched[0]
	r.fetched = r.fetched[1:]
	return f
}

// fetch asks and waits.
func (r *rig) fetch(id, from uint64, messages, bytes int) persist.Fetched {
	r.t.Helper()
	r.ask(persist.FetchRequest{Owner: 1, Tag: 42, Epoch: 5, Session: id, From: from, MaxMessages: messages, MaxBytes: bytes})
	f := r.answer()
	if f.Err != nil || f.Tag != 42 || f.Epoch != 5 || f.Session != id || f.From != from || f.Next < from {
		r.t.Fatalf("fetch of queue %d from %d: %+v", id, from, f)
	}
	return f
}

// queue fetches all of a queue.
func (r *rig) queue(id uint64) map[uint64]persist.Entry {
	r.t.Helper()
	all := make(map[uint64]persist.Entry)
	last := uint64(0)
	for from := uint64(1); ; {
		f := r.fetch(id, from, 100, 1<<20)
		for _, e := range f.Entries {
			if e.Seq <= last || e.Seq >= f.Next {
				r.t.Fatalf("queue %d: entry %d after %d, next %d", id, e.Seq, last, f.Next)
			}
			last = e.Seq
			all[e.Seq] = e
		}
		if len(f.Entries) == 0 {
			return all
		}
		from = f.Next
	}
}

// reopen closes the store, opens it again, and compares.
func (r *rig) reopen() {
	r.t.Helper()
	r.st = r.h.Reopen()
	r.load()
	r.compare(r.model)
}

// crash loses what is not committed. The caller says what must be there.
func (r *rig) crash() {
	r.t.Helper()
	r.st = r.h.Crash()
	r.load()
}

// contents gives what is in the store that was just loaded.
func (r *rig) contents() *model {
	r.t.Helper()
	m := newModel()
	last := uint64(0)
	for i := range r.image.Sessions {
		s := &r.image.Sessions[i]
		if s.ID <= last {
			r.t.Fatalf("session %d after %d", s.ID, last)
		}
		last = s.ID
		ms := &modelSession{rec: s.Session, subs: make(map[string]persist.Subscription), inbound: make(map[uint16]bool), tail: s.Tail}
		for _, sub := range s.Subscriptions {
			ms.subs[sub.Filter] = sub
		}
		ms.will = s.Will
		for _, id := range s.Inbound {
			ms.inbound[id] = true
		}
		ms.queue = r.queue(s.ID)
		r.checkEnds(s, ms)
		m.sessions[s.ID] = ms
	}
	topic := ""
	for _, msg := range r.image.Retained {
		if string(msg.Topic) <= topic {
			r.t.Fatalf("retained %q after %q", msg.Topic, topic)
		}
		topic = string(msg.Topic)
		m.retained[topic] = msg
	}
	return m
}

// checkEnds compares what Load said of a queue with what is in it.
func (r *rig) checkEnds(s *persist.SessionImage, ms *modelSession) {
	r.t.Helper()
	head, bytes := s.Tail, int64(0)
	for seq, e := range ms.queue {
		head = min(head, seq)
		if e.Msg != nil {
			bytes += int64(len(e.Msg.Topic) + len(e.Msg.Props) + len(e.Msg.Payload))
		}
		if seq >= s.Tail {
			r.t.Fatalf("queue %d has entry %d, tail is %d", s.ID, seq, s.Tail)
		}
	}
	if s.Head != head || s.QueuedBytes != bytes || s.Tail < 1 {
		r.t.Fatalf("queue %d: loaded head %d, tail %d, %d bytes; it has head %d, %d bytes", s.ID, s.Head, s.Tail, s.QueuedBytes, head, bytes)
	}
}

// compare compares the store that was just loaded with a model, and takes over the tails.
func (r *rig) compare(want *model) {
	r.t.Helper()
	got := r.contents()
	if g, w := got.dump(), want.dump(); !slices.Equal(g, w) {
		r.t.Fatalf("the store has\n%s\nwant\n%s", lines(g), lines(w))
	}
	for id, s := range want.sessions {
		if got.sessions[id].tail > s.tail {
			r.t.Fatalf("queue %d: tail %d after a restart, it was %d", id, got.sessions[id].tail, s.tail)
		}
		s.tail = got.sessions[id].tail
	}
}

func lines(list []string) string {
	var b bytes.Buffer
	for _, l := range list {
		fmt.Fprintf(&b, "\t%s\n", l)
	}
	return b.String()
}

// finish is the end of every test: reopen, compare, close.
func (r *rig) finish() {
	r.t.Helper()
	r.reopen()
	if err := r.st.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.violated != "" {
		r.t.Fatal(r.violated)
	}
}
