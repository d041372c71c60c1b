package broker

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"sluice/broker/front"
	"sluice/broker/mqtt"
	"sluice/broker/session"
	"sluice/persist"
	"sluice/persist/mem"
	"sluice/platform"
)

func TestMain(m *testing.M) {
	if _, err := platform.RaiseNoFile(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	goleak.VerifyTestMain(m)
}

func start(t testing.TB, change func(*Options)) *Broker {
	t.Helper()
	opt := Options{
		Workers: 2, Listeners: []front.Listener{{Address: "127.0.0.1:0"}}, Limits: session.DefaultLimits(),
		ConnectionsMax: 20000, ConnectTimeout: 5 * time.Second, ConnectBytesMax: 16 << 10, OutputBytesMax: 1 << 20,
		OpenStore: func(e persist.Events) (persist.Store, error) { return mem.New(mem.Options{Events: e}), nil },
		Logger:    zap.NewNop(),
	}
	if change != nil {
		change(&opt)
	}
	b, err := Start(opt)
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

// peer is a client that reads packets when it is told to.
type peer struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
	v mqtt.Version
}

func dial(t testing.TB, b *Broker) net.Conn {
	t.Helper()
	network, address := "tcp", b.Addresses()[0]
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(4 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}

func connect(t testing.TB, c net.Conn, id string, change func(*mqtt.Connect)) *peer {
	t.Helper()
	p := &peer{t: t, Conn: c, r: bufio.NewReaderSize(c, 512), v: mqtt.V5}
	m := mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: []byte(id)}
	if change != nil {
		change(&m)
	}
	p.v = m.Version
	p.send(mqtt.AppendConnect(nil, &m))
	typ, body := p.next()
	var ack mqtt.Connack
	if err := mqtt.DecodeConnack(&ack, body, p.v); typ != mqtt.CONNACK || err != nil || ack.Code != 0 {
		t.Fatalf("connect %s: %v, %v, code %#x", id, typ, err, ack.Code)
	}
	return p
}

func (p *peer) send(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

// next reads one packet.
func (p *peer) next() (mqtt.Type, []byte) {
	p.t.Helper()
	typ, body, err := p.read()
	if err != nil {
		p.t.Fatal(err)
	}
	return typ, body
}

func (p *peer) read() (mqtt.Type, []byte, error) {
	first, err := p.r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(p.r) // the same encoding as the remaining length
	if err != nil {
		return 0, nil, err
	}
	body := make([]byte, n)
	_, err = io.ReadFull(p.r, body)
	return mqtt.Type(first >> 4), body, err
}

func (p *peer) subscribe(filter string, qos mqtt.QoS) {
	p.t.Helper()
	s := mqtt.Subscribe{PacketID: 1, Filters: []mqtt.SubscribeFilter{{Filter: []byte(filter), QoS: qos}}}
	p.send(mqtt.AppendSubscribe(nil, &s, p.v))
	if typ, _ := p.next(); typ != mqtt.SUBACK {
		p.t.Fatalf("%v, want SUBACK", typ)
	}
}

func publish(topic string, qos mqtt.QoS, id uint16, payload string, v mqtt.Version) []byte {
	return mqtt.AppendPublish(nil, &mqtt.Publish{Topic: []byte(topic), QoS: qos, PacketID: id, Payload: []byte(payload)}, v)
}

// until polls a condition.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("timed out: %s", what)
		}
		runtime.Gosched()
	}
}

func TestMessageEndToEnd(t *testing.T) {
	for _, listener := range []string{"127.0.0.1:0", "unix:" + filepath.Join(t.TempDir(), "mqtt.sock")} {
		b := start(t, func(o *Options) { o.Listeners[0].Address = listener })
		for i, workers := range []string{"a", "b", "c", "d"} { // some on the same worker, some not
			sub := connect(t, dial(t, b), "sub"+workers, nil)
			sub.subscribe("x/+", 1)
			pub := connect(t, dial(t, b), "pub", nil)
			pub.send(publish("x/y", 1, 7, "hello", pub.v))
			if typ, _ := pub.next(); typ != mqtt.PUBACK {
				t.Fatalf("round %d: %v, want PUBACK", i, typ)
			}
			typ, body := sub.next()
			var p mqtt.Publish
			if err := mqtt.DecodePublish(&p, 2, body, sub.v); typ != mqtt.PUBLISH || err != nil || string(p.Payload) != "hello" {
				t.Fatalf("round %d: %v %v %q", i, typ, err, p.Payload)
			}
			sub.Close()
			pub.Close()
		}
	}
}

