package conformance

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"sluice/broker/mqtt"
)

// packet is a packet from the broker.
type packet struct {
	typ   mqtt.Type
	flags byte
	body  []byte
	raw   []byte // all of it
}

// peer is a client that reads packets when it is told to.
type peer struct {
	c       *trial
	conn    net.Conn
	r       *bufio.Reader
	connack mqtt.Connack
	aliases map[uint16]string // the broker's topic aliases
	nextID  uint16
}

func newPeer(c *trial, conn net.Conn) *peer {
	return &peer{c: c, conn: conn, r: bufio.NewReader(conn), aliases: map[uint16]string{}}
}

// send writes bytes. A connection that the broker has closed meanwhile is no
// failure here: the answer tells.
func (p *peer) send(parts ...[]byte) {
	p.c.Helper()
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := p.conn.Write(slices.Concat(parts...))
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		p.c.Fatal(err)
	}
}

// read reads one packet; io.EOF if the broker has closed the connection.
func (p *peer) read() (*packet, error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	head := make([]byte, 0, 5)
	for {
		b, err := p.r.ReadByte()
		if err != nil {
			if len(head) == 0 && errors.Is(err, syscall.ECONNRESET) {
				err = io.EOF
			}
			if len(head) > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		head = append(head, b)
		h, n, err := mqtt.ParseHeader(head, 0)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			continue
		}
		raw := append(make([]byte, 0, n+h.Remaining), head...)[:n+h.Remaining]
		if _, err := io.ReadFull(p.r, raw[n:]); err != nil {
			return nil, err
		}
		if err := mqtt.CheckFlags(h.Type, h.Flags, p.c.v); err != nil {
			return nil, err
		}
		return &packet{typ: h.Type, flags: h.Flags, body: raw[n:], raw: raw}, nil
	}
}

// next reads one packet, which must come.
func (p *peer) next() *packet {
	p.c.Helper()
	k, err := p.read()
	if err != nil {
		p.c.Fatalf("%v, want a packet", explain(err))
	}
	return k
}

func explain(err error) error {
	switch {
	case err == io.EOF:
		return errors.New("the broker closed the connection")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("the broker sent nothing")
	}
	return err
}

// want reads one packet, which must be of type t.
func (p *peer) want(t mqtt.Type) *packet {
	p.c.Helper()
	k := p.next()
	if k.typ != t {
		p.c.Fatalf("%v % x, want %v", k.typ, k.raw, t)
	}
	return k
}

// wantRaw reads one packet, which must be exactly these bytes.
func (p *peer) wantRaw(want ...byte) {
	p.c.Helper()
	if k := p.next(); !bytes.Equal(k.raw, want) {
		p.c.Fatalf("% x, want % x", k.raw, want)
	}
}

// wantEOF reads the end of the connection.
func (p *peer) wantEOF() {
	p.c.Helper()
	k, err := p.read()
	switch {
	case err == nil:
		p.c.Fatalf("%v % x, want the connection closed", k.typ, k.raw)
	case err != io.EOF:
		p.c.Fatalf("%v, want the connection closed", explain(err))
	}
}

// wantClosed reads the end of the connection, and in MQTT 5 the DISCONNECT with
// one of these reasons before it.
func (p *peer) wantClosed(reasons ...mqtt.Reason) {
	p.c.Helper()
	if p.c.is5() {
		d := p.wantDisconnect()
		if !slices.Contains(reasons, d.Reason) {
			p.c.Fatalf("DISCONNECT with %v, want %v", d.Reason, reasons)
		}
	}
	p.wantEOF()
}

func (p *peer) wantDisconnect() *mqtt.Disconnect {
	p.c.Helper()
	d := new(mqtt.Disconnect)
	p.check(mqtt.DecodeDisconnect(d, p.want(mqtt.DISCONNECT).body, p.c.v))
	return d
}

func (p *peer) check(err error) {
	p.c.Helper()
	if err != nil {
		p.c.Fatal(err)
	}
}

