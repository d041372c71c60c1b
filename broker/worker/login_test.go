package worker

import (
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/broker/wire"
)

var tokenSecret = []byte("a secret of a test, long enough for HS256")

// rules are those of three users: ann and bob with passwords, and whoever has a
// token.
func rules(t *testing.T, acl string) *auth.Rules {
	t.Helper()
	s := auth.Sources{
		Passwords: &auth.File{Name: "passwd", Data: []byte("ann:" + auth.HashPassword([]byte("secret"), 10, []byte("saltsaltsalt")) +
			"\nbob:" + auth.HashPassword([]byte("hidden"), 10, []byte("saltsaltsalt")) + "\n")},
		JWT: &auth.JWTOptions{Secrets: []auth.File{{Name: "secret", Data: tokenSecret}}},
	}
	if acl != "" {
		s.ACL = &auth.File{Name: "acl", Data: []byte(acl)}
	}
	r, err := auth.New(&s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func password(user, secret string) func(*mqtt.Connect) {
	return func(c *mqtt.Connect) {
		c.HasUsername, c.Username = true, []byte(user)
		c.HasPassword, c.Password = true, []byte(secret)
	}
}

// login connects with a password, over however many workers there are.
func (r *rig) login(id, user, secret string, v mqtt.Version, want string) *device {
	r.t.Helper()
	d := r.dial(0, v)
	d.sendConnect(id, password(user, secret))
	r.run()
	r.work()
	if got := d.read(); len(got) != 1 || got[0] != want {
		r.t.Fatalf("%s as %s with %q: %v, want %s", id, user, secret, got, want)
	}
	return d
}

func TestLogin(t *testing.T) {
	for _, workers := range []int{1, 3} {
		r := newRig(t, workers, nil)
		r.g.SetRules(rules(t, ""))
		for _, id := range []string{"a", "b", "c", "d"} {
			r.login(id, "ann", "secret", mqtt.V311, "CONNACK 0")
			r.login(id, "ann", "secret", mqtt.V5, "CONNACK 0")
			for _, bad := range [][2]string{{"ann", "hidden"}, {"ann", ""}, {"eve", "secret"}, {"", "secret"}} {
				if d := r.login(id, bad[0], bad[1], mqtt.V311, "CONNACK 4"); !d.closed {
					t.Errorf("%v: the connection is open", bad)
				}
				if d := r.login(id, bad[0], bad[1], mqtt.V5, "CONNACK 134"); !d.closed {
					t.Errorf("%v: the connection is open", bad)
				}
				r.g.guard = auth.NewGuard(auth.DefaultGuardOptions()) // it is not what is tested here
			}
		}
		d := r.dial(0, mqtt.V311)
		d.sendConnect("x", nil)
		if d.expect("CONNACK 5"); !d.closed {
			t.Error("a client without credentials is connected")
		}
	}
}

// While a login is judged the client is not read, and what it sent already
// waits; then all of it is done in order.
func TestLoginHoldsWhatFollows(t *testing.T) {
	for _, id := range []string{"a", "b", "c", "d"} {
		r := newRig(t, 3, nil)
		r.g.SetRules(rules(t, ""))
		d := r.dial(0, mqtt.V5)
		d.sendConnect(id, password("ann", "secret"))
		d.send([]byte{byte(mqtt.PINGREQ) << 4, 0}, []byte{byte(mqtt.PINGREQ) << 4}) // one, and half of one
		r.run()
		d.send([]byte{0})
		r.run()
		if len(d.in) != 1 || len(d.out) != 0 {
			t.Fatalf("%d bytes unread, %d written while the login is judged", len(d.in), len(d.out))
		}
		r.work()
		d.expect("CONNACK 0", "PINGRESP", "PINGRESP")
	}
}

// A client that leaves while its login is judged leaves nothing.
func TestLeaveDuringLogin(t *testing.T) {
	r := newRig(t, 2, nil)
	r.g.SetRules(rules(t, ""))
	for i := range 1000 {
		d := r.dial(i%2, mqtt.V5)
		d.sendConnect("a", password("ann", "secret"))
		r.run()
		d.end = io.EOF
		if i%3 == 0 {
			d.send([]byte("rest"))
		}
		if i%2 == 0 {
			r.run() // it has gone when the answer comes
		}
		r.work()
		if !d.closed {
			t.Fatalf("round %d: the connection is open", i)
		}
	}
	if n := r.g.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	for _, w := range r.ws {
		if len(w.byID) != 0 || w.conns.used != 0 {
			t.Errorf("%d sessions, %d connections are left", len(w.byID), w.conns.used)
		}
	}
}

func TestLoginTooManyAtOnce(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.Offload = func(func()) error { return errors.New("busy") } })
	r.g.SetRules(rules(t, ""))
	r.login("a", "ann", "secret", mqtt.V5, "CONNACK 137")
	r.login("a", "ann", "secret", mqtt.V311, "CONNACK 3")
}

