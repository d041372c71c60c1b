package worker

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sluice/broker/mqtt"
	"sluice/broker/session"
	"sluice/persist"
	"sluice/persist/mem"
	"sluice/platform"
	"sluice/platform/mono"
)

// DESIGN. A rig is workers with a network, a clock and a store that do only
// what the test says, all on the test's goroutine. After every turn the worker
// is checked, and its read buffer is overwritten: nothing may live in it.

// rig is a group of workers in a test.
type rig struct {
	t     testing.TB
	opt   Options
	g     *Group
	ws    []*Worker
	nets  []*fakeNet
	store *mem.Store
	now   mono.Time
	socks []*sock // by descriptor; none is used twice
	lazy  bool    // the store commits and answers only when told to
	raw   bool    // without checks: for measuring
	open  atomic.Int64
}

// listenFD is the descriptor of the one listening socket.
const listenFD = 0

func newRig(t testing.TB, workers int, set func(*Options)) *rig {
	r := &rig{t: t, now: mono.Time(time.Second), socks: []*sock{nil}}
	r.opt = Options{
		Limits: session.DefaultLimits(), ConnectionsMax: 10_000, ConnectTimeout: 10 * time.Second,
		ConnectBytesMax: 8192, OutputBytesMax: 64 << 10, Logger: zap.NewNop(), Now: r.now,
		Random: func() uint64 { return uint64(len(r.socks)) * 0x9E3779B97F4A7C15 },
	}
	if set != nil {
		set(&r.opt)
	}
	r.start(workers)
	r.store = mem.New(mem.Options{Events: r, Manual: true, Now: func() int64 { return int64(r.now) }})
	r.g.SetStore(r.store)
	return r
}

