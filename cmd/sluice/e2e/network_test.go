package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// DESIGN. A gateway and its cloud, each in a network namespace of its own, and a
// line between them that behaves as bad lines do. Clients reach the gateway by a unix
// socket, which knows no namespaces.

// afar is such a gateway.
type afar struct {
	*broker
	net    *rig.Network
	cloud  *rig.Cloud
	ledger *rig.Ledger
}

// farMessages is how many messages each of these tests sends.
const farMessages = 600

func newAfar(t *testing.T, config string) *afar {
	t.Helper()
	n, err := rig.NewNetwork(1)
	if os.Geteuid() != 0 && os.Getenv("CI") == "" && err != nil {
		t.Skipf("needs root to make network namespaces: %v", err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, n.Close()) })
	x := &afar{broker: &broker{t: t}, net: n, ledger: rig.NewLedger(), cloud: &rig.Cloud{Dir: t.TempDir(), Host: n.Cloud}}
	must(t, x.cloud.Start())
	t.Cleanup(func() { x.cloud.Kill() })
	x.listens("cloud subscriber")
	dir := t.TempDir()
	x.broker = startGateway(t, &rig.Gateway{
		Binary: raceBinary, Dir: dir, Host: n.Edge,
		Listeners: []string{"unix:" + filepath.Join(dir, "s")},
		Config: "[[bridge]]\nname = \"cloud\"\naddress = \"tcp://" + x.cloud.Addr() + "\"\n" +
			"reconnect_min = \"100ms\"\nreconnect_max = \"1s\"\nkeepalive = \"2s\"\n" + config + outRoute,
	})
	return x
}

// listens subscribes somebody in the cloud, who keeps the account.
func (x *afar) listens(id string) {
	x.t.Helper()
	sub := subscribed(x.t, x.cloud.Addr(), rig.ClientOptions{ID: id, Dial: x.net.Cloud.Dial, OnMessage: func(p *mqtt.Publish) {
		if strings.HasPrefix(string(p.Topic), "site/7/sensors/") {
			x.ledger.ArrivedPayload(p.Payload)
		}
	}}, 1, "site/7/#")
	keep(x.t, sub, x.cloud.Addr)
}

func (x *afar) traffic() *stream {
	return x.stream(x.ledger, "sensors/t", farMessages, 1, rig.ClientOptions{Clean: true})
}

// killed ends the gateway with SIGKILL and starts it again.
func (x *afar) killed() {
	x.kill()
	x.start()
}

// arrived requires that everything has come, in order.
func (x *afar) arrived() {
	x.t.Helper()
	settled(x.t, x.ledger, 3*patience, acked(farMessages), ordered)
}

// On a line that is slow, or slow to answer, everything comes as time goes by, over a
// kill of the gateway, and without the line ever becoming better.
func TestBridgeOnPoorLine(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]rig.Weather{
		"2s":     {Delay: time.Second}, // there and back
		"10kB/s": {BytesPerSecond: 10_000},
		"10%":    {Loss: 0.1, Delay: 10 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newAfar(t, "")
			x.net.Set(w)
			s := x.traffic()
			s.acked(farMessages / 2)
			eventually(t, 2*patience, "messages arrive", func() bool { return x.ledger.Sum().Arrived > farMessages/8 })
			x.killed()
			s.wait()
			x.arrived()
		})
	}
}

// On a line that works hardly or not at all for a while, with a kill of the gateway in the
// midst of it, everything comes after that.
func TestBridgeInStorm(t *testing.T) {
	t.Parallel()
	for name, storm := range map[string]func(x *afar){
		"30%": func(x *afar) {
			x.net.Set(rig.Weather{Loss: 0.3, Delay: 10 * time.Millisecond})
			time.Sleep(4 * time.Second) // for so long it rages
		},
		"hole": func(x *afar) { // no RST, no FIN: the line is simply dead
			x.net.Set(rig.Weather{Hole: true})
			time.Sleep(4 * time.Second)
		},
		"flapping": func(x *afar) {
			for i := range 6 {
				x.net.Set(rig.Weather{Hole: i%2 == 0})
				time.Sleep(time.Second)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newAfar(t, "connect_timeout = \"3s\"\n")
			s := x.traffic()
			s.acked(farMessages / 4)
			storm(x)
			x.killed()
			storm(x)
			x.net.Set(rig.Weather{})
			s.wait()
			x.arrived()
		})
	}
}

// Where the upstream should be is somebody who refuses us, or who lets us in and never
// acknowledges anything.
func TestBridgeImpostor(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]bool{"refuses": true, "never acknowledges": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newAfar(t, "connect_timeout = \"3s\"\n")
			s := x.traffic()
			s.acked(farMessages / 4)
			must(t, x.cloud.Stop(patience))
			im := &rig.Impostor{Refuse: refuse}
			must(t, im.Start(x.net.Cloud, x.cloud.Addr()))
			closed := false
			defer func() {
				if !closed {
					im.Close()
				}
			}()
			eventually(t, patience, "the bridge meets the impostor", func() bool { return im.Met() > 0 })
			s.acked(farMessages / 2)
			x.killed()
			before := im.Met()
			eventually(t, 2*patience, "the bridge tries again and again", func() bool { return im.Met() > before+1 })
			im.Close()
			closed = true
			must(t, x.cloud.Start())
			s.wait()
			x.arrived()
		})
	}
}

// An upstream that forgets everything when it restarts gets what it has not acknowledged.
func TestBridgeForgetfulUpstream(t *testing.T) {
	t.Parallel()
	x := newAfar(t, "")
	s := x.traffic()
	s.wait()
	settled(t, x.ledger, patience)
	x.cloud.Kill()
	more := x.stream(x.ledger, "sensors/u", farMessages, 1, rig.ClientOptions{Clean: true})
	more.wait()
	x.kill()
	_ = os.Remove(filepath.Join(x.cloud.Dir, "mosquitto.db")) // it may never have been written
	must(t, x.cloud.Start())
	x.listens("another") // nobody there knows of the subscription of the first, who still comes back
	x.start()
	settled(t, x.ledger, 3*patience, acked(2*farMessages), ordered)
}
