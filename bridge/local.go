package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"sluice/broker/mqtt"
)

// DESIGN. local is a small MQTT 5 client of the bridge's session at the local
// broker. It attaches with clean start off and a session that never expires,
// so the broker keeps subscriptions, queue and window over every detachment.
// One goroutine reads (read), one writes (writer.go); publish and puback only
// append to the writer's buffer. It keeps no message: what it delivered to
// onPublish and nobody acknowledged comes again at the next attachment.
type local struct {
	conn    net.Conn
	in      frames // the reader's
	out     *writer
	timeout time.Duration // for SUBACK and UNSUBACK

	// What the CONNACK said.
	sessionPresent bool
	receiveMax     int           // QoS 1 publishes we may have outstanding, at most requestID-1
	maxPacketBytes int           // largest packet we may send
	keepAlive      time.Duration // imposed by the broker; 0: none

	answers chan mqtt.Suback // to the one request that is under way

	gone chan struct{} // closed when read has returned

	mu  sync.Mutex
	err error // why the connection ended; nil: alive
}

const (
	neverExpires = 0xFFFFFFFF // MQTT5 3.1.2.11.2

	// requestID is the packet id of SUBSCRIBE and UNSUBSCRIBE, of which one
	// at a time is under way. Publishes use the ids below it.
	requestID = 65535

	// localPacketMax bounds what we read from the local broker: all that MQTT
	// can express. The broker has its own limit for messages.
	localPacketMax = mqtt.PacketBytesMax

	// farewellTimeout bounds how long leave waits for the broker to hang up.
	farewellTimeout = time.Second
)

var errLocalClosed = errors.New("local session detached by the bridge")