// A session is its user's.
func TestSessionOfAnotherUser(t *testing.T) {
	r := newRig(t, 1, nil)
	r.g.SetRules(rules(t, ""))
	keep := func(c *mqtt.Connect) { password("ann", "secret")(c); durableSession(c) }
	d := r.dial(0, mqtt.V5)
	d.sendConnect("a", keep)
	r.run()
	r.work()
	d.expect("CONNACK 0")
	r.login("a", "bob", "hidden", mqtt.V5, "CONNACK 133")
	if d.closed {
		t.Fatal("another user ended the session's connection")
	}
	d.end = io.EOF
	r.run()
	r.login("a", "bob", "hidden", mqtt.V311, "CONNACK 2")
	d = r.dial(0, mqtt.V5)
	d.sendConnect("a", keep)
	r.run()
	r.work()
	d.expect("CONNACK 0 present")
}

const testACL = `
user ann
topic read open/#
topic write open/#
topic deny open/secret/#
user bob
topic readwrite #
`

func TestACL(t *testing.T) {
	for _, workers := range []int{1, 3} {
		r := newRig(t, workers, nil)
		r.g.SetRules(rules(t, testACL))
		bob := r.login("b", "bob", "hidden", mqtt.V5, "CONNACK 0")
		ann := r.login("a", "ann", "secret", mqtt.V5, "CONNACK 0")
		old := r.login("o", "ann", "secret", mqtt.V311, "CONNACK 0")
		bob.send(mqtt.AppendPublish(nil, &mqtt.Publish{Topic: []byte("open/secret/r"), Payload: []byte("r"), Retain: true}, mqtt.V5))
		bob.send(mqtt.AppendPublish(nil, &mqtt.Publish{Topic: []byte("open/r"), Payload: []byte("r"), Retain: true}, mqtt.V5))
		r.run()
		// A filter that reaches farther than the rules: granted, and only what may
		// be read comes, retained or not.
		ann.send(mqtt.AppendSubscribe(nil, &mqtt.Subscribe{PacketID: 1, Filters: []mqtt.SubscribeFilter{{Filter: []byte("open/#"), QoS: 1}}}, mqtt.V5))
		ann.expect("SUBACK 1", "open/r=r qos0 retain")
		bob.send(bob.publication("open/secret/x", "no", 1, 1), bob.publication("open/x", "yes", 1, 2))
		bob.expect("PUBACK 1 0x10", "PUBACK 2")
		ann.expect("open/x=yes qos1 id1")
		// Publishing.
		ann.send(ann.publication("shut/x", "no", 1, 1), ann.publication("shut/x", "no", 0, 0), ann.publication("open/x", "yes", 0, 0))
		ann.expect("PUBACK 1 0x87", "open/x=yes qos0")
		old.send(old.publication("shut/x", "no", 1, 1))
		old.expect("PUBACK 1")
		// The will is judged when it is left.
		d := r.dial(0, mqtt.V5)
		d.sendConnect("w", func(c *mqtt.Connect) {
			password("ann", "secret")(c)
			c.HasWill, c.Will = true, mqtt.Will{Topic: []byte("shut/x"), Payload: []byte("w")}
		})
		r.run()
		r.work()
		d.expect("CONNACK 135")
		// New rules hold for who is connected.
		r.g.Reload(rules(t, "user ann\ntopic read open/secret/#\nuser bob\ntopic readwrite #\n"))
		r.run()
		bob.send(bob.publication("open/secret/x", "now", 1, 3), bob.publication("open/x", "no more", 1, 4))
		bob.expect("PUBACK 3", "PUBACK 4 0x10")
		ann.expect("open/secret/x=now qos1 id2")
		ann.send(ann.publication("open/x", "no", 1, 5))
		ann.expect("PUBACK 5 0x87")
	}
}

