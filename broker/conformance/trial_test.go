package conformance

import (
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"sluice/broker"
	"sluice/broker/front"
	"sluice/broker/mqtt"
	"sluice/broker/session"
	"sluice/persist"
	"sluice/persist/bolt"
	"sluice/persist/mem"
	"sluice/platform"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Cases wait for packets and clocks, hardly for the CPU: more of them at once
	// than there are CPUs.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	if _, err := platform.RaiseNoFile(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	goleak.VerifyTestMain(m)
}

// What the brokers of this package announce to MQTT 5 clients: small, so that a
// case can reach them.
const (
	receiveMax    = 10
	topicAliasMax = 5
	levelsMax     = 128
)

// patience is how long a case waits for a packet that must come.
const patience = 60 * time.Second

func options() broker.Options {
	limits := session.DefaultLimits()
	limits.ReceiveMax, limits.TopicAliasMax, limits.TopicLevelsMax, limits.TopicBytesMax = receiveMax, topicAliasMax, levelsMax, 0
	return broker.Options{
		Workers: 2, Listeners: []front.Listener{{Address: "127.0.0.1:0"}}, Limits: limits,
		ConnectionsMax: 1000, ConnectTimeout: 10 * time.Second, ConnectBytesMax: 256 << 10, OutputBytesMax: 4 << 20,
		OpenStore: func(e persist.Events) (persist.Store, error) { return mem.New(mem.Options{Events: e}), nil },
		Logger:    zap.NewNop(),
	}
}

// start runs a broker until the end of the test.
func start(t testing.TB, opt broker.Options) *broker.Broker {
	t.Helper()
	b, err := broker.Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// trial is one run of one case: a statement in a version.
type trial struct {
	*testing.T
	v    mqtt.Version
	b    *broker.Broker
	name string // begins all client ids and topics of the case
	told atomic.Uint32
}

func newTrial(t *testing.T, v mqtt.Version, b *broker.Broker) *trial {
	name := t.Name()
	return &trial{T: t, v: v, b: b, name: strings.ReplaceAll(name[strings.IndexByte(name, '/')+1:], "/", ".")}
}

// own gives the case a broker of its own.
func (c *trial) own(change func(*broker.Options)) {
	c.Helper()
	opt := options()
	if change != nil {
		change(&opt)
	}
	c.b = start(c.T, opt)
}

// onDisk makes a broker's store a file in dir, which outlives the broker.
func onDisk(dir string) func(*broker.Options) {
	return func(o *broker.Options) {
		o.OpenStore = func(e persist.Events) (persist.Store, error) {
			return bolt.Open(bolt.Options{Path: dir, Events: e})
		}
	}
}

// id makes a client id, topic a topic name or filter, that no other case has.
func (c *trial) id(s string) string    { return c.name + "-" + s }
func (c *trial) topic(s string) string { return c.name + "/" + s }

// is5 tells whether the case is about MQTT 5.
func (c *trial) is5() bool { return c.v == mqtt.V5 }

// wait lets time pass that the specification counts.
func (c *trial) wait(d time.Duration) { <-time.After(d) }

// dial opens a connection and sends nothing.
func (c *trial) dial() *peer {
	c.Helper()
	conn, err := net.Dial("tcp", c.b.Addresses()[0])
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { conn.Close() })
	return newPeer(c, conn)
}

// hello makes a CONNECT: clean, without keepalive, unless change says otherwise.
func (c *trial) hello(id string, change ...func(*mqtt.Connect)) []byte {
	return mqtt.AppendConnect(nil, c.connectPacket(id, change...))
}

func (c *trial) connectPacket(id string, change ...func(*mqtt.Connect)) *mqtt.Connect {
	m := &mqtt.Connect{Version: c.v, Clean: true, ClientID: []byte(c.id(id))}
	for _, f := range change {
		f(m)
	}
	return m
}

// connect opens a connection that is accepted.
func (c *trial) connect(id string, change ...func(*mqtt.Connect)) *peer {
	c.Helper()
	p := c.dial()
	p.send(c.hello(id, change...))
	p.wantConnack(mqtt.Success)
	return p
}

// refused opens a connection that is refused with a CONNACK of reason r, which
// is translated for older versions.
func (c *trial) refused(r mqtt.Reason, id string, change ...func(*mqtt.Connect)) *peer {
	c.Helper()
	p := c.dial()
	p.send(c.hello(id, change...))
	p.wantConnack(r)
	p.wantEOF()
	return p
}

// Changes of a CONNECT.

// keep asks for a session that outlives the connection, and takes up the one
// there is.
func keep(m *mqtt.Connect) {
	m.Clean = false
	if m.Version == mqtt.V5 && !m.Props.HasSessionExpiry {
		m.Props.HasSessionExpiry, m.Props.SessionExpirySeconds = true, 3600
	}
}

// renew asks for a session that outlives the connection, but for a new one.
// Before MQTT 5 that takes a clean session before it.
func renew(m *mqtt.Connect) {
	keep(m)
	m.Clean = m.Version == mqtt.V5
}

func expiry(seconds uint32) func(*mqtt.Connect) {
	return func(m *mqtt.Connect) { m.Props.HasSessionExpiry, m.Props.SessionExpirySeconds = true, seconds }
}

func keepAlive(seconds uint16) func(*mqtt.Connect) {
	return func(m *mqtt.Connect) { m.KeepAliveSeconds = seconds }
}

func maxPacket(n uint32) func(*mqtt.Connect) {
	return func(m *mqtt.Connect) { m.Props.MaxPacketBytes = n }
}

func receiveMaximum(n uint16) func(*mqtt.Connect) {
	return func(m *mqtt.Connect) { m.Props.ReceiveMax = n }
}

func clientID(id string) func(*mqtt.Connect) {
	return func(m *mqtt.Connect) { m.ClientID = []byte(id) }
}

// will gives the CONNECT a will.
func will(topic, payload string, change ...func(*mqtt.Will)) func(*mqtt.Connect) {
	return func(m *mqtt.Connect) {
		m.HasWill = true
		m.Will.Topic, m.Will.Payload = []byte(topic), []byte(payload)
		for _, f := range change {
			f(&m.Will)
		}
	}
}

func willDelay(seconds uint32) func(*mqtt.Will) {
	return func(w *mqtt.Will) { w.Props.WillDelaySeconds = seconds }
}

func willQoS(q mqtt.QoS) func(*mqtt.Will) { return func(w *mqtt.Will) { w.QoS = q } }

func willRetain(w *mqtt.Will) { w.Retain = true }

// quiet shows that sub has nothing to read: what pub publishes now to a topic
// that sub subscribes to is the next thing it gets. Before that, what pub or
// anybody on its connection's way sent would have come.
func (c *trial) quiet(pub, sub *peer, topic string) {
	c.Helper()
	mark := fmt.Sprintf("fence %d", c.told.Add(1))
	pub.publish(topic, 0, mark)
	if m := sub.wantPublish(); string(m.Payload) != mark {
		c.Fatalf("%q on %s came, want nothing", m.Payload, m.Topic)
	}
}
