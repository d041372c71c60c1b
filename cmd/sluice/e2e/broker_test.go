package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// broker is a Sluice under test.
type broker struct {
	*rig.Gateway
	t    testing.TB
	logs []string // of the runs that have ended
	up   bool

	address atomic.Pointer[string] // to connect to; nil while it is down. Read by keepers
}

// stopMax is how long a broker may take to stop on SIGTERM.
const stopMax = 10 * time.Second

// start runs the program with the race detector, with more configuration
// (tables) if the test needs it.
func start(t testing.TB, config string) *broker {
	t.Helper()
	return startGateway(t, &rig.Gateway{Binary: raceBinary, Config: config})
}

func startGateway(t testing.TB, g *rig.Gateway) *broker {
	t.Helper()
	if g.Dir == "" {
		g.Dir = t.TempDir()
	}
	b := &broker{Gateway: g, t: t}
	t.Cleanup(b.end)
	b.start()
	return b
}

func (b *broker) start() {
	b.t.Helper()
	must(b.t, b.Start())
	b.up = true
	address := b.Addr()
	b.address.Store(&address)
}

// kill ends the broker with SIGKILL.
func (b *broker) kill() {
	b.t.Helper()
	b.address.Store(nil)
	b.Kill()
	b.up = false
	b.logs = append(b.logs, b.Log())
}

// stop ends the broker with SIGTERM; it must end in order.
func (b *broker) stop() {
	b.t.Helper()
	b.address.Store(nil)
	err := b.Stop(stopMax)
	b.up = false
	b.logs = append(b.logs, b.Log())
	if err != nil {
		b.t.Errorf("%v\n%s", err, b.Log())
	}
}

func (b *broker) end() {
	if b.Process != nil && b.up {
		b.stop()
	}
	for _, log := range b.logs {
		if bad := disaster.FindStringIndex(log); bad != nil {
			b.t.Errorf("the broker's log:\n%s", log[bad[0]:])
		}
	}
	if b.t.Failed() {
		b.t.Logf("the broker's log:\n%s", tail(strings.Join(b.logs, "\n--- next run ---\n")))
	}
}

// disaster finds what must not be in a log.
var disaster = regexp.MustCompile(`DATA RACE|(?m)^(panic|fatal error|SIGSEGV|unexpected fault)|BUG: |checkptr`)

func tail(s string) string {
	const bytesMax = 8000
	if len(s) > bytesMax {
		return "..." + s[len(s)-bytesMax:]
	}
	return s
}

// connected makes a client and connects it; at the end of the test it goes.
func connected(t testing.TB, address string, opt rig.ClientOptions) *rig.Client {
	t.Helper()
	c := rig.NewClient(opt)
	t.Cleanup(c.Close)
	_, err := c.Connect(address)
	must(t, err)
	return c
}

// subscribed is connected and subscribed to filters at QoS qos.
func subscribed(t testing.TB, address string, opt rig.ClientOptions, qos mqtt.QoS, filters ...string) *rig.Client {
	t.Helper()
	c := connected(t, address, opt)
	if _, err := c.Subscribe(qos, filters...); err != nil {
		t.Fatal(err)
	}
	return c
}

// settled waits until all that was acknowledged has arrived, and requires that
// what arrived is as it should be.
func settled(t testing.TB, l *rig.Ledger, within time.Duration, wants ...want) {
	t.Helper()
	deadline := time.Now().Add(within)
	for n, some := l.Lost(); n > 0; n, some = l.Lost() {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d acknowledged messages are lost: %s ... (%d arrived)", n, l.Sum().Acked, some, l.Sum().Arrived)
		}
		<-time.After(5 * time.Millisecond)
	}
	sum := l.Sum()
	if sum.Strange > 0 {
		t.Errorf("%d messages are none of ours", sum.Strange)
	}
	for _, w := range wants {
		w(t, sum)
	}
}

type want func(testing.TB, rig.Sum)

// ordered: the first arrivals come in the order of publication.
func ordered(t testing.TB, s rig.Sum) {
	t.Helper()
	if s.Disorder > 0 {
		t.Errorf("%d messages came out of order", s.Disorder)
	}
}

// once: nothing arrives twice.
func once(t testing.TB, s rig.Sum) {
	t.Helper()
	if s.Duplicates > 0 {
		t.Errorf("%d duplicates", s.Duplicates)
	}
}

// acked: so many were acknowledged, so the test did not pass for lack of traffic.
func acked(n int) want {
	return func(t testing.TB, s rig.Sum) {
		t.Helper()
		if s.Acked != n {
			t.Errorf("%d acknowledged, want %d", s.Acked, n)
		}
	}
}

// mosquitto runs a broker of that kind.
func mosquitto(t testing.TB) *rig.Cloud {
	t.Helper()
	c := &rig.Cloud{Dir: t.TempDir()}
	must(t, c.Start())
	t.Cleanup(func() { c.Kill() })
	return c
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// name makes a name from a number.
func name(prefix string, n int) string { return fmt.Sprintf("%s%d", prefix, n) }
