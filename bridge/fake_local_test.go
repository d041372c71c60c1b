package bridge

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/broker/mqtt"
)

// fakeLocal is a local broker with one durable session, that of the bridge. It
// keeps the queue and the window, resends with DUP, and calls the test's
// oracle at each PUBACK of the bridge.
type fakeLocal struct {
	t testing.TB

	mu       sync.Mutex
	exists   bool
	subs     map[string]mqtt.SubscribeFilter
	queue    []*localMsg // not sent on this connection yet
	inflight []*localMsg // sent, not acknowledged, in order
	nextID   uint16
	window   int
	conn     net.Conn // nil: detached
	out      *writer  // of conn
	wg       sync.WaitGroup

	pings    int
	goodbyes int        // DISCONNECTs
	attached int        // connections so far
	dups     int        // PUBLISHes sent with DUP
	peak     int        // most in flight at once
	bridged  []localMsg // received from the bridge
	held     []localMsg // accepted, PUBACK not sent because hold is on

	// Set before use or under mu.
	refuseDial bool
	hold       bool
	receiveMax uint16
	keepAlive  uint16 // imposed; 0: none
	maxPacket  uint32
	onPuback   func(m *localMsg)             // oracle; with mu held
	reason     func(m *localMsg) mqtt.Reason // for what the bridge publishes; nil: success
	onAccepted func(m *localMsg)             // just before the PUBACK to the bridge leaves; with mu held
}

type localMsg struct {
	topic, payload string
	qos            mqtt.QoS
	retain, dup    bool
	id             uint16
}

func newFakeLocal(t testing.TB) *fakeLocal {
	f := &fakeLocal{t: t, subs: map[string]mqtt.SubscribeFilter{}}
	t.Cleanup(func() {
		f.kick()
		f.wg.Wait()
	})
	return f
}

// socketpair is what the broker facade uses, too.
func socketpair(t testing.TB) (a, b net.Conn) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		if conns[i], err = net.FileConn(file); err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
	}
	return conns[0], conns[1]
}

func (f *fakeLocal) dial(context.Context) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuseDial {
		return nil, fmt.Errorf("local broker is away")
	}
	mine, theirs := socketpair(f.t)
	f.wg.Go(func() { f.serve(mine) })
	return theirs, nil
}

// kick cuts the connection.
func (f *fakeLocal) kick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn != nil {
		_ = f.conn.Close()
	}
}

// publish is a message from a local client.
func (f *fakeLocal) publish(topicName, payload string, qos mqtt.QoS, retain bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	best, found := mqtt.QoS(0), false
	for filter, s := range f.subs {
		if matches(filter, topicName) {
			found = true
			best = max(best, s.QoS)
		}
	}
	if !found {
		return
	}
	m := &localMsg{topic: topicName, payload: payload, qos: min(qos, best), retain: retain}
	if m.qos == 0 && f.conn == nil {
		return
	}
	f.queue = append(f.queue, m)
	f.pump()
}

func (f *fakeLocal) pump() {
	for len(f.queue) > 0 {
		m := f.queue[0]
		if f.conn == nil || m.qos > 0 && len(f.inflight) >= f.window {
			return
		}
		f.queue = f.queue[1:]
		if m.qos > 0 {
			f.nextID++
			if f.nextID == 0 {
				f.nextID = 1
			}
			m.id = f.nextID
			f.inflight = append(f.inflight, m)
			f.peak = max(f.peak, len(f.inflight))
		}
		f.send(m, false)
	}
}

func (f *fakeLocal) send(m *localMsg, dup bool) {
	p := mqtt.Publish{Topic: []byte(m.topic), Payload: []byte(m.payload), QoS: m.qos, PacketID: m.id, Retain: m.retain, Dup: dup}
	if dup {
		f.dups++
	}
	f.write(mqtt.AppendPublish(nil, &p, mqtt.V5))
}

func (f *fakeLocal) write(b []byte) {
	if f.out != nil {
		f.out.end(append(f.out.begin(), b...))
	}
}

func (f *fakeLocal) serve(conn net.Conn) {
	in := frames{src: conn, max: localPacketMax}
	defer func() {
		_ = conn.Close()
		f.mu.Lock()
		if f.conn == conn {
			f.conn = nil
			f.out.kill()
			f.queue = keepDurable(f.queue)
		}
		f.mu.Unlock()
	}()
	for {
		h, body, err := in.next()
		if err != nil {
			return
		}
		if !f.handle(conn, h, body) {
			return
		}
	}
}

func keepDurable(q []*localMsg) (kept []*localMsg) {
	for _, m := range q {
		if m.qos > 0 {
			kept = append(kept, m)
		}
	}
	return kept
}

