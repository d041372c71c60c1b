package mem

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"sluice/persist"
	"sluice/platform/mono"
)

// DESIGN. Two ways of running. By default each Submit commits what it brings,
// and one goroutine answers fetches. In manual mode there is no goroutine:
// commits and answers happen when the simulator says so (Step, StepFetch), in
// an order that only it decides.

// Options say how the store behaves.
type Options struct {
	// Events gets the answers. It must be set.
	Events persist.Events

	// Manual leaves commits and answers to Step and StepFetch. Default: false.
	Manual bool

	// Now is the monotonic clock in ns, of which Message.Expires is a reading.
	// Default: mono.Now.
	Now func() int64

	// MaxPendingBytes bounds what may wait for a commit; beyond it, groups with
	// messages are settled with persist.ErrFull. 0: no bound.
	MaxPendingBytes int64
}

// Store is a persist.Store in memory.
type Store struct {
	opt       Options
	pending   *persist.Pending
	sessionID atomic.Uint64
	messageID atomic.Uint64

	mu       sync.Mutex // guards what follows; held over a commit, so that there is one at a time
	disk     *disk
	fail     error
	boot     uint64
	requests []persist.FetchRequest // to answer, in order
	waiting  []persist.FetchRequest // to answer after the next commit
	commits  uint64
	failures uint64
	err      error

	wake chan struct{} // nil in manual mode
	stop chan struct{}
	done chan struct{}
}

var (
	_ persist.Store  = (*Store)(nil)
	_ persist.Queues = (*Store)(nil)
)

// New makes an empty store.
func New(opt Options) *Store { return open(opt, nil) }

// open makes a store with the contents of old, if there is one.
func open(opt Options, old *Store) *Store {
	if opt.Now == nil {
		opt.Now = func() int64 { return int64(mono.Now()) }
	}
	s := &Store{opt: opt, pending: persist.NewPending(opt.MaxPendingBytes, 0), disk: newDisk(), boot: 1}
	if old != nil {
		s.boot = old.boot + 1
		s.disk = old.disk.clone(opt.Now())
		s.sessionID.Store(old.sessionID.Load())
		s.messageID.Store(old.messageID.Load())
		for _, id := range sorted(s.disk.sessions) {
			r := s.disk.sessions[id]
			s.pending.Restore(id, persist.Counters{Tail: r.tail, Depth: int64(len(r.entries)), Bytes: r.bytes})
			s.pending.Limit(id, r.session.Queue)
		}
	}
	if !opt.Manual {
		s.wake, s.stop, s.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
		go s.fetchLoop()
	}
	return s
}

// Load implements persist.Store.
func (s *Store) Load() (*persist.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	im := s.disk.image()
	im.Boot = s.boot
	return im, nil
}

// NewSessionID implements persist.Store.
func (s *Store) NewSessionID() uint64 { return s.sessionID.Add(1) }

// NewMessageID implements persist.Store.
func (s *Store) NewMessageID() uint64 { return s.messageID.Add(1) }

// Submit implements persist.Store.
func (s *Store) Submit(b *persist.Batch) {
	var scratch [4]persist.Settlement
	settled, _ := s.pending.Submit(b, 0, scratch[:0])
	s.tell(settled)
	if !s.opt.Manual {
		s.commit()
	}
}

func (s *Store) tell(settled []persist.Settlement) {
	for _, x := range settled {
		s.opt.Events.Settled(x.Owner, x.Tokens, x.Err)
	}
}

// commit makes one transaction of what is pending.
func (s *Store) commit() bool {
	s.mu.Lock()
	settled, did := s.commitLocked()
	s.mu.Unlock()
	s.tell(settled)
	return did
}

func (s *Store) commitLocked() ([]persist.Settlement, bool) {
	w := s.pending.Take()
	if w == nil {
		return nil, s.requeue()
	}
	s.err = s.fail
	if s.fail != nil {
		s.failures++
		return s.pending.Committed(w, s.fail, nil), true
	}
	s.commits++
	s.disk.apply(w, s.opt.Now())
	settled := s.pending.Committed(w, nil, nil)
	s.requeue()
	return settled, true
}

// requeue makes the fetches that waited for a commit be answered again, and
// tells whether there were any.
func (s *Store) requeue() bool {
	if len(s.waiting) == 0 {
		return false
	}
	s.requests = append(s.requests, s.waiting...)
	s.waiting = nil
	s.kick()
	return true
}

