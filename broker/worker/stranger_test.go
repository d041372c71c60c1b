package worker

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/broker/wire"
	"sluice/platform"
)

func tok(t *testing.T, c jwt.MapClaims) string {
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString(tokenSecret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFarExpiry(t *testing.T) {
	r := newRig(t, 1, nil)
	r.g.SetRules(rules(t, ""))
	d := r.login("a", "tom", tok(t, jwt.MapClaims{"sub": "tom", "exp": int64(253402300799)}), mqtt.V5, "CONNACK 0")
	r.wait(time.Second)
	if d.closed {
		t.Error("kicked:", d.read())
	}
}

func scramRules(t *testing.T, acl string) *auth.Rules {
	s := auth.Sources{Passwords: &auth.File{Name: "passwd", Data: []byte("ann:" + auth.ScramVerifier([]byte("secret"), 4096, []byte("saltsaltsalt")) + "\n")}}
	if acl != "" {
		s.ACL = &auth.File{Name: "acl", Data: []byte(acl)}
	}
	r, err := auth.New(&s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestScramGuard(t *testing.T) {
	r := newRig(t, 1, nil)
	r.g.SetRules(scramRules(t, ""))
	for i := range 200 {
		d := r.dial(0, mqtt.V5)
		d.remote = netip.MustParseAddrPort("192.0.2.1:1000")
		d.sendConnect("a", func(c *mqtt.Connect) {
			c.Props.AuthMethod, c.Props.AuthData = []byte("SCRAM-SHA-256"), []byte("n,,n=ann,r=abcdef")
		})
		r.run()
		h, n, _ := mqtt.ParseHeader(d.out, 0)
		if h.Type != mqtt.AUTH {
			t.Fatalf("attempt %d: %s", i, h.Type)
		}
		var a mqtt.Auth
		if err := mqtt.DecodeAuth(&a, d.out[n:n+h.Remaining]); err != nil {
			t.Fatal(err)
		}
		nonce, _, _ := strings.Cut(string(a.Props.AuthData), ",")
		d.out = nil
		var b mqtt.Auth
		b.Reason = mqtt.ContinueAuthentication
		b.Props.AuthMethod = []byte("SCRAM-SHA-256")
		b.Props.AuthData = []byte("c=biws," + nonce + ",p=" + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
		d.send(mqtt.AppendAuth(nil, &b))
		r.run()
		for range 10 {
			if d.closed {
				break
			}
			r.wait(time.Second) // it has been slowed down
		}
		if !d.closed {
			t.Fatal("open")
		}
	}
	if s := r.ws[0].stats; s.LoginsFailed > 30 || s.LoginsRefused < 150 {
		t.Errorf("of 200 guesses %d were judged, %d refused", s.LoginsFailed, s.LoginsRefused)
	}
}

func TestParallelGuess(t *testing.T) {
	r := newRig(t, 1, nil)
	r.g.SetRules(rules(t, ""))
	var all []*device
	for i := range 1000 {
		d := r.dial(0, mqtt.V5)
		d.remote = netip.MustParseAddrPort("192.0.2.1:1000")
		s := "wrong"
		if i == 999 {
			s = "secret"
		}
		d.sendConnect(fmt.Sprint("c", i), password("ann", s))
		all = append(all, d)
	}
	r.run()
	for range 50 {
		r.work()
		r.wait(time.Second)
	}
	if got := all[999].read(); len(got) != 1 || got[0] != "CONNACK 159" || r.ws[0].stats.LoginsFailed > 20 {
		t.Errorf("guess 1000 of one burst: %v; judged %d, refused %d", got, r.ws[0].stats.LoginsFailed, r.ws[0].stats.LoginsRefused)
	}
}

func TestClockGuard(t *testing.T) {
	r := newRig(t, 1, nil)
	booted := false
	r.g.opt.Wall = func() time.Time {
		if !booted {
			return time.Unix(100, 0)
		}
		return wallStart.Add(time.Duration(r.now))
	}
	r.g.SetRules(rules(t, ""))
	good := tok(t, jwt.MapClaims{"sub": "tom", "exp": wallStart.Add(time.Hour).Unix()})
	try := func() string {
		d := r.dial(0, mqtt.V5)
		d.remote = netip.MustParseAddrPort("192.0.2.1:1000")
		d.sendConnect("a", password("token", good))
		for range 10 {
			r.run()
			r.work()
			if g := d.read(); len(g) > 0 {
				return g[0]
			}
			r.wait(time.Second)
		}
		return "nothing"
	}
	for range 12 {
		t.Log(try())
		r.wait(time.Second)
	}
	booted = true
	if got := try(); got != "CONNACK 0" {
		t.Errorf("the clock is set, the token is good: %s", got)
	}
}

func TestShareBlackhole(t *testing.T) {
	r := newRig(t, 1, nil)
	r.g.SetRules(rules(t, "user ann\ntopic read open/#\nuser bob\ntopic readwrite #\n"))
	bob := r.login("b", "bob", "hidden", mqtt.V5, "CONNACK 0")
	bob.subscribe("$share/g/#:1")
	pub := r.login("p", "bob", "hidden", mqtt.V5, "CONNACK 0")
	mallory := r.login("m", "ann", "secret", mqtt.V5, "CONNACK 0")
	mallory.subscribe("$share/g/#:1")
	for i := range 10 {
		pub.send(pub.publication("plant/alarm", fmt.Sprint(i), 1, uint16(i+1)))
	}
	r.run()
	t.Logf("publisher: %q", pub.read())
	if got := payloads(bob.read()); len(got) != 10 {
		t.Errorf("the worker of the group got %v of 10; mallory %v", got, mallory.read())
	}
}

func TestWillAfterReload(t *testing.T) {
	r := newRig(t, 1, nil)
	r.g.SetRules(rules(t, "user ann\ntopic readwrite open/#\nuser bob\ntopic readwrite #\n"))
	bob := r.login("b", "bob", "hidden", mqtt.V5, "CONNACK 0")
	bob.subscribe("#:1")
	d := r.dial(0, mqtt.V5)
	d.sendConnect("w", func(c *mqtt.Connect) {
		password("ann", "secret")(c)
		c.HasWill, c.Will = true, mqtt.Will{Topic: []byte("open/x"), Payload: []byte("will"), Retain: true}
	})
	r.run()
	r.work()
	d.expect("CONNACK 0")
	r.g.Reload(rules(t, "user ann\ntopic read open/#\nuser bob\ntopic readwrite #\n"))
	r.run()
	d.send(d.publication("open/x", "publish", 0, 0))
	r.run()
	d.lose()
	if got := bob.read(); len(got) != 0 {
		t.Errorf("after the right was taken: %v", got)
	}
}

func TestRestoredBridge(t *testing.T) {
	r := newRig(t, 1, nil)
	internal := func(id string) *device {
		s := &sock{fd: len(r.socks), room: -1}
		r.socks = append(r.socks, s)
		d := &device{r: r, sock: s, v: mqtt.V5}
		r.ws[0].Enter(s.fd)
		r.run()
		d.sendConnect(id, durableSession)
		r.run()
		return d
	}
	ru := rules(t, "user bob\ntopic readwrite #\n")
	r.g.SetRules(ru)
	d := internal("$bridge/up")
	d.read()
	d.subscribe("out/#:1")
	r.run()
	// As the broker starts: rules first, then what the store has.
	r.start(1)
	r.store = r.store.Crash()
	r.g.SetStore(r.store)
	r.g.SetRules(ru)
	im, err := r.store.Load()
	if err != nil {
		t.Fatal(err)
	}
	r.g.Restore(im)
	other := internal("$bridge/down")
	other.read()
	other.send(other.publication("out/x", "from the cloud", 1, 1))
	r.run()
	t.Logf("the other bridge: %q", other.read())
	up := internal("$bridge/up")
	r.run()
	if got := payloads(up.read()); len(got) != 1 {
		t.Errorf("the bridge got %v", got)
	}
}

func TestRestoredToken(t *testing.T) {
	r := newRig(t, 1, nil)
	ru := rules(t, "user bob\ntopic readwrite #\n")
	r.g.SetRules(ru)
	token := tok(t, jwt.MapClaims{"sub": "tom", "exp": wallStart.Add(time.Hour).Unix(), "subs": []string{"out/#"}})
	connect := func() *device {
		d := r.dial(0, mqtt.V5)
		d.sendConnect("t", func(c *mqtt.Connect) { password("tom", token)(c); durableSession(c) })
		r.run()
		r.work()
		return d
	}
	d := connect()
	d.read()
	d.subscribe("out/#:1")
	r.run()
	r.start(1)
	r.store = r.store.Crash()
	r.g.SetStore(r.store)
	r.g.SetRules(ru)
	im, err := r.store.Load()
	if err != nil {
		t.Fatal(err)
	}
	r.g.Restore(im)
	bob := r.login("b", "bob", "hidden", mqtt.V5, "CONNACK 0")
	bob.send(bob.publication("out/x", "message", 1, 1))
	r.run()
	t.Logf("publisher: %q", bob.read())
	d = connect()
	r.run()
	if got := payloads(d.read()); len(got) != 1 {
		t.Errorf("the client got %v", got)
	}
}

func TestLobbyMemory(t *testing.T) {
	r := newRig(t, 1, nil)
	r.g.SetRules(rules(t, ""))
	held := 0
	for i := range 100 {
		d := r.dial(0, mqtt.V5)
		d.sendConnect(fmt.Sprint(i), password("eve", "x"))
		d.send(make([]byte, 70000))
		r.run()
	}
	r.ws[0].conns.each(func(c *conn) {
		held += cap(c.in)
		if c.extra != nil && c.extra.login != nil {
			held += cap(c.extra.login.rest) + cap(c.extra.login.packet)
		}
	})
	if held/100 > 9000 {
		t.Errorf("%d bytes held for each of %d peers nobody knows", held/100, r.ws[0].conns.used)
	}
}

func TestHelloMemory(t *testing.T) {
	r := newRig(t, 1, nil)
	n := 0
	r.ws[0].listeners[0].Handshake = func(_ int, hello []byte, _ time.Duration, _ func(wire.Layer, string, error)) error {
		n = len(hello)
		return nil
	}
	d := r.dial(0, mqtt.V5)
	d.send(make([]byte, 70000))
	r.run()
	if n == 0 || n > 9000 {
		t.Errorf("hello of %d bytes", n)
	}
}

func TestReloadHandover(t *testing.T) {
	r := newRig(t, 2, nil)
	r.g.SetRules(rules(t, "user ann\ntopic readwrite #\n"))
	id := r.idOn(1, "x")
	d := r.dial(0, mqtt.V5)
	d.sendConnect(id, password("ann", "secret"))
	r.run()
	// The worker has compiled the permit; before it posts the handover, rules are
	// reloaded and the owner has taken the call. CheckWill lies in between.
	for _, j := range r.jobs {
		j()
	}
	r.jobs = nil
	w := r.ws[0]
	m, _ := w.inbox.take()
	_ = m
	var c *conn
	w.conns.each(func(x *conn) { c = x })
	l, p := c.extra.login, &w.connect
	c.paused, l.busy = false, false
	w.arm(c)
	w.reread(c, p)
	a := w.admission(&auth.Identity{User: "ann"}, p, false)
	r.g.Reload(rules(t, "user bob\ntopic readwrite #\n"))
	r.turn(r.ws[1], nil)
	w.resume(c, p, a)
	r.run()
	d.expect("CONNACK 0")
	d.send(d.publication("t", "x", 1, 1))
	d.expect("PUBACK 1 0x87")
}

// 10a: debt is forgotten by reconnecting.
func TestRateReconnect(t *testing.T) {
	r := newRig(t, 1, func(o *Options) { o.MessagesPerSecondMax = 1 })
	sub := r.connect("sub", mqtt.V5, nil)
	sub.subscribe("#:0")
	began := r.now
	for range 10 {
		d := r.connect("pub", mqtt.V5, nil)
		for range 9000 {
			d.send(d.publication("t", "", 0, 0))
		}
		r.run()
		d.lose()
	}
	if n := r.ws[0].stats.Received; n > 1000 {
		t.Errorf("%d messages of one client in %v, at 1 a second", n, r.now.Sub(began))
	}
}

type failingAdd struct {
	*fakeNet
	fail bool
}

func (n *failingAdd) Add(fd int, tag platform.Tag, writable bool) error {
	if n.fail {
		return errors.New("no memory")
	}
	return n.fakeNet.Add(fd, tag, writable)
}

func TestAdoptLeavesDoor(t *testing.T) {
	r := newRig(t, 2, func(o *Options) { o.ConnectionsPerAddressMax = 3 })
	id := r.idOn(1, "x")
	f := &failingAdd{r.nets[1], true}
	r.ws[1].net = f
	for range 3 {
		d := r.dial(0, mqtt.V311)
		d.remote = netip.MustParseAddrPort("192.0.2.1:1")
		d.sendConnect(id, nil)
		r.run()
	}
	f.fail = false
	if n := r.g.Connections(); n != 0 {
		t.Fatal(n)
	}
	d := r.dial(0, mqtt.V311)
	d.remote = netip.MustParseAddrPort("192.0.2.1:1")
	d.sendConnect(id, nil)
	d.expect("CONNACK 0")
}

func TestBrokenLayerMoved(t *testing.T) {
	r := newRig(t, 2, nil)
	for _, w := range r.ws {
		w.listeners[0].Layer = func(wire.Layer) wire.Layer { return &doubler{} }
	}
	for i := range 2 {
		d := r.dial(0, mqtt.V311)
		d.send(double(mqtt.AppendConnect(nil, &mqtt.Connect{Version: mqtt.V311, ClientID: []byte(r.idOn(i, "x")), Clean: true})), []byte("xy"))
		r.run()
		if !d.closed {
			t.Errorf("owner %d: open after its layer broke", i)
		}
	}
}

func TestTrustPoison(t *testing.T) {
	r := newRig(t, 1, nil)
	r.g.SetRules(rules(t, ""))
	from := netip.MustParseAddr("192.0.2.1")
	d := r.dial(0, mqtt.V5)
	d.remote = netip.AddrPortFrom(from, 1)
	d.sendConnect("m", password("ann", tok(t, jwt.MapClaims{"sub": "mallory", "exp": wallStart.Add(time.Hour).Unix()})))
	r.run()
	r.work()
	d.expect("CONNACK 0")
	n := 0
	for ; n < 200; n++ {
		if _, ok := r.g.guard.Check(from, "ann", r.now); !ok {
			break
		}
		r.g.guard.Failed(from, "ann", r.now)
	}
	if n > 10 {
		t.Errorf("%d guesses before ann is refused", n)
	}
}
