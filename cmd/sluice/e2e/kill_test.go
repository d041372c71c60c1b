package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// DESIGN. The kill loop: a gateway under a load of QoS 1 and 2, with subscribers that
// stay, one that comes and goes, one that is away all the time, a retained message that
// changes, and a bridge to a mosquitto, is killed with SIGKILL at random instants, also
// while it starts. Publishers and subscribers keep their half of the session and go on.
// At the end everything that was acknowledged must be at every receiver, in order, and at
// QoS 2 once. The same without a store must be seen to lose: else the account proves nothing.

var (
	kills    = flag.Int("kills", 15, "how often TestKillLoop kills the broker")
	killSeed = flag.Uint64("killseed", 0, "of TestKillLoop; 0: another each time")
)

// killed is the world of the kill loop.
type killed struct {
	*broker
	cloud   *rig.Cloud
	random  *rand.Rand
	ledgers map[string]*rig.Ledger // by receiver and QoS, such as "away 2"
	away    *rig.Client
	flitter *rig.Client
	stop    chan struct{}
	tasks   sync.WaitGroup
	state   atomic.Uint64 // last retained message that was acknowledged
}

// receivers that get what is published with each QoS.
var killReceivers = map[mqtt.QoS][]string{1: {"here 1", "flit 1", "away 1", "cloud 1"}, 2: {"here 2", "flit 2", "away 2"}}

func newKilled(t *testing.T, seed uint64, store string) *killed {
	x := &killed{random: rand.New(rand.NewPCG(seed, 1)), ledgers: map[string]*rig.Ledger{}, stop: make(chan struct{})}
	for _, all := range killReceivers {
		for _, r := range all {
			x.ledgers[r] = rig.NewLedger()
		}
	}
	x.cloud = mosquitto(t)
	sub := subscribed(t, x.cloud.Addr(), rig.ClientOptions{ID: "cloud", OnMessage: x.note("cloud")}, 1, "load/#")
	keep(t, sub, x.cloud.Addr)
	x.broker = startGateway(t, &rig.Gateway{Binary: raceBinary, Config: "[store]\nkind = \"" + store + "\"\n" +
		"[[bridge]]\nname = \"cloud\"\naddress = \"tcp://" + x.cloud.Addr() + "\"\nreconnect_min = \"20ms\"\nreconnect_max = \"200ms\"\n" +
		"[[bridge.route]]\ndirection = \"out\"\nfilter = \"load/1/#\"\n"})
	x.away = x.broker.away(rig.ClientOptions{ID: "away", OnMessage: x.note("away")}, 2, "load/#")
	here := x.kept(rig.ClientOptions{ID: "here", Version: mqtt.V5, ExpirySeconds: 1e6, OnMessage: x.note("here")})
	_, err := here.Subscribe(2, "load/#")
	must(t, err)
	return x
}

// note keeps the accounts of a receiver. Topics are load/<QoS>/<source>.
func (x *killed) note(receiver string) func(*mqtt.Publish) {
	return func(p *mqtt.Publish) {
		qos := strings.SplitN(string(p.Topic), "/", 3)[1]
		x.ledgers[receiver+" "+qos].ArrivedPayload(p.Payload)
	}
}

// publish makes a client publish until the end, over all kills.
func (x *killed) publish(source string, qos mqtt.QoS) {
	c := x.kept(rig.ClientOptions{ID: "publisher of " + source, Window: 20, OnAcked: func(n uint64) {
		for _, r := range killReceivers[qos] {
			x.ledgers[r].Acked(source, n)
		}
	}})
	topic := fmt.Sprintf("load/%d/%s", qos, source)
	x.repeat(c, func(n uint64) error { return c.Publish(topic, rig.Payload(source, n, 100), qos, false, n) })
}

// retain does the same with a retained message.
func (x *killed) retain() {
	c := x.kept(rig.ClientOptions{ID: "state", Window: 1, OnAcked: func(n uint64) { x.state.Store(n) }})
	x.repeat(c, func(n uint64) error { return c.Publish("state", strconv.AppendUint(nil, n, 10), 1, true, n) })
}

func (x *killed) repeat(c *rig.Client, publish func(n uint64) error) {
	x.tasks.Go(func() {
		for n := uint64(1); ; {
			select {
			case <-x.stop:
				for end := time.Now().Add(patience); c.Flush(patience) != nil && time.Now().Before(end); {
					time.Sleep(5 * time.Millisecond) // until the keeper has connected again
				}
				return
			default:
			}
			if publish(n) == nil {
				n++
			} else {
				time.Sleep(5 * time.Millisecond)
			}
		}
	})
}

// flit comes and goes.
func (x *killed) flit() {
	c := subscribed(x.t, x.Addr(), rig.ClientOptions{ID: "flit", OnMessage: x.note("flit")}, 2, "load/#")
	x.tasks.Go(func() {
		for {
			select {
			case <-x.stop:
				return
			case <-time.After(time.Duration(rand.IntN(60)) * time.Millisecond):
			}
			c.Disconnect()
			if a := x.here(); a != "" {
				_, _ = c.Connect(a) // it may just have been killed: the next time then
			}
		}
	})
	x.t.Cleanup(func() {
		c.Close()
	})
	x.flitter = c
}

// loop kills n times.
func (x *killed) loop(n int) {
	for range n {
		time.Sleep(time.Duration(x.random.IntN(300)) * time.Millisecond)
		x.kill()
		for x.random.IntN(4) == 0 {
			must(x.t, x.StartBriefly(time.Duration(x.random.IntN(60))*time.Millisecond))
		}
		x.start()
	}
}

func (x *killed) run(n int) {
	x.flit()
	x.publish("a", 1)
	x.publish("b", 1)
	x.publish("c", 2)
	x.publish("d", 2)
	x.retain()
	x.loop(n)
	close(x.stop)
	x.tasks.Wait()
	x.flitter.Close()
	x.kill() // the last acknowledgements mean as much
	x.start()
}

func TestKillLoop(t *testing.T) {
	t.Parallel()
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-killseed %d", seed)
	x := newKilled(t, seed, "bolt")
	x.run(*kills)
	for _, c := range []*rig.Client{x.away, x.flitter} {
		present, err := c.Connect(x.Addr())
		must(t, err)
		if !present {
			t.Error("the session is gone")
		}
	}
	for receiver, l := range x.ledgers {
		settled(t, l, 4*patience, ordered)
		sum := l.Sum()
		t.Logf("%s: %d acknowledged, %d arrived, %d duplicates", receiver, sum.Acked, sum.Arrived, sum.Duplicates)
		if strings.HasSuffix(receiver, "2") {
			once(t, sum)
		}
		if sum.Acked < 10 {
			t.Errorf("%s: too little was acknowledged", receiver)
		}
	}
	var in inbox[string]
	subscribed(t, x.Addr(), rig.ClientOptions{ID: "late", Clean: true, OnMessage: func(p *mqtt.Publish) { in.put(string(p.Payload)) }}, 1, "state")
	got, err := strconv.ParseUint(in.await(t, 1)[0], 10, 64)
	must(t, err)
	if last := x.state.Load(); got < last {
		t.Errorf("retained is message %d, acknowledged was %d", got, last)
	}
}

// Without a store the same loop must lose messages, and the account must show it.
func TestKillLoopControl(t *testing.T) {
	t.Parallel()
	x := newKilled(t, 1, "memory")
	x.run(3)
	_, err := x.away.Connect(x.Addr())
	must(t, err)
	if lost, _ := x.ledgers["away 1"].Lost(); lost == 0 {
		t.Error("nothing was lost without a store")
	}
}