func TestTokenExpiryEndsTheConnection(t *testing.T) {
	r := newRig(t, 2, nil)
	r.g.SetRules(rules(t, ""))
	token := func(d time.Duration) string {
		s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "tom", "exp": r.opt.Wall().Add(d).Unix()}).SignedString(tokenSecret)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, id := range []string{"a", "b", "c"} {
		d := r.login(id, "tom", token(time.Minute), mqtt.V5, "CONNACK 0")
		r.wait(55 * time.Second)
		if d.closed {
			t.Fatal("closed before the token expired")
		}
		r.wait(10 * time.Second)
		if d.expect("DISCONNECT 0x87"); !d.closed {
			t.Fatal("the token has expired, the connection has not")
		}
	}
	for _, w := range r.ws {
		if len(w.expiries) != 0 {
			t.Errorf("%d expiries are left", len(w.expiries))
		}
	}
}

// Guessing is refused after a while, and who knows the password from elsewhere
// is not.
func TestGuessing(t *testing.T) {
	r := newRig(t, 1, func(o *Options) {
		g := auth.DefaultGuardOptions()
		g.FailuresMax, g.Window, g.RefuseFor = 5, time.Minute, time.Minute
		o.Guard = auth.NewGuard(g)
	})
	r.g.SetRules(rules(t, ""))
	attempt := func(from, secret string) string {
		d := r.dial(0, mqtt.V5)
		d.remote = netip.MustParseAddrPort(from)
		d.sendConnect("a", password("ann", secret))
		for range 100 {
			r.run()
			r.work()
			if got := d.read(); len(got) > 0 {
				return got[0]
			}
			r.wait(time.Second)
		}
		t.Fatal("no answer")
		return ""
	}
	refused := false
	for range 20 {
		refused = refused || attempt("192.0.2.1:1000", "wrong") == "CONNACK 159"
	}
	if !refused {
		t.Error("20 wrong passwords, and none was refused without trying")
	}
	if got := attempt("192.0.2.2:1000", "secret"); got != "CONNACK 0" {
		t.Errorf("the right password from another address: %s", got)
	}
	if s := r.ws[0].Counters(); s.LoginsFailed == 0 || s.LoginsRefused == 0 {
		t.Errorf("failed %d, refused %d", s.LoginsFailed, s.LoginsRefused)
	}
}

func TestConnectionsPerAddress(t *testing.T) {
	r := newRig(t, 2, func(o *Options) { o.ConnectionsPerAddressMax = 3 })
	from := func(a string, worker int) *device {
		d := r.dial(worker, mqtt.V311)
		d.remote = netip.MustParseAddrPort(a)
		d.sendConnect(a, nil)
		r.run()
		return d
	}
	var first *device
	for i := range 3 {
		d := from("192.0.2.1:"+string(rune('1'+i)), i%2)
		if d.expect("CONNACK 0"); first == nil {
			first = d
		}
	}
	if d := from("192.0.2.1:9", 1); !d.closed {
		t.Error("a fourth connection was taken")
	}
	from("192.0.2.2:1", 0).expect("CONNACK 0")
	for i := range 3 { // one /64, one customer
		from("[2001:db8::"+string(rune('1'+i))+"]:1", 0).expect("CONNACK 0")
	}
	if d := from("[2001:db8::9]:1", 1); !d.closed {
		t.Error("a fourth connection of a /64 was taken")
	}
	first.end = io.EOF
	r.run()
	from("192.0.2.1:8", 0).expect("CONNACK 0")
	if n := len(r.g.door.visitors); n != 3 {
		t.Errorf("%d addresses in the book, want 3", n)
	}
}

func TestConnectRate(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.ConnectsPerSecondMax = 10 })
	var all []*device
	for range 100 {
		d := r.dial(0, mqtt.V311)
		d.sendConnect("", func(c *mqtt.Connect) {})
		all = append(all, d)
	}
	r.run()
	connected := func() (n int) {
		for _, d := range all {
			if len(d.out) > 0 {
				n++
			}
		}
		return n
	}
	if n := connected(); n < 10 || n > 12 {
		t.Errorf("%d connected at once, at 10 a second", n)
	}
	r.wait(5 * time.Second)
	if n := connected(); n < 50 || n > 65 {
		t.Errorf("%d connected after 5 s, at 10 a second", n)
	}
	r.wait(10 * time.Second)
	if n := connected(); n != 100 {
		t.Errorf("%d connected in the end, want all", n)
	}
}

