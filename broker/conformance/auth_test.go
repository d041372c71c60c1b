package conformance

import (
	"bytes"

	"github.com/xdg-go/scram"

	"sluice/broker"
	"sluice/broker/auth"
	"sluice/broker/mqtt"
)

// Cases of AUTH and enhanced authentication, by SCRAM-SHA-256.

const method = "SCRAM-SHA-256"

// withScram starts a broker that knows the users ann and bob. Who shows nothing
// may come in, too.
func (c *trial) withScram() {
	c.Helper()
	lines := "ann:" + auth.ScramVerifier([]byte("secret of ann"), 4096, []byte("salt of ann")) + "\n" +
		"bob:" + auth.ScramVerifier([]byte("secret of bob"), 4096, []byte("salt of bob")) + "\n"
	rules, err := auth.New(&auth.Sources{Passwords: &auth.File{Name: "passwords", Data: []byte(lines)}})
	if err != nil {
		c.Fatal(err)
	}
	c.own(func(o *broker.Options) { o.Rules, o.Listeners[0].Anonymous = rules, true })
}

// login is a client's side of SCRAM.
type login struct{ *scram.ClientConversation }

func (c *trial) login(user, password string) login {
	c.Helper()
	s, err := scram.SHA256.NewClient(user, password, "")
	if err != nil {
		c.Fatal(err)
	}
	return login{s.NewConversation()}
}

func (l login) step(c *trial, challenge []byte) []byte {
	c.Helper()
	s, err := l.Step(string(challenge))
	if err != nil {
		c.Fatal(err)
	}
	return []byte(s)
}

func authPacket(r mqtt.Reason, method string, data []byte) []byte {
	a := mqtt.Auth{Reason: r}
	a.Props.AuthMethod, a.Props.AuthData = []byte(method), data
	return mqtt.AppendAuth(nil, &a)
}

func (p *peer) wantAuth(r mqtt.Reason) *mqtt.Auth {
	p.c.Helper()
	a := new(mqtt.Auth)
	k := p.want(mqtt.AUTH)
	p.check(mqtt.DecodeAuth(a, k.body))
	if a.Reason != r || string(a.Props.AuthMethod) != method {
		p.c.Fatalf("AUTH with %v and method %q, want %v and %s", a.Reason, a.Props.AuthMethod, r, method)
	}
	return a
}

// beginLogin connects and reads the challenge.
func (c *trial) beginLogin(l login, change ...func(*mqtt.Connect)) (*peer, *mqtt.Auth) {
	c.Helper()
	p := c.dial()
	p.send(c.hello("x", append(change, func(m *mqtt.Connect) {
		m.Props.AuthMethod, m.Props.AuthData = []byte(method), l.step(c, nil)
	})...))
	return p, p.wantAuth(mqtt.ContinueAuthentication)
}

// loggedIn connects as ann.
func (c *trial) loggedIn(change ...func(*mqtt.Connect)) *peer {
	c.Helper()
	l := c.login("ann", "secret of ann")
	p, a := c.beginLogin(l, change...)
	p.send(authPacket(mqtt.ContinueAuthentication, method, l.step(c, a.Props.AuthData)))
	ack := p.wantConnack(mqtt.Success)
	l.step(c, ack.Props.AuthData)
	if !l.Valid() || string(ack.Props.AuthMethod) != method {
		c.Errorf("CONNACK with method %q, and the server's signature is right: %v", ack.Props.AuthMethod, l.Valid())
	}
	return p
}

func authUnknown(c *trial) {
	for range 2 { // without and with methods
		for _, m := range []string{"no-such-method", "SCRAM-SHA-1", ""} {
			c.refused(mqtt.BadAuthenticationMethod, "x", func(p *mqtt.Connect) { p.Props.AuthMethod = []byte(m) })
		}
		c.withScram()
	}
}

func authContinues(c *trial) {
	c.withScram()
	c.loggedIn().ping()
}

func authContinued(c *trial) {
	c.withScram()
	c.loggedIn()
	for _, r := range []mqtt.Reason{mqtt.Success, mqtt.ReAuthenticate} {
		l := c.login("ann", "secret of ann")
		p, a := c.beginLogin(l)
		p.send(authPacket(r, method, l.step(c, a.Props.AuthData)))
		p.wantTurnedDown()
	}
}

// wantTurnedDown reads what a login ends with that fails: a CONNACK that
// refuses, if one comes, and the end.
func (p *peer) wantTurnedDown() {
	p.c.Helper()
	k, err := p.read()
	if err != nil {
		if explain(err) == err {
			p.c.Fatal(err)
		}
		return
	}
	if k.typ != mqtt.CONNACK || k.body[1] < 0x80 {
		p.c.Fatalf("% x, want a CONNACK that refuses", k.raw)
	}
	p.wantEOF()
}

func authRejected(c *trial) {
	c.withScram()
	for _, user := range []string{"ann", "nobody"} {
		l := c.login(user, "wrong")
		p, a := c.beginLogin(l)
		p.send(authPacket(mqtt.ContinueAuthentication, method, l.step(c, a.Props.AuthData)))
		ack := new(mqtt.Connack)
		p.check(mqtt.DecodeConnack(ack, p.want(mqtt.CONNACK).body, c.v))
		if r := mqtt.Reason(ack.Code); r != mqtt.NotAuthorized && r != mqtt.BadUserNameOrPassword {
			c.Errorf("%s with a wrong password: %v", user, r)
		}
		p.wantEOF()
	}
	for _, b := range [][]byte{{0xC0, 0}, c.publishPacket(c.topic("x"), 0, 0, "m"), authPacket(mqtt.ContinueAuthentication, method, []byte("nonsense"))} {
		p, _ := c.beginLogin(c.login("ann", "secret of ann"))
		p.send(b)
		p.wantTurnedDown()
	}
}

