package bolt

import (
	"errors"
	"fmt"
	"time"

	berrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"

	"sluice/persist"
)

// DESIGN. The committer goroutine: wait until a commit is due, make a round,
// again. A round that fails leaves everything pending, and then tries to write
// at least the removals that nobody waits for: when the file is full of queued
// messages, these are what makes room. The next try comes after a pause that
// doubles. Trouble is logged when it begins, when its reason changes, and when
// it ends.

const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
)

// trial is how the last commit went.
type trial struct {
	reason  string        // why it failed, "" if it did not
	backoff time.Duration // pause before the next
	next    time.Time     // when the pause ends
}

// commitLoop runs until Close.
func (s *Store) commitLoop() {
	defer close(s.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for s.waitDue(timer) {
		_ = s.round() // noted in trial
	}
	s.policy.set(modeBusy)
	if s.crash.Load() {
		s.closeBy = guard(s.db.Close)
		return
	}
	s.closeBy = s.finish()
}

// waitDue waits until a commit is due, false: until the store is closed.
func (s *Store) waitDue(timer *time.Timer) bool {
	for {
		s.policy.set(modeIdle)
		wait, m := s.nextRound(time.Now())
		if wait == 0 {
			s.policy.set(modeBusy)
			select {
			case <-s.closing:
				return false
			default:
				return true
			}
		}
		s.policy.set(m)
		var tick <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			tick = timer.C
		}
		select {
		case <-s.closing:
			return false
		case <-s.wake:
		case <-tick:
		}
	}
}

// nextRound gives how long to wait for the next look: 0 if a round is due, less
// than 0 if there is nothing to wait for but a Submit.
func (s *Store) nextRound(now time.Time) (time.Duration, mode) {
	if pause := s.trial.next.Sub(now); s.trial.reason != "" && pause > 0 {
		return pause, modeBusy
	}
	w := s.pending.Waiting()
	if w.Ops > 0 {
		interval := s.meter.interval(s.opt.Now())
		wait, m := s.policy.due(w, interval, s.opt.Patient || interval > s.opt.CommitInterval, now, s.start)
		if m == modeInterval {
			s.pending.Sweep()
		}
		return wait, m
	}
	if len(s.dead) > 0 {
		return 0, modeBusy
	}
	s.pending.Sweep()
	s.fetcher.retry() // what was waited for may have been cancelled
	if wait := s.compactIdle(now); wait > 0 {
		return wait, modeIdle
	}
	return -1, modeIdle
}

// round makes one transaction of what is pending.
func (s *Store) round() error {
	w := s.pending.Take()
	if w == nil && len(s.dead) == 0 {
		s.fetcher.retry()
		return nil
	}
	err := s.write(w, false)
	if w != nil {
		var scratch [4]persist.Settlement
		s.tell(s.pending.Committed(w, err, scratch[:0]))
	}
	if err != nil {
		s.failed(err)
		s.freeRoom()
	} else {
		s.worked()
	}
	s.fetcher.retry()
	return err
}

// freeRoom writes the removals that nobody waits for.
func (s *Store) freeRoom() {
	w := s.pending.TakeFreeing()
	if w == nil {
		return
	}
	err := s.write(w, true)
	var scratch [4]persist.Settlement
	s.tell(s.pending.Committed(w, err, scratch[:0]))
	if err == nil { // try the rest soon
		s.trial.backoff = s.backoffMin()
		s.trial.next = time.Now().Add(s.trial.backoff)
	}
}

// failed notes that a commit failed.
func (s *Store) failed(err error) {
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		err = fmt.Errorf("the file has reached its limit of %d bytes", s.opt.MaxFileBytes)
	}
	err = fmt.Errorf("store file %s: %w", s.path, err)
	s.counters.commitErrors.Add(1)
	s.err.Store(&err)
	t := &s.trial
	if t.reason != err.Error() {
		t.reason = err.Error()
		w := s.pending.Waiting()
		s.log.Error("store cannot write: keeping what is pending in memory", zap.Error(err),
			zap.Int("groups", w.Groups), zap.Int64("pending_bytes", w.TotalBytes))
	}
	t.backoff = min(max(2*t.backoff, s.backoffMin()), backoffMax)
	t.next = time.Now().Add(t.backoff)
}

func (s *Store) backoffMin() time.Duration {
	if s.opt.hooks.backoff > 0 {
		return s.opt.hooks.backoff
	}
	return backoffMin
}

// worked notes that the disk takes what is written.
func (s *Store) worked() {
	if s.trial.reason == "" {
		return
	}
	s.trial = trial{}
	s.err.Store(nil)
	s.log.Info("store writes again", zap.String("file", s.path))
}
