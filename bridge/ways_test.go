package bridge

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// wsFront takes WebSockets at /mqtt and passes what is in them on to a plain address.
// Its messages are cut as it likes. It returns host and port.
func wsFront(t *testing.T, cert *tls.Certificate, to string) string {
	up := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	mux := http.NewServeMux()
	mux.HandleFunc("/mqtt", func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		if c.Subprotocol() != "mqtt" {
			t.Errorf("subprotocol %q", c.Subprotocol())
		}
		back, err := net.Dial("tcp", to)
		if err != nil {
			_ = c.Close()
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			buf := make([]byte, 7)
			for {
				n, err := back.Read(buf)
				if err != nil {
					_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
					return
				}
				if c.WriteMessage(websocket.BinaryMessage, buf[:n]) != nil {
					return
				}
			}
		}()
		defer func() { _ = back.Close() }()
		for {
			kind, b, err := c.ReadMessage()
			if err != nil {
				return
			}
			if kind != websocket.BinaryMessage {
				t.Errorf("message of kind %d", kind)
			}
			if _, err := back.Write(b); err != nil {
				return
			}
		}
	})
	s := httptest.NewUnstartedServer(mux)
	if cert != nil {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// carries sends messages both ways over a bridge, with its connection cut in between.
func carries(t *testing.T, o Options, local *fakeLocal, up *fakeUpstream) {
	t.Helper()
	oracle(t, local, up)
	o.DialLocal = local.dial
	b := startBridge(t, o)
	eventually(t, "up", func() bool { return b.Status().State == StateUp })
	for i := range 300 {
		publishRound(local, 1, i)
		if i == 150 {
			up.cutAll()
		}
	}
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	expectOrder(t, up.messages(), 1, 300)
	big := strings.Repeat("x", 300<<10)
	eventually(t, "downlink", func() bool { return up.send("dev/cmd/a", big, 1, false) })
	eventually(t, "here", func() bool { r := local.received(); return len(r) > 0 && r[len(r)-1].payload == big })
	local.publish("s/0", big, 1, false)
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	_ = b.Close()
	eventually(t, "goodbye", func() bool { up.mu.Lock(); defer up.mu.Unlock(); return up.goodbyes == 1 })
}

func TestOverWebSocket(t *testing.T) {
	dir := t.TempDir()
	cert := selfSigned(t, dir)
	for _, protocol := range []Protocol{Protocol311, Protocol5} {
		for _, scheme := range []string{"ws", "wss"} {
			t.Run(scheme+" "+string(protocol), func(t *testing.T) {
				local, up := newFakeLocal(t), newFakeUpstream(t)
				var c *tls.Certificate
				if scheme == "wss" {
					c = &cert
				}
				o := testOptions(local, scheme+"://"+wsFront(t, c, up.ln.Addr().String()), outAll, inCmd)
				o.Protocol = protocol
				o.TLS = TLS{CAFile: filepath.Join(dir, "cert.pem"), ServerName: "broker.test"}
				carries(t, o, local, up)
			})
		}
	}
}

// An upstream without MQTT 5 that hangs up looks the same through a WebSocket.
func TestWebSocketThatHangsUp(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	up.not5 = "close"
	o := testOptions(local, "ws://"+wsFront(t, nil, up.ln.Addr().String()), outAll)
	o.Protocol = ProtocolAuto
	b := startBridge(t, o)
	eventually(t, "up in 3.1.1", inState(b, StateUp))
}

// fakeProxy is an HTTP or SOCKS5 proxy. It resolves the one name that it knows.
type fakeProxy struct {
	t        *testing.T
	ln       net.Listener
	to       string // where cloud.invalid:1883 and :8883 are
	user, pw string
	answer   string // of the HTTP proxy, instead of a connection

	mu    sync.Mutex
	asked []string
	conns []net.Conn
	wg    sync.WaitGroup
}

func newFakeProxy(t *testing.T, to string, handle func(*fakeProxy, net.Conn, *bufio.Reader) bool) *fakeProxy {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &fakeProxy{t: t, ln: ln, to: to}
	keep := func(c net.Conn) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.conns = append(p.conns, c)
	}
	p.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			keep(c)
			p.wg.Go(func() {
				defer func() { _ = c.Close() }()
				in := bufio.NewReader(c)
				if !handle(p, c, in) {
					return
				}
				back, err := net.Dial("tcp", p.to)
				if err != nil {
					return
				}
				keep(back)
				p.wg.Go(func() { _, _ = io.Copy(c, back); _ = c.Close() })
				_, _ = io.Copy(back, in)
				_ = back.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *fakeProxy) ask(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, target)
}

func serveConnect(p *fakeProxy, c net.Conn, in *bufio.Reader) bool {
	r, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	p.ask(r.Method + " " + r.Host)
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.user+":"+p.pw)); p.user != "" && r.Header.Get("Proxy-Authorization") != want {
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno")
		return false
	}
	if p.answer != "" {
		_, _ = io.WriteString(c, p.answer)
		return false
	}
	_, err = io.WriteString(c, "HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
	return err == nil
}

