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

// fakeLocal is a local broker with one durable session, that of the bridge, or
// several (others), if it has queues. It keeps the queue and the window, resends
// with DUP, and calls the test's oracle at each PUBACK of the bridge.
type fakeLocal struct {
	t      testing.TB
	id     string                // of the session
	others map[string]*fakeLocal // further sessions, by client id; each of its own

	mu       sync.Mutex
	exists   bool
	subs     map[string]mqtt.SubscribeFilter
	subIDs   map[string]uint32
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
	ended    int        // times the session was ended by its client
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
	sub            uint32 // subscription identifier
	props          string // MQTT 5 properties
	expiry         uint32 // 0: none
}

func (f *fakeLocal) subscribes(name string) bool {
	for filter := range f.subs {
		if matches(filter, name) {
			return true
		}
	}
	return false
}

// withQueues adds the sessions of queues.
func (f *fakeLocal) withQueues(names ...string) *fakeLocal {
	f.others = map[string]*fakeLocal{}
	for _, name := range names {
		o := newFakeLocal(f.t)
		o.id += "/" + name
		f.others[o.id] = o
	}
	return f
}

// of is the session of a queue.
func (f *fakeLocal) of(queue string) *fakeLocal {
	if queue == "" {
		return f
	}
	return f.others["$bridge/t/"+queue]
}

// backlog is for Options.Backlog.
func (f *fakeLocal) backlog(session string) (Backlog, bool) {
	if o := f.others[session]; o != nil {
		f = o
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return Backlog{Messages: int64(len(f.queue) + len(f.inflight))}, f.exists
}

func newFakeLocal(t testing.TB) *fakeLocal {
	f := &fakeLocal{t: t, id: "$bridge/t", subs: map[string]mqtt.SubscribeFilter{}, subIDs: map[string]uint32{}}
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
	f.publish5(localMsg{topic: topicName, payload: payload, qos: qos, retain: retain})
}

// publish5 takes topic, payload, qos, retain, props and expiry.
func (f *fakeLocal) publish5(p localMsg) {
	topicName := p.topic
	for _, o := range f.others {
		o.publish5(p)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	best, found, sub := mqtt.QoS(0), false, uint32(0)
	for filter, s := range f.subs {
		if matches(filter, topicName) {
			found = true
			best, sub = max(best, s.QoS), max(sub, f.subIDs[filter])
		}
	}
	if !found {
		return
	}
	m := &p
	m.qos, m.sub = min(p.qos, best), sub
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
	p.Props, p.HasMessageExpiry, p.ExpirySeconds = []byte(m.props), m.expiry > 0, m.expiry
	if m.sub != 0 {
		p.SubIDs = []uint32{m.sub}
	}
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
		// f is the session by now
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
		if h.Type == mqtt.CONNECT {
			var c mqtt.Connect
			if mqtt.DecodeConnect(&c, append([]byte(nil), body...)) == nil && f.others[string(c.ClientID)] != nil {
				f = f.others[string(c.ClientID)]
			}
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
			f.subs[string(sf.Filter)], f.subIDs[string(sf.Filter)] = sf, s.Props.SubscriptionID
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
		var d mqtt.Disconnect
		check(mqtt.DecodeDisconnect(&d, body, mqtt.V5))
		if d.Props.HasSessionExpiry && d.Props.SessionExpirySeconds == 0 {
			if n := len(f.queue) + len(f.inflight); n > 0 {
				f.t.Errorf("%s ended with %d messages", f.id, n)
			}
			f.ended++
			f.exists, f.subs = false, map[string]mqtt.SubscribeFilter{}
		}
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
	if string(c.ClientID) != f.id || c.Clean || c.Props.SessionExpirySeconds != neverExpires || c.KeepAliveSeconds != 0 {
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
	m := localMsg{topic: string(p.Topic), payload: string(p.Payload), qos: p.QoS, retain: p.Retain, dup: p.Dup, id: p.PacketID, props: string(mqtt.AppendForwardProps(nil, p)), expiry: p.ExpirySeconds}
	reason := mqtt.Success
	if f.reason != nil {
		reason = f.reason(&m)
	}
	if reason < 0x80 {
		f.bridged = append(f.bridged, m)
		props := string(p.Props)
		for _, o := range f.others {
			o.mu.Lock()
			if o.subscribes(m.topic) { // the session that brought it gets none
				o.queue = append(o.queue, &localMsg{topic: m.topic, payload: m.payload, qos: m.qos, props: props})
				o.pump()
			}
			o.mu.Unlock()
		}
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
