package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sluice/broker/mqtt"

	"github.com/eclipse/paho.golang/paho"
)

// DESIGN. up5 is an upstream in MQTT 5, with the low-level client of paho.golang, which
// dials nothing and repairs nothing. What it would do by itself about packet ids,
// acknowledgements and sessions is taken from it by a session manager of our own
// (session5.go), for these reasons:
//
//   - its Publish waits for the acknowledgement, which would need a goroutine for each
//     message under way; its other way to publish tells nobody what became of it;
//   - it sends acknowledgements of what comes in from a list that it searches for each
//     message, every 50 ms;
//   - it keeps a session in memory and sends its messages again.
//
// What is done elsewhere about it: it writes a packet in several pieces and holds a
// lock over them only if the connection has one (conn5); it allocates what a header
// announces and queues messages beyond every budget (cap5.go); when it ends, it waits
// for its goroutines, so nobody lets it end before the connection is dead.
type up5 struct {
	client  *paho.Client
	conn    *conn5
	gate    *gate5
	session *session5
	aliases *aliases
	quiet   atomic.Bool // we end the connection ourselves
}

// conn5 is a guard whose lock paho takes for each packet.
type conn5 struct {
	*guard
	sync.Mutex
}

// send writes a packet of our own.
func (c *conn5) send(packet []byte) {
	c.Lock()
	defer c.Unlock()
	_, _ = c.Write(packet) // its error is the end of the connection, of which everybody hears
}

// pinger5 ends the connection when no answer comes; paho would first wait for its
// reader, which may wait for the local broker.
type pinger5 struct {
	*paho.DefaultPinger
	guard *guard
}

func (p pinger5) Run(ctx context.Context, conn net.Conn, keepAlive uint16) error {
	err := p.DefaultPinger.Run(ctx, conn, keepAlive)
	if err != nil {
		err = p.guard.fail(err)
	}
	return err
}

// connect5 says CONNECT on a connection, which it closes if that fails.
func (d *dialing) connect5(ctx context.Context, conn, raw net.Conn, who Login) (upstream, error) {
	o := d.opts
	u := &up5{conn: &conn5{guard: newGuard(conn, raw, o.MaxPacketBytes, o.progressTimeout(), d.moved)}, session: newSession5()}
	u.gate = u.conn.v5()
	u.client = paho.NewClient(paho.ClientConfig{
		Conn:          u.conn,
		Session:       u.session,
		PingHandler:   pinger5{paho.NewDefaultPinger(), u.conn.guard},
		PacketTimeout: o.ConnectTimeout,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(m paho.PublishReceived) (bool, error) {
			d.onMessage(u.received(m.Packet))
			u.gate.done()
			return true, nil
		}},
		OnClientError: func(err error) {
			if err = u.conn.fail(err); !u.quiet.Load() {
				d.onLost(err)
			}
		},
	})
	if _, err := u.client.Connect(ctx, connectPacket(o, who)); err != nil {
		u.quiet.Store(true)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		err = u.conn.fail(err)
		<-u.conn.ended
		return nil, err
	}
	u.aliases = newAliases(min(o.TopicAliases, int(u.gate.hello.Props.TopicAliasMax)))
	return u, nil
}

func connectPacket(o *Options, who Login) *paho.Connect {
	c := &paho.Connect{
		ClientID:   o.ClientID,
		KeepAlive:  uint16(o.KeepAlive / time.Second),
		CleanStart: o.CleanSession,
		Username:   who.Username, UsernameFlag: who.Username != "",
		Password: []byte(who.Password), PasswordFlag: who.Password != "",
		Properties: &paho.ConnectProperties{
			ReceiveMaximum:     paho.Uint16(uint16(o.InflightMax)),
			MaximumPacketSize:  paho.Uint32(uint32(o.MaxPacketBytes)),
			RequestProblemInfo: true,
		},
	}
	if !o.CleanSession {
		c.Properties.SessionExpiryInterval = paho.Uint32(neverExpires) // as in 3.1.1; the upstream may think otherwise
	}
	if o.Notifications {
		c.WillMessage = &paho.WillMessage{Retain: true, QoS: 1, Topic: o.ConnectionTopic(), Payload: []byte(notifyDown)}
	}
	return c
}

