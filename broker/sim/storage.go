package sim

import (
	"sluice/persist"
	"sluice/persist/mem"
)

// DESIGN. storage is a store whose committer and fetcher work when the world
// says so. Half of the seeds have persist/mem, whose commits and answers are one
// step each. The others have a disk (disk.go): its commits and reads take time,
// in which everything else goes on, and one that failed may have been written.

type storage interface {
	persist.Store

	// step lets the committer work. on is the stamp up to which all that clients
	// know of is on the disk from now on, 0 if that has not changed.
	step() (did bool, on int64)
	// read lets the fetcher work.
	read() (did bool)
	failCommits(err error)
	// crash gives the store that is found after a crash, or after Close.
	crash() storage
}

func (w *World) newStorage(events persist.Events) storage {
	if w.cfg.disk {
		return newDisk(w, events)
	}
	return &memory{w: w, Store: mem.New(mem.Options{Events: events, Manual: true,
		Now: func() int64 { return int64(w.now) }, MaxPendingBytes: w.cfg.pending})}
}

type memory struct {
	*mem.Store
	w       *World
	failing bool
}

func (m *memory) step() (did bool, on int64) {
	did = m.Step()
	if !m.failing {
		on = m.w.next()
	}
	return did, on
}

func (m *memory) read() bool { return m.StepFetch() }

func (m *memory) failCommits(err error) {
	m.failing = err != nil
	m.FailCommits(err)
}

// crash keeps a disk that fails failing.
func (m *memory) crash() storage {
	c := &memory{w: m.w, Store: m.Crash()}
	if m.failing {
		c.failCommits(errDisk)
	}
	return c
}