// A client that sends more than it may is read more slowly, and loses nothing.
func TestMessageRate(t *testing.T) {
	r := newRig(t, 2, func(o *Options) { o.MessagesPerSecondMax = 10 })
	sub := r.connect("sub", mqtt.V5, nil)
	sub.subscribe("#:1")
	d := r.connect("pub", mqtt.V5, nil)
	for i := range 100 {
		d.send(d.publication("t", string(make([]byte, 4000)), 1, uint16(i+1))) // 16 in one read
	}
	r.run()
	got := len(sub.read())
	if got == 0 || got > 40 {
		t.Errorf("%d messages came at once, at 10 a second", got)
	}
	acks := len(d.read())
	r.wait(3 * time.Second)
	for range 100 {
		for i := range got {
			sub.ack(mqtt.PUBACK, uint16(i+1))
		}
		r.wait(time.Second)
		if acks += len(d.read()); acks == 100 {
			break
		}
	}
	if acks != 100 {
		t.Errorf("%d acknowledgements, want 100", acks)
	}
	if r.ws[0].stats.Throttled+r.ws[1].stats.Throttled == 0 {
		t.Error("nothing was throttled")
	}
}

// doubler is a layer under which each byte is two, the second its complement; so
// the halves of a byte may come apart.
type doubler struct {
	half    []byte
	pending []byte
	broken  bool
}

func (d *doubler) In(dst, src []byte) ([]byte, error) {
	if d.broken {
		return dst, errors.New("not what the layer wants")
	}
	src = append(d.half, src...)
	for ; len(src) >= 2; src = src[2:] {
		if src[0] != ^src[1] {
			d.broken = true
			return dst, errors.New("not what the layer wants")
		}
		dst = append(dst, src[0])
	}
	d.half = append([]byte(nil), src...)
	return dst, nil
}

func (d *doubler) Out(dst, src []byte) ([]byte, error) {
	dst = append(dst, d.pending...)
	d.pending = nil
	return append(dst, double(src)...), nil
}

func (d *doubler) Pending() bool { return len(d.pending) > 0 }

func (d *doubler) Close(dst []byte) []byte {
	if d.broken {
		return append(dst, "broken"...)
	}
	return append(dst, "bye"...)
}

func double(src []byte) (dst []byte) {
	for _, b := range src {
		dst = append(dst, b, ^b)
	}
	return dst
}

func single(t *testing.T, src []byte) (dst []byte) {
	t.Helper()
	d := doubler{}
	dst, err := d.In(nil, src)
	if err != nil || len(d.half) > 0 {
		t.Fatalf("%v, %d bytes left of %d", err, len(d.half), len(src))
	}
	return dst
}

// A layer sees each byte once and in order, whatever the socket takes at a time.
func TestLayer(t *testing.T) {
	for _, workers := range []int{1, 3} {
		for _, room := range []int{-1, 1, 7, 1000} {
			r := newRig(t, workers, nil)
			for _, w := range r.ws {
				w.listeners[0].Layer = func(wire.Layer) wire.Layer { return &doubler{pending: []byte("hi")} }
			}
			d := r.dial(0, mqtt.V311)
			d.room = room
			id := "layered"
			c := mqtt.Connect{Version: mqtt.V311, ClientID: []byte(id), Clean: true}
			s := mqtt.Subscribe{PacketID: 1, Filters: []mqtt.SubscribeFilter{{Filter: []byte("t"), QoS: 1}}}
			all := double(mqtt.AppendSubscribe(mqtt.AppendConnect(nil, &c), &s, mqtt.V311))
			for i := 1; i <= 50; i++ {
				all = append(all, double(d.publication("t", string(make([]byte, 10*i)), 1, uint16(i)))...)
			}
			for i := 0; i < len(all); i += 333 {
				d.send(all[i:min(i+333, len(all))])
				r.run()
				d.room = max(room, d.room)
			}
			for range 100_000 {
				if d.room == 0 {
					d.room = room
				}
				if !r.round() && d.room != 0 {
					break
				}
			}
			if len(d.out) < 2 || string(d.out[:2]) != "hi" {
				t.Fatalf("%d workers, room %d: %d bytes, not what the layer says first", workers, room, len(d.out))
			}
			d.out = single(t, d.out[2:])
			acks, messages := 0, 0
			for _, p := range d.read() {
				switch p[:6] {
				case "PUBACK":
					acks++
				case "t=\x00\x00\x00\x00":
					messages++
				}
			}
			if acks != 50 || messages != 50 {
				t.Errorf("%d workers, room %d: %d acknowledgements, %d messages, want 50", workers, room, acks, messages)
			}
			d.room = -1
			d.send([]byte("xy"))
			r.run()
			if !d.closed || string(d.out) != "broken" {
				t.Errorf("closed: %v, %q at the end", d.closed, d.out)
			}
		}
	}
}

