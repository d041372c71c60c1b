package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// DESIGN. uplink is one connection to the upstream, and the only file that
// knows paho. A publish token of paho that completes without an error does not
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
type uplink struct {
	client paho.Client
	guard  *guard
}

// receipt is the outcome of a publish: Done is closed when the upstream has
// acknowledged (QoS 1) or the packet is on its way (QoS 0), Error is nil then.
// Done may never be closed if the connection is lost.
type receipt interface {
	Done() <-chan struct{}
	Error() error
}

// inMessage is a message from the upstream. It belongs to whom it is given to.
type inMessage struct {
	topic   string
	payload []byte
	qos     uint8
	retain  bool
	ack     func() // for QoS 1, once; may block until the connection is lost
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

// dialUplink connects to the upstream. ctx bounds dialling only. onMessage is
// called by paho's reader for each message, in order; onLost when the
// connection is lost, not for close; both from goroutines of paho. moved: see
// newGuard.
func dialUplink(ctx context.Context, o *Options, onMessage func(inMessage), onLost func(error), moved func()) (*uplink, error) {
	user, password := o.Username, o.Password
	if o.Credentials != nil {
		var err error
		if user, password, err = o.Credentials(ctx); err != nil {
			return nil, fmt.Errorf("credentials: %w", err)
		}
	}
	conn, raw, err := openUpstream(ctx, o)
	if err != nil {
		return nil, err
	}
	u := &uplink{guard: newGuard(conn, raw, o.MaxPacketBytes, o.progressTimeout(), moved)}
	po := u.pahoOptions(o, onMessage, onLost)
	po.SetUsername(user).SetPassword(password)
	u.client = paho.NewClient(po)
	mustBeHonest(u.client)

	token := u.client.Connect()
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
		return nil, fmt.Errorf("connect: %w", err)
	}
	return u, nil
}

func (u *uplink) pahoOptions(o *Options, onMessage func(inMessage), onLost func(error)) *paho.ClientOptions {
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
		onMessage(inMessage{topic: m.Topic(), payload: m.Payload(), qos: m.Qos(), retain: m.Retained(), ack: m.Ack})
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

// publish hands a message to paho, in the order of the calls. It does not wait
// for the network. The payload must stay as it is until the receipt is done.
func (u *uplink) publish(topic string, qos uint8, retain bool, payload []byte) receipt {
	return u.client.Publish(topic, qos, retain, payload)
}

// open tells whether paho takes the connection for open. QoS 0 messages are not
// given to it otherwise: it would report them as sent.
func (u *uplink) open() bool { return u.client.IsConnectionOpen() }

// subscribe returns the QoS that the upstream granted, 0x80 for a refusal.
func (u *uplink) subscribe(ctx context.Context, filter string, qos uint8, lost <-chan struct{}) (uint8, error) {
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

// disconnect says DISCONNECT and waits for the upstream to hang up, both if
// that is possible soon.
func (u *uplink) disconnect() {
	u.client.Disconnect(uint(quiesce / time.Millisecond))
	timer := time.NewTimer(quiesce)
	defer timer.Stop()
	select {
	case <-u.guard.dead:
	case <-timer.C:
	}
}

// close ends the connection and waits for our part of it.
func (u *uplink) close() {
	u.kill(errUplinkClosed)
	u.client.Disconnect(0) // in case paho has not noticed; returns at once
	<-u.guard.ended
}

// reason is why the connection ended.
func (u *uplink) reason() error { return u.guard.fail(errUplinkClosed) }

// kill ends the connection at once, without waiting for anything.
func (u *uplink) kill(err error) { _ = u.guard.fail(err) }

// openUpstream dials TCP and, for tls://, does the handshake. raw is the socket
// below conn.
func openUpstream(ctx context.Context, o *Options) (conn, raw net.Conn, err error) {
	addr, err := parseAddress(o.Address)
	if err != nil {
		return nil, nil, err
	}
	var tc *tls.Config
	if addr.tls {
		if tc, err = tlsConfig(&o.TLS, addr.host); err != nil {
			return nil, nil, err
		}
	}
	var d net.Dialer
	if raw, err = d.DialContext(ctx, "tcp", addr.String()); err != nil {
		return nil, nil, err
	}
	if t, ok := raw.(*net.TCPConn); ok {
		// What the kernel has buffered looks sent. Little of it keeps the
		// progress timeout honest on slow links.
		_ = t.SetWriteBuffer(sendBufferBytes)
	}
	if tc == nil {
		return raw, raw, nil
	}
	t := tls.Client(raw, tc)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, nil, fmt.Errorf("TLS: %w", err)
	}
	return t, raw, nil
}

// tlsConfig reads the files anew, so that renewed ones are used from the next
// dial on.
func tlsConfig(t *TLS, host string) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		NextProtos:         t.ALPN,
		InsecureSkipVerify: t.InsecureSkipVerify,
	}
	if c.ServerName == "" {
		c.ServerName = host
	}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s: no certificate in it", t.CAFile)
		}
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}