// wantConnack reads a CONNACK with reason r, which is translated for older
// versions.
func (p *peer) wantConnack(r mqtt.Reason) *mqtt.Connack {
	p.c.Helper()
	p.check(mqtt.DecodeConnack(&p.connack, p.want(mqtt.CONNACK).body, p.c.v))
	code := byte(r)
	if !p.c.is5() {
		code = r.Connack311()
	}
	if p.connack.Code != code {
		p.c.Fatalf("CONNACK with %#02x, want %#02x", p.connack.Code, code)
	}
	return &p.connack
}

// wantAck reads a PUBACK, PUBREC, PUBREL or PUBCOMP for a packet id, in MQTT 5
// with one of these reasons (none given: success).
func (p *peer) wantAck(t mqtt.Type, id uint16, reasons ...mqtt.Reason) *mqtt.Ack {
	p.c.Helper()
	a := new(mqtt.Ack)
	p.check(mqtt.DecodeAck(a, t, p.want(t).body, p.c.v))
	if a.PacketID != id {
		p.c.Fatalf("%v for packet %d, want %d", t, a.PacketID, id)
	}
	if len(reasons) == 0 {
		reasons = []mqtt.Reason{mqtt.Success}
	}
	if p.c.is5() && !slices.Contains(reasons, a.Reason) {
		p.c.Fatalf("%v with %v, want %v", t, a.Reason, reasons)
	}
	return a
}

// wantSuback reads a SUBACK or UNSUBACK with these codes.
func (p *peer) wantSuback(t mqtt.Type, id uint16, codes ...byte) *mqtt.Suback {
	p.c.Helper()
	s := new(mqtt.Suback)
	p.check(mqtt.DecodeSuback(s, t, p.want(t).body, p.c.v))
	if s.PacketID != id || !bytes.Equal(s.Codes, codes) {
		p.c.Fatalf("%v for packet %d with % x, want %d with % x", t, s.PacketID, s.Codes, id, codes)
	}
	return s
}

// message is a PUBLISH from the broker.
type message struct{ mqtt.Publish }

// wantPublish reads a PUBLISH. It answers nothing; take does.
func (p *peer) wantPublish() *message {
	p.c.Helper()
	return p.decode(p.want(mqtt.PUBLISH))
}

// decode reads a PUBLISH and replaces its alias by the topic.
func (p *peer) decode(k *packet) *message {
	p.c.Helper()
	m := new(message)
	p.check(mqtt.DecodePublish(&m.Publish, k.flags, k.body, p.c.v))
	if a := m.TopicAlias; a != 0 {
		if len(m.Topic) == 0 {
			if m.Topic = []byte(p.aliases[a]); len(m.Topic) == 0 {
				p.c.Fatalf("PUBLISH with the topic alias %d, which stands for nothing", a)
			}
		}
		p.aliases[a] = string(m.Topic)
	}
	return m
}

// wantMessage reads a PUBLISH with this payload.
func (p *peer) wantMessage(payload string) *message {
	p.c.Helper()
	m := p.wantPublish()
	if string(m.Payload) != payload {
		p.c.Fatalf("%q on %s came, want %q", m.Payload, m.Topic, payload)
	}
	return m
}

// take reads a PUBLISH with this payload and acknowledges it to the end.
func (p *peer) take(payload string) *message {
	p.c.Helper()
	m := p.wantMessage(payload)
	p.finish(m)
	return m
}

// finish acknowledges a message as its QoS demands.
func (p *peer) finish(m *message) {
	p.c.Helper()
	switch m.QoS {
	case 1:
		p.ack(mqtt.PUBACK, m.PacketID, mqtt.Success)
	case 2:
		p.ack(mqtt.PUBREC, m.PacketID, mqtt.Success)
		p.wantAck(mqtt.PUBREL, m.PacketID)
		p.ack(mqtt.PUBCOMP, m.PacketID, mqtt.Success)
	}
}

