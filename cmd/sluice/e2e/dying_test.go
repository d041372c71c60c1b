package e2e

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// DESIGN. The crash of NanoMQ 0.22: a subscriber vanishes while messages are on
// their way to it, and a sender uses what another thread has freed. Here clients
// vanish by the thousand while a publisher floods them, at all stages of their
// short life; neither the broker nor a pair of clients that has nothing to do
// with them may be harmed, and nothing may be left of the dead.

// die connects as id, subscribes to topic, and vanishes at a stage that k chooses:
// right after writing, after CONNACK, after SUBACK, or with messages under way.
// Every other client resets its connection; some have a session that outlives
// them, until the next of that id starts clean.
func die(address, id, topic string, k int) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	p := mqtt.Connect{Version: mqtt.V311, Clean: k%8 != 7, ClientID: []byte(id)}
	b := mqtt.AppendConnect(nil, &p)
	s := mqtt.Subscribe{PacketID: 1, Filters: []mqtt.SubscribeFilter{{Filter: []byte(topic), QoS: mqtt.QoS(k % 3)}}}
	b = mqtt.AppendSubscribe(b, &s, mqtt.V311)
	if _, err := c.Write(b); err != nil {
		return err
	}
	const connack, suback = 4, 5 // their lengths
	stages := []int{0, connack, connack + suback, connack + suback + 4000}
	buf := make([]byte, 4096)
	for left := stages[k%len(stages)]; left > 0; {
		n, err := c.Read(buf[:min(left, len(buf))])
		if err != nil {
			break // another client took the id over
		}
		left -= n
	}
	if k/4%2 == 0 {
		return c.(*net.TCPConn).SetLinger(0)
	}
	return nil
}

// deaths lets n clients die, so many at once, sharing so many client ids.
func deaths(t *testing.T, b *broker, n, atOnce, ids int) {
	t.Helper()
	var tasks sync.WaitGroup
	for task := range atOnce {
		tasks.Go(func() {
			for k := task; k < n; k += atOnce {
				id := "bill"
				if ids > 1 {
					id = name("bill", k/atOnce%ids)
				}
				if err := die(b.Addr(), id, "test", k/ids); err != nil {
					t.Errorf("client %d: %v", k, err)
					return
				}
			}
		})
	}
	tasks.Wait()
}

func TestDyingSubscribers(t *testing.T) {
	t.Parallel()
	scenarios := []struct {
		name           string
		n, atOnce, ids int
	}{
		{"one after the other", 2000, 1, 1},
		{"64 at once share 8 ids", 4096, 64, 8},
	}
	for build, binary := range map[string]string{"race": raceBinary, "plain": plainBinary} {
		for _, s := range scenarios {
			t.Run(build+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				b := startGateway(t, &rig.Gateway{Binary: binary, Env: []string{"GODEBUG=gctrace=1"}})
				control := b.control()
				// Buffers, pools and threads grow to what the work needs; from then on
				// nothing may.
				round := func(n int) (u rig.Usage, liveMiB int) {
					stop := b.flood("test")
					deaths(t, b, n, s.atOnce, s.ids)
					stop()
					return b.quiet(), live(t, b.Log())
				}
				before, liveBefore := round(s.n / 2)
				after, liveAfter := round(s.n)
				control.finish()
				t.Logf("before %v, %d MiB live; after %v, %d MiB live", before, liveBefore, after, liveAfter)
				if after.Descriptors > before.Descriptors {
					t.Errorf("descriptors: %d before, %d after", before.Descriptors, after.Descriptors)
				}
				if after.Threads > before.Threads+threadsSlack {
					t.Errorf("threads: %d before, %d after", before.Threads, after.Threads)
				}
				if build != "plain" {
					return
				}
				// What is resident swings by about as much as is live, with the
				// phases of the garbage collector; what is live hardly does.
				const liveGrowthMiBMax, heapGrowthMax = 12, 32 << 20
				if liveAfter > liveBefore+liveGrowthMiBMax {
					t.Errorf("%d MiB live before, %d after", liveBefore, liveAfter)
				}
				if grown := after.HeapBytes - before.HeapBytes; grown > heapGrowthMax {
					t.Errorf("%d KiB more than before", grown>>10)
				}
			})
		}
	}
}

// collection is a line that the runtime writes after each garbage collection;
// the last of the three sizes is what was live.
var collection = regexp.MustCompile(`(?m)^gc \d+ @.* \d+->\d+->(\d+) MB`)

// live finds what was live after the last garbage collection.
func live(t testing.TB, log string) (mib int) {
	t.Helper()
	all := collection.FindAllStringSubmatch(log, -1)
	if len(all) == 0 {
		t.Fatal("no garbage was ever collected")
	}
	mib, err := strconv.Atoi(all[len(all)-1][1])
	must(t, err)
	return mib
}

// threadsSlack: the runtime starts a thread when all others are in a system
// call, and never ends one. So their number moves a little with the luck of the
// scheduler, but not with the number of clients.
const threadsSlack = 4

// quiet waits until the connections of the dead are gone: the control pair, the
// flooders and nobody else is connected. It returns what the broker takes then.
func (b *broker) quiet() rig.Usage {
	b.t.Helper()
	var last rig.Usage
	same := 0
	eventually(b.t, patience, "the broker is at rest", func() bool {
		u, err := b.Usage()
		must(b.t, err)
		if u.Descriptors == last.Descriptors {
			same++
		} else {
			same = 0
		}
		last = u
		return same > 20 // for 100 ms and more
	})
	return last
}

// TestDyingPublishers is the other way around: publishers vanish in the
// middle of packets.
func TestDyingPublishers(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	control := b.control()
	var in inbox[string]
	subscribed(t, b.Addr(), rig.ClientOptions{ID: "sub", OnMessage: func(p *mqtt.Publish) { in.put(string(p.Payload)) }}, 2, "dying/#")
	p := mqtt.AppendConnect(nil, &mqtt.Connect{Version: mqtt.V311, Clean: true, ClientID: []byte("torso")})
	for id := range uint16(3) {
		p = mqtt.AppendPublish(p, &mqtt.Publish{Topic: []byte("dying/x"), QoS: mqtt.QoS(id), PacketID: id + 1, Payload: fmt.Append(nil, "whole ", id)}, mqtt.V311)
	}
	const rounds = 10
	for i := range rounds * len(p) { // at every byte
		cut := i % len(p)
		c, err := net.Dial("tcp", b.Addr())
		must(t, err)
		_, err = c.Write(p[:cut])
		must(t, err)
		if (i/len(p)+cut)%2 == 0 { // each way to die at each byte
			must(t, c.(*net.TCPConn).SetLinger(0))
		}
		must(t, c.Close())
	}
	last := connected(t, b.Addr(), rig.ClientOptions{ID: "last", Clean: true})
	must(t, last.Publish("dying/last", []byte("last"), 1, false, 0))
	in.awaitOne(t, "last")
	for _, m := range in.sofar() {
		if m != "whole 0" && m != "whole 1" && m != "whole 2" && m != "last" {
			t.Errorf("a message that nobody finished: %q", m)
		}
	}
	control.finish()
}
