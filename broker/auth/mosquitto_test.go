package auth

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"
)

// DESIGN. One mosquitto with one ACL file of many users, whose rules are drawn
// by a seed, answers on loopback what each user may publish and receive;
// our Permit of the same file must say the same, but where we differ on
// purpose (acl.go): a deny pattern wins over a topic line. Names with a "/" are
// not among the users.

// peer is a client of mosquitto.
type peer struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	id   uint16
}

func dial(t *testing.T, address, user, clientID string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, conn: conn, in: bufio.NewReader(conn)}
	p.send(mqtt.AppendConnect(nil, &mqtt.Connect{Version: mqtt.V5, KeepAliveSeconds: 60, Clean: true, ClientID: []byte(clientID), HasUsername: user != "", Username: []byte(user)}))
	if typ, body := p.read(); typ != mqtt.CONNACK || body[1] != 0 {
		t.Fatalf("user %q: CONNECT is answered with %v %x", user, typ, body)
	}
	return p
}

func (p *peer) send(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) read() (mqtt.Type, []byte) {
	p.t.Helper()
	var head []byte
	for {
		b, err := p.in.ReadByte()
		if err != nil {
			p.t.Fatal(err)
		}
		head = append(head, b)
		h, n, err := mqtt.ParseHeader(head, 0)
		if err != nil {
			p.t.Fatal(err)
		}
		if n > 0 {
			body := make([]byte, h.Remaining)
			if _, err := io.ReadFull(p.in, body); err != nil {
				p.t.Fatal(err)
			}
			return h.Type, body
		}
	}
}

// publish sends a message with QoS 0.
func (p *peer) publish(topic string) {
	p.t.Helper()
	p.send(mqtt.AppendPublish(nil, &mqtt.Publish{Topic: []byte(topic), Payload: []byte("x")}, mqtt.V5))
}

// subscribe asks for the messages of others (no local).
func (p *peer) subscribe(filter string) {
	p.t.Helper()
	p.id++
	body := append([]byte{byte(p.id >> 8), byte(p.id), 0, byte(len(filter) >> 8), byte(len(filter))}, filter...)
	p.send(append([]byte{0x82, byte(len(body) + 1)}, append(body, 0x04)...))
	if typ, body := p.read(); typ != mqtt.SUBACK || body[len(body)-1] >= 0x80 {
		p.t.Fatalf("SUBSCRIBE is answered with %v %x", typ, body)
	}
}

// startMosquitto runs mosquitto with an ACL file until the test
// ends.
func startMosquitto(t *testing.T, acl string) (address string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir, address := t.TempDir(), free.Addr().String()
	free.Close() // mosquitto cannot choose a port itself
	_, port, _ := net.SplitHostPort(address)
	conf := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nacl_file %s/acl\nlog_dest none\n", port, dir)
	if os.Getuid() == 0 {
		conf += "user root\n" // else it could not write into dir
	}
	for name, text := range map[string]string{"acl": acl, "conf": conf} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto" // not in the path of users on Debian
	}
	cmd := exec.Command(program, "-c", filepath.Join(dir, "conf"))
	if err := cmd.Start(); err != nil {
		t.Fatalf("mosquitto is needed to compare with (make tools): %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatal("mosquitto does not listen")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// drawACL makes the rules of n users, u0 and so on; the last is anonymous.
func drawACL(rnd *rand.Rand, n int, list []string) string {
	var b strings.Builder
	b.WriteString("# drawn\ntopic zz/end\n")
	section := func() {
		for range rnd.IntN(6) {
			what, filter := []string{"", "read ", "write ", "readwrite ", "deny "}[rnd.IntN(5)], nonEmpty(list, rnd)
			if what != "deny " || !naive(filter, "zz/end") { // by which the test sees the end
				fmt.Fprintf(&b, "topic %s%s\n", what, filter)
			}
		}
	}
	section()
	for i := range n {
		fmt.Fprintf(&b, "\nuser u%d\ntopic zz/end\n", i)
		section()
		if i%10 == 0 { // wherever they stand, they are for everybody
			fmt.Fprintf(&b, "pattern write p%d/%%u/+\npattern read p%d/%%c\n", i, i)
		}
	}
	b.WriteString("pattern deny d/%u/x\npattern readwrite d/+/#\n")
	b.WriteString("user admin\ntopic readwrite #\n")
	for _, user := range []string{"+", "#", "u+"} {
		fmt.Fprintf(&b, "user %s\ntopic zz/end\ntopic write a\n", user)
	}
	return b.String()
}

func TestACLAsMosquitto(t *testing.T) {
	const users = 40
	rnd := rand.New(rand.NewPCG(7, 7))
	alphabet := []string{"a", "b", "", "+", "#"}
	var list, names []string
	for _, f := range all(alphabet, 3) {
		if f != "" && checkFilter([]byte(f)) == nil {
			list = append(list, f)
		}
		if f != "" && !strings.ContainsAny(f, "+#") {
			names = append(names, f)
		}
	}
	acl := drawACL(rnd, users, list)
	rules := rulesOf(t, acl)
	address := startMosquitto(t, acl)
	admin := dial(t, address, "admin", "admin")
	admin.subscribe("#")
	ask := []string{"", "+", "#", "u+"}
	for i := range users {
		ask = append(ask, fmt.Sprintf("u%d", i))
	}
	asked, allowed, stricter := 0, 0, 0
	for _, user := range ask {
		client := "c" + strings.Trim(user, "+#")
		own := []string{"d/" + user + "/x", "d/" + user + "/y", "d/other/x", "p0/" + user + "/1", "p0/other/1", "p10/" + client, "p10/other", "p10/" + user + "/1"}
		questions := append([]string{}, names...)
		for _, topic := range own {
			if !strings.ContainsAny(topic, "+#") {
				questions = append(questions, topic)
			}
		}
		permit := rules.Permit(&Identity{User: user}, client)
		p := dial(t, address, user, client)
		writes := pass(p, admin, questions)
		p.subscribe("#")
		reads := pass(admin, p, questions)
		for _, topic := range questions {
			for a, want := range map[Action]bool{Publish: writes[topic], Receive: reads[topic]} {
				asked++
				if want {
					allowed++
				}
				ok, why := permit.Explain(a, []byte(topic))
				if want && !ok && strings.Contains(why, ": pattern deny") {
					stricter++
					want = false
				}
				if got := permit.Can(a, []byte(topic)); got != want || ok != want {
					t.Errorf("user %q, %s %q: we say %v (%s), mosquitto %v", user, a, topic, got, why, want)
				}
			}
		}
		p.conn.Close()
	}
	if allowed < asked/10 || allowed > asked*9/10 {
		t.Errorf("mosquitto allows %d of %d: the questions are too easy", allowed, asked)
	}
	t.Logf("%d questions, %d allowed, %d by mosquitto only", asked, allowed, stricter)
}

// pass publishes to all topics and tells which of the messages reach the other.
func pass(from, to *peer, topics []string) map[string]bool {
	from.t.Helper()
	for _, topic := range append(append([]string{}, topics...), "zz/end") {
		from.publish(topic)
	}
	got := map[string]bool{}
	for {
		typ, body := to.read()
		if typ != mqtt.PUBLISH {
			to.t.Fatalf("waiting for messages: %v %x", typ, body)
		}
		n := int(body[0])<<8 | int(body[1])
		if topic := string(body[2 : 2+n]); topic != "zz/end" {
			got[topic] = true
			continue
		}
		return got
	}
}
