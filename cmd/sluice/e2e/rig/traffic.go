package rig

import (
	"fmt"
	"net"
	"time"

	"sluice/broker/mqtt"
)

// Publish sends a message. With QoS 1 and 2 it waits for room in the window, and
// OnAcked gets the tag when the broker has taken the message. If the connection
// is lost, the error says so; a QoS 1 or 2 message that Publish took before is
// not lost but sent again by the next Connect.
func (c *Client) Publish(topic string, payload []byte, qos mqtt.QoS, retain bool, tag uint64) error {
	return c.Send(&mqtt.Publish{Topic: []byte(topic), Payload: payload, QoS: qos, Retain: retain}, tag)
}

// Send is Publish for a packet with all that MQTT 5 allows; the packet id is
// given here.
func (c *Client) Send(p *mqtt.Publish, tag uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.conn != nil && (len(c.out) > outMax || p.QoS > 0 && len(c.flights) >= c.window) {
		c.room.Wait()
	}
	if c.conn == nil {
		return c.gone()
	}
	if p.QoS > 0 {
		p.PacketID = c.id()
		c.order++
		packet := mqtt.AppendPublish(nil, p, c.opt.Version)
		c.flights[p.PacketID] = &flight{order: c.order, tag: tag, packet: packet, qos: p.QoS}
		c.out = append(c.out, packet...)
	} else {
		c.out = mqtt.AppendPublish(c.out, p, c.opt.Version)
	}
	c.nudge()
	return nil
}

func (c *Client) gone() error {
	if c.why != nil {
		return fmt.Errorf("connection lost: %w", c.why)
	}
	return errNotConnected
}

// id finds a packet id that is not in use.
func (c *Client) id() uint16 {
	for {
		if c.nextID++; c.nextID == 0 {
			continue
		}
		if c.flights[c.nextID] == nil && c.answers[c.nextID] == nil {
			return c.nextID
		}
	}
}

// Unacked tells how many messages are under way.
func (c *Client) Unacked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.flights)
}

// RefusedMessages tells how many messages the broker refused with a reason code.
func (c *Client) RefusedMessages() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// Flush waits until everything that was published is acknowledged.
func (c *Client) Flush(within time.Duration) error {
	timeout := time.AfterFunc(within, func() { c.room.Broadcast() })
	defer timeout.Stop()
	end := time.Now().Add(within)
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.conn != nil && len(c.flights) > 0 {
		if !time.Now().Before(end) {
			return fmt.Errorf("%d messages are not acknowledged after %v", len(c.flights), within)
		}
		c.room.Wait()
	}
	if c.conn == nil {
		return c.gone()
	}
	return nil
}

// Subscribe subscribes to filters, and returns the codes of SUBACK.
func (c *Client) Subscribe(qos mqtt.QoS, filters ...string) ([]byte, error) {
	p := &mqtt.Subscribe{}
	for _, f := range filters {
		p.Filters = append(p.Filters, mqtt.SubscribeFilter{Filter: []byte(f), QoS: qos})
	}
	return c.SubscribeWith(p)
}

// SubscribeWith is Subscribe for a packet with all that MQTT 5 allows.
func (c *Client) SubscribeWith(p *mqtt.Subscribe) ([]byte, error) {
	codes, err := c.ask(func(out []byte, id uint16) []byte {
		p.PacketID = id
		return mqtt.AppendSubscribe(out, p, c.opt.Version)
	})
	for i, code := range codes {
		if code >= byte(mqtt.UnspecifiedError) {
			return codes, fmt.Errorf("subscription to %q was refused: 0x%02x", p.Filters[i].Filter, code)
		}
	}
	return codes, err
}

// Unsubscribe ends subscriptions.
func (c *Client) Unsubscribe(filters ...string) error {
	p := &mqtt.Unsubscribe{}
	for _, f := range filters {
		p.Filters = append(p.Filters, []byte(f))
	}
	_, err := c.ask(func(out []byte, id uint16) []byte {
		p.PacketID = id
		return mqtt.AppendUnsubscribe(out, p, c.opt.Version)
	})
	return err
}

// ask sends a SUBSCRIBE or UNSUBSCRIBE and waits for its answer.
func (c *Client) ask(encode func(out []byte, id uint16) []byte) ([]byte, error) {
	answer := make(chan []byte, 1)
	c.mu.Lock()
	if c.conn == nil {
		defer c.mu.Unlock()
		return nil, c.gone()
	}
	id := c.id()
	c.answers[id] = answer
	c.out = encode(c.out, id)
	c.nudge()
	c.mu.Unlock()
	codes, ok := <-answer
	if !ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, c.gone()
	}
	return codes, nil
}