func (f *fakeLocal) handle(conn net.Conn, h mqtt.Header, body []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.Type != mqtt.CONNECT && f.conn != conn {
		return false // taken over
	}
	check := func(err error) {
		if err != nil {
			f.t.Errorf("fake local broker: packet type %d: %v", h.Type, err)
		}
	}
	switch h.Type {
	case mqtt.CONNECT:
		f.connect(conn, body)
	case mqtt.SUBSCRIBE:
		var s mqtt.Subscribe
		check(mqtt.DecodeSubscribe(&s, body, mqtt.V5))
		ack := mqtt.Suback{Type: mqtt.SUBACK, PacketID: s.PacketID}
		for _, sf := range s.Filters {
			sf.Filter = append([]byte(nil), sf.Filter...)
			f.subs[string(sf.Filter)] = sf
			ack.Codes = append(ack.Codes, byte(sf.QoS))
		}
		f.write(mqtt.AppendSuback(nil, &ack, mqtt.V5))
	case mqtt.UNSUBSCRIBE:
		var u mqtt.Unsubscribe
		check(mqtt.DecodeUnsubscribe(&u, body, mqtt.V5))
		ack := mqtt.Suback{Type: mqtt.UNSUBACK, PacketID: u.PacketID}
		for _, filter := range u.Filters {
			delete(f.subs, string(filter))
			ack.Codes = append(ack.Codes, 0)
		}
		f.write(mqtt.AppendSuback(nil, &ack, mqtt.V5))
	case mqtt.PUBACK:
		var a mqtt.Ack
		check(mqtt.DecodeAck(&a, h.Type, body, mqtt.V5))
		f.acked(a.PacketID)
	case mqtt.PUBLISH:
		var p mqtt.Publish
		check(mqtt.DecodePublish(&p, h.Flags, body, mqtt.V5))
		f.accept(&p)
	case mqtt.PINGREQ:
		f.pings++
		f.write(mqtt.AppendPingresp(nil))
	case mqtt.DISCONNECT:
		f.goodbyes++
		return false
	default:
		f.t.Errorf("fake local broker: unexpected packet type %d", h.Type)
	}
	return true
}

func (f *fakeLocal) connect(conn net.Conn, body []byte) {
	var c mqtt.Connect
	if err := mqtt.DecodeConnect(&c, body); err != nil {
		f.t.Errorf("CONNECT: %v", err)
		return
	}
	if string(c.ClientID) != "$bridge/t" || c.Clean || c.Props.SessionExpirySeconds != neverExpires || c.KeepAliveSeconds != 0 {
		f.t.Errorf("CONNECT is not that of a durable bridge session: %+v", c)
	}
	if f.conn != nil {
		_ = f.conn.Close()
	}
	if f.out != nil {
		f.out.kill()
	}
	f.conn, f.out = conn, newWriter(conn, time.Minute, func(error) { _ = conn.Close() }, nil)
	f.wg.Go(f.out.run)
	f.attached++
	f.window = int(c.Props.ReceiveMax)
	f.held = nil
	f.write(mqtt.AppendConnack(nil, &mqtt.Connack{
		SessionPresent: f.exists,
		Props: mqtt.Properties{ReceiveMax: f.receiveMax, MaxPacketBytes: f.maxPacket,
			ServerKeepAliveSeconds: f.keepAlive, HasServerKeepAlive: f.keepAlive > 0},
	}, mqtt.V5))
	f.exists = true
	for _, m := range f.inflight {
		f.send(m, true)
	}
	f.pump()
}

func (f *fakeLocal) acked(id uint16) {
	for i, m := range f.inflight {
		if m.id != id {
			continue
		}
		if i != 0 {
			f.t.Errorf("PUBACK %d (%s) out of order: %d is older [MQTT-4.6.0-2]", id, m.payload, f.inflight[0].id)
		}
		if f.onPuback != nil {
			f.onPuback(m)
		}
		f.inflight = append(f.inflight[:i], f.inflight[i+1:]...)
		f.pump()
		return
	}
	f.t.Errorf("PUBACK for id %d, which is not in flight", id)
}

func (f *fakeLocal) accept(p *mqtt.Publish) {
	m := localMsg{topic: string(p.Topic), payload: string(p.Payload), qos: p.QoS, retain: p.Retain, dup: p.Dup, id: p.PacketID}
	reason := mqtt.Success
	if f.reason != nil {
		reason = f.reason(&m)
	}
	if reason < 0x80 {
		f.bridged = append(f.bridged, m)
	}
	if p.QoS == 0 {
		return
	}
	if f.receiveMax > 0 && len(f.held) >= int(f.receiveMax) {
		f.t.Errorf("the bridge exceeds the receive maximum of %d", f.receiveMax)
	}
	if f.hold {
		f.held = append(f.held, m)
		return
	}
	if f.onAccepted != nil && reason < 0x80 {
		f.onAccepted(&m)
	}
	f.write(mqtt.AppendPuback(nil, mqtt.PUBACK, p.PacketID, reason, mqtt.V5))
}

// letGo sends the PUBACKs held back and turns hold off.
func (f *fakeLocal) letGo() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = false
	for _, m := range f.held {
		if f.onAccepted != nil {
			f.onAccepted(&m)
		}
		f.write(mqtt.AppendPuback(nil, mqtt.PUBACK, m.id, mqtt.Success, mqtt.V5))
	}
	f.held = nil
}

// open is how many messages are queued or in flight.
func (f *fakeLocal) open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.queue) + len(f.inflight)
}

func (f *fakeLocal) received() []localMsg {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]localMsg(nil), f.bridged...)
}

// with runs fn under the lock.
func (f *fakeLocal) with(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}
