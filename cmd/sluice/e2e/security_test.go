package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// reload sends SIGHUP, waits until the broker has looked at its files, and
// returns what it logged meanwhile.
func (b *broker) reload() string {
	b.t.Helper()
	const done = "files read again"
	before := len(b.Log())
	must(b.t, b.Signal(syscall.SIGHUP))
	var fresh string
	eventually(b.t, patience, "the files are read again", func() bool {
		fresh = b.Log()[before:]
		return strings.Contains(fresh, done)
	})
	return fresh
}

// try connects and leaves again. It returns the code of CONNACK; 0: accepted.
func (b *broker) try(version mqtt.Version, connect func(*mqtt.Connect), dial func(string) (net.Conn, error)) uint8 {
	b.t.Helper()
	c := rig.NewClient(rig.ClientOptions{ID: "somebody", Version: version, Clean: true, Connect: connect, Dial: dial})
	defer c.Close()
	_, err := c.Connect(b.Addr())
	if code := refusal(err); code != 0 || err == nil {
		return code
	}
	b.t.Fatal(err)
	return 0
}

// from dials from another address of this machine.
func from(host string) func(string) (net.Conn, error) {
	return func(address string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}, Timeout: patience}
		return d.Dial("tcp", address)
	}
}

func anonymous(*mqtt.Connect) {}

func TestLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{only: []string{"mqtt", "mqtts", "ws", "wss"}, auth: "login_failures_max = 1000\n"})
	for i, test := range []struct {
		what    string
		connect func(*mqtt.Connect)
		codes   map[mqtt.Version]uint8
	}{
		{"right", login(user, password), map[mqtt.Version]uint8{3: 0, 4: 0, 5: 0}},
		{"wrong password", login(user, "correct hors"), map[mqtt.Version]uint8{3: 4, 4: 4, 5: 0x86}},
		{"empty password", login(user, ""), map[mqtt.Version]uint8{3: 4, 4: 4, 5: 0x86}},
		{"unknown user", login("mallory", password), map[mqtt.Version]uint8{3: 4, 4: 4, 5: 0x86}},
		{"user in other letters", login("Alice", password), map[mqtt.Version]uint8{3: 4, 4: 4, 5: 0x86}},
		{"user without a password", func(p *mqtt.Connect) { p.HasUsername, p.Username = true, []byte(user) }, map[mqtt.Version]uint8{3: 4, 4: 4, 5: 0x86}},
		{"nothing", anonymous, map[mqtt.Version]uint8{3: 5, 4: 5, 5: 0x87}},
	} {
		for version, want := range test.codes { // an address for each row: its failures slow no other
			if got := s.try(version, test.connect, from(fmt.Sprintf("127.0.1.%d", 1+i))); got != want {
				t.Errorf("%s, version %d: CONNACK 0x%02x, want 0x%02x", test.what, version, got, want)
			}
		}
	}
	for _, scheme := range s.schemes[1:] {
		dial := dialer(s.url(scheme, ""), s.clients)
		if got := s.try(5, login(user, "wrong"), dial); got != 0x86 {
			t.Errorf("%s: a wrong password: CONNACK 0x%02x", scheme, got)
		}
		if got := s.try(5, login(user, password), dial); got != 0 {
			t.Errorf("%s: the right password: CONNACK 0x%02x", scheme, got)
		}
	}
	for v, want := range map[string]string{"mqttv311": "bad user name or password", "mqttv5": "Not authorized"} {
		out, err := exec.Command("mosquitto_pub", "-h", "127.0.0.1", "-p", port(s.Addr()), "-V", v, "-t", "t", "-m", "x").CombinedOutput()
		if err == nil {
			t.Errorf("%s: mosquitto_pub is let in without a password: %s", v, out)
		}
		wrong, err := exec.Command("mosquitto_pub", "-h", "127.0.0.1", "-p", port(s.Addr()), "-V", v, "-u", user, "-P", "x", "-t", "t", "-m", "x").CombinedOutput()
		if err == nil {
			t.Errorf("%s: mosquitto_pub is let in with a wrong password: %s", v, wrong)
		}
		if !strings.Contains(strings.ToLower(string(out)+string(wrong)), strings.ToLower(want)) {
			t.Errorf("%s: mosquitto_pub says %q and %q, nowhere %q", v, out, wrong, want)
		}
	}
	if strings.Contains(s.Log(), "correct hors") {
		t.Error("a password is in the log")
	}
}