// start makes the workers.
func (r *rig) start(workers int) {
	var nets []Net
	r.nets = nil
	for range workers {
		n := &fakeNet{r: r}
		nets, r.nets = append(nets, n), append(r.nets, n)
	}
	r.opt.Now = r.now
	r.g = NewGroup(r.opt, nets)
	r.ws = r.g.Workers()
	for _, w := range r.ws {
		if err := w.Listen(Listener{FD: listenFD, Address: "test", Open: &r.open}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// restart makes new workers over what the store has committed, as after a
// power cut.
func (r *rig) restart() {
	r.t.Helper()
	r.start(len(r.ws))
	r.store = r.store.Crash()
	r.g.SetStore(r.store)
	im, err := r.store.Load()
	if err != nil {
		r.t.Fatal(err)
	}
	r.g.Restore(im)
}

// Settled and Fetched make the rig the store's persist.Events: its answers go
// to the workers there are.
func (r *rig) Settled(owner int, tokens []persist.Token, err error) { r.g.Settled(owner, tokens, err) }
func (r *rig) Fetched(owner int, f persist.Fetched)                 { r.g.Fetched(owner, f) }

var garbage = bytes.Repeat([]byte{0xDD}, readBytes)

// turn does one turn of a worker.
func (r *rig) turn(w *Worker, events []platform.Event) {
	w.Turn(r.now, events)
	if r.raw {
		return
	}
	copy(w.buf, garbage)
	copy(w.props[:cap(w.props)], garbage)
	w.Check()
}

// run plays until nothing happens any more.
func (r *rig) run() {
	r.t.Helper()
	for range 100_000 {
		if !r.round() {
			return
		}
	}
	r.t.Fatal("the workers do not come to rest")
}

// round gives every worker that has something to do a turn.
func (r *rig) round() (busy bool) {
	for i, w := range r.ws {
		events := r.nets[i].events()
		if idle, _ := w.Idle(); idle && len(events) == 0 {
			continue
		}
		busy = true
		r.turn(w, events)
	}
	if r.lazy {
		return busy
	}
	for r.store.StepFetch() {
		busy = true
	}
	return r.store.Step() || busy
}

// wait lets time pass: workers wake up when they have asked to.
func (r *rig) wait(d time.Duration) {
	r.t.Helper()
	for until := r.now.Add(d); ; {
		next := until
		for _, w := range r.ws {
			if at := w.timers.next(); at != 0 {
				next = min(next, max(at, r.now))
			}
		}
		r.now = next
		for _, w := range r.ws {
			r.turn(w, nil)
		}
		r.run()
		if next == until {
			return
		}
	}
}

// sum gives the counters of all workers.
func (r *rig) sum() (s Stats) {
	for _, w := range r.ws {
		c := w.Counters()
		s.Add(&c)
	}
	return s
}

// idOn gives a client id that belongs to a worker.
func (r *rig) idOn(worker int, name string) string {
	for i := 0; ; i++ {
		if id := fmt.Sprintf("%s-%d", name, i); r.g.owner([]byte(id)) == r.ws[worker] {
			return id
		}
	}
}

// sock is one end of a connection: the worker's. The test plays the other.
type sock struct {
	fd                 int
	in                 []byte // sent to the worker and not read
	out                []byte // written by the worker
	room               int    // what the worker may still write; below 0: anything
	end                error  // what Read gives when in is empty; nil: EAGAIN
	net                *fakeNet
	tag                platform.Tag
	readable, writable bool // what it is watched for
	closed             bool
	writes             int
}

// fakeNet is the operating system of one worker.
type fakeNet struct {
	r       *rig
	watched []*sock
	listens bool
	backlog []int // connections to be accepted
	buf     []platform.Event
	wakes   int
}

func (n *fakeNet) sock(fd int) *sock {
	s := n.r.socks[fd]
	if s.closed {
		panic(fmt.Sprintf("BUG: descriptor %d is used after it was closed", fd))
	}
	return s
}

func (n *fakeNet) Add(fd int, tag platform.Tag, writable bool) error {
	s := n.sock(fd)
	if s.net != nil {
		panic(fmt.Sprintf("BUG: descriptor %d is watched twice", fd))
	}
	s.net, s.tag, s.readable, s.writable = n, tag, true, writable
	n.watched = append(n.watched, s)
	return nil
}

func (n *fakeNet) AddListener(int, platform.Tag) error {
	n.listens = true
	return nil
}

func (n *fakeNet) Modify(fd int, tag platform.Tag, readable, writable bool) error {
	s := n.sock(fd)
	if s.net != n || s.tag != tag {
		panic(fmt.Sprintf("BUG: descriptor %d has tag %#x, not %#x", fd, s.tag, tag))
	}
	s.readable, s.writable = readable, writable
	return nil
}

func (n *fakeNet) Remove(fd int) error {
	if fd == listenFD {
		n.listens = false
		return nil
	}
	s := n.sock(fd)
	s.net = nil
	n.watched = slices.DeleteFunc(n.watched, func(x *sock) bool { return x == s })
	return nil
}

func (n *fakeNet) Accept(int) (int, netip.AddrPort, error) {
	if len(n.backlog) == 0 {
		return 0, netip.AddrPort{}, unix.EAGAIN
	}
	fd := n.backlog[0]
	n.backlog = n.backlog[1:]
	return fd, netip.AddrPort{}, nil
}

func (n *fakeNet) Read(fd int, b []byte) (int, error) {
	s := n.sock(fd)
	if len(s.in) == 0 {
		if s.end != nil {
			return 0, s.end
		}
		return 0, unix.EAGAIN
	}
	c := copy(b, s.in)
	s.in = s.in[c:]
	return c, nil
}

func (n *fakeNet) Write(fd int, b []byte) (int, error) {
	s := n.sock(fd)
	if s.room == 0 {
		return 0, unix.EAGAIN
	}
	if s.room > 0 {
		b = b[:min(len(b), s.room)]
		s.room -= len(b)
	}
	s.writes++
	s.out = append(s.out, b...)
	return len(b), nil
}

func (n *fakeNet) CloseFD(fd int) error {
	s := n.sock(fd)
	if s.net != nil {
		if err := s.net.Remove(fd); err != nil {
			return err
		}
	}
	s.closed = true
	return nil
}

func (n *fakeNet) Wait([]platform.Event, mono.Time) (int, bool, error) { return 0, false, nil }
func (n *fakeNet) Wake()                                               { n.wakes++ }
func (n *fakeNet) Close() error                                        { return nil }

// events gives what a level-triggered poller would report.
func (n *fakeNet) events() []platform.Event {
	n.buf = n.buf[:0]
	if n.listens && len(n.backlog) > 0 {
		n.buf = append(n.buf, platform.Event{Tag: listenerTag, Readable: true})
	}
	slices.SortFunc(n.watched, func(a, b *sock) int { return cmp.Compare(a.fd, b.fd) })
	for _, s := range n.watched {
		e := platform.Event{Tag: s.tag, Readable: s.readable && (len(s.in) > 0 || s.end != nil), Writable: s.writable && s.room != 0}
		e.Hangup = s.end == io.EOF && s.readable || s.end != nil && s.end != io.EOF
		if e.Readable || e.Writable || e.Hangup {
			n.buf = append(n.buf, e)
		}
	}
	return n.buf
}

// device is a client.
type device struct {
	r *rig
	*sock
	v mqtt.Version
}

// dial opens a connection that a worker accepts.
func (r *rig) dial(worker int, v mqtt.Version) *device {
	s := &sock{fd: len(r.socks), room: -1}
	r.socks = append(r.socks, s)
	r.nets[worker].backlog = append(r.nets[worker].backlog, s.fd)
	return &device{r: r, sock: s, v: v}
}

// connect opens a connection at worker 0 and sends CONNECT.
func (r *rig) connect(id string, v mqtt.Version, set func(*mqtt.Connect)) *device {
	r.t.Helper()
	d := r.dial(0, v)
	d.sendConnect(id, set)
	r.run()
	if got := d.read(); len(got) == 0 || !strings.HasPrefix(got[0], "CONNACK 0") {
		r.t.Fatalf("%s: CONNECT is answered by %v", id, got)
	}
	return d
}

func (d *device) sendConnect(id string, set func(*mqtt.Connect)) {
	c := mqtt.Connect{Version: d.v, ClientID: []byte(id), Clean: true}
	if set != nil {
		set(&c)
	}
	d.send(mqtt.AppendConnect(nil, &c))
}

// durableSession makes a session outlive its connection.
func durableSession(c *mqtt.Connect) {
	c.Clean = false
	expiry(c, 3600)
}

func expiry(c *mqtt.Connect, seconds uint32) {
	c.Props.HasSessionExpiry, c.Props.SessionExpirySeconds = true, seconds
}

func (d *device) send(packets ...[]byte) {
	for _, p := range packets {
		d.in = append(d.in, p...)
	}
}

func (d *device) subscribe(filters ...string) {
	d.r.t.Helper()
	p := mqtt.Subscribe{PacketID: 9}
	for _, f := range filters {
		name, qos, _ := strings.Cut(f, ":")
		p.Filters = append(p.Filters, mqtt.SubscribeFilter{Filter: []byte(name), QoS: mqtt.QoS(qos[0] - '0')})
	}
	d.send(mqtt.AppendSubscribe(nil, &p, d.v))
	d.r.run()
	if got := d.read(); len(got) == 0 || got[0] != "SUBACK 9" {
		d.r.t.Fatalf("SUBSCRIBE is answered by %v", got)
	}
}

func (d *device) publication(topic, payload string, qos mqtt.QoS, id uint16) []byte {
	return mqtt.AppendPublish(nil, &mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, PacketID: id}, d.v)
}

func (d *device) ack(t mqtt.Type, id uint16) {
	d.send(mqtt.AppendPuback(nil, t, id, mqtt.Success, d.v))
}

// read gives the packets that the worker has written, in words.
func (d *device) read() (packets []string) {
	d.r.t.Helper()
	for {
		h, n, err := mqtt.ParseHeader(d.out, 0)
		if err != nil {
			d.r.t.Fatalf("not a packet: % x", d.out[:min(len(d.out), 40)])
		}
		if n == 0 || len(d.out) < n+h.Remaining {
			return packets
		}
		body := d.out[n : n+h.Remaining]
		d.out = d.out[n+h.Remaining:]
		packets = append(packets, d.words(h, body))
	}
}

func (d *device) words(h mqtt.Header, body []byte) string {
	d.r.t.Helper()
	fail := func(err error) {
		if err != nil {
			d.r.t.Fatalf("%s: %v", h.Type, err)
		}
	}
	switch h.Type {
	case mqtt.CONNACK:
		var p mqtt.Connack
		fail(mqtt.DecodeConnack(&p, body, d.v))
		s := fmt.Sprintf("CONNACK %d", p.Code)
		if p.SessionPresent {
			s += " present"
		}
		if p.Props.AssignedClientID != nil {
			s += " " + string(p.Props.AssignedClientID)
		}
		return s
	case mqtt.PUBLISH:
		var p mqtt.Publish
		fail(mqtt.DecodePublish(&p, h.Flags, body, d.v))
		s := fmt.Sprintf("%s=%s qos%d", p.Topic, p.Payload, p.QoS)
		if p.QoS > 0 {
			s += fmt.Sprintf(" id%d", p.PacketID)
		}
		if p.Dup {
			s += " dup"
		}
		if p.Retain {
			s += " retain"
		}
		if len(p.SubIDs) > 0 {
			s += fmt.Sprint(" ", p.SubIDs)
		}
		return s
	case mqtt.DISCONNECT:
		var p mqtt.Disconnect
		fail(mqtt.DecodeDisconnect(&p, body, d.v))
		return fmt.Sprintf("DISCONNECT %#x", uint8(p.Reason))
	case mqtt.PINGRESP:
		return "PINGRESP"
	}
	s := fmt.Sprintf("%s %d", h.Type, uint16(body[0])<<8|uint16(body[1]))
	if d.v == mqtt.V5 && len(body) > 2 && h.Type != mqtt.SUBACK && h.Type != mqtt.UNSUBACK {
		s += fmt.Sprintf(" %#x", body[2])
	}
	return s
}

// expect runs the workers and compares what the client gets.
func (d *device) expect(want ...string) {
	d.r.t.Helper()
	d.r.run()
	d.got(want...)
}

// got compares what the client has got so far.
func (d *device) got(want ...string) {
	d.r.t.Helper()
	if got := d.read(); !slices.Equal(got, want) {
		d.r.t.Errorf("got  %q\nwant %q", got, want)
	}
}

// lose ends the connection from the client's side without DISCONNECT.
func (d *device) lose() {
	d.end = io.EOF
	d.r.run()
}
