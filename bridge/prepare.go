package bridge

import (
	"context"
	"fmt"
	"slices"
)

// DESIGN. Before a bridge dials, its sessions are brought up to date, all of
// them attached at once. With several queues that is done in two steps, for
// the sake of routes that moved from one queue to another: first every queue
// subscribes everything it wants, without an identifier; what comes in
// meanwhile is sent by whoever has it. Only when all have all does each
// subscribe again with the generation, from which moment on each sends its own
// share only (options_queue.go). What the sessions deliver meanwhile is not
// acknowledged and comes again.

// preparation is one session during that.
type preparation struct {
	queue  *queueState
	local  *local
	wanted []subscription
	stale  []string
	read   chan struct{} // closed when the reader has ended
}

// prepareSessions creates the sessions or brings their subscriptions up to
// date, and detaches.
func (b *Bridge) prepareSessions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.opts.ConnectTimeout)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()
	var all []*preparation
	defer func() {
		for _, p := range all {
			p.leave()
		}
	}()
	for _, q := range living(b.queues) {
		p, err := b.prepare(ctx, q)
		if err != nil {
			return fmt.Errorf("local session %s: %w", q.session, err)
		}
		all = append(all, p)
	}
	each := func(step func(p *preparation) error) error {
		for _, p := range all {
			if err := step(p); err != nil {
				return fmt.Errorf("local session %s: %w", p.queue.session, err)
			}
		}
		return nil
	}
	err := each(func(p *preparation) error { return p.local.subscribe(ctx, p.wanted, 0) })
	if g := b.opts.generation(); err == nil && g != 0 {
		err = each(func(p *preparation) error { return p.local.subscribe(ctx, p.wanted, g) })
	}
	if err == nil {
		err = each(func(p *preparation) error { return p.local.unsubscribe(ctx, p.stale) })
	}
	return err
}

func (b *Bridge) prepare(ctx context.Context, q *queueState) (*preparation, error) {
	p := &preparation{queue: q, read: make(chan struct{})}
	if !q.gone {
		p.wanted = localSubscriptions(b.opts.Routes, q.Name)
	}
	p.stale = slices.DeleteFunc(slices.Clone(b.opts.Sessions[q.session]), func(f string) bool {
		return slices.ContainsFunc(p.wanted, func(s subscription) bool { return s.filter == f })
	})
	var err error
	if p.local, err = attachLocal(ctx, &b.opts, q.session); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.read)
		_ = p.local.read(ignorePublish, ignorePuback) // its error comes back through subscribe
	}()
	return p, nil
}

func (p *preparation) leave() {
	p.local.leave()
	<-p.read
	<-p.local.out.ended
}