func authMethodStays(c *trial) {
	c.withScram()
	c.loggedIn() // looks at the methods that the broker sends
	l := c.login("ann", "secret of ann")
	p, a := c.beginLogin(l)
	p.send(authPacket(mqtt.ContinueAuthentication, "SCRAM-SHA-1", l.step(c, a.Props.AuthData)))
	p.wantTurnedDown()
}

func authNotAsked(c *trial) {
	c.withScram()
	p := c.connect("x")
	if p.connack.Props.AuthMethod != nil || p.connack.Props.AuthData != nil {
		c.Errorf("CONNACK with authentication method %q", p.connack.Props.AuthMethod)
	}
	p.ping()
}

func authUnasked(c *trial) {
	for range 2 {
		for _, r := range []mqtt.Reason{mqtt.ContinueAuthentication, mqtt.ReAuthenticate} {
			p := c.connect("x")
			p.send(authPacket(r, method, []byte("n,,n=ann,r=x")))
			p.wantClosed(mqtt.ProtocolError)
		}
		c.withScram()
	}
}

// again re-authenticates as a user.
func (p *peer) again(user, password string) (*mqtt.Auth, login) {
	p.c.Helper()
	l := p.c.login(user, password)
	p.send(authPacket(mqtt.ReAuthenticate, method, l.step(p.c, nil)))
	a := p.wantAuth(mqtt.ContinueAuthentication)
	p.ping() // the connection works on meanwhile
	p.send(authPacket(mqtt.ContinueAuthentication, method, l.step(p.c, a.Props.AuthData)))
	return a, l
}

func authAgain(c *trial) {
	c.withScram()
	p := c.loggedIn()
	for range 2 {
		_, l := p.again("ann", "secret of ann")
		l.step(c, p.wantAuth(mqtt.Success).Props.AuthData)
		if !l.Valid() {
			c.Error("the server's signature is wrong")
		}
		p.ping()
	}
	p.send(authPacket(mqtt.ReAuthenticate, "SCRAM-SHA-1", nil))
	p.wantClosed(mqtt.ProtocolError, mqtt.BadAuthenticationMethod)
}

func authAgainFails(c *trial) {
	c.withScram()
	p := c.loggedIn()
	p.again("ann", "wrong")
	p.wantClosed(mqtt.NotAuthorized, mqtt.BadUserNameOrPassword)
	// Nobody becomes somebody else; this may be said as soon as the name is known.
	p = c.loggedIn()
	l := c.login("bob", "secret of bob")
	p.send(authPacket(mqtt.ReAuthenticate, method, l.step(c, nil)))
	k := p.next()
	if k.typ == mqtt.AUTH {
		a := new(mqtt.Auth)
		p.check(mqtt.DecodeAuth(a, k.body))
		p.send(authPacket(mqtt.ContinueAuthentication, method, l.step(c, a.Props.AuthData)))
		k = p.next()
	}
	if k.typ != mqtt.DISCONNECT || len(k.body) == 0 || k.body[0] < 0x80 {
		c.Errorf("% x, want a DISCONNECT that says why", k.raw)
	}
	p.wantEOF()
}

func authFlags(c *trial) {
	c.withScram()
	for _, flags := range []byte{1, 2, 4, 8} {
		p := c.loggedIn()
		b := authPacket(mqtt.ReAuthenticate, method, []byte("n,,n=ann,r=x"))
		b[0] |= flags
		p.send(b)
		p.wantClosed(mqtt.MalformedPacket)
	}
}

// authReasons: DecodeAuth takes no reason but those of the table.
func authReasons(c *trial) {
	authAgain(c)
	for _, r := range []mqtt.Reason{mqtt.GrantedQoS1, mqtt.UnspecifiedError, mqtt.Success} {
		p := c.loggedIn()
		p.send(authPacket(r, method, []byte("n,,n=ann,r=x")))
		p.wantClosed(mqtt.ProtocolError, mqtt.MalformedPacket)
	}
}

// authFits: the AUTH that the broker sends has what it must have and no more, so
// that it fits into a maximum that leaves room for nothing else.
func authFits(c *trial) {
	c.withScram()
	l := c.login("ann", "secret of ann")
	_, a := c.beginLogin(l)
	bare := authPacket(mqtt.ContinueAuthentication, method, a.Props.AuthData)
	l = c.login("ann", "secret of ann")
	p, b := c.beginLogin(l, maxPacket(uint32(len(bare)+40))) // CONNACK is longer
	if full := mqtt.AppendAuth(nil, b); len(full) > len(bare)+40 || !bytes.Contains(b.Props.AuthData, []byte("i=4096")) {
		c.Errorf("AUTH of %d bytes: % x", len(full), full)
	}
	p.send(authPacket(mqtt.ContinueAuthentication, method, l.step(c, b.Props.AuthData)))
	p.wantConnack(mqtt.Success)
}
