package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"
)

// DESIGN. A Set is the bridges of a process, by name. Apply makes it what a new
// configuration says, and touches only what is different: Options with the
// Fingerprint of the running bridge leave it alone. All Options are judged
// before anything is stopped. What is stopped leaves its sessions at the local
// broker as they are: one that is started again under the same name goes on
// where it was; what was removed is the caller's to mute.

// Set is a set of running bridges. All methods may be called from any goroutine.
type Set struct {
	log *zap.Logger

	mu      sync.Mutex
	bridges map[string]*Bridge
	closed  bool
}

// Changes are what Apply did, by the names of bridges, sorted.
type Changes struct {
	Added, Changed, Removed, Kept []string
}

// Any tells whether something is different now.
func (c *Changes) Any() bool { return len(c.Added)+len(c.Changed)+len(c.Removed) > 0 }

// NewSet returns an empty set.
func NewSet(log *zap.Logger) *Set { return &Set{log: log, bridges: map[string]*Bridge{}} }

// Apply starts, restarts and stops bridges so that those of wanted run. If one
// of wanted is not valid, nothing is done. Other errors are of bridges that could
// not be started, each of which is missing then; the rest runs, and a further
// Apply tries again. ctx bounds starting.
func (s *Set) Apply(ctx context.Context, wanted []Options) (c Changes, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return c, errors.New("bridges are closed")
	}
	fresh, err := s.judge(wanted, &c)
	if err != nil {
		return Changes{}, err
	}
	s.stop(append(slices.Clone(c.Changed), c.Removed...))
	for _, name := range c.Removed {
		s.tellRemoved(name)
		delete(s.bridges, name)
	}
	var errs []error
	for _, name := range append(slices.Clone(c.Changed), c.Added...) {
		delete(s.bridges, name)
		b := fresh[name]
		if err := b.Start(ctx); err != nil {
			errs = append(errs, err, b.Close())
			continue
		}
		s.bridges[name] = b
	}
	return c, errors.Join(errs...)
}

// judge compares what is wanted with what runs, and makes what is new.
func (s *Set) judge(wanted []Options, c *Changes) (fresh map[string]*Bridge, err error) {
	fresh = map[string]*Bridge{}
	seen := map[string]bool{}
	var errs []error
	for _, o := range wanted {
		if seen[o.Name] {
			errs = append(errs, fmt.Errorf("bridge %q twice", o.Name))
			continue
		}
		seen[o.Name] = true
		old := s.bridges[o.Name]
		switch {
		case old == nil:
			c.Added = append(c.Added, o.Name)
		case o.Fingerprint != "" && old.opts.Fingerprint == o.Fingerprint:
			c.Kept = append(c.Kept, o.Name)
			continue
		default:
			c.Changed = append(c.Changed, o.Name)
		}
		b, err := New(o, s.log)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fresh[o.Name] = b
	}
	for name := range s.bridges {
		if !seen[name] {
			c.Removed = append(c.Removed, name)
		}
	}
	for _, names := range [][]string{c.Added, c.Changed, c.Removed, c.Kept} {
		slices.Sort(names)
	}
	return fresh, errors.Join(errs...)
}

// stop closes bridges, all at once, since each may take its time to drain.
func (s *Set) stop(names []string) {
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() { _ = s.bridges[name].Close() }) // returns nil
	}
	wg.Wait()
}

// tellRemoved logs what a bridge leaves behind.
func (s *Set) tellRemoved(name string) {
	b := s.bridges[name]
	b.gaugeQueues()
	st := b.Status()
	left, _ := st.Backlog()
	s.log.Warn("a bridge is not configured any more: nothing further is queued for it; what is queued stays until a bridge of that name is configured again",
		zap.String("bridge", name), zap.Int64("messages", left.Messages), zap.Int64("bytes", left.Bytes))
}

// Status returns snapshots of all bridges, by name.
func (s *Set) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Status
	for _, b := range s.bridges {
		all = append(all, b.Status())
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Close closes all bridges; see Bridge.Close. It returns nil.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var names []string
	for name := range s.bridges {
		names = append(names, name)
	}
	s.stop(names)
	clear(s.bridges)
	return nil
}
