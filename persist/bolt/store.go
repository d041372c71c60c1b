package bolt

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"sluice/persist"
	"sluice/platform/mono"
)

// Store is a persist.Store in a file.
type Store struct {
	opt     Options
	log     *zap.Logger
	path    string
	start   time.Time // zero of the times given to pending
	pending *persist.Pending

	sessionID, messageID atomic.Uint64 // the last that was given out

	// Owned by the committer, once it runs.
	doubt  bool     // the newest meta page may not be on the disk (doubt.go)
	lost   bool     // the file is not under its name any more (vanish.go)
	clean  bool     // the file is as a proper close leaves it
	dead   []uint64 // deleted sessions that are still to be cleared away, in order
	values []byte   // memory for the values of a transaction
	policy policy   // when to commit
	meter  meter    // what is written
	trial  trial    // how the last commit went
	shrink shrink   // when to look for room again

	// db is replaced by the committer, with dbMu held for writing; the
	// committer reads it without, others hold dbMu for reading while they use it.
	dbMu   sync.RWMutex
	db     *bbolt.DB
	file   *os.File // the same file
	broken bool     // bbolt cannot go on: reopen
	stuck  bool     // nor be closed

	fetcher fetcher

	imageMu sync.Mutex
	image   *persist.Image // until Load

	clk         persist.Clock // set by Open only
	boot        uint64        // set by Open only
	firstCommit uint64        // number of the last transaction before Open; set by Open only
	quarantined string        // set by Open only
	salvaged    int           // set by Open only
	counters    counters
	fileBytes   atomic.Int64
	skipped     atomic.Uint64
	err         atomic.Pointer[error]

	wake    chan struct{}
	closing chan struct{}
	closed  sync.Once
	done    chan struct{} // committer
	closeBy error         // result of Close; written by the committer before done
	crash   atomic.Bool   // in tests: Close as if the process had been killed
}

// counters are for Stats.
type counters struct {
	commits, commitErrors, bytesWritten atomic.Uint64
	commitTime, commitTimeMax           atomic.Int64 // ns
}

var (
	_ persist.Store  = (*Store)(nil)
	_ persist.Queues = (*Store)(nil)
)