// Goroutines and threads do not grow with connections (promise 3).
func TestGoroutinesDoNotGrowWithConnections(t *testing.T) {
	b := start(t, nil)
	open := func(n int, name string) {
		for i := range n {
			p := connect(t, dial(t, b), fmt.Sprintf("%s-%d", name, i), nil)
			p.subscribe(fmt.Sprintf("idle/%s/%d", name, i), 1)
			t.Cleanup(func() { p.Close() })
		}
	}
	open(10, "few")
	few := runtime.NumGoroutine()
	open(4000, "many")
	until(t, "no more goroutines with 4010 connections than with 10", func() bool { return runtime.NumGoroutine() <= few })
	if s, _ := b.Stats(); s.Connections != 4010 {
		t.Errorf("%d connections, want 4010", s.Connections)
	}
}

// What aborted NanoMQ 0.22.6: clients that connect, subscribe to a topic that is
// flooded, and die. A control pair that stays must lose nothing, and
// everything returns to where it was.
func TestDyingClientsHarmNobody(t *testing.T) {
	for _, c := range []struct{ clients, ids, rounds int }{{1, 1, 200}, {64, 8, 20}} {
		t.Run(fmt.Sprintf("%d clients share %d ids", c.clients, c.ids), func(t *testing.T) {
			b := start(t, nil)
			before, _ := b.Stats()
			ctl := startControl(t, b)
			flood := connect(t, dial(t, b), "flood", func(m *mqtt.Connect) { m.Version = mqtt.V311 })
			var stop atomic.Bool
			var wg sync.WaitGroup
			wg.Go(func() {
				msg := []byte{}
				for range 20 {
					msg = append(msg, publish("test", 0, 0, "flood flood flood", flood.v)...)
				}
				for !stop.Load() {
					if _, err := flood.Write(msg); err != nil {
						t.Error(err)
						return
					}
				}
			})
			var dying sync.WaitGroup
			for i := range c.clients {
				dying.Go(func() {
					for r := range c.rounds {
						dieOnce(b, fmt.Sprintf("bill-%d", i%c.ids), r)
					}
				})
			}
			dying.Wait()
			stop.Store(true)
			wg.Wait()
			flood.Close()
			ctl.finish()
			until(t, "connections are gone", func() bool { s, _ := b.Stats(); return s.Connections == before.Connections })
			if s, _ := b.Stats(); s.Sessions != before.Sessions {
				t.Errorf("%d sessions left, %d before", s.Sessions, before.Sessions)
			}
			if n := b.group.Index().Len(); n != 0 {
				t.Errorf("%d subscriptions left", n)
			}
		})
	}
}

// dieOnce connects, subscribes to test, and dies: with or without a reset, at
// once or after the first message.
func dieOnce(b *Broker, id string, round int) {
	c, err := net.Dial("tcp", b.Addresses()[0])
	if err != nil {
		return
	}
	defer c.Close()
	if round%2 == 0 {
		_ = c.(*net.TCPConn).SetLinger(0) // RST
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	m := mqtt.Connect{Version: mqtt.V311, Clean: true, ClientID: []byte(id)}
	s := mqtt.Subscribe{PacketID: 1, Filters: []mqtt.SubscribeFilter{{Filter: []byte("test"), QoS: 0}}}
	if _, err := c.Write(mqtt.AppendSubscribe(mqtt.AppendConnect(nil, &m), &s, mqtt.V311)); err != nil {
		return
	}
	if round%3 > 0 {
		_, _ = io.ReadFull(c, make([]byte, 4+5+round%200)) // cut off by a takeover at the worst
	}
}

// control is a pair of clients that must not notice anything.
type control struct {
	t    testing.TB
	stop atomic.Bool
	out  sync.WaitGroup // the publisher
	in   sync.WaitGroup // the subscriber
	sent uint32         // once out is done
	got  atomic.Uint32
	pub  *peer
	sub  *peer
}

func startControl(t testing.TB, b *Broker) *control {
	c := &control{t: t, pub: connect(t, dial(t, b), "control-pub", nil), sub: connect(t, dial(t, b), "control-sub", nil)}
	c.sub.subscribe("control", 1)
	c.out.Go(func() {
		for n := uint32(1); !c.stop.Load(); n++ {
			if _, err := c.pub.Write(publish("control", 1, 1, string(binary.BigEndian.AppendUint32(nil, n)), mqtt.V5)); err != nil {
				t.Error("control publisher:", err)
				return
			}
			if typ, _, err := c.pub.read(); typ != mqtt.PUBACK || err != nil {
				t.Error("control publisher:", typ, err)
				return
			}
			c.sent = n
		}
	})
	c.in.Go(func() {
		for n := uint32(1); ; n++ {
			typ, body, err := c.sub.read()
			if err != nil {
				return
			}
			var p mqtt.Publish
			if err := mqtt.DecodePublish(&p, 2, body, mqtt.V5); typ != mqtt.PUBLISH || err != nil {
				t.Error("control subscriber:", typ, err)
				return
			}
			if got := binary.BigEndian.Uint32(p.Payload); got != n {
				t.Errorf("control subscriber: message %d, want %d", got, n)
				return
			}
			c.got.Store(n)
			if _, err := c.sub.Write(mqtt.AppendPuback(nil, mqtt.PUBACK, p.PacketID, 0, mqtt.V5)); err != nil {
				return
			}
		}
	})
	return c
}

func (c *control) finish() {
	c.stop.Store(true)
	c.out.Wait()
	until(c.t, "what the control pair sent arrives", func() bool { return c.got.Load() == c.sent })
	c.pub.Close()
	c.sub.Close()
	c.in.Wait()
}

func TestConnectionsMax(t *testing.T) {
	b := start(t, func(o *Options) { o.ConnectionsMax, o.Listeners[0].ConnectionsMax = 100, 3 })
	var open []*peer
	for i := range 3 {
		open = append(open, connect(t, dial(t, b), fmt.Sprint(i), nil))
	}
	c := dial(t, b)
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a fourth connection is served")
	}
	open[0].Close()
	until(t, "room", func() bool { return b.group.Connections() == 2 })
	connect(t, dial(t, b), "again", nil).Close()
	for _, p := range open[1:] {
		p.Close()
	}
}

