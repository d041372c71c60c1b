package e2e

import (
	"os"
	"testing"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// A listener takes connections over its own network interface only, and IPv6 is as good
// as IPv4. One message goes from each client that gets in to one subscriber.
func TestListenersOfInterfaces(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		t.Skip("the kernel has no IPv6")
	}
	n, err := rig.NewNetwork(1)
	if os.Geteuid() != 0 && os.Getenv("CI") == "" && err != nil {
		t.Skipf("needs root to make network namespaces: %v", err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, n.Close()) })
	ip := n.Edge.IP.String()
	const outer, inner = "interface = \"tap0\"\n", "interface = \"lo\"\n"
	startGateway(t, &rig.Gateway{
		Binary: raceBinary, Dir: t.TempDir(), Host: n.Edge,
		Listeners: []string{"[::1]:1883", ip + ":1884", "127.0.0.1:1885", ip + ":1886", "127.0.0.1:1887"},
		Settings:  []string{"", outer, inner, inner, outer},
	})
	var in told
	subscribed(t, "[::1]:1883", rig.ClientOptions{ID: "sub", Clean: true, Dial: n.Edge.Dial, OnMessage: in.on}, 1, "#")
	for _, x := range []struct {
		topic   string
		from    *rig.Host
		address string
		open    bool
	}{
		{"IPv6", n.Edge, "[::1]:1883", true},
		{"from afar", n.Cloud, ip + ":1884", true},
		{"from here", n.Edge, "127.0.0.1:1885", true},
		{"from afar to the inner interface", n.Cloud, ip + ":1886", false},
		{"from here to the outer interface", n.Edge, "127.0.0.1:1887", false},
	} {
		conn, err := x.from.Dial(x.address)
		if err == nil {
			must(t, conn.Close())
		}
		if (err == nil) != x.open {
			t.Errorf("%s: %v", x.topic, err)
		}
		if !x.open || err != nil {
			continue
		}
		c := connected(t, x.address, rig.ClientOptions{ID: x.topic, Clean: true, Dial: x.from.Dial})
		must(t, c.Send(&mqtt.Publish{Topic: []byte(x.topic), QoS: 1, Payload: []byte("x")}, 0))
		must(t, c.Flush(patience))
	}
	eventually(t, patience, "all messages come", func() bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		return len(in.now) == 3
	})
}
