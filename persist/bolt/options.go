package bolt

import (
	"errors"
	"fmt"
	"math"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/zap"

	"sluice/persist"
)

// Options say where and how the store keeps its file. DefaultOptions gives
// the defaults.
type Options struct {
	// Path is the directory of the store, or the file itself if it ends in
	// ".db"; in a directory the file is called sluice.db. Missing directories
	// are created with mode 0700, the file with 0600. It must be set. Danger:
	// on a network file system locks and syncs may not do what they say.
	Path string

	// CommitInterval is how long the oldest pending op waits for others, and
	// for being cancelled, before a commit. Default: 50 ms. 0: no waiting, a
	// commit begins as soon as the last has ended. Danger: a publisher waits
	// up to this long, plus the commit, for the acknowledgement of a message
	// whose receivers do not acknowledge; a short interval wears the flash: a
	// commit writes at least 12 KiB, however little changes.
	CommitInterval time.Duration

	// CommitIntervalMax is what the commit interval may become when the write
	// budget is used up. Default: 5 s. Not more than CommitInterval: it stays
	// as it is. Danger: publishers wait up to this long.
	CommitIntervalMax time.Duration

	// WriteBudgetBytes is how much may be written in a day, all pages counted.
	// As it is used up, commits become rarer (budget.go). Default and 0: no
	// budget. At least 1 MiB.
	WriteBudgetBytes int64

	// Patient makes a commit wait for the whole interval even if publishers
	// wait for nothing else. Default: false.
	Patient bool

	// MaxPendingBytes bounds the messages, in bytes, that wait for a disk that
	// is slow or full; beyond it, groups with messages are settled with
	// persist.ErrFull. It is exceeded by at most one group. Default and 0:
	// 16 MiB. Danger: after a full disk has room again, all of it is written in
	// one transaction, which takes about three times this much memory.
	MaxPendingBytes int64

	// MaxFileBytes bounds the file. When it is reached, commits fail as on a
	// full disk, until messages have been fetched and acknowledged. Default
	// and 0: no limit on 64-bit systems, 1 GiB on 32-bit systems, where it may
	// not be more, because the file is mapped into the address space. At
	// least 1 MiB.
	MaxFileBytes int64

	// Events gets the answers. It must be set.
	Events persist.Events

	// Logger gets the store's life cycle and trouble. Default: none.
	Logger *zap.Logger

	// Now is the monotonic clock in ns, of which Message.Expires is a reading.
	// Default: mono.Now.
	Now func() int64

	hooks hooks
}

// hooks let the tests of this package interfere.
type hooks struct {
	commit  func(freeing bool, write func() error) error // around each transaction
	backoff time.Duration                                // instead of backoffMin
	confirm func(write func() error) func() error        // around the writing of a meta page that is in doubt
	opened  func(db *bbolt.DB)                           // after each opening of the file
}

const (
	defaultCommitInterval  = 50 * time.Millisecond
	defaultMaxPendingBytes = 16 << 20

	defaultCommitIntervalMax = 5 * time.Second

	// minBudgetBytes is what a hundred small commits write.
	minBudgetBytes = 1 << 20

	// maxMappedBytes is how much of a 32-bit address space the file may take:
	// the map grows by doubling, and 2 GiB in one piece are rarely free.
	maxMappedBytes = 1 << 30

	// minFileBytes is less than any store needs after a day.
	minFileBytes = 1 << 20
)

const is32bit = math.MaxInt == math.MaxInt32

// DefaultOptions gives the defaults. Path and Events remain to be set.
func DefaultOptions() Options {
	return Options{CommitInterval: defaultCommitInterval, CommitIntervalMax: defaultCommitIntervalMax, MaxPendingBytes: defaultMaxPendingBytes}
}

// Validate gives all that is wrong with the options.
func (o *Options) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Path == "" {
		bad("store: Path is empty")
	}
	if o.Events == nil {
		bad("store: Events is nil")
	}
	if o.CommitInterval < 0 {
		bad("store: CommitInterval is negative: %v", o.CommitInterval)
	}
	if o.CommitIntervalMax < 0 {
		bad("store: CommitIntervalMax is negative: %v", o.CommitIntervalMax)
	}
	if o.WriteBudgetBytes != 0 && o.WriteBudgetBytes < minBudgetBytes {
		bad("store: WriteBudgetBytes is %d, the least is %d", o.WriteBudgetBytes, minBudgetBytes)
	}
	if o.MaxPendingBytes < 0 {
		bad("store: MaxPendingBytes is negative: %d", o.MaxPendingBytes)
	}
	if o.MaxFileBytes != 0 && o.MaxFileBytes < minFileBytes {
		bad("store: MaxFileBytes is %d, the least is %d", o.MaxFileBytes, minFileBytes)
	}
	if is32bit && o.MaxFileBytes > maxMappedBytes {
		bad("store: MaxFileBytes is %d, a 32-bit system can map at most %d", o.MaxFileBytes, maxMappedBytes)
	}
	return errors.Join(errs...)
}