func serveSocks(p *fakeProxy, c net.Conn, in *bufio.Reader) bool {
	read := func(n int) []byte {
		b := make([]byte, n)
		_, _ = io.ReadFull(in, b)
		return b
	}
	greeting := read(2)
	methods := read(int(greeting[1]))
	if p.user == "" {
		_, _ = c.Write([]byte{5, 0})
	} else {
		if !strings.Contains(string(methods), "\x02") {
			_, _ = c.Write([]byte{5, 0xFF})
			return false
		}
		_, _ = c.Write([]byte{5, 2})
		user := read(int(read(2)[1]))
		pw := read(int(read(1)[0]))
		if string(user) != p.user || string(pw) != p.pw {
			_, _ = c.Write([]byte{1, 1})
			return false
		}
		_, _ = c.Write([]byte{1, 0})
	}
	head := read(4)
	if head[3] != 3 {
		p.t.Errorf("the proxy is asked for an address of kind %d, not for a name", head[3])
		return false
	}
	name := read(int(read(1)[0]))
	port := read(2)
	p.ask(string(name))
	if string(name) != "cloud.invalid" || port[0] == 0 {
		_, _ = c.Write([]byte{5, 4, 0, 1, 0, 0, 0, 0, 0, 0})
		return false
	}
	_, err := c.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 9})
	return err == nil
}

func TestThroughProxies(t *testing.T) {
	dir := t.TempDir()
	cert := selfSigned(t, dir)
	for scheme, serve := range map[string]func(*fakeProxy, net.Conn, *bufio.Reader) bool{"http": serveConnect, "socks5": serveSocks} {
		for _, address := range []string{"tcp://cloud.invalid", "tls://cloud.invalid", "wss://cloud.invalid:8443"} {
			t.Run(scheme+" to "+address, func(t *testing.T) {
				local, up := newFakeLocal(t), newFakeUpstream(t)
				to := up.ln.Addr().String()
				switch address[:3] {
				case "tls":
					to = tlsFront(t, cert, to)
				case "wss":
					to = wsFront(t, &cert, to)
				}
				p := newFakeProxy(t, to, serve)
				p.user, p.pw = "me", "hunter2"
				o := testOptions(local, address, outAll, inCmd)
				o.Proxy = scheme + "://me:hunter2@" + p.ln.Addr().String()
				o.TLS = TLS{CAFile: filepath.Join(dir, "cert.pem"), ServerName: "broker.test"}
				carries(t, o, local, up)
				if !strings.Contains(p.asked[0], "cloud.invalid") {
					t.Errorf("asked for %v", p.asked)
				}
			})
		}
		t.Run(scheme+" refuses", func(t *testing.T) {
			p := newFakeProxy(t, "", serve)
			p.user, p.pw = "me", "hunter2"
			o := testOptions(nil, "tcp://cloud.invalid", outAll)
			o.Proxy = scheme + "://me:wrong-hunter@" + p.ln.Addr().String()
			got, last := pingOne(t, o)
			if got.OK || last.Name != "proxy" || strings.Contains(last.Error+last.Hint, "hunter") {
				t.Errorf("%+v", got)
			}
			if scheme == "http" && !strings.Contains(last.Error, "407") {
				t.Errorf("%+v", last)
			}
		})
	}
}

