package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"sluice/broker/mqtt"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// DESIGN. up3 is an upstream in MQTT 3.1.1, with paho.mqtt.golang. A publish token of paho that completes without an error does not
// mean in general that the message was delivered: it also completes so when
// paho, reconnecting by itself, finds the packet id in use again, or has
// dropped a QoS 0 message. It does mean that the PUBACK came if all of this
// holds, and mustBeHonest checks it for each client:
//
//   - the client is dialled once and never reconnects: AutoReconnect and
//     ConnectRetry off;
//   - the client is new for each connection, and so is its store, which is in
//     memory: nothing is resumed, and no id of an earlier connection is in use.
//     What a PUBACK acknowledges is what this connection has sent, as a server
//     sends it on the connection of the PUBLISH only (MQTT3 4.3.2);
//   - the guard lets no acknowledgement through but the one that is due.
//
// A token may also never complete (Publish at the moment the connection is
// lost, or any pending one of a session that is not clean). Whoever waits for one
// waits for the end of the link as well.
//
// A session that is not clean is for what comes down: the upstream keeps it while
// we are away, and sends again what we have not acknowledged, which is what is
// not durable here. It keeps nothing of what we send with QoS 1.
type up3 struct {
	client paho.Client
	guard  *guard
}

const (
	// handoverTimeout bounds how long paho waits inside Publish and
	// Subscribe for its own writing goroutine. That one never waits for the
	// network (guard), so the time is only used up when the connection is
	// lost at that very moment.
	handoverTimeout = 2 * time.Second

	// quiesce is how long we wait for a DISCONNECT to leave, and then for the
	// upstream to close the connection.
	quiesce = 250 * time.Millisecond
)

// connect3 says CONNECT on a connection, which it closes if that fails.
func (d *dialing) connect3(ctx context.Context, conn, raw net.Conn, who Login) (upstream, error) {
	u := &up3{guard: newGuard(conn, raw, d.opts.MaxPacketBytes, d.opts.progressTimeout(), d.moved)}
	po := u.pahoOptions(d.opts, d.onMessage, d.onLost)
	po.SetUsername(who.Username).SetPassword(who.Password)
	u.client = paho.NewClient(po)
	mustBeHonest(u.client)

	token := u.client.Connect().(*paho.ConnectToken)
	var err error
	select {
	case <-token.Done():
		err = token.Error()
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		u.kill(err)
		<-token.Done() // soon: its connection is closed
		<-u.guard.ended
		if code := token.ReturnCode(); code > 0 && code <= connack3Max {
			err = &connackError{version: mqtt.V311, code: code}
		}
		return nil, err
	}
	return u, nil
}

func (u *up3) pahoOptions(o *Options, onMessage func(inMessage), onLost func(error)) *paho.ClientOptions {
	po := paho.NewClientOptions()
	po.AddBroker("tcp://upstream") // paho wants one; the connection is already there
	opened := false
	po.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) {
		if opened {
			return nil, errors.New("BUG: paho dials a second time")
		}
		opened = true
		return u.guard, nil
	})
	po.SetClientID(o.ClientID)
	po.SetProtocolVersion(4) // explicit: no second attempt with 3.1
	if o.BridgeBit {
		po.SetProtocolVersion(0x84)
	}
	if o.Notifications {
		po.SetBinaryWill(o.ConnectionTopic(), []byte(notifyDown), 1, true)
	}
	po.SetCleanSession(o.CleanSession)
	po.SetAutoReconnect(false)
	po.SetConnectRetry(false)
	po.SetResumeSubs(false)
	po.SetStore(paho.NewOrderedMemoryStore())
	po.SetOrderMatters(true)
	po.SetAutoAckDisabled(true)
	po.SetKeepAlive(o.KeepAlive)
	po.SetPingTimeout(o.KeepAlive) // paho's reader may wait for the local broker for a while
	po.SetConnectTimeout(o.ConnectTimeout)
	po.SetWriteTimeout(handoverTimeout)
	po.SetConnectionLostHandler(func(_ paho.Client, err error) { onLost(err) })
	po.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		onMessage(inMessage{message{topic: m.Topic(), payload: m.Payload(), qos: m.Qos(), retain: m.Retained()}, m.Ack})
	})
	return po
}

// mustBeHonest panics unless a token without an error means a PUBACK.
func mustBeHonest(c paho.Client) {
	r := c.OptionsReader()
	if r.AutoReconnect() || r.ConnectRetry() || r.ResumeSubs() {
		panic(fmt.Sprintf("BUG: paho client whose tokens prove nothing: auto reconnect %t, connect retry %t, resume subs %t",
			r.AutoReconnect(), r.ConnectRetry(), r.ResumeSubs()))
	}
}

func (u *up3) publish(m *message) receipt {
	return u.client.Publish(m.topic, m.qos, m.retain, m.payload)
}

// limits: 3.1.1 does not tell any.
func (u *up3) limits() upLimits {
	return upLimits{version: mqtt.V311, receiveMax: receiveMaxAny, packetBytes: mqtt.PacketBytesMax, qosMax: 2, retain: true}
}

func (u *up3) open() bool { return u.client.IsConnectionOpen() }

func (u *up3) subscribe(ctx context.Context, filter string, qos uint8, lost <-chan struct{}) (uint8, error) {
	u.guard.subacks.Add(1)
	token := u.client.Subscribe(filter, qos, nil).(*paho.SubscribeToken)
	select {
	case <-token.Done():
	case <-lost:
		return 0, errors.New("connection lost while subscribing")
	case <-ctx.Done():
		return 0, fmt.Errorf("no SUBACK: %w", ctx.Err())
	}
	code, answered := token.Result()[filter]
	if !answered || code > 2 && code != 0x80 {
		if err := token.Error(); err != nil {
			return 0, fmt.Errorf("subscribe: %w", err)
		}
		return 0, fmt.Errorf("malformed SUBACK, code %d", code)
	}
	return code, nil // paho also sets an error for 0x80
}

func (u *up3) disconnect() {
	u.client.Disconnect(uint(quiesce / time.Millisecond))
	timer := time.NewTimer(quiesce)
	defer timer.Stop()
	select {
	case <-u.guard.dead:
	case <-timer.C:
	}
}

func (u *up3) close() {
	u.kill(errUplinkClosed)
	u.client.Disconnect(0) // in case paho has not noticed; returns at once
	<-u.guard.ended
}

func (u *up3) reason() error { return u.guard.fail(errUplinkClosed) }

func (u *up3) kill(err error) { _ = u.guard.fail(err) }