// Ping sends a PINGREQ.
func (c *Client) Ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.out = mqtt.AppendPingreq(c.out)
		c.nudge()
	}
}

// Ack acknowledges a QoS 1 message by its packet id: for Silent clients.
func (c *Client) Ack(id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.out = mqtt.AppendPuback(c.out, mqtt.PUBACK, id, mqtt.Success, c.opt.Version)
		c.nudge()
	}
}

// read takes packets from the connection until it ends, and tells why it did.
func (c *Client) read(conn net.Conn, buf []byte) error {
	buf = append(make([]byte, 0, 64<<10), buf...)
	var publish mqtt.Publish
	for {
		at := 0
		for {
			h, n, err := mqtt.ParseHeader(buf[at:], 0)
			if err != nil {
				return err
			}
			if n == 0 || len(buf)-at < n+h.Remaining {
				break
			}
			if err := c.packet(h, buf[at+n:at+n+h.Remaining], &publish); err != nil {
				return err
			}
			at += n + h.Remaining
		}
		buf = buf[:copy(buf, buf[at:])]
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		n, err := conn.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return err
		}
		buf = buf[:len(buf)+n]
	}
}

func (c *Client) packet(h mqtt.Header, body []byte, publish *mqtt.Publish) error {
	switch h.Type {
	case mqtt.PUBLISH:
		if err := mqtt.DecodePublish(publish, h.Flags, body, c.opt.Version); err != nil {
			return err
		}
		c.onPublish(publish)
	case mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP:
		var a mqtt.Ack
		if err := mqtt.DecodeAck(&a, h.Type, body, c.opt.Version); err != nil {
			return err
		}
		c.onAck(&a)
	case mqtt.SUBACK, mqtt.UNSUBACK:
		var a mqtt.Suback
		if err := mqtt.DecodeSuback(&a, h.Type, body, c.opt.Version); err != nil {
			return err
		}
		c.mu.Lock()
		if answer := c.answers[a.PacketID]; answer != nil {
			answer <- append([]byte(nil), a.Codes...)
			delete(c.answers, a.PacketID)
		}
		c.mu.Unlock()
	case mqtt.PINGRESP:
	case mqtt.DISCONNECT:
		var d mqtt.Disconnect
		if err := mqtt.DecodeDisconnect(&d, body, c.opt.Version); err != nil {
			return err
		}
		return &Disconnected{d.Reason}
	default:
		return fmt.Errorf("%v from the broker", h.Type)
	}
	return nil
}

func (c *Client) onPublish(p *mqtt.Publish) {
	c.mu.Lock()
	known := p.QoS == 2 && c.received[p.PacketID]
	if p.QoS == 2 {
		c.received[p.PacketID] = true
	}
	c.mu.Unlock()
	if !known && c.opt.OnMessage != nil {
		c.opt.OnMessage(p)
	}
	if p.QoS == 0 || c.opt.Silent {
		return
	}
	t := mqtt.PUBACK
	if p.QoS == 2 {
		t = mqtt.PUBREC
	}
	c.mu.Lock()
	c.out = mqtt.AppendPuback(c.out, t, p.PacketID, mqtt.Success, c.opt.Version)
	c.nudge()
	c.mu.Unlock()
}

func (c *Client) onAck(a *mqtt.Ack) {
	c.mu.Lock()
	f := c.flights[a.PacketID]
	done := false
	switch a.Type {
	case mqtt.PUBREL:
		delete(c.received, a.PacketID)
		c.out = mqtt.AppendPuback(c.out, mqtt.PUBCOMP, a.PacketID, mqtt.Success, c.opt.Version)
	case mqtt.PUBREC:
		if a.Reason >= mqtt.UnspecifiedError {
			done = f != nil
			break
		}
		if f != nil {
			f.released = true
		}
		c.out = mqtt.AppendPuback(c.out, mqtt.PUBREL, a.PacketID, mqtt.Success, c.opt.Version)
	case mqtt.PUBACK:
		done = f != nil && f.qos == 1
	case mqtt.PUBCOMP:
		done = f != nil && f.qos == 2 && f.released
	}
	c.nudge()
	taken := done && a.Reason < mqtt.UnspecifiedError
	if done && !taken {
		c.refused++
	}
	c.mu.Unlock()
	if taken && c.opt.OnAcked != nil {
		c.opt.OnAcked(f.tag)
	}
	if done { // only now: Flush means that OnAcked has been called
		c.mu.Lock()
		delete(c.flights, a.PacketID)
		c.room.Broadcast()
		c.mu.Unlock()
	}
}
