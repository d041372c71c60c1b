package bridge

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// mosquitto is a broker that somebody else wrote, as a process of its own.
type mosquitto struct {
	t    *testing.T
	dir  string
	port string
	cmd  *exec.Cmd
}

// startMosquitto takes further lines of its configuration.
func startMosquitto(t *testing.T, lines ...string) *mosquitto {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	_ = ln.Close()
	m := &mosquitto{t: t, dir: t.TempDir(), port: port}
	conf := strings.Join([]string{
		"listener " + port + " 127.0.0.1",
		"allow_anonymous true",
		"persistence true",
		"persistence_location " + m.dir + "/",
		"max_queued_messages 0",
		"max_inflight_messages 50",
		"user root", // stay who we are: the directory is ours
		"",
	}, "\n") + strings.Join(append(lines, ""), "\n")
	if err := os.WriteFile(filepath.Join(m.dir, "mosquitto.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.stop)
	return m
}

func (m *mosquitto) host() string { return "127.0.0.1:" + m.port }

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command("mosquitto", "-c", filepath.Join(m.dir, "mosquitto.conf"))
	if err := m.cmd.Start(); err != nil {
		m.t.Fatalf("mosquitto is needed for this test: %v", err)
	}
	eventually(m.t, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", m.host())
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// stop is polite: mosquitto saves what it has acknowledged only then.
func (m *mosquitto) stop() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	_ = m.cmd.Wait()
	m.cmd = nil
}

// listener collects what a durable subscriber receives.
type listener struct {
	client paho.Client
	mu     sync.Mutex
	got    []paho.Message
	seen   map[string]bool
	first  map[string][]string // distinct payloads by topic, in order
}

func (m *mosquitto) client(id string, onConnect paho.OnConnectHandler) paho.Client {
	po := paho.NewClientOptions().AddBroker("tcp://" + m.host()).SetClientID(id).SetCleanSession(false)
	po.SetAutoReconnect(true).SetConnectRetry(true).SetConnectRetryInterval(20 * time.Millisecond).SetMaxReconnectInterval(50 * time.Millisecond)
	po.SetOnConnectHandler(onConnect)
	c := paho.NewClient(po)
	if tok := c.Connect(); !tok.WaitTimeout(30*time.Second) || tok.Error() != nil {
		m.t.Fatalf("connecting %s: %v", id, tok.Error())
	}
	m.t.Cleanup(func() { c.Disconnect(200) })
	return c
}

func (m *mosquitto) listen(filter string) *listener {
	l := &listener{seen: map[string]bool{}, first: map[string][]string{}}
	subscribed := make(chan struct{}, 100)
	l.client = m.client("listener-"+fmt.Sprint(time.Now().UnixNano()), func(c paho.Client) {
		tok := c.Subscribe(filter, 1, func(_ paho.Client, msg paho.Message) { l.add(msg) })
		if tok.WaitTimeout(30*time.Second) && tok.Error() == nil {
			subscribed <- struct{}{}
		}
	})
	select {
	case <-subscribed:
	case <-time.After(30 * time.Second):
		m.t.Fatal("no subscription")
	}
	return l
}

func (l *listener) add(msg paho.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, msg)
	k := msg.Topic() + "\x00" + string(msg.Payload())
	if !l.seen[k] {
		l.seen[k] = true
		l.first[msg.Topic()] = append(l.first[msg.Topic()], string(msg.Payload()))
	}
}

func (l *listener) distinct() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen)
}

func (l *listener) all() []paho.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]paho.Message(nil), l.got...)
}

func mustPublish(t *testing.T, c paho.Client, topicName, payload string, retain bool) {
	t.Helper()
	if tok := c.Publish(topicName, 1, retain, payload); !tok.WaitTimeout(30*time.Second) || tok.Error() != nil {
		t.Fatalf("publishing: %v", tok.Error())
	}
}

// mosquittoPair is a bridge between two mosquittos, with a proxy to cut the
// uplink.
func mosquittoPair(t *testing.T, routes ...Route) (local, up *mosquitto, link *proxy, o Options) {
	local, up = startMosquitto(t), startMosquitto(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	link = pipeAll(ln, up.host())
	t.Cleanup(link.close)
	o = testOptions(nil, "tcp://"+ln.Addr().String(), routes...)
	o.DialLocal = func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", local.host())
	}
	return local, up, link, o
}

// freePort is one that nobody listens on at the moment.
func freePort(t *testing.T) string {
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(deadAddress(t), "tcp://"))
	return port
}

