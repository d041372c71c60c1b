package bridge

import (
	"net"
	"slices"
	"sync"
	"testing"

	"sluice/broker/mqtt"
)

// fakeUpstream is a broker of 3.1.1 and 5 with faults.
type fakeUpstream struct {
	t  testing.TB
	ln net.Listener

	mu       sync.Mutex
	wg       sync.WaitGroup
	conn     *upConn // the latest that said CONNECT
	conns    map[*upConn]bool
	connects int
	goodbyes int // DISCONNECTs
	lastHi   mqtt.Connect
	got      []upMsg         // in order of arrival, duplicates included
	acked    map[string]bool // payloads whose PUBACK was written, or is about to be
	peak     int             // most unacknowledged at once, if acks are withheld
	downAck  map[string]bool // downlink payloads the bridge acknowledged
	subs     []string
	lastSub  mqtt.SubscribeFilter
	session  bool    // there is one, since somebody connected without clean session
	kept     []upMsg // downlink messages for it: not sent, or not acknowledged

	// Faults; set before use or under mu.
	connackCode  byte
	connack      mqtt.Properties                  // of MQTT 5
	not5         string                           // how it treats MQTT 5: "" (it speaks it), "0x84", "0x01" (the answer of 3.1.1) or "close"
	teach        func(p *mqtt.Publish) bool       // whether a topic alias is learnt from it; nil: always
	puback       func(n int, m upMsg) mqtt.Reason // of MQTT 5; n as below; nil: success
	subackCode   byte                             // if not 0: what SUBACKs say
	neverAck     bool
	publishFault func(n int, m upMsg) fault // n counts all PUBLISHes; nil: none
	onDownAck    func(payload string)       // with mu held
	raw          func(c net.Conn)           // replaces the whole conversation
}

type fault int

const (
	noFault     fault = iota
	cutBefore         // close the connection instead of a PUBACK
	cutAfter          // close it after the PUBACK
	swallow           // no PUBACK, ever
	ackOnlyLost       // the upstream has it, the PUBACK is lost: close
)

type upMsg struct {
	topic, payload string
	qos            mqtt.QoS
	retain, dup    bool
	props          string // as they came, hop properties included
	expiry         uint32
}

type upConn struct {
	net.Conn
	version mqtt.Version
	aliases map[uint16]string
	bytes   int // of all PUBLISHes
	out     *writer
	nextID  uint16
	down    map[uint16]string // downlink payloads not acknowledged yet
	unack   int
}

func newFakeUpstream(t testing.TB) *fakeUpstream {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeUpstream{t: t, ln: ln, acked: map[string]bool{}, downAck: map[string]bool{}, conns: map[*upConn]bool{}}
	f.wg.Go(f.acceptLoop)
	t.Cleanup(f.close)
	return f
}

func (f *fakeUpstream) addr() string { return "tcp://" + f.ln.Addr().String() }

func (f *fakeUpstream) close() {
	_ = f.ln.Close()
	f.cutAll()
	f.wg.Wait()
}

// cutAll closes all connections.
func (f *fakeUpstream) cutAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close()
	}
}

func (f *fakeUpstream) acceptLoop() {
	for {
		conn, err := f.ln.Accept()
		if err != nil {
			return
		}
		c := &upConn{Conn: conn, down: map[uint16]string{}, aliases: map[uint16]string{}}
		c.out = newWriter(conn, 0, func(error) { _ = conn.Close() }, nil)
		c.out.timeout = 1 << 40
		f.mu.Lock()
		f.conns[c] = true
		f.mu.Unlock()
		f.wg.Go(c.out.run)
		f.wg.Go(func() { f.serve(c) })
	}
}

func (f *fakeUpstream) serve(c *upConn) {
	defer func() {
		_ = c.Close()
		c.out.kill()
		f.mu.Lock()
		delete(f.conns, c)
		if f.conn == c {
			f.conn = nil
		}
		f.mu.Unlock()
	}()
	f.mu.Lock()
	raw := f.raw
	f.mu.Unlock()
	if raw != nil {
		raw(c.Conn)
		return
	}
	in := frames{src: c, max: localPacketMax}
	for {
		h, body, err := in.next()
		if err != nil || !f.handle(c, h, body) {
			return
		}
	}
}

func (c *upConn) write(b []byte) { c.out.end(append(c.out.begin(), b...)) }