func (p *peer) ack(t mqtt.Type, id uint16, r mqtt.Reason) {
	p.c.Helper()
	p.send(mqtt.AppendPuback(nil, t, id, r, p.c.v))
}

// ping sends PINGREQ; the answer must be the next packet. So everything that the
// broker had to answer before has been answered.
func (p *peer) ping() {
	p.c.Helper()
	p.send(mqtt.AppendPingreq(nil))
	p.want(mqtt.PINGRESP)
}

// packetID gives a packet id not used yet on this connection.
func (p *peer) packetID() uint16 {
	p.nextID++
	return p.nextID
}

// subscribe subscribes, and reads the SUBACK that grants it.
func (p *peer) subscribe(filter string, qos mqtt.QoS, change ...func(*mqtt.SubscribeFilter)) {
	p.c.Helper()
	p.subscribeID(0, filter, qos, change...)
}

// subscribeID subscribes with a subscription identifier.
func (p *peer) subscribeID(sid uint32, filter string, qos mqtt.QoS, change ...func(*mqtt.SubscribeFilter)) {
	p.c.Helper()
	id := p.packetID()
	p.sendSubscribe(id, sid, filter, qos, change...)
	p.wantSuback(mqtt.SUBACK, id, byte(qos))
}

func (p *peer) sendSubscribe(id uint16, sid uint32, filter string, qos mqtt.QoS, change ...func(*mqtt.SubscribeFilter)) {
	p.c.Helper()
	s := mqtt.Subscribe{PacketID: id, Filters: []mqtt.SubscribeFilter{{Filter: []byte(filter), QoS: qos}}}
	s.Props.SubscriptionID = sid
	for _, f := range change {
		f(&s.Filters[0])
	}
	p.send(mqtt.AppendSubscribe(nil, &s, p.c.v))
}

// unsubscribe ends one subscription that exists.
func (p *peer) unsubscribe(filter string) {
	p.c.Helper()
	id := p.packetID()
	p.send(p.c.unsubscribePacket(id, filter))
	p.wantUnsuback(id, mqtt.Success)
}

func (p *peer) wantUnsuback(id uint16, reasons ...mqtt.Reason) *mqtt.Suback {
	p.c.Helper()
	var codes []byte
	if p.c.is5() {
		for _, r := range reasons {
			codes = append(codes, byte(r))
		}
	}
	return p.wantSuback(mqtt.UNSUBACK, id, codes...)
}

// publish sends a message, and sees it acknowledged to the end.
func (p *peer) publish(topic string, qos mqtt.QoS, payload string, change ...func(*mqtt.Publish)) {
	p.c.Helper()
	id := uint16(0)
	if qos > 0 {
		id = p.packetID()
	}
	p.send(p.c.publishPacket(topic, qos, id, payload, change...))
	p.acknowledged(qos, id)
}

// acknowledged reads the answers to a message.
func (p *peer) acknowledged(qos mqtt.QoS, id uint16) {
	p.c.Helper()
	switch qos {
	case 1:
		p.wantAck(mqtt.PUBACK, id, mqtt.Success, mqtt.NoMatchingSubscribers)
	case 2:
		p.wantAck(mqtt.PUBREC, id, mqtt.Success, mqtt.NoMatchingSubscribers)
		p.ack(mqtt.PUBREL, id, mqtt.Success)
		p.wantAck(mqtt.PUBCOMP, id)
	}
}

// disconnect says goodbye, and waits until the broker has closed.
func (p *peer) disconnect() {
	p.c.Helper()
	p.send(mqtt.AppendDisconnect(nil, &mqtt.Disconnect{}, p.c.v))
	p.wantEOF()
	p.conn.Close()
}

// drop closes the connection without DISCONNECT, and waits until the broker has
// noticed.
func (p *peer) drop() {
	p.c.Helper()
	if err := p.conn.(*net.TCPConn).CloseWrite(); err != nil {
		p.c.Fatal(err)
	}
	for {
		if _, err := p.read(); err != nil {
			break
		}
	}
	p.conn.Close()
}
