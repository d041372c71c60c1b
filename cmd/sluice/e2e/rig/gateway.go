package rig

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Gateway is a Sluice broker: a configuration and a data directory, and the
// process that runs on them. It may be killed and started again.
type Gateway struct {
	// Binary is the program.
	Binary string
	// Dir holds configuration and data.
	Dir string
	// Listeners are the addresses to listen on. Default: a free port of 127.0.0.1,
	// another one at each start.
	Listeners []string
	// Settings are more keys of each listener, and then its tables.
	Settings []string
	// Config is more configuration: tables only.
	Config string
	// Env is added to the environment, as name=value.
	Env []string
	// Host is where it runs. nil: here.
	Host *Host

	*Process
	bound []string
}

// startMax is how long a broker may take until it listens. With the race
// detector, on a machine that is busy, it is slow; what hangs is found all the same.
const startMax = 60 * time.Second

// Start runs the broker and waits until it listens.
func (g *Gateway) Start() error {
	if g.Host != nil {
		return g.Host.Do(g.start)
	}
	return g.start()
}

func (g *Gateway) start() error {
	listeners := g.Listeners
	if len(listeners) == 0 {
		listeners = []string{"127.0.0.1:0"}
	}
	if err := os.WriteFile(g.ConfigFile(), []byte(g.config(listeners)), 0o600); err != nil {
		return err
	}
	p, err := startIn("sluice", g.Env, g.Binary, "run", "-c", g.ConfigFile())
	if err != nil {
		return err
	}
	g.Process, g.bound = p, nil
	err = p.Await(startMax, func(line string) bool {
		var l struct{ Msg, Address string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Msg == "listening" {
			g.bound = append(g.bound, l.Address)
		}
		return len(g.bound) == len(listeners)
	})
	if err != nil {
		p.Kill()
	}
	return err
}

// StartBriefly runs the broker and kills it after a time, whatever it is at by then.
// The configuration is that of the last Start.
func (g *Gateway) StartBriefly(after time.Duration) error {
	p, err := startIn("sluice", g.Env, g.Binary, "run", "-c", g.ConfigFile())
	if err != nil {
		return err
	}
	time.Sleep(after)
	p.Kill()
	return nil
}

// ConfigFile is the path of the configuration.
func (g *Gateway) ConfigFile() string { return filepath.Join(g.Dir, "sluice.toml") }

// DataDir is where the broker keeps its store.
func (g *Gateway) DataDir() string { return filepath.Join(g.Dir, "data") }

func (g *Gateway) config(listeners []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "data_dir = %q\n[log]\nformat = \"json\"\n", g.DataDir())
	for i, l := range listeners {
		fmt.Fprintf(&b, "[[listener]]\naddress = %q\n", l)
		if i < len(g.Settings) {
			b.WriteString(g.Settings[i])
		}
	}
	b.WriteString(g.Config)
	return b.String()
}

// Addr is the address of the first listener.
func (g *Gateway) Addr() string {
	if strings.HasPrefix(g.bound[0], "/") {
		return "unix:" + g.bound[0]
	}
	return g.bound[0]
}

// Bound is the address of each listener, with the real port.
func (g *Gateway) Bound() []string { return g.bound }

// StoreBytes is how many bytes the data take on disk, holes in files not counted.
func (g *Gateway) StoreBytes() int64 {
	const blockBytes = 512 // of st_blocks, see stat(2)
	var sum int64
	files, _ := os.ReadDir(g.DataDir()) // what is not there yet has no size
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() {
			sum += st.Blocks * blockBytes
		}
	}
	return sum
}
