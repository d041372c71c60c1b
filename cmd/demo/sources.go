package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"sluice/cmd/sluice/e2e/rig"
)

// topic is where a source publishes.
func topic(source string) string { return "sensors/" + source }

// instrument reads something now; nil: there is nothing to read.
type instrument func() map[string]float64

// startSources connects a client for each source and lets them publish.
func (w *world) startSources() error {
	ctx, hush := context.WithCancel(context.Background())
	w.hush = hush
	machine := instruments()
	for _, m := range machine {
		if err := w.source(ctx, m.name, w.machineRate, m.read); err != nil {
			return err
		}
	}
	for i := range w.sensors {
		if err := w.source(ctx, fmt.Sprintf("oven-%02d", i+1), w.rate, oven()); err != nil {
			return err
		}
	}
	names := make([]string, len(machine))
	for i, m := range machine {
		names[i] = m.name
	}
	w.out.say("%d sources: %s of this machine, and %d simulated sensors, %.0f messages/s in all", len(machine)+w.sensors,
		strings.Join(names, ", "), w.sensors, float64(len(machine))*w.machineRate+float64(w.sensors)*w.rate)
	return nil
}

// source connects a source and starts its goroutine. Its session is clean: what
// it has to send again it knows itself.
func (w *world) source(ctx context.Context, name string, rate float64, read instrument) error {
	c := rig.NewClient(rig.ClientOptions{ID: name, Clean: true, OnAcked: func(seq uint64) { w.ledger.Acked(name, seq) }})
	if _, err := c.Connect(w.here()); err != nil {
		return err
	}
	w.keepers, w.clients = append(w.keepers, rig.Keep(c, w.here)), append(w.clients, c)
	w.sources.Go(func() { publish(ctx, c, name, rate, read) })
	return nil
}

// publish publishes readings until ctx ends. A reading that cannot be handed to
// the client, which is not connected, is kept until it can.
func publish(ctx context.Context, c *rig.Client, name string, rate float64, read instrument) {
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	var payload []byte
	for seq := uint64(0); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if payload == nil {
			values := read()
			if values == nil {
				continue
			}
			var err error
			payload, err = json.Marshal(reading{Source: name, Sequence: seq, Time: time.Now(), Values: values})
			if err != nil {
				panic(fmt.Sprintf("BUG: reading of %s: %v", name, err))
			}
		}
		if err := c.Publish(topic(name), payload, 1, false, seq); err == nil {
			payload = nil
			seq++
		}
	}
}

// oven simulates one: a temperature that wanders, and a door.
func oven() instrument {
	celsius := 180 + 20*rand.Float64()
	return func() map[string]float64 {
		celsius += rand.NormFloat64() / 10
		door := 0.0
		if rand.IntN(500) == 0 {
			door = 1
		}
		return map[string]float64{"celsius": math.Round(celsius*100) / 100, "door_open": door}
	}
}