// TestBruteForce: who guesses gets slower and is then refused, with the right
// password as well; the user comes in from elsewhere, others from there.
func TestBruteForce(t *testing.T) {
	t.Parallel()
	const failuresMax = 6
	s := newSite(t, siteOptions{only: []string{"mqtt"}, auth: fmt.Sprintf("login_failures_max = %d\nlogin_refuse_for = \"1h\"\n", failuresMax)})
	s.passwd(t, "-b", s.passwords, "bob", password)
	s.reload()
	guesser, other := from("127.0.2.1"), from("127.0.2.2")
	var took []time.Duration
	for range failuresMax {
		began := time.Now()
		if got := s.try(5, login(user, "guess"), guesser); got != 0x86 {
			t.Fatalf("a guess: CONNACK 0x%02x", got)
		}
		took = append(took, time.Since(began))
	}
	t.Logf("the guesses took %v", took)
	const slowMin = 100 * time.Millisecond // after more than three failures, then twice as long each time
	for i, want := range []time.Duration{4: slowMin, 5: 2 * slowMin} {
		if took[i] < want {
			t.Errorf("guess %d took %v, less than %v", i, took[i], want)
		}
	}
	for version, want := range map[mqtt.Version]uint8{4: 3, 5: 0x9F} {
		for _, password := range []string{"guess", password} {
			if got := s.try(version, login(user, password), guesser); got != want {
				t.Errorf("beyond the limit, version %d: CONNACK 0x%02x, want 0x%02x", version, got, want)
			}
		}
	}
	if got := s.try(5, login(user, password), other); got != 0 {
		t.Errorf("the user from another address: CONNACK 0x%02x", got)
	}
	if got := s.try(5, login("bob", password), guesser); got != 0 {
		t.Errorf("another user from the address: CONNACK 0x%02x", got)
	}
	if n := strings.Count(s.Log(), "login failed"); n != 1 {
		t.Errorf("%d lines in the log for one burst", n)
	}
}

// TestPasswd: users are made, changed and removed by the program while the broker
// runs. Who is in stays in.
func TestPasswd(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{only: []string{"mqtt"}, auth: "login_failures_max = 1000\n"})
	check := func(name, secret string) int {
		_, err := exec.Command(plainBinary, "passwd", "--check", "-b", s.passwords, name, secret).CombinedOutput()
		if err == nil {
			return 0
		}
		return err.(*exec.ExitError).ExitCode()
	}
	tool(t, "piped in\n", plainBinary, "passwd", s.passwords, "bob")
	if got := s.try(5, login("bob", "piped in"), nil); got != 0x86 {
		t.Errorf("a user whom the broker does not know yet: CONNACK 0x%02x", got)
	}
	s.reload()
	if got := s.try(5, login("bob", "piped in"), nil); got != 0 {
		t.Fatalf("a new user: CONNACK 0x%02x", got)
	}
	var in inbox[string]
	stays := subscribed(t, s.Addr(), s.client("mqtt", rig.ClientOptions{ID: "stays", Connect: login("bob", "piped in"),
		OnMessage: func(p *mqtt.Publish) { in.put(received(p)) }}), 1, "t")

	s.passwd(t, "-b", s.passwords, "bob", "changed")
	s.reload()
	if was, is := s.try(5, login("bob", "piped in"), nil), s.try(5, login("bob", "changed"), nil); was != 0x86 || is != 0 {
		t.Errorf("a changed password: CONNACK 0x%02x for the old one, 0x%02x for the new one", was, is)
	}
	if was, is := check("bob", "piped in"), check("bob", "changed"); was != 1 || is != 0 {
		t.Errorf("a changed password: passwd --check ends with %d for the old one, %d for the new one", was, is)
	}

	s.passwd(t, "-D", s.passwords, "bob")
	s.reload()
	if got := s.try(5, login("bob", "changed"), nil); got != 0x86 {
		t.Errorf("a removed user: CONNACK 0x%02x", got)
	}
	must(t, stays.Publish("t", []byte("here"), 1, false, 0))
	same(t, in.await(t, 1), []string{"t here qos1"})

	// A file that is broken changes nothing.
	s.write(t, "passwords", "alice:plain text\n")
	if log := s.reload(); !strings.Contains(log, `"level":"error"`) || !strings.Contains(log, "passwords:1") || strings.Contains(log, "plain text") {
		t.Errorf("a broken password file is told as:\n%s", log)
	}
	if got := s.try(5, login(user, password), nil); got != 0 {
		t.Errorf("after a broken password file: CONNACK 0x%02x", got)
	}
	if why := stays.Why(); why != nil {
		t.Errorf("a connection ended: %v", why)
	}
}