// The stages before MQTT: PROXY header, handshake elsewhere, layer.
func TestStages(t *testing.T) {
	for _, id := range []string{"a", "b", "c"} {
		r := newRig(t, 3, nil)
		type shake struct {
			hello string
			done  func(wire.Layer, string, error)
		}
		var shakes []shake
		for _, w := range r.ws {
			l := w.listeners[0]
			l.Proxy = true
			l.Handshake = func(_ int, hello []byte, left time.Duration, done func(wire.Layer, string, error)) error {
				if left <= 0 || left > r.opt.ConnectTimeout {
					t.Errorf("%v are left", left)
				}
				shakes = append(shakes, shake{string(hello), done})
				return nil
			}
		}
		d := r.dial(0, mqtt.V311)
		header := "PROXY TCP4 192.0.2.7 192.0.2.8 1234 1883\r\n"
		for i := range header {
			d.send([]byte{header[i]})
			r.run()
		}
		if len(shakes) != 0 {
			t.Fatal("a handshake without a hello")
		}
		d.send([]byte("hello"))
		r.run()
		if len(shakes) != 1 || shakes[0].hello != "hello" || len(r.nets[0].watched) != 0 {
			t.Fatalf("handshakes %v, watched %d", shakes, len(r.nets[0].watched))
		}
		d.send(double(mqtt.AppendConnect(nil, &mqtt.Connect{Version: mqtt.V311, ClientID: []byte(id), Clean: true})))
		r.run()
		if len(d.out) != 0 {
			t.Fatal("an answer before the handshake is done")
		}
		shakes[0].done(&doubler{}, "", nil)
		r.run()
		d.out = single(t, d.out)
		d.expect("CONNACK 0")
		if got := r.ws[0].g.owner([]byte(id)).byID[id].conn.remote.String(); got != "192.0.2.7:1234" {
			t.Errorf("the client's address is %s", got)
		}

		// One that dies during its handshake, and one whose handshake fails.
		dead, bad := r.dial(1, mqtt.V311), r.dial(1, mqtt.V311)
		dead.send([]byte(header + "x"))
		bad.send([]byte(header + "y"))
		r.run()
		r.wait(r.opt.ConnectTimeout + time.Second)
		if !dead.closed || !bad.closed {
			t.Fatal("a handshake may take for ever")
		}
		shakes[1].done(&doubler{}, "", nil)
		shakes[2].done(nil, "", errors.New("bad"))
		r.run()
		if n := r.g.Connections(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
		// Not a PROXY header at all.
		e := r.dial(1, mqtt.V311)
		e.send([]byte("GET / HTTP/1.1\r\n"))
		if r.run(); !e.closed {
			t.Error("a connection without the header is open")
		}
	}
}

// However much a stranger sends, little of it is kept while others think about him.
func TestStrangersAreReadLittle(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.ConnectBytesMax = 6000 })
	r.g.SetRules(rules(t, ""))
	d := r.dial(0, mqtt.V5)
	d.sendConnect("a", password("ann", "secret"))
	d.send(make([]byte, 60_000))
	r.run()
	if l := r.ws[0].conns.slots[0].v.extra.login; len(l.packet)+len(l.rest) > 6000 {
		t.Errorf("%d bytes are kept of a login", len(l.packet)+len(l.rest))
	}
	hello := 0
	r.ws[0].listeners[0].Handshake = func(_ int, b []byte, _ time.Duration, _ func(wire.Layer, string, error)) error {
		hello = len(b)
		return nil
	}
	e := r.dial(0, mqtt.V5)
	e.send(make([]byte, 60_000))
	r.run()
	if hello == 0 || hello > 6000 {
		t.Errorf("%d bytes are kept of a handshake", hello)
	}
}