// A proxy that says too much, nothing, or something else is an error, and no wait
// outlasts Close.
func TestProxiesThatMisbehave(t *testing.T) {
	for what, answer := range map[string]string{
		"speaks early":  "HTTP/1.1 200 OK\r\n\r\nhello",
		"no HTTP":       "SSH-2.0-x\r\n",
		"long":          "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*proxyAnswerMax) + "\r\n\r\n",
		"not connected": "HTTP/1.1 503 no way\r\n\r\n",
	} {
		p := newFakeProxy(t, "", serveConnect)
		p.answer = answer
		o := testOptions(nil, "tcp://cloud.invalid", outAll)
		o.Proxy = "http://" + p.ln.Addr().String()
		if got, last := pingOne(t, o); got.OK || last.Name != "proxy" {
			t.Errorf("%s: %+v", what, got)
		}
	}
	local := newFakeLocal(t)
	silent := newFakeProxy(t, "", func(_ *fakeProxy, _ net.Conn, in *bufio.Reader) bool { _, _ = io.Copy(io.Discard, in); return false })
	for _, scheme := range []string{"http", "socks5"} {
		o := testOptions(local, "tcp://cloud.invalid", outAll)
		o.Proxy = scheme + "://" + silent.ln.Addr().String()
		b := startBridge(t, o)
		eventually(t, "dialling", inState(b, StateConnecting))
		start := time.Now()
		_ = b.Close()
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: Close took %v", scheme, d)
		}
	}
	o := testOptions(local, "ws://"+silent.ln.Addr().String(), outAll)
	b := startBridge(t, o)
	eventually(t, "dialling", inState(b, StateConnecting))
	start := time.Now()
	_ = b.Close()
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("WebSocket: Close took %v", d)
	}
}

func TestPingExplainsWebSockets(t *testing.T) {
	front := wsFront(t, nil, newFakeUpstream(t).ln.Addr().String())
	o := testOptions(nil, "ws://"+front+"/nowhere", outAll)
	if p, last := pingOne(t, o); p.OK || last.Name != "WebSocket" || !strings.Contains(last.Error, "404") || !strings.Contains(last.Hint, `"/nowhere"`) {
		t.Errorf("%+v", p)
	}
	o.Address = "ws://" + front
	if p, _ := pingOne(t, o); !p.OK || steps(p) != "TCP WebSocket MQTT" {
		t.Errorf("%+v", p)
	}
}

func TestInterface(t *testing.T) {
	for _, through := range []string{"lo", "127.0.0.9"} {
		up := newFakeUpstream(t)
		o := testOptions(nil, up.addr(), outAll)
		o.Interface = through
		p, _ := pingOne(t, o)
		if !p.OK || through != "lo" && !strings.HasPrefix(p.Steps[0].Found, through) {
			t.Errorf("%s: %+v", through, p)
		}
	}
	for _, through := range []string{"nosuchif0", "192.0.2.1"} {
		o := testOptions(nil, newFakeUpstream(t).addr(), outAll)
		o.Interface = through
		if p, last := pingOne(t, o); p.OK || last.Name != "TCP" {
			t.Errorf("%s: %+v", through, p)
		}
	}
}

func TestProxyAddresses(t *testing.T) {
	for s, want := range map[string]string{"http://h": "h:3128", "socks5://u:p@h": "h:1080", "http://[::1]:8080/": "::1:8080"} {
		p, err := parseProxy(s)
		if err != nil || p.host+":"+p.port != want {
			t.Errorf("%s: %+v %v", s, p, err)
		}
	}
	for _, s := range []string{"https://u:secret@h", "h:3128", "http://", "http://u:secret@h/x", "ftp://u:secret@h", "socks5://u:secret@h?x", "http://u:sec ret@h%zz"} {
		if _, err := parseProxy(s); err == nil || strings.Contains(err.Error(), "sec") && strings.Contains(err.Error(), "ret") && !strings.Contains(err.Error(), "http://[user") {
			t.Errorf("%s: %v", s, err)
		}
	}
}
