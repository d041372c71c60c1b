package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// world is everything that runs: the cloud, the uplink, the gateway, and who is
// connected to them.
type world struct {
	settings
	out     *screen
	dir     string
	host    string
	cloud   *rig.Cloud
	uplink  *rig.Link
	gateway *rig.Gateway
	address atomic.Pointer[string] // of the gateway; nil while it is down
	ledger  *rig.Ledger
	keepers []*rig.Keeper
	clients []*rig.Client // of the sources
	sources sync.WaitGroup
	hush    context.CancelFunc // ends the sources
	began   time.Time
	result
}

// result is what the table tells besides the ledger.
type result struct {
	storePeak, storeEnd int64
	wroteNormal         int64 // bytes that the gateway wrote to disk before the outage
	wroteOutage         int64 // and in it, up to its death
	restart             time.Duration
	drained             time.Duration
	backlog             int
}

// newWorld makes the world and lets everything but the sources run. It returns
// what there is also with an error.
func newWorld(ctx context.Context, s settings, out *screen) (*world, error) {
	w := &world{settings: s, out: out, ledger: rig.NewLedger(), hush: func() {}, began: time.Now()}
	if _, err := rig.FindMosquitto(); err != nil {
		return w, err
	}
	var err error
	if w.host, err = os.Hostname(); err != nil {
		return w, err
	}
	if w.dir, err = os.MkdirTemp("", "sluice-demo-"); err != nil {
		return w, err
	}
	if w.sluice == "" {
		w.sluice = filepath.Join(w.dir, "sluice")
		out.say("building Sluice")
		if text, err := exec.CommandContext(ctx, "go", "build", "-o", w.sluice, "sluice/cmd/sluice").CombinedOutput(); err != nil {
			return w, fmt.Errorf("build: %w\n%s", err, text)
		}
	}
	if err := w.startCloud(); err != nil {
		return w, err
	}
	if err := w.startGateway(); err != nil {
		return w, err
	}
	out.say("the cloud is mosquitto at %s, the uplink %s, the gateway Sluice at %s", w.cloud.Addr(), w.uplink.Addr(), w.gateway.Addr())
	return w, w.startSources()
}

// startCloud runs the cloud, its subscriber, and the uplink to it.
func (w *world) startCloud() (err error) {
	cloud := &rig.Cloud{Dir: filepath.Join(w.dir, "cloud")}
	if err := os.Mkdir(cloud.Dir, 0o700); err != nil {
		return err
	}
	if err := cloud.Start(); err != nil {
		return err
	}
	w.cloud = cloud
	if w.uplink, err = rig.NewLink(cloud.Addr()); err != nil {
		return err
	}
	c := rig.NewClient(rig.ClientOptions{ID: "demo-subscriber", OnMessage: w.arrived})
	if _, err := c.Connect(cloud.Addr()); err != nil {
		return err
	}
	w.keepers = append(w.keepers, rig.Keep(c, cloud.Addr))
	_, err = c.Subscribe(1, w.prefix()+"#")
	return err
}

// prefix is what the bridge puts before topics.
func (w *world) prefix() string { return "gateway/" + w.host + "/" }

// reading is the payload of a message.
type reading struct {
	Source   string             `json:"source"`
	Sequence uint64             `json:"seq"`
	Time     time.Time          `json:"time"`
	Values   map[string]float64 `json:"values"`
}

// arrived counts a message that came to the cloud. It must have been renamed.
func (w *world) arrived(p *mqtt.Publish) {
	var r reading
	if err := json.Unmarshal(p.Payload, &r); err == nil && bytes.Equal(p.Topic, []byte(w.prefix()+topic(r.Source))) {
		w.ledger.Arrived(r.Source, r.Sequence)
	}
}

// startGateway runs Sluice, for the first time or once more.
func (w *world) startGateway() error {
	if w.gateway == nil {
		w.gateway = &rig.Gateway{Binary: w.sluice, Dir: w.dir, Config: fmt.Sprintf(`[[bridge]]
name          = "cloud"
address       = "tcp://%s"
reconnect_min = "250ms"
reconnect_max = "2s"
[[bridge.route]]
direction     = "out"
filter        = "sensors/#"
remote_prefix = %q
qos           = 1
`, w.uplink.Addr(), w.prefix())}
	}
	if err := w.gateway.Start(); err != nil {
		return err
	}
	address := w.gateway.Addr()
	w.address.Store(&address)
	return nil
}

// here is where the sources find the gateway.
func (w *world) here() string {
	if a := w.address.Load(); a != nil {
		return *a
	}
	return ""
}

// killGateway ends it with SIGKILL.
func (w *world) killGateway() {
	w.address.Store(nil)
	w.gateway.Kill()
}

// close ends everything, in the order in which one needs the other, and removes
// the temporary directory.
func (w *world) close() error {
	var errs []error
	w.hush()
	for _, k := range w.keepers {
		k.Close()
	}
	w.sources.Wait()
	if w.gateway != nil && w.gateway.Process != nil {
		w.storeEnd = w.gateway.StoreBytes()
		errs = append(errs, w.gateway.Stop(stopMax))
		if w.keep {
			errs = append(errs, os.WriteFile(filepath.Join(w.dir, "sluice.log"), []byte(w.gateway.Log()), 0o600))
		}
	}
	if w.uplink != nil {
		w.uplink.Close()
	}
	if w.cloud != nil {
		w.cloud.Kill()
	}
	switch {
	case w.dir == "":
	case w.keep:
		w.out.say("configuration, store and log are in %s", w.dir)
	default:
		errs = append(errs, os.RemoveAll(w.dir))
	}
	return errors.Join(errs...)
}

// stopMax is how long the gateway may take to stop: its bridge waits some
// seconds for acknowledgements.
const stopMax = 15 * time.Second