func (s *Store) kick() {
	if s.wake != nil {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Fetch implements persist.Store.
func (s *Store) Fetch(r persist.FetchRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	s.kick()
}

// fetchLoop answers fetches until Close.
func (s *Store) fetchLoop() {
	defer close(s.done)
	for {
		select {
		case <-s.stop:
			return
		case <-s.wake:
		}
		for s.answerNext() {
		}
	}
}

// answerNext answers the first fetch, or puts it to those that wait.
func (s *Store) answerNext() bool {
	s.mu.Lock()
	if len(s.requests) == 0 {
		s.mu.Unlock()
		return false
	}
	r := s.requests[0]
	s.requests = s.requests[1:]
	var aged []uint64
	f := persist.Fetched{Tag: r.Tag, Epoch: r.Epoch, Session: r.Session, From: r.From, Next: r.From}
	if o, ok := s.pending.Overlay(r.Session, r.From, max(r.MaxMessages, 1)); ok {
		var wait bool
		rd := s.disk.reader(r, s.opt.Now(), o.Handed)
		f, wait = o.Answer(r, rd)
		aged = rd.aged
		if wait || !s.pending.Handed(&o, &f) {
			s.waiting = append(s.waiting, r)
			s.mu.Unlock()
			return true
		}
	}
	s.mu.Unlock()
	if len(aged) > 0 {
		var b persist.Batch
		for _, seq := range aged {
			b.Add(persist.Op{Kind: persist.OpExpire, ID: r.Session, Seq: seq})
		}
		s.Submit(&b)
	}
	s.opt.Events.Fetched(r.Owner, f)
	return true
}

// reader gives the entries of a queue from r.From on. A session that is not on
// the disk has none.
func (d *disk) reader(r persist.FetchRequest, now int64, handed uint64) *reader {
	rd := &reader{now: now, handed: handed}
	if rec := d.sessions[r.Session]; rec != nil {
		i, _ := rec.find(r.From)
		rd.entries = rec.entries[i:]
	}
	return rd
}

type reader struct {
	entries []persist.Entry
	now     int64
	handed  uint64
	aged    []uint64 // too old, left out
}

// Next implements persist.Reader.
func (r *reader) Next() (e persist.Entry, ok bool, err error) {
	for len(r.entries) > 0 {
		e, r.entries = r.entries[0], r.entries[1:]
		if e.Until == 0 || e.Until > r.now || e.Released || e.QoS == 2 && e.Seq < r.handed {
			return e, true, nil
		}
		r.aged = append(r.aged, e.Seq)
	}
	return persist.Entry{}, false, nil
}

// QueueStats implements persist.Queues.
func (s *Store) QueueStats(dst []persist.QueueStats) []persist.QueueStats {
	n := len(dst)
	dst = s.pending.AppendQueueStats(dst)
	slices.SortFunc(dst[n:], func(a, b persist.QueueStats) int { return cmp.Compare(a.Session, b.Session) })
	return dst
}

// Stats implements persist.Store.
func (s *Store) Stats() persist.Stats {
	p, messages, bytes := s.pending.Stats()
	w := s.pending.Waiting()
	s.mu.Lock()
	defer s.mu.Unlock()
	return persist.Stats{
		Commits: s.commits, CommitErrors: s.failures, BytesSubmitted: p.BytesSubmitted,
		Cancelled: p.Cancelled, Enqueued: p.Enqueued, Dequeued: p.Dequeued, Refused: p.Refused, Drops: p.Drops,
		QueuedMessages: messages, QueuedBytes: bytes, PendingBytes: w.TotalBytes, Err: s.err,
	}
}

// Close implements persist.Store.
func (s *Store) Close() error {
	s.commit()
	s.halt()
	return s.fail
}

func (s *Store) halt() {
	if s.stop != nil {
		close(s.stop)
		<-s.done
		s.stop = nil
	}
}

// Crash gives a store with what was committed, as after a power cut; or, after
// Close, as if a file were opened again. This store must not be used any
// more, and tells nothing any more; fetches that are not answered are lost.
func (s *Store) Crash() *Store {
	s.halt()
	s.mu.Lock()
	defer s.mu.Unlock()
	return open(s.opt, s)
}

// Step commits what is pending, in manual mode. It tells whether there was
// anything to do.
func (s *Store) Step() bool { return s.commit() }

// StepFetch answers one fetch, in manual mode: the one asked first. It tells
// whether there was one; that one may have to wait for a commit.
func (s *Store) StepFetch() bool { return s.answerNext() }

// FailCommits makes commits fail with err until it is called with nil.
func (s *Store) FailCommits(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}
