package rig

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/broker/mqtt"
)

// DESIGN. A Client is the half of a session that the client keeps. It outlives
// its connections: what was sent and not acknowledged is in flights and is sent
// again, in order, by the next Connect; the packet ids of QoS 2 messages that
// came in and are not released are in received. So a Client that reconnects
// after a crash of the broker can tell what the broker promised.
//
// Each connection has two goroutines. The reader takes packets and calls
// OnMessage and OnAcked. The writer writes what is in out, whole: whoever sends
// appends to out and never waits for the network, but Publish waits for room
// in the window and, at QoS 0, for out to become short.

// ClientOptions says what a Client is.
type ClientOptions struct {
	ID      string
	Version mqtt.Version // 0: 3.1.1
	// Clean asks for a new session. In MQTT 5 ExpirySeconds says how long the
	// session outlives the connection; before, it does so if it is not clean.
	Clean         bool
	ExpirySeconds uint32
	Window        int // QoS 1 and 2 messages under way; 0: 100
	// Connect, if not nil, may change the CONNECT before it is sent.
	Connect func(p *mqtt.Connect)
	// OnMessage gets each message, QoS 2 exactly once. p is valid during the
	// call, which is on the reader's goroutine: it must not wait for the client.
	OnMessage func(p *mqtt.Publish)
	// OnAcked gets the tag of each QoS 1 or 2 message that the broker has taken:
	// PUBACK or PUBCOMP with success came.
	OnAcked func(tag uint64)
	// Dial, if not nil, opens connections in place of plain TCP or a unix socket.
	Dial func(address string) (net.Conn, error)
	// Silent leaves incoming messages unacknowledged.
	Silent bool
}

// Client is an MQTT client. Its methods may be called from any goroutine,
// Connect only while it is not connected.
type Client struct {
	opt ClientOptions

	mu       sync.Mutex
	room     *sync.Cond // window or out have room, the connection has gone, flights is empty
	conn     net.Conn   // nil: not connected
	wake     chan struct{}
	lost     chan struct{} // closed when the connection has gone
	why      error
	out      []byte
	window   int
	nextID   uint16
	order    uint64
	flights  map[uint16]*flight
	received map[uint16]bool
	answers  map[uint16]chan []byte // of SUBSCRIBE and UNSUBSCRIBE, by packet id
	refused  int
	connack  mqtt.Connack
	tasks    sync.WaitGroup
}

// flight is a message sent and not acknowledged.
type flight struct {
	order    uint64
	tag      uint64
	packet   []byte
	qos      mqtt.QoS
	released bool // PUBREC has come: what is to be sent again is PUBREL
}

// outMax is how many bytes may wait for the writer before Publish waits.
const outMax = 256 << 10

// connectMax is how long a connection may take up to CONNACK.
const connectMax = 30 * time.Second

// NewClient makes a client that is not connected.
func NewClient(opt ClientOptions) *Client {
	if opt.Version == 0 {
		opt.Version = mqtt.V311
	}
	if opt.Window == 0 {
		opt.Window = 100
	}
	c := &Client{opt: opt, flights: map[uint16]*flight{}, received: map[uint16]bool{}, answers: map[uint16]chan []byte{}}
	c.room = sync.NewCond(&c.mu)
	return c
}

// Connect connects to an address (host:port, or unix:/path) and sends again
// what is under way. It tells whether the broker has the session still.
func (c *Client) Connect(address string) (present bool, err error) {
	conn, err := c.dial(address)
	if err != nil {
		return false, err
	}
	rest, err := c.handshake(conn)
	if err != nil {
		_ = conn.Close() // the error that matters is known
		return false, err
	}
	c.tasks.Wait() // of the connection before
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.why = conn, nil
	if v := c.opt.Version; !c.connack.SessionPresent && (v != mqtt.V31 || c.opt.Clean) { // 3.1 does not tell
		c.forget()
	}
	c.wake, c.lost = make(chan struct{}, 1), make(chan struct{})
	c.out = c.resend(c.out[:0])
	c.window = c.opt.Window
	if n := int(c.connack.Props.ReceiveMax); n > 0 {
		c.window = min(c.window, n)
	}
	c.nudge()
	wake, lost := c.wake, c.lost
	c.tasks.Go(func() { c.write(conn, wake, lost) })
	c.tasks.Go(func() { c.drop(conn, c.read(conn, rest)) })
	return c.connack.SessionPresent, nil
}

func (c *Client) dial(address string) (net.Conn, error) {
	if c.opt.Dial != nil {
		return c.opt.Dial(address)
	}
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	return net.DialTimeout(network, address, connectMax)
}