// attachLocal connects to a session, given by its client id. ctx bounds the handshake only. A
// goroutine, the writer's, runs until leave or kill.
func attachLocal(ctx context.Context, o *Options, session string) (*local, error) {
	conn, err := o.DialLocal(ctx)
	if err != nil {
		return nil, err
	}
	l := &local{
		conn:    conn,
		in:      frames{src: conn, max: localPacketMax},
		timeout: o.progressTimeout(),
		answers: make(chan mqtt.Suback, 1),
		gone:    make(chan struct{}),
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = l.handshake(o, session)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	l.out = newWriter(conn, o.progressTimeout(), func(err error) { l.kill(err) }, nil)
	go l.out.run()
	return l, nil
}

func (l *local) handshake(o *Options, session string) error {
	hello := mqtt.Connect{
		Version:  mqtt.V5,
		ClientID: []byte(session),
		Props: mqtt.Properties{
			SessionExpirySeconds: neverExpires,
			HasSessionExpiry:     true,
			ReceiveMax:           uint16(o.InflightMax),
		},
	}
	if err := l.conn.SetDeadline(time.Now().Add(o.ConnectTimeout)); err != nil {
		return err
	}
	if _, err := l.conn.Write(mqtt.AppendConnect(nil, &hello)); err != nil {
		return err
	}
	h, body, err := l.in.next()
	if err != nil {
		return err
	}
	if h.Type != mqtt.CONNACK {
		return fmt.Errorf("CONNACK expected, packet type %d came", h.Type)
	}
	var ack mqtt.Connack
	if err := mqtt.DecodeConnack(&ack, body, mqtt.V5); err != nil {
		return err
	}
	if ack.Code != 0 {
		return fmt.Errorf("connection refused: %v", mqtt.Reason(ack.Code))
	}
	l.takeLimits(&ack)
	return l.conn.SetDeadline(time.Time{})
}

func (l *local) takeLimits(ack *mqtt.Connack) {
	l.sessionPresent = ack.SessionPresent
	l.receiveMax = requestID - 1
	if n := int(ack.Props.ReceiveMax); n > 0 {
		l.receiveMax = min(n, requestID-1)
	}
	l.maxPacketBytes = mqtt.PacketBytesMax
	if n := ack.Props.MaxPacketBytes; n > 0 && n < mqtt.PacketBytesMax {
		l.maxPacketBytes = int(n)
	}
	if ack.Props.HasServerKeepAlive {
		l.keepAlive = time.Duration(ack.Props.ServerKeepAliveSeconds) * time.Second
	}
}

// read delivers packets until the connection ends and returns why it did. The
// Publish given to onPublish aliases the read buffer. onPuback gets the answers
// to publish.
func (l *local) read(onPublish func(*mqtt.Publish), onPuback func(id uint16, reason mqtt.Reason)) error {
	defer close(l.gone)
	var (
		pub mqtt.Publish
		ack mqtt.Ack
	)
	for {
		h, body, err := l.in.next()
		if err != nil {
			return l.kill(err)
		}
		switch h.Type {
		case mqtt.PUBLISH:
			if err = mqtt.DecodePublish(&pub, h.Flags, body, mqtt.V5); err == nil {
				onPublish(&pub)
			}
		case mqtt.PUBACK:
			if err = mqtt.DecodeAck(&ack, h.Type, body, mqtt.V5); err == nil {
				onPuback(ack.PacketID, ack.Reason)
			}
		case mqtt.SUBACK, mqtt.UNSUBACK:
			err = l.answer(h.Type, body)
		case mqtt.DISCONNECT:
			var d mqtt.Disconnect
			if err = mqtt.DecodeDisconnect(&d, body, mqtt.V5); err == nil {
				err = fmt.Errorf("the local broker disconnected us: %v", d.Reason)
			}
		case mqtt.PINGRESP:
		default:
			err = fmt.Errorf("packet type %d is not for a client that subscribes with QoS 1", h.Type)
		}
		if err != nil {
			return l.kill(err)
		}
	}
}

func (l *local) answer(t mqtt.Type, body []byte) error {
	var s mqtt.Suback
	if err := mqtt.DecodeSuback(&s, t, body, mqtt.V5); err != nil {
		return err
	}
	s.Codes = append([]byte(nil), s.Codes...)
	s.Props = mqtt.Properties{} // alias the read buffer
	select {
	case l.answers <- s:
		return nil
	default:
		return fmt.Errorf("packet type %d answers nothing", t)
	}
}

// subscribe needs read to be running. Nobody else may subscribe or unsubscribe
// meanwhile. id comes back with the messages; 0: none. A refusal is an error.
func (l *local) subscribe(ctx context.Context, subs []subscription, id uint32) error {
	if len(subs) == 0 {
		return nil
	}
	req := mqtt.Subscribe{PacketID: requestID, Props: mqtt.Properties{SubscriptionID: id}}
	for _, s := range subs {
		req.Filters = append(req.Filters, mqtt.SubscribeFilter{
			Filter:            []byte(s.filter),
			QoS:               mqtt.QoS(s.qos),
			NoLocal:           true, // what we bring in must not go out again
			RetainAsPublished: true,
			RetainHandling:    1, // retained messages only when the subscription is new
		})
	}
	l.out.end(mqtt.AppendSubscribe(l.out.begin(), &req, mqtt.V5))
	codes, err := l.await(ctx, mqtt.SUBACK, len(subs))
	if err != nil {
		return err
	}
	for i, code := range codes {
		if code >= 0x80 {
			return fmt.Errorf("subscription %q refused: %v", subs[i].filter, mqtt.Reason(code))
		}
	}
	return nil
}

// unsubscribe is like subscribe. That a filter was not subscribed is no error.
func (l *local) unsubscribe(ctx context.Context, filters []string) error {
	if len(filters) == 0 {
		return nil
	}
	req := mqtt.Unsubscribe{PacketID: requestID}
	for _, f := range filters {
		req.Filters = append(req.Filters, []byte(f))
	}
	l.out.end(mqtt.AppendUnsubscribe(l.out.begin(), &req, mqtt.V5))
	codes, err := l.await(ctx, mqtt.UNSUBACK, len(filters))
	if err != nil {
		return err
	}
	for i, code := range codes {
		if code >= 0x80 {
			return fmt.Errorf("unsubscribing %q refused: %v", filters[i], mqtt.Reason(code))
		}
	}
	return nil
}

func (l *local) await(ctx context.Context, t mqtt.Type, n int) ([]byte, error) {
	timer := time.NewTimer(l.timeout)
	defer timer.Stop()
	select {
	case s := <-l.answers:
		if s.Type != t || s.PacketID != requestID || len(s.Codes) != n {
			return nil, fmt.Errorf("packet type %d with %d codes and id %d answers a request for type %d with %d", s.Type, len(s.Codes), s.PacketID, t, n)
		}
		return s.Codes, nil
	case <-l.out.ended:
		return nil, l.reason()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, fmt.Errorf("no answer to a request for type %d within %v", t, l.timeout)
	}
}

// publish sends p, which it does not keep.
func (l *local) publish(p *mqtt.Publish) {
	l.out.end(mqtt.AppendPublish(l.out.begin(), p, mqtt.V5))
}

// puback acknowledges a message delivered to onPublish.
func (l *local) puback(id uint16) {
	l.out.end(mqtt.AppendPuback(l.out.begin(), mqtt.PUBACK, id, mqtt.Success, mqtt.V5))
}

func (l *local) ping() {
	l.out.end(mqtt.AppendPingreq(l.out.begin()))
}

// leave sends what is still to be sent and a DISCONNECT, waits for the broker
// to hang up, lest a reset destroys what it has not read yet, and ends the
// connection. read must be running, and onPublish must not block. The session
// stays: it was given an expiry when it began, and the DISCONNECT does not
// change it (MQTT5 3.14.2.2.2).
func (l *local) leave() { l.farewell(&mqtt.Disconnect{}) }

// end is like leave, and ends the session with all that is in it (MQTT5 3.14.2.2.2).
func (l *local) end() {
	l.farewell(&mqtt.Disconnect{Props: mqtt.Properties{HasSessionExpiry: true}})
}

func (l *local) farewell(bye *mqtt.Disconnect) {
	l.out.end(mqtt.AppendDisconnect(l.out.begin(), bye, mqtt.V5))
	l.out.finish()
	timer := time.NewTimer(farewellTimeout)
	defer timer.Stop()
	select {
	case <-l.out.ended:
		closeWrite(l.conn)
		select {
		case <-l.gone:
		case <-timer.C:
		}
	case <-timer.C:
	}
	l.kill(errLocalClosed)
}

// kill ends the connection at once and returns why it ended, which is err if
// nobody was earlier. It does not block.
func (l *local) kill(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		if l.out != nil {
			l.out.kill()
		}
		_ = l.conn.Close()
	}
	return l.err
}

func (l *local) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func ignorePublish(*mqtt.Publish) {}

func ignorePuback(uint16, mqtt.Reason) {}