// Open opens the store, creating it if need be. A damaged file is moved aside
// and an empty store opened; Stats().Quarantined tells. A file that another
// process uses, or that a newer version of this program has written, is an
// error.
func Open(opt Options) (*Store, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	if opt.MaxPendingBytes == 0 {
		opt.MaxPendingBytes = defaultMaxPendingBytes
	}
	if is32bit && opt.MaxFileBytes == 0 {
		opt.MaxFileBytes = maxMappedBytes
	}
	if opt.Logger == nil {
		opt.Logger = zap.NewNop()
	}
	if opt.Now == nil {
		opt.Now = func() int64 { return int64(mono.Now()) }
	}
	path, err := filePath(opt.Path)
	if err != nil {
		return nil, err
	}
	s := &Store{
		opt: opt, log: opt.Logger, path: path, start: time.Now(),
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
	s.fetcher.init()
	s.meter.init(&opt, opt.Now())
	if err := s.openFile(); err != nil {
		return nil, err
	}
	_ = os.Remove(compactPath(path)) // of a copy that a crash cut short
	s.log.Info("store open", zap.String("file", path), zap.Int("sessions", len(s.image.Sessions)),
		zap.Int("retained", len(s.image.Retained)), zap.Int64("file_bytes", s.fileBytes.Load()),
		zap.Uint64("damaged_records", s.skipped.Load()), zap.Duration("took", time.Since(s.start)))
	if n := s.skipped.Load(); n > 0 {
		s.log.Error("store has damaged records: left out", zap.String("file", path), zap.Uint64("records", n))
	}
	go s.commitLoop()
	go s.fetchLoop()
	return s, nil
}

// Load implements persist.Store.
func (s *Store) Load() (*persist.Image, error) {
	s.imageMu.Lock()
	defer s.imageMu.Unlock()
	if s.image == nil {
		return nil, errors.New("BUG: store loaded twice")
	}
	image := s.image
	s.image = nil
	return image, nil
}

// NewSessionID implements persist.Store.
func (s *Store) NewSessionID() uint64 { return s.sessionID.Add(1) }

// NewMessageID implements persist.Store.
func (s *Store) NewMessageID() uint64 { return s.messageID.Add(1) }

// Submit implements persist.Store.
func (s *Store) Submit(b *persist.Batch) {
	var scratch [4]persist.Settlement
	settled, w := s.pending.Submit(b, int64(time.Since(s.start)), scratch[:0])
	s.tell(settled)
	if s.policy.wakes(w) {
		s.kick()
	}
}

// kick wakes the committer.
func (s *Store) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tell reports what is settled.
func (s *Store) tell(settled []persist.Settlement) {
	for _, x := range settled {
		s.opt.Events.Settled(x.Owner, x.Tokens, x.Err)
	}
}

// Fetch implements persist.Store.
func (s *Store) Fetch(r persist.FetchRequest) { s.fetcher.ask(r) }

// Stats implements persist.Store.
func (s *Store) Stats() persist.Stats {
	p, messages, bytes := s.pending.Stats()
	now := s.opt.Now()
	m := s.meter.read(now, s.day(now))
	st := persist.Stats{
		CommitInterval: m.interval, CommitsLastHour: m.commitsLastHour,
		WriteBudgetBytes: s.opt.WriteBudgetBytes, WriteBudgetUsed: m.used, BytesToday: m.dayBytes,
		CommitTime: time.Duration(s.counters.commitTime.Load()), CommitTimeMax: time.Duration(s.counters.commitTimeMax.Load()),
		Boot: s.boot, CommitNumber: s.firstCommit + s.counters.commits.Load(),
		Commits: s.counters.commits.Load(), CommitErrors: s.counters.commitErrors.Load(),
		BytesSubmitted: p.BytesSubmitted, BytesWritten: s.counters.bytesWritten.Load(),
		Cancelled: p.Cancelled, Enqueued: p.Enqueued, Dequeued: p.Dequeued, Refused: p.Refused, Drops: p.Drops,
		FileBytes: s.fileBytes.Load(), QueuedMessages: messages, QueuedBytes: bytes,
		PendingBytes: s.pending.Waiting().TotalBytes,
		Skipped:      s.skipped.Load(), Quarantined: s.quarantined, Salvaged: s.salvaged,
	}
	if err := s.err.Load(); err != nil {
		st.Err = *err
	}
	return st
}

// QueueStats implements persist.Queues.
func (s *Store) QueueStats(dst []persist.QueueStats) []persist.QueueStats {
	n := len(dst)
	dst = s.pending.AppendQueueStats(dst)
	slices.SortFunc(dst[n:], func(a, b persist.QueueStats) int { return cmp.Compare(a.Session, b.Session) })
	return dst
}

// day is the day of the store's clock.
func (s *Store) day(now int64) uint64 { return uint64(max(s.clk.At(now), 0)) / 86400 }

// account counts what has been written to the file.
func (s *Store) account(bytes, commits uint64) {
	now := s.opt.Now()
	s.counters.bytesWritten.Add(bytes)
	s.counters.commits.Add(commits)
	s.meter.wrote(now, bytes, commits, s.day(now))
}

// Close implements persist.Store.
func (s *Store) Close() error {
	s.closed.Do(func() { close(s.closing) })
	<-s.done
	s.fetcher.stop()
	return s.closeBy
}

// finish is the end of the committer: the last commit, and the file.
func (s *Store) finish() error {
	err := s.round()
	if err != nil { // it may have made room
		err = s.round()
	}
	if err != nil {
		err = fmt.Errorf("store: %d groups could not be written: %w", s.pending.Waiting().Groups, err)
	}
	if s.db == nil {
		return err
	}
	if err == nil {
		if err = s.checkName(); err != nil {
			err = s.putThere()
		}
	}
	if serr := s.seal(); err == nil {
		err = serr
	}
	s.dbMu.Lock()
	defer s.dbMu.Unlock()
	closer := s.db.Close
	if s.stuck {
		closer = s.file.Close
	}
	cerr := guard(closer)
	s.db = nil
	if err == nil && cerr != nil {
		err = fmt.Errorf("store file: %w", cerr)
	}
	return err
}
