package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"time"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// message is what a sensor sends, as JSON. Source and N find it again in the
// ledger.
type message struct {
	Source string  `json:"source"`
	N      uint64  `json:"n"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit,omitempty"`
	Time   string  `json:"time"`
}

// sensor publishes with QoS 1, a message each interval, and comes back by itself
// when its connection is lost; what was not acknowledged then it sends again.
type sensor struct {
	name     string
	interval time.Duration
	read     func() (value float64, unit string, err error)
	client   *rig.Client
}

// windowMax is how many messages of one sensor may be under way. A sensor that
// has no more room waits, as a real one does.
const windowMax = 200

func newSensor(r reading, interval time.Duration, ledger *rig.Ledger) *sensor {
	s := &sensor{name: r.name, interval: interval, read: r.read}
	s.client = rig.NewClient(rig.ClientOptions{
		ID: "sensor-" + r.name, Window: windowMax,
		OnAcked: func(tag uint64) { ledger.Acked(r.name, tag) },
	})
	return s
}

// simulated gives the reading of a sensor that is not there: a slow wave.
func simulated(i int) reading {
	start := time.Now()
	return reading{fmt.Sprintf("simulated-%d", i), func() (float64, string, error) {
		return 20 + 5*math.Sin(float64(i)+time.Since(start).Seconds()/10), "°C", nil
	}}
}

// run publishes until ctx ends, then waits for the acknowledgements that are
// owed. address says where the gateway is.
func (s *sensor) run(ctx context.Context, address string) error {
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	for n := uint64(0); ; {
		select {
		case <-ctx.Done():
			return s.finish(address)
		case <-tick.C:
		}
		v, unit, err := s.read()
		if err != nil {
			return fmt.Errorf("sensor %s: %w", s.name, err)
		}
		payload, err := json.Marshal(message{s.name, n, v, unit, time.Now().Format(time.RFC3339Nano)})
		if err != nil {
			return fmt.Errorf("sensor %s: %w", s.name, err)
		}
		for s.client.Publish("sensors/"+s.name, payload, 1, false, n) != nil {
			if !s.connect(ctx, address) {
				return s.finish(address)
			}
		}
		n++
	}
}

// connect tries until the gateway answers, or ctx ends.
func (s *sensor) connect(ctx context.Context, address string) bool {
	for {
		if _, err := s.client.Connect(address); err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// finishMax is how long the last acknowledgements may take.
const finishMax = 30 * time.Second

func (s *sensor) finish(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), finishMax)
	defer cancel()
	defer s.client.Close()
	for ctx.Err() == nil {
		if s.client.Flush(finishMax) == nil {
			return nil
		}
		if !s.connect(ctx, address) {
			break
		}
	}
	return fmt.Errorf("sensor %s: its last messages were not acknowledged within %v", s.name, finishMax)
}

// sensors are all of them, at work.
type sensors struct {
	stop  context.CancelFunc
	tasks sync.WaitGroup
	mu    sync.Mutex
	err   error
}

func startSensors(ctx context.Context, all []*sensor, address string) *sensors {
	ctx, stop := context.WithCancel(ctx)
	s := &sensors{stop: stop}
	for _, x := range all {
		s.tasks.Go(func() {
			if err := x.run(ctx, address); err != nil {
				s.mu.Lock()
				s.err = err
				s.mu.Unlock()
			}
		})
	}
	return s
}

// finish stops the sensors and waits for what they are owed.
func (s *sensors) finish() error {
	s.stop()
	s.tasks.Wait()
	return s.err
}

// arrived notes a message that the subscriber at the cloud got.
func arrived(ledger *rig.Ledger, p *mqtt.Publish) {
	var m message
	if json.Unmarshal(p.Payload, &m) == nil && m.Source != "" {
		ledger.Arrived(m.Source, m.N)
	}
}
