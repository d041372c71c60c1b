package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

const (
	diskBytes = 64 << 20
	patience  = 60 * time.Second
	window    = 10 // messages that a publisher has under way
	backlog   = 1000
	writesMax = 30 // more than a commit makes, the journal's among them
)

// world is a broker on a disk, with its load.
type world struct {
	t       *testing.T
	random  *rand.Rand
	disk    *Disk
	live    *rig.Gateway
	account *account
	state   atomic.Uint64 // the last retained message that was acknowledged
	away    *rig.Client
	stop    chan struct{}
	idle    bool // nothing may be written for seconds: cuts do not wait for a write
	tasks   sync.WaitGroup

	cuts, unflushed, checked int // cuts; of them with writes in the cache; debts looked for
}

// newWorld starts it. unsynced: the broker's syncs do nothing. lies: those of the disk.
func newWorld(t *testing.T, seed uint64, unsynced, lies bool) *world {
	t.Helper()
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 1)), account: newAccount(), stop: make(chan struct{}), idle: unsynced}
	disk, err := NewDisk(t.TempDir(), diskBytes, lies)
	must(t, err)
	w.disk = disk
	t.Cleanup(func() { must(t, disk.Close()) })
	w.live = gateway(disk.Dir)
	if unsynced {
		w.live.Binary, w.live.Env = self, []string{unsyncedKey + "=" + program}
	}
	must(t, w.live.Start())
	t.Cleanup(w.live.Kill)
	w.away = rig.NewClient(rig.ClientOptions{ID: "away", OnMessage: w.account.arrived})
	_, err = w.away.Connect(w.live.Addr())
	must(t, err)
	_, err = w.away.Subscribe(2, "load/#")
	must(t, err)
	w.away.Disconnect()
	w.load()
	t.Cleanup(func() {
		close(w.stop)
		w.tasks.Wait()
		w.away.Close()
	})
	return w
}

func gateway(dir string) *rig.Gateway {
	return &rig.Gateway{Binary: program, Dir: dir, Config: "[store]\ncommit_interval = \"5ms\"\n"}
}

// load starts the publishers.
func (w *world) load() {
	for i, qos := range []mqtt.QoS{1, 1, 2} {
		source := fmt.Sprintf("p%d", i)
		w.publish(rig.ClientOptions{ID: source, Window: window, OnAcked: func(n uint64) { w.account.acknowledged(source, n) }},
			func(c *rig.Client, n uint64) error {
				for w.account.due() > backlog && !w.stopped() { // a deep queue makes a check slow
					time.Sleep(time.Millisecond)
				}
				return c.Publish("load/"+source, rig.Payload(source, n, payloadBytes), qos, false, n)
			})
	}
	w.publish(rig.ClientOptions{ID: "state", Window: 1, OnAcked: w.state.Store}, func(c *rig.Client, n uint64) error {
		return c.Publish(stateTopic, strconv.AppendUint(nil, n, 10), 1, true, n)
	})
}

// publish publishes until the end.
func (w *world) publish(opt rig.ClientOptions, send func(*rig.Client, uint64) error) {
	c := rig.NewClient(opt)
	_, err := c.Connect(w.live.Addr())
	must(w.t, err)
	w.tasks.Go(func() {
		defer c.Close()
		pause := time.NewTicker(time.Millisecond)
		defer pause.Stop()
		for n := uint64(1); ; {
			select {
			case <-w.stop:
				return
			case <-pause.C:
			}
			if err := send(c, n); err != nil {
				if !w.stopped() {
					w.t.Errorf("publish: %v (%v)", err, c.Why())
				}
				return
			}
			n++
		}
	})
}

func (w *world) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// cut cuts the power, and tells what a broker on the remains lacks. The error says that
// none came up.
func (w *world) cut() error {
	time.Sleep(time.Duration(w.random.IntN(40)) * time.Millisecond) // any instant
	nth := 0
	if !w.idle && w.random.IntN(4) > 0 { // a disk in memory is quick: an instant at random seldom finds it at work
		nth = 1 + w.random.IntN(writesMax)
	}
	w.cuts++
	var debts map[string]bool
	var state uint64
	image, unflushed := w.disk.Image(nth, w.random, func() { debts, state = w.account.debts(), w.state.Load() })
	w.account.settle(debts)
	if unflushed > 0 {
		w.unflushed++
	}
	w.checked += len(debts)
	at := w.t.TempDir()
	if err := MountCopy(image, at); err != nil {
		return err
	}
	return errors.Join(check(at, debts, state), unix.Unmount(at, 0))
}

// check starts a broker on what a cut left.
func check(dir string, debts map[string]bool, state uint64) error {
	g := gateway(dir)
	if err := g.Start(); err != nil {
		return err
	}
	defer g.Kill()
	d := &delivery{debts: debts, last: map[string]uint64{}, marker: make(chan struct{})}
	c := rig.NewClient(rig.ClientOptions{ID: "away", OnMessage: d.take})
	defer c.Close()
	present, err := c.Connect(g.Addr())
	if err != nil {
		return err
	}
	if !present {
		return errors.New("the session is gone")
	}
	if _, err := c.Subscribe(1, stateTopic); err != nil {
		return err
	}
	if err := c.Publish(markerTopic, nil, 1, false, 0); err != nil {
		return err
	}
	select {
	case <-d.marker:
	case <-time.After(patience):
		return errors.New("the session's queue does not come to its end")
	}
	var all []error
	if n, some := d.missing(); n > 0 {
		all = append(all, fmt.Errorf("%d acknowledged messages are lost: %s ...", n, strings.Join(some, ", ")))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, what := range d.wrong {
		all = append(all, errors.New(what))
	}
	if d.state < state {
		all = append(all, fmt.Errorf("the retained message is number %d, acknowledged was %d", d.state, state))
	}
	for line := range strings.Lines(g.Log()) {
		if strings.Contains(line, `"level":"warn"`) || strings.Contains(line, `"level":"error"`) {
			all = append(all, errors.New(line))
		}
	}
	return errors.Join(all...)
}

// drain brings the away session up to date, so that queues get empty and fill again.
func (w *world) drain() {
	w.t.Helper()
	before := w.account.debts()
	present, err := w.away.Connect(w.live.Addr())
	must(w.t, err)
	if !present {
		w.t.Fatal("the live broker has lost the session")
	}
	for end := time.Now().Add(patience); len(before) > 0; w.account.settle(before) {
		if time.Now().After(end) {
			w.t.Fatalf("%d messages do not come from the live broker", len(before))
		}
		time.Sleep(time.Millisecond) // a poll
	}
	w.away.Disconnect()
}