// A peer that is not known yet holds little, and for a limited time, whatever it
// declares and however slowly it sends.
func TestLobbyIsBounded(t *testing.T) {
	b := start(t, func(o *Options) { o.ConnectTimeout = 500 * time.Millisecond })
	huge := dial(t, b)
	defer huge.Close()
	if _, err := huge.Write([]byte{0x10, 0xff, 0xff, 0xff, 0x7f}); err != nil {
		t.Fatal(err)
	}
	if _, err := huge.Read(make([]byte, 1)); err == nil {
		t.Error("a CONNECT of 256 MiB is waited for")
	}
	slow := dial(t, b)
	defer slow.Close()
	began := time.Now()
	done := make(chan struct{})
	go func() { // a byte at a time, never a whole CONNECT
		defer close(done)
		m := mqtt.AppendConnect(nil, &mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: []byte("slow")})
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := range m[:len(m)-1] {
			if _, err := slow.Write(m[i : i+1]); err != nil {
				return
			}
			<-tick.C
		}
	}()
	if _, err := slow.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("after %v: %v, want the connection closed", time.Since(began), err)
	}
	slow.Close()
	<-done
}

// Close tells MQTT 5 clients why, and leaves nothing behind: goleak in TestMain.
func TestCloseTellsClients(t *testing.T) {
	b := start(t, nil)
	p := connect(t, dial(t, b), "told", nil)
	defer p.Close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	typ, body := p.next()
	var d mqtt.Disconnect
	if err := mqtt.DecodeDisconnect(&d, body, mqtt.V5); typ != mqtt.DISCONNECT || err != nil || d.Reason != mqtt.ServerShuttingDown {
		t.Errorf("%v %v %v, want DISCONNECT 0x8B", typ, err, d.Reason)
	}
}

func TestDialFromWithin(t *testing.T) {
	b := start(t, func(o *Options) { o.Listeners = nil })
	c, err := b.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	p := connect(t, c, session.InternalPrefix+"cloud", func(m *mqtt.Connect) {
		m.Props.HasSessionExpiry, m.Props.SessionExpirySeconds = true, persist.NoExpiry
	})
	p.subscribe("sensors/#", 1)
	got := b.Sessions(session.InternalPrefix)
	if len(got) != 1 || !got[0].Connected || !got[0].Durable || len(got[0].Filters) != 1 {
		t.Errorf("%+v", got)
	}
	p.Close()
	until(t, "it is gone", func() bool { return !b.Sessions("")[0].Connected })
	b.Mute(session.InternalPrefix + "cloud")
	if got := b.Sessions("")[0]; len(got.Filters) != 0 {
		t.Errorf("muted, and still subscribed to %v", got.Filters)
	}
}