// received is called by paho's router for each PUBLISH, of which there is one at a time.
func (u *up5) received(p *paho.Publish) inMessage {
	m := inMessage{message: message{
		topic: p.Topic, payload: p.Payload, qos: p.QoS, retain: p.Retain,
		props: u.gate.props, expires: u.gate.pub.HasMessageExpiry, seconds: u.gate.pub.ExpirySeconds,
	}}
	if id := p.PacketID; p.QoS > 0 {
		m.ack = func() { u.conn.send(mqtt.AppendPuback(nil, mqtt.PUBACK, id, mqtt.Success, mqtt.V5)) }
	}
	return m
}

func (u *up5) publish(m *message) receipt {
	r := &receipt5{done: make(chan struct{})}
	p := &paho.Publish{QoS: m.qos, Retain: m.retain, Topic: m.topic, Payload: m.payload, Properties: publishProperties(m)}
	if x := u.aliases.of(m.topic); x != nil {
		if p.Properties == nil {
			p.Properties = &paho.PublishProperties{}
		}
		if p.Properties.TopicAlias = &x.number; x.known.Load() {
			p.Topic = ""
		} else if m.qos > 0 {
			r.alias = x
		}
	}
	var err error
	if m.qos == 0 {
		if _, err = u.client.Publish(context.Background(), p); err == nil {
			r.finish(nil)
		}
	} else {
		_, err = u.client.PublishWithOptions(withReceipt(r), p, paho.PublishOptions{Method: paho.PublishMethod_AsyncSend})
	}
	if err != nil && !errors.Is(err, paho.ErrNetworkErrorAfterStored) {
		r.finish(fmt.Errorf("publish: %w", err))
	}
	return r
}

func (u *up5) open() bool {
	select {
	case <-u.conn.dead:
		return false
	case <-u.client.Done():
		return false
	default:
		return true
	}
}

func (u *up5) limits() upLimits { return u.gate.limits() }

// subscribe asks for what the bridge bit does in 3.1.1: not to get our own messages
// back, and to see which are retained.
func (u *up5) subscribe(ctx context.Context, filter string, qos uint8, lost <-chan struct{}) (uint8, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-lost:
			cancel()
		case <-ctx.Done():
		}
	}()
	u.conn.subacks.Add(1)
	s := &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos, NoLocal: true, RetainAsPublished: true, RetainHandling: 1}}}
	ack, err := u.client.Subscribe(ctx, s)
	switch {
	case ack != nil && len(ack.Reasons) == 1:
		return ack.Reasons[0], nil // paho also returns an error for refusals
	case errors.Is(err, paho.ErrInvalidArguments):
		u.conn.subacks.Add(-1)
		return uint8(mqtt.WildcardNotSupported), nil // it has said so before
	case err == nil:
		err = errors.New("malformed SUBACK")
	}
	return 0, fmt.Errorf("subscribe: %w", err)
}

func (u *up5) disconnect() {
	u.quiet.Store(true)
	u.conn.send(mqtt.AppendDisconnect(nil, &mqtt.Disconnect{}, mqtt.V5))
	_ = u.conn.Close() // lets what was written leave
	timer := time.NewTimer(2 * quiesce)
	defer timer.Stop()
	select {
	case <-u.conn.dead:
	case <-timer.C:
	}
}

func (u *up5) close() {
	u.quiet.Store(true)
	u.kill(errUplinkClosed)
	_ = u.client.Disconnect(&paho.Disconnect{}) // cannot be sent any more; it waits for paho's goroutines
	<-u.conn.ended
}

func (u *up5) kill(err error) { _ = u.conn.fail(err) }

func (u *up5) reason() error { return u.conn.fail(errUplinkClosed) }
