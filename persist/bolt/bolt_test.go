package bolt

import (
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/persist"
	"sluice/persist/storetest"
)

// TestMain also is the main function of the processes that tests start.
func TestMain(m *testing.M) {
	if child := os.Getenv(childEnv); child != "" {
		children[child]()
		return
	}
	goleak.VerifyTestMain(m)
}

// kill ends a store as SIGKILL would, but for what it has committed.
func (s *Store) kill() {
	s.crash.Store(true)
	_ = s.Close()
}

// runSuite runs storetest over stores with these options.
func runSuite(t *testing.T, opt Options) {
	storetest.Run(t, func(t *testing.T, ev persist.Events, now func() int64) storetest.Handle {
		opt := opt
		opt.Path, opt.Events, opt.Now = t.TempDir(), ev, now
		open := func() *Store {
			s, err := Open(opt)
			if err != nil {
				t.Fatal(err)
			}
			if st := s.Stats(); st.Quarantined != "" || st.Skipped != 0 {
				t.Fatalf("store opened with %+v", st)
			}
			return s
		}
		s := open()
		t.Cleanup(func() { s.kill() })
		return storetest.Handle{
			Store: s,
			Reopen: func() persist.Store {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open()
				return s
			},
			Crash: func() persist.Store {
				s.kill()
				s = open()
				return s
			},
		}
	})
}

func TestStore(t *testing.T) {
	opt := DefaultOptions()
	opt.CommitInterval = 3 * time.Millisecond
	runSuite(t, opt)
}

func TestStoreWithoutInterval(t *testing.T) {
	opt := DefaultOptions()
	opt.CommitInterval = 0
	runSuite(t, opt)
}

// TestStoreFailing runs the suite over a disk that fails often, at times only
// after it has written everything.
func TestStoreFailing(t *testing.T) {
	opt := DefaultOptions()
	opt.CommitInterval = time.Millisecond
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(1, 2))
	failure := errors.New("disk fails for a test")
	opt.hooks.backoff = time.Millisecond
	last := 0 // failures in a row: a close tries twice
	opt.hooks.commit = func(freeing bool, write func() error) error {
		if freeing { // removals alone would make a state that never was
			return failure
		}
		mu.Lock()
		n := rnd.IntN(4)
		if last++; n > 1 || last > 1 {
			n, last = 3, 0
		}
		mu.Unlock()
		switch n {
		case 0:
			return failure
		case 1:
			return errors.Join(write(), failure)
		}
		return write()
	}
	runSuite(t, opt)
}