func (f *fakeUpstream) handle(c *upConn, h mqtt.Header, body []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	check := func(err error) {
		if err != nil {
			f.t.Errorf("fake upstream: packet type %d: %v", h.Type, err)
		}
	}
	switch h.Type {
	case mqtt.CONNECT:
		f.connects++
		f.lastHi = mqtt.Connect{}
		check(mqtt.DecodeConnect(&f.lastHi, append([]byte(nil), body...)))
		c.version = f.lastHi.Version
		if c.version == mqtt.V5 && f.not5 != "" {
			return f.refuse5(c)
		}
		code := f.connackCode
		if c.version == mqtt.V5 && code == 3 {
			code = byte(mqtt.ServerUnavailable)
		}
		c.write(mqtt.AppendConnack(nil, &mqtt.Connack{Code: code, SessionPresent: f.session && !f.lastHi.Clean && f.connackCode == 0, Props: f.connack}, c.version))
		f.conn = c
		if f.session = !f.lastHi.Clean; !f.session {
			f.kept = nil
		}
		for _, m := range f.kept { // at once, before any SUBSCRIBE
			f.down(c, m)
		}
	case mqtt.SUBSCRIBE:
		var s mqtt.Subscribe
		check(mqtt.DecodeSubscribe(&s, body, c.version))
		ack := mqtt.Suback{Type: mqtt.SUBACK, PacketID: s.PacketID}
		for _, sf := range s.Filters {
			f.subs = append(f.subs, string(sf.Filter))
			f.lastSub = sf
			code := byte(sf.QoS)
			if f.subackCode != 0 {
				code = f.subackCode
			}
			ack.Codes = append(ack.Codes, code)
		}
		c.write(mqtt.AppendSuback(nil, &ack, c.version))
	case mqtt.PUBLISH:
		var p mqtt.Publish
		check(mqtt.DecodePublish(&p, h.Flags, body, c.version))
		c.bytes += 2 + h.Remaining
		if p.TopicAlias > f.connack.TopicAliasMax {
			f.t.Errorf("topic alias %d of %d", p.TopicAlias, f.connack.TopicAliasMax)
		}
		if p.TopicAlias > 0 && len(p.Topic) == 0 {
			if p.Topic = []byte(c.aliases[p.TopicAlias]); len(p.Topic) == 0 {
				f.t.Errorf("topic alias %d stands for nothing", p.TopicAlias)
				return false
			}
		} else if p.TopicAlias > 0 && (f.teach == nil || f.teach(&p)) {
			c.aliases[p.TopicAlias] = string(p.Topic)
		}
		return f.published(c, &p)
	case mqtt.PUBACK:
		var a mqtt.Ack
		check(mqtt.DecodeAck(&a, h.Type, body, c.version))
		payload, ok := c.down[a.PacketID]
		if !ok {
			f.t.Errorf("upstream got a PUBACK for id %d, which is not in flight", a.PacketID)
		}
		delete(c.down, a.PacketID)
		f.kept = slices.DeleteFunc(f.kept, func(m upMsg) bool { return m.payload == payload })
		f.downAck[payload] = true
		if f.onDownAck != nil {
			f.onDownAck(payload)
		}
	case mqtt.PINGREQ:
		c.write(mqtt.AppendPingresp(nil))
	case mqtt.DISCONNECT:
		f.goodbyes++
		return false
	default:
		f.t.Errorf("fake upstream: unexpected packet type %d", h.Type)
	}
	return true
}

// refuse5 is what brokers do that do not speak MQTT 5.
func (f *fakeUpstream) refuse5(c *upConn) bool {
	switch f.not5 {
	case "0x84":
		c.write(mqtt.AppendConnack(nil, &mqtt.Connack{Code: byte(mqtt.UnsupportedProtocolVersion)}, mqtt.V5))
	case "0x01":
		c.write([]byte{0x20, 2, 0, 1})
	case "close":
		return false
	}
	return true // the bridge hangs up
}

func (f *fakeUpstream) published(c *upConn, p *mqtt.Publish) bool {
	m := upMsg{topic: string(p.Topic), payload: string(p.Payload), qos: p.QoS, retain: p.Retain, dup: p.Dup, props: string(p.Props), expiry: p.ExpirySeconds}
	fate := noFault
	if f.publishFault != nil {
		fate = f.publishFault(len(f.got), m)
	}
	if fate == cutBefore {
		return false
	}
	f.got = append(f.got, m)
	if p.QoS == 0 || fate == ackOnlyLost {
		return fate != ackOnlyLost
	}
	if f.neverAck || fate == swallow {
		c.unack++
		f.peak = max(f.peak, c.unack)
		return true
	}
	reason := mqtt.Success
	if f.puback != nil && c.version == mqtt.V5 {
		reason = f.puback(len(f.got)-1, m)
	}
	f.acked[m.payload] = f.acked[m.payload] || reason < 0x80
	c.write(mqtt.AppendPuback(nil, mqtt.PUBACK, p.PacketID, reason, c.version))
	return fate != cutAfter
}

// send is a downlink message; it reports false if nobody is connected.
func (f *fakeUpstream) send(topicName, payload string, qos mqtt.QoS, retain bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := upMsg{topic: topicName, payload: payload, qos: qos, retain: retain}
	if f.session && qos > 0 {
		f.kept = append(f.kept, upMsg{topic: topicName, payload: payload, qos: qos, retain: retain, dup: true})
	}
	if f.conn == nil {
		return false
	}
	f.down(f.conn, m)
	return true
}

func (f *fakeUpstream) down(c *upConn, m upMsg) {
	p := mqtt.Publish{Topic: []byte(m.topic), Payload: []byte(m.payload), QoS: m.qos, Retain: m.retain, Dup: m.dup, Props: []byte(m.props), HasMessageExpiry: m.expiry > 0, ExpirySeconds: m.expiry}
	if m.qos > 0 {
		c.nextID++
		p.PacketID = c.nextID
		c.down[p.PacketID] = m.payload
	}
	c.write(mqtt.AppendPublish(nil, &p, c.version))
}

// with runs fn under the lock.
func (f *fakeUpstream) with(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

func (f *fakeUpstream) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.got)
}

// messages returns the distinct payloads by topic, in the order of their first
// arrival.
func (f *fakeUpstream) messages() map[string][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := map[[2]string]bool{}
	byTopic := map[string][]string{}
	for _, m := range f.got {
		if k := [2]string{m.topic, m.payload}; !seen[k] {
			seen[k] = true
			byTopic[m.topic] = append(byTopic[m.topic], m.payload)
		}
	}
	return byTopic
}
