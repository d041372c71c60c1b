package main

import (
	"context"
	"fmt"
	"time"
)

// lookEvery is how often the state is looked at and shown.
const lookEvery = 100 * time.Millisecond

// script is the play.
func (w *world) script(ctx context.Context) error {
	w.out.say("everything is well for %v", w.normal)
	if err := w.play(ctx, "uplink well", w.normal); err != nil {
		return err
	}
	wrote := w.gateway.WrittenBytes()
	w.wroteNormal = wrote

	w.uplink.Blackhole()
	w.out.say("the uplink is dead for %v: at first what is sent vanishes, and nobody is told", w.outage)
	if err := w.play(ctx, "uplink swallows all", w.outage*2/5); err != nil {
		return err
	}
	w.uplink.Refuse()
	w.out.say("now it refuses connections")
	if err := w.play(ctx, "uplink refuses", w.outage/10); err != nil {
		return err
	}
	w.wroteOutage = w.gateway.WrittenBytes() - wrote
	if err := w.crash(); err != nil {
		return err
	}
	if err := w.play(ctx, "uplink refuses", w.outage/2); err != nil {
		return err
	}

	mark := w.ledger.Mark()
	w.backlog = w.ledger.Missing(mark)
	restored := time.Now()
	if err := w.uplink.Restore(); err != nil {
		return err
	}
	w.out.say("the uplink is back; %s acknowledged messages wait for it, and the sources go on", count(w.backlog))
	after := func() bool { return time.Since(restored) > w.after }
	drained := func() bool {
		if w.drained == 0 && w.ledger.Missing(mark) == 0 {
			w.drained = time.Since(restored)
			w.out.say("the backlog is in the cloud, %.1f s after the uplink came back", w.drained.Seconds())
		}
		return w.drained > 0
	}
	if err := w.until(ctx, "uplink well, draining", func() bool { drained(); return after() }); err != nil {
		return err
	}
	w.hush()
	w.sources.Wait()
	w.out.say("the sources fall silent; what is left comes within %v, or is lost", w.drain)
	deadline := time.Now().Add(w.drain)
	return w.until(ctx, "uplink well, draining", func() bool {
		lost, _ := w.ledger.Lost()
		return drained() && lost == 0 && w.unacknowledged() == 0 || time.Now().After(deadline)
	})
}

// crash kills the gateway in mid-stream, and starts it again.
func (w *world) crash() error {
	w.killGateway()
	acked := w.ledger.Sum().Acked
	w.out.say("kill -9: the gateway is dead; it had acknowledged %s messages", count(acked))
	began := time.Now()
	if err := w.startGateway(); err != nil {
		return err
	}
	w.restart = time.Since(began)
	w.out.say("the gateway is up again after %d ms; the sources connect and send again what was not acknowledged", w.restart.Milliseconds())
	return nil
}

// play lets time pass.
func (w *world) play(ctx context.Context, state string, d time.Duration) error {
	end := time.Now().Add(d)
	return w.until(ctx, state, func() bool { return !time.Now().Before(end) })
}

// until shows what goes on until done says so.
func (w *world) until(ctx context.Context, state string, done func() bool) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.gateway.Done():
			return fmt.Errorf("the gateway has ended:\n%s", w.gateway.Log())
		case <-w.cloud.Done():
			return fmt.Errorf("the cloud has ended:\n%s", w.cloud.Log())
		case <-tick.C:
		}
		store := w.gateway.StoreBytes()
		w.storePeak = max(w.storePeak, store)
		sum := w.ledger.Sum()
		w.out.status("%5.1f s  %-21s  acknowledged %7s  in the cloud %7s  store %s",
			time.Since(w.began).Seconds(), state, count(sum.Acked), count(sum.Arrived), size(store))
	}
	return nil
}