// WebSockets and TLS of somebody else.
func TestMosquittoOverWebSocketAndTLS(t *testing.T) {
	dir := t.TempDir()
	selfSigned(t, dir)
	ca, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	files := []string{"cafile " + ca, "certfile " + ca, "keyfile " + key}
	ports := map[string]string{"ws": freePort(t), "wss": freePort(t), "tls": freePort(t)}
	lines := []string{"listener " + ports["ws"] + " 127.0.0.1", "protocol websockets"}
	lines = append(append(lines, "listener "+ports["wss"]+" 127.0.0.1", "protocol websockets"), files...)
	lines = append(append(lines, "listener "+ports["tls"]+" 127.0.0.1", "require_certificate true"), files...)
	up := startMosquitto(t, lines...)
	sink := up.listen("up/#")
	for i, protocol := range []Protocol{Protocol311, Protocol5} {
		for j, scheme := range []string{"ws", "wss", "tls"} {
			local := newFakeLocal(t)
			o := testOptions(local, scheme+"://127.0.0.1:"+ports[scheme], outAll)
			o.Protocol, o.ClientID = protocol, fmt.Sprintf("gateway-%d-%d", i, j)
			o.TLS = TLS{CAFile: ca, ServerName: "broker.test", CertFile: ca, KeyFile: key}
			if p, _ := pingOne(t, o); !p.OK {
				t.Errorf("%s %s: %+v", scheme, protocol, p)
			}
			b := startBridge(t, o)
			eventually(t, scheme+": up", inState(b, StateUp))
			for n := range 100 {
				local.publish(fmt.Sprintf("s/%d%d", i, j), fmt.Sprint(n), 1, false)
			}
			eventually(t, scheme+": the session is empty", func() bool { return local.open() == 0 })
			if st := b.Status(); st.Links != 1 {
				t.Errorf("%s: %+v", scheme, st)
			}
			_ = b.Close()
		}
	}
	eventually(t, "all messages", func() bool { return sink.distinct() == 600 })
}

func TestMosquittoWithCuts(t *testing.T) {
	local, up, link, o := mosquittoPair(t, outAll)
	sink := up.listen("up/#")
	pub := local.client("publisher", nil)
	b := startBridge(t, o)
	const n, topics = 1500, 2
	for i := range n {
		var toks []paho.Token
		for k := range topics {
			toks = append(toks, pub.Publish(fmt.Sprintf("s/%d", k), 1, false, fmt.Sprintf("%d/%d", k, i)))
		}
		if i%50 == 0 {
			for _, tok := range toks {
				if !tok.WaitTimeout(30*time.Second) || tok.Error() != nil {
					t.Fatalf("publishing: %v", tok.Error())
				}
			}
		}
		if i%150 == 149 {
			link.cut()
		}
	}
	eventually(t, "all messages", func() bool { return sink.distinct() == n*topics })
	sink.mu.Lock()
	expectOrder(t, sink.first, topics, n)
	sink.mu.Unlock()
	if st := b.Status(); st.Reconnects < 3 || st.Dropped() != 0 {
		t.Errorf("status %+v", st)
	}
}

func TestMosquittoOutage(t *testing.T) {
	local, up, _, o := mosquittoPair(t, outAll)
	sink := up.listen("up/#")
	pub := local.client("publisher", nil)
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	up.stop()
	eventually(t, "not up", func() bool { return b.Status().State != StateUp })
	const n = 500
	for i := range n {
		mustPublish(t, pub, "s/0", fmt.Sprintf("0/%d", i), false)
	}
	up.start()
	eventually(t, "all messages", func() bool { return sink.distinct() == n })
	sink.mu.Lock()
	expectOrder(t, sink.first, 1, n)
	sink.mu.Unlock()
}

// The local broker restarts; its session is durable.
func TestMosquittoLocalRestart(t *testing.T) {
	local, up, _, o := mosquittoPair(t, outAll)
	sink := up.listen("up/#")
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	local.stop()
	eventually(t, "not up", func() bool { return b.Status().State != StateUp })
	local.start()
	pub := local.client("publisher", nil)
	for i := range 100 {
		mustPublish(t, pub, "s/0", fmt.Sprintf("0/%d", i), false)
	}
	eventually(t, "all messages", func() bool { return sink.distinct() == 100 })
}

// With the bridge bit the retain flag comes down, and nothing comes back that
// went up, although the routes overlap.
func TestMosquittoBothWays(t *testing.T) {
	local, up, _, o := mosquittoPair(t,
		Route{Direction: Out, Filter: "x/#", QoS: 1},
		Route{Direction: In, Filter: "x/#", QoS: 1},
	)
	o.BridgeBit = true
	heardUp, heardLocal := up.listen("x/#"), local.listen("x/#")
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	localPub, upPub := local.client("publisher", nil), up.client("publisher", nil)
	mustPublish(t, upPub, "x/setpoint", "21", true)
	mustPublish(t, localPub, "x/reading", "20", true)
	for i := range 50 {
		mustPublish(t, upPub, "x/down", fmt.Sprint(i), false)
		mustPublish(t, localPub, "x/up", fmt.Sprint(i), false)
	}
	eventually(t, "everything everywhere", func() bool { return heardUp.distinct() == 102 && heardLocal.distinct() == 102 })
	if n, m := len(heardUp.all()), len(heardLocal.all()); n != 102 || m != 102 {
		t.Errorf("%d messages upstream, %d locally; want 102 and no echo", n, m)
	}
	for what, later := range map[string]*listener{"upstream": up.listen("x/#"), "local": local.listen("x/#")} {
		eventually(t, "retained messages "+what, func() bool { return later.distinct() == 2 })
		for _, m := range later.all() {
			if !m.Retained() {
				t.Errorf("%s: %s is not retained", what, m.Topic())
			}
		}
	}
	if st := b.Status(); st.Sent != 51 || st.LocalAcked != 51 {
		t.Errorf("status %+v", st)
	}
}
