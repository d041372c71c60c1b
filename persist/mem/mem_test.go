package mem

import (
	"testing"

	"go.uber.org/goleak"

	"sluice/persist"
	"sluice/persist/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, ev persist.Events, now func() int64) storetest.Handle {
		s := New(Options{Events: ev, Now: now})
		return storetest.Handle{
			Store: s,
			Reopen: func() persist.Store {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = s.Crash()
				return s
			},
			Crash: func() persist.Store {
				s = s.Crash()
				return s
			},
		}
	})
}
