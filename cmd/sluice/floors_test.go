package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// floor gives each package its floor (ARCHITECTURE.md). A package may import
// only packages of floors below its own.
var floor = map[string]int{
	"sluice/platform/mono":      0,
	"sluice/platform":           1, // of floor 0 like mono, which it may use
	"sluice/broker/mqtt":        0,
	"sluice/persist":            2,
	"sluice/broker/topic":       2,
	"sluice/broker/wire":        2,
	"sluice/broker/auth":        2,
	"sluice/broker/session":     3,
	"sluice/broker/front":       4,
	"sluice/broker/worker":      4,
	"sluice/persist/bolt":       4,
	"sluice/persist/mem":        4,
	"sluice/persist/storetest":  5,
	"sluice/broker/sim":         5,
	"sluice/broker":             5,
	"sluice/broker/admin":       6,
	"sluice/broker/conformance": 6,
	"sluice/bridge":             5,
	"sluice/configs":            5,
	"sluice/cmd/sluice":         7,
	"sluice/cmd/demo":           7,
}

// bans are imports that a package must not have, directly or not, each with
// its reason.
var bans = []struct {
	packages []string
	imports  []string
	reason   string
}{
	{[]string{"sluice/broker/mqtt", "sluice/broker/topic", "sluice/broker/auth", "sluice/broker/session", "sluice/persist"},
		[]string{"net", "os", "time/tzdata", "go.uber.org/zap", "sluice/platform", "golang.org/x/sys/unix"},
		"floors 0 and 1 decide, they do no I/O and write no log: so the simulator can run them"},
	{[]string{"sluice/broker/wire"},
		[]string{"os", "net/http", "go.uber.org/zap", "sluice/platform", "golang.org/x/sys/unix"},
		"as above; but crypto/tls wants a net.Conn, which is a buffer here"},
	{[]string{"sluice/broker/worker"},
		[]string{"sluice/persist/bolt", "sluice/persist/mem", "sluice/configs", "net/http"},
		"a worker knows the store's contract, never a store; and nothing on it may block"},
	{[]string{"sluice/broker"},
		[]string{"sluice/bridge", "sluice/configs", "github.com/eclipse/paho.mqtt.golang", "github.com/BurntSushi/toml"},
		"broker, bridge and configs do not know each other; cmd/sluice joins them"},
	{[]string{"sluice/bridge"},
		[]string{"sluice/broker", "sluice/broker/worker", "sluice/broker/session", "sluice/configs", "sluice/persist"},
		"a bridge is a client of the broker like any other: it speaks MQTT to it"},
	{[]string{"sluice/configs"},
		[]string{"sluice/broker", "sluice/bridge", "sluice/persist"},
		"a configuration can be checked without any of what it configures"},
	{[]string{"sluice/cmd/sluice"},
		[]string{"sluice/broker/sim", "sluice/persist/storetest", "testing", "C"},
		"tests and cgo have no place in the binary"},
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func goList(t *testing.T) map[string]listed {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "sluice/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string]listed{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

func TestFloors(t *testing.T) {
	all := goList(t)
	for path, p := range all {
		own, ok := floor[path]
		if !ok {
			if !strings.HasPrefix(path, "sluice/cmd/sluice/") {
				t.Errorf("%s has no floor: enter it here and in ARCHITECTURE.md", path)
			}
			continue
		}
		for _, i := range p.Imports {
			if f, ours := floor[i]; ours && f >= own {
				t.Errorf("%s (floor %d) imports %s (floor %d): only floors below are allowed", path, own, i, f)
			}
		}
	}
	for path := range floor {
		if _, ok := all[path]; !ok {
			t.Errorf("%s has a floor but does not exist", path)
		}
	}
	for _, b := range bans {
		for _, path := range b.packages {
			deps := map[string]bool{}
			for _, d := range all[path].Deps {
				deps[d] = true
			}
			for _, banned := range b.imports {
				if deps[banned] && !allowed(path, banned, all) {
					t.Errorf("%s depends on %s: %s", path, banned, b.reason)
				}
			}
		}
	}
}

// allowed: the standard library's own use of os (by fmt) is no I/O of ours;
// there only direct imports count.
func allowed(path, banned string, all map[string]listed) bool {
	if strings.Contains(banned, ".") || strings.HasPrefix(banned, "sluice/") {
		return false
	}
	for p, l := range all {
		if p != path && !contains(all[path].Deps, p) {
			continue
		}
		if contains(l.Imports, banned) {
			return false
		}
	}
	return true
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