// handshake sends CONNECT and waits for CONNACK. It returns what came after it.
func (c *Client) handshake(conn net.Conn) (rest []byte, err error) {
	p := mqtt.Connect{Version: c.opt.Version, ClientID: []byte(c.opt.ID), Clean: c.opt.Clean}
	if c.opt.ExpirySeconds > 0 {
		p.Props.HasSessionExpiry, p.Props.SessionExpirySeconds = true, c.opt.ExpirySeconds
	}
	if c.opt.Connect != nil {
		c.opt.Connect(&p)
	}
	if err := conn.SetDeadline(time.Now().Add(connectMax)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(mqtt.AppendConnect(nil, &p)); err != nil {
		return nil, err
	}
	buf := make([]byte, 0, 4096)
	for {
		h, n, err := mqtt.ParseHeader(buf, 0)
		if err != nil {
			return nil, err
		}
		if n > 0 && len(buf) >= n+h.Remaining {
			return c.onConnack(h, buf[n:], conn)
		}
		k, err := conn.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return nil, fmt.Errorf("no CONNACK: %w", err)
		}
		buf = buf[:len(buf)+k]
	}
}

func (c *Client) onConnack(h mqtt.Header, body []byte, conn net.Conn) (rest []byte, err error) {
	if h.Type != mqtt.CONNACK {
		return nil, fmt.Errorf("%v instead of CONNACK", h.Type)
	}
	if err := mqtt.DecodeConnack(&c.connack, slices.Clone(body[:h.Remaining]), c.opt.Version); err != nil {
		return nil, err
	}
	if c.connack.Code != 0 {
		return nil, &Refused{c.connack.Code}
	}
	return body[h.Remaining:], conn.SetDeadline(time.Time{})
}

// Refused is a CONNACK that refuses.
type Refused struct{ Code uint8 }

// Error names the code.
func (r *Refused) Error() string { return fmt.Sprintf("CONNACK with code 0x%02x", r.Code) }

// Connack is the last CONNACK.
func (c *Client) Connack() mqtt.Connack {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connack
}

// forget drops what refers to a session that the broker does not have: QoS 2
// exchanges that only need to be ended. Messages are published again.
func (c *Client) forget() {
	clear(c.received)
	for id, f := range c.flights {
		if f.released {
			delete(c.flights, id)
		}
	}
}

// resend appends what is under way, in the order in which it was sent at first
// [MQTT-4.4.0-1], [MQTT-4.6.0-1].
func (c *Client) resend(out []byte) []byte {
	ids := make([]uint16, 0, len(c.flights))
	for id := range c.flights {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b uint16) int { return cmp.Compare(c.flights[a].order, c.flights[b].order) })
	for _, id := range ids {
		f := c.flights[id]
		if f.released {
			out = mqtt.AppendPuback(out, mqtt.PUBREL, id, mqtt.Success, c.opt.Version)
			continue
		}
		const dup = 0x08
		f.packet[0] |= dup
		out = append(out, f.packet...)
	}
	return out
}

var errNotConnected = errors.New("not connected")

// nudge makes the writer look at out. The caller holds mu.
func (c *Client) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write writes out whenever there is something, until the connection has gone.
func (c *Client) write(conn net.Conn, wake, lost chan struct{}) {
	var buf []byte
	for {
		select {
		case <-wake:
		case <-lost:
			return
		}
		c.mu.Lock()
		if c.conn != conn {
			c.mu.Unlock()
			return
		}
		buf, c.out = c.out, buf[:0]
		c.room.Broadcast()
		c.mu.Unlock()
		if len(buf) == 0 {
			continue
		}
		if _, err := conn.Write(buf); err != nil {
			c.drop(conn, err)
			return
		}
	}
}

// drop notes that a connection has gone.
func (c *Client) drop(conn net.Conn, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != conn {
		return
	}
	c.conn, c.why = nil, why
	_ = conn.Close() // it is gone in any case
	close(c.lost)
	for id, answer := range c.answers {
		close(answer)
		delete(c.answers, id)
	}
	c.room.Broadcast()
}

// Lost is closed when the connection has gone; Why tells the reason.
func (c *Client) Lost() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// Why is why the connection has gone; nil while it is there. A *Disconnected says
// that the broker sent a DISCONNECT.
func (c *Client) Why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.why
}

// Disconnected is a DISCONNECT from the broker.
type Disconnected struct{ Reason mqtt.Reason }

// Error names the reason.
func (d *Disconnected) Error() string { return "DISCONNECT: " + d.Reason.String() }

// Kill breaks the connection with RST: what the client had written and the
// broker has not read may be lost.
func (c *Client) Kill() {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.end(conn)
}

// Close ends the connection without a DISCONNECT.
func (c *Client) Close() {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	c.end(conn)
}

// Disconnect ends the connection in order. What waits to be written goes first.
func (c *Client) Disconnect() {
	c.mu.Lock()
	conn := c.conn
	if conn != nil {
		c.out = mqtt.AppendDisconnect(c.out, &mqtt.Disconnect{}, c.opt.Version)
		c.nudge()
		_ = conn.SetReadDeadline(time.Now().Add(connectMax)) // the broker closes
	}
	c.mu.Unlock()
	c.tasks.Wait()
}

func (c *Client) end(conn net.Conn) {
	if conn != nil {
		c.drop(conn, net.ErrClosed)
	}
	c.tasks.Wait()
}
