package e2e

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/eclipse/paho.golang/paho"
	"github.com/xdg-go/scram"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

const scramName = "SCRAM-SHA-256"

// scramLogin is a client's side of enhanced authentication. The library calls
// Authenticate from its goroutine, one call at a time, and not before first was
// sent.
type scramLogin struct {
	t     testing.TB
	user  string
	talk  *scram.ClientConversation
	heard *tap
}

// tap keeps what is read from a connection: paho.golang 0.23.0 does not give the
// authentication data of the AUTH that ends a re-authentication.
type tap struct {
	net.Conn
	mu   sync.Mutex
	read []byte
}

// Read is that of the connection.
func (c *tap) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = append(c.read, b[:n]...)
	return n, err
}

var signature = regexp.MustCompile(`v=[A-Za-z0-9+/]{43}=`)

// signature is the broker's last word in the last exchange.
func (c *tap) signature() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := signature.FindAll(c.read, -1)
	if all == nil {
		return nil
	}
	return all[len(all)-1]
}

// begin starts over with a password, and returns the first message.
func (l *scramLogin) begin(password string) []byte {
	l.t.Helper()
	client, err := scram.SHA256.NewClient(l.user, password, "")
	must(l.t, err)
	l.talk = client.NewConversation()
	first, err := l.talk.Step("")
	must(l.t, err)
	return []byte(first)
}

// Authenticate answers the broker's challenge.
func (l *scramLogin) Authenticate(a *paho.Auth) *paho.Auth {
	answer, err := l.talk.Step(string(a.Properties.AuthData))
	if err != nil {
		l.t.Errorf("the challenge: %v", err)
	}
	return &paho.Auth{ReasonCode: 0x18, Properties: &paho.AuthProperties{AuthMethod: scramName, AuthData: []byte(answer)}}
}

// Authenticated is told of the end; the one who began it looks at it himself.
func (l *scramLogin) Authenticated() {}

// proved takes the broker's last word: it must know the password, too.
func (l *scramLogin) proved(word []byte) error {
	if _, err := l.talk.Step(string(word)); err != nil {
		return err
	}
	if !l.talk.Valid() {
		return errors.New("the broker has not proved that it knows the password")
	}
	return nil
}

// connect logs in.
func (l *scramLogin) connect(address, password, method string) (*client5, error) {
	l.t.Helper()
	l.heard = &tap{Conn: dial(l.t, address).Conn}
	return tryPaho5(l.t, "", "scram", func(cfg *paho.ClientConfig, cp *paho.Connect) {
		cfg.Conn = l.heard
		cfg.AuthHandler = l
		cp.Properties.AuthMethod, cp.Properties.AuthData = method, l.begin(password)
	})
}

func TestScram(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{only: []string{"mqtt"}, auth: "acl_file = \"DIR/acl\"\nlogin_failures_max = 1000\n", prepare: func(s *site) {
		s.write(t, "acl", "user carol\ntopic readwrite carols/#\n")
		s.passwd(t, "--scram", "-b", s.passwords, "carol", "se,cr=et")
	}})
	l := &scramLogin{t: t, user: "carol"}
	c, err := l.connect(s.Addr(), "se,cr=et", scramName)
	must(t, err)
	if c.connack.Properties.AuthMethod != scramName {
		t.Errorf("CONNACK names the method %q", c.connack.Properties.AuthMethod)
	}
	must(t, l.proved(c.connack.Properties.AuthData))
	c.subscribe(0, paho.SubscribeOptions{Topic: "carols/#", QoS: 1}) // so it is she

	// Once more, while messages go to and fro [MQTT-4.12.1-1].
	sent := 0
	say := func() {
		c.publish(&paho.Publish{Topic: "carols/" + fmt.Sprint(sent), QoS: 1, Payload: []byte("x")})
		sent++
	}
	for range 3 {
		say()
		answer, err := c.Authenticate(within(t), &paho.Auth{ReasonCode: 0x19,
			Properties: &paho.AuthProperties{AuthMethod: scramName, AuthData: l.begin("se,cr=et")}})
		must(t, err)
		if !answer.Success {
			t.Fatalf("re-authentication is answered with 0x%02x", answer.ReasonCode)
		}
		must(t, l.proved(l.heard.signature()))
		say()
	}
	if got := c.payloads(sent); len(got) != sent || got[sent-1] != fmt.Sprintf("carols/%d x", sent-1) {
		t.Errorf("got %q", got)
	}
	answer, err := c.Authenticate(within(t), &paho.Auth{ReasonCode: 0x19,
		Properties: &paho.AuthProperties{AuthMethod: scramName, AuthData: l.begin("wrong")}})
	if err != nil || answer.Success || answer.ReasonCode != 0x87 { // [MQTT-4.12.1-2]
		t.Errorf("re-authentication with a wrong password: %+v, %v", answer, err)
	}
	<-c.Done()

	for _, test := range []struct {
		what, user, password, method string
		want                         byte
	}{
		{"wrong password", "carol", "wrong", scramName, 0x86},
		{"unknown user", "mallory", "se,cr=et", scramName, 0x86},
		{"a user without a line for it", user, password, scramName, 0x86},
		{"unknown method", "carol", "se,cr=et", "SCRAM-SHA-1", 0x8C},
		{"unknown method", "carol", "se,cr=et", "GS2-KRB5", 0x8C},
	} {
		bad := &scramLogin{t: t, user: test.user}
		c, err := bad.connect(s.Addr(), test.password, test.method)
		if err == nil || c.connack == nil || c.connack.ReasonCode != test.want {
			t.Errorf("%s %s: CONNACK %+v, %v, want 0x%02x", test.what, test.method, c.connack, err, test.want)
		}
	}
	if got := s.try(4, login("carol", "se,cr=et"), nil); got != 0 {
		t.Errorf("the same user with a password: CONNACK 0x%02x", got)
	}
	if got := s.try(4, login("carol", "wrong"), nil); got != 4 {
		t.Errorf("the same user with a wrong password: CONNACK 0x%02x", got)
	}
	if strings.Contains(s.Log(), "se,cr=et") {
		t.Error("a password is in the log")
	}
	open := start(t, "") // a broker without users knows no method
	method := rig.NewClient(rig.ClientOptions{ID: "x", Version: 5, Clean: true, Connect: func(p *mqtt.Connect) { p.Props.AuthMethod = []byte(scramName) }})
	if _, err := method.Connect(open.Addr()); refusal(err) != 0x8C {
		t.Errorf("a broker without users: %v", err)
	}
}
