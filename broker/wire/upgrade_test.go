package wire

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// with gives the good request with one of its lines replaced; an empty one goes.
func with(old, new string) string {
	if new != "" {
		new += "\r\n"
	}
	r := strings.Replace(goodRequest, old+"\r\n", new, 1)
	if r == goodRequest {
		panic("BUG: no line " + old)
	}
	return r
}

const (
	lineStart    = "GET /mqtt HTTP/1.1"
	lineHost     = "Host: broker:8083"
	lineUpgrade  = "Upgrade: websocket"
	lineConn     = "Connection: keep-alive, Upgrade"
	lineKey      = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	lineVersion  = "Sec-WebSocket-Version: 13"
	lineProtocol = "Sec-WebSocket-Protocol: mqtt"
)

var upgradeTable = []struct {
	name    string // with the section of RFC 6455
	request string
	origins []string
	status  int
}{
	{"4.2.2 good", goodRequest, nil, 101},
	{"4.1 query", with(lineStart, "GET /mqtt?token=1 HTTP/1.1"), nil, 101},
	{"4.1 absolute URI", with(lineStart, "GET http://broker:8083/mqtt HTTP/1.1"), nil, 101},
	{"4.2.1 names in any case", with(lineUpgrade, "UPGRADE:WebSocket"), nil, 101},
	{"4.2.1 upgrade is a list", with(lineUpgrade, "Upgrade: h2c, websocket"), nil, 101},
	{"4.2.1 unknown fields", with(lineUpgrade, "Upgrade: websocket\r\nCookie: a=b; c=\"d\"\r\nSec-WebSocket-Extensions: permessage-deflate"), nil, 101},
	{"4.1 protocol among others", with(lineProtocol, "Sec-WebSocket-Protocol: foo, mqtt"), nil, 101},
	{"4.1 protocols in two fields", with(lineProtocol, "Sec-WebSocket-Protocol: foo\r\nSec-WebSocket-Protocol: mqtt"), nil, 101},
	{"MQTT 3.1's protocol", with(lineProtocol, "Sec-WebSocket-Protocol: mqttv3.1"), nil, 101},
	{"[MQTT-6.0.0-3] no protocol", with(lineProtocol, ""), nil, 400},
	{"[MQTT-6.0.0-3] other protocol", with(lineProtocol, "Sec-WebSocket-Protocol: MQTT, foo"), nil, 400},
	{"4.2.1 path", with(lineStart, "GET /other HTTP/1.1"), nil, 404},
	{"4.2.1 method", with(lineStart, "POST /mqtt HTTP/1.1"), nil, 405},
	{"4.2.1 HTTP/1.0", with(lineStart, "GET /mqtt HTTP/1.0"), nil, 400},
	{"target", with(lineStart, "GET mqtt HTTP/1.1"), nil, 400},
	{"start line", with(lineStart, "GET  /mqtt HTTP/1.1"), nil, 400},
	{"4.2.1 no Host", with(lineHost, ""), nil, 400},
	{"two Hosts", with(lineHost, "Host: a\r\nHost: b"), nil, 400},
	{"4.2.1 a browser", with(lineUpgrade, ""), nil, 426},
	{"4.2.1 Upgrade of another kind", with(lineUpgrade, "Upgrade: websockets"), nil, 426},
	{"4.2.1 no Connection", with(lineConn, "Connection: keep-alive"), nil, 426},
	{"4.4 version", with(lineVersion, "Sec-WebSocket-Version: 8"), nil, 426},
	{"4.4 no version", with(lineVersion, ""), nil, 426},
	{"4.2.1 no key", with(lineKey, ""), nil, 400},
	{"4.2.1 key of 15 bytes", with(lineKey, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"), nil, 400},
	{"4.2.1 key is not base64", with(lineKey, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q=="), nil, 400},
	{"11.3.1 two keys", with(lineKey, lineKey+"\r\n"+lineKey), nil, 400},
	{"body", with(lineUpgrade, lineUpgrade+"\r\nContent-Length: 5"), nil, 400},
	{"folded line", with(lineUpgrade, lineUpgrade+"\r\n and more"), nil, 400},
	{"no colon", with(lineUpgrade, "Upgrade websocket"), nil, 400},
	{"space before the colon", with(lineUpgrade, "Upgrade : websocket"), nil, 400},
	{"bare line end", with(lineUpgrade, "A: b\n"+lineUpgrade), nil, 400},
	{"control character", with(lineUpgrade, "A: b\x00\r\n"+lineUpgrade), nil, 400},
	{"too large", with(lineUpgrade, lineUpgrade+"\r\nCookie: "+strings.Repeat("x", 8192)), nil, 431},
	{"not HTTP: MQTT", "\x10\x10\x00\x04MQTT", nil, 400},
	{"not HTTP: TLS", "\x16\x03\x01\x00\x05", nil, 400},

	{"10.2 same host", with(lineHost, lineHost+"\r\nOrigin: http://BROKER:8083"), nil, 101},
	{"10.2 other host", with(lineHost, lineHost+"\r\nOrigin: http://evil"), nil, 403},
	{"10.2 other port", with(lineHost, lineHost+"\r\nOrigin: http://broker"), nil, 403},
	{"10.2 null", with(lineHost, lineHost+"\r\nOrigin: null"), nil, 403},
	{"10.2 empty", with(lineHost, lineHost+"\r\nOrigin:"), nil, 403},
	{"10.2 two", with(lineHost, lineHost+"\r\nOrigin: http://broker:8083\r\nOrigin: http://broker:8083"), nil, 400},
	{"10.2 no Origin", goodRequest, []string{"app.example.com"}, 101},
	{"10.2 all", with(lineHost, lineHost+"\r\nOrigin: null"), []string{"*"}, 101},
	{"10.2 null allowed", with(lineHost, lineHost+"\r\nOrigin: null"), []string{"x", "null"}, 101},
	{"10.2 listed", with(lineHost, lineHost+"\r\nOrigin: https://App.example.com:444"), []string{"app.example.com"}, 101},
	{"10.2 listed with port", with(lineHost, lineHost+"\r\nOrigin: https://app.example.com:444"), []string{"app.example.com:443"}, 403},
	{"10.2 listed with scheme", with(lineHost, lineHost+"\r\nOrigin: http://app.example.com"), []string{"https://app.example.com"}, 403},
	{"10.2 listed IPv6", with(lineHost, lineHost+"\r\nOrigin: http://[::1]:80"), []string{"[::1]"}, 101},
	{"10.2 below", with(lineHost, lineHost+"\r\nOrigin: https://a.example.com"), []string{"https://*.example.com"}, 101},
	{"10.2 not below", with(lineHost, lineHost+"\r\nOrigin: https://badexample.com"), []string{"*.example.com"}, 403},
	{"10.2 nothing is not below", with(lineHost, lineHost+"\r\nOrigin: https://.example.com"), []string{"*.example.com"}, 403},
	{"10.2 itself is not below", with(lineHost, lineHost+"\r\nOrigin: https://example.com"), []string{"*.example.com"}, 403},
	{"10.2 own host not in the list", with(lineHost, lineHost+"\r\nOrigin: http://broker:8083"), []string{"example.com"}, 403},
}

func TestUpgrade(t *testing.T) {
	for how, next := range map[string]func() int{
		"whole": func() int { return 1 << 30 }, "byte by byte": func() int { return 1 }, "pieces": func() int { return 7 },
	} {
		for _, c := range upgradeTable {
			w := NewWebSocket(&WebSocketOptions{Path: "/mqtt", Origins: c.origins})
			data, err := chunked(w, []byte(c.request), next)
			if len(data) > 0 {
				t.Errorf("%s, %s: data %q", c.name, how, data)
			}
			var refused *UpgradeError
			if errors.As(err, &refused) != (c.status != 101) || refused != nil && refused.Status != c.status {
				t.Errorf("%s, %s: %v, not %d", c.name, how, err, c.status)
				continue
			}
			answer := w.Close(nil)
			res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(answer))), nil)
			if err != nil {
				t.Errorf("%s, %s: %v in %q", c.name, how, err, answer)
				continue
			}
			body, err := io.ReadAll(io.LimitReader(res.Body, 1000))
			if res.StatusCode != c.status || c.status != 101 && (err != nil || !strings.Contains(string(body), "MQTT over WebSocket")) {
				t.Errorf("%s, %s: %q, %v", c.name, how, answer, err)
			}
			if c.status == 426 && res.Header.Get("Sec-WebSocket-Version") != "13" {
				t.Errorf("%s: no version in %q", c.name, answer)
			}
			if w.kept != nil {
				t.Errorf("%s, %s: keeps the request", c.name, how)
			}
		}
	}
}

// The protocol that is answered is the one that was offered, and the first of two.
func TestUpgradeProtocol(t *testing.T) {
	for offered, chosen := range map[string]string{"mqttv3.1": "mqttv3.1", "mqttv3.1, mqtt": "mqttv3.1", "x,mqtt,mqttv3.1": "mqtt"} {
		w := NewWebSocket(&WebSocketOptions{})
		if _, err := w.In(nil, []byte(with(lineProtocol, "Sec-WebSocket-Protocol: "+offered))); err != nil {
			t.Fatal(err)
		}
		if b, _ := w.Out(nil, nil); !strings.Contains(string(b), "Sec-WebSocket-Protocol: "+chosen+"\r\n") {
			t.Errorf("%s: %q", offered, b)
		}
	}
}

// Frames in the same read as the request are not lost; the answer comes first.
func TestUpgradeThenFrames(t *testing.T) {
	for cut := range len(goodRequest) + 1 {
		w := NewWebSocket(&WebSocketOptions{})
		b := append([]byte(goodRequest), frames(frame(0x89, "p"), frame(0x82, "CONNECT"))...)
		a, err := w.In(nil, b[:cut])
		c, err2 := w.In(nil, b[cut:])
		if string(a)+string(c) != "CONNECT" || err != nil || err2 != nil {
			t.Fatalf("cut at %d: %q %q %v %v", cut, a, c, err, err2)
		}
		if out, _ := w.Out(nil, []byte("CONNACK")); string(out) != goodAnswer+"\x8a\x01p\x82\x07CONNACK" {
			t.Fatalf("%q", out)
		}
	}
}

// A request that never ends is held up to the bound, and nothing is said to a
// peer that left before its end.
func TestUpgradeBound(t *testing.T) {
	w := NewWebSocket(&WebSocketOptions{RequestBytesMax: 300})
	for i := 0; ; i++ {
		if _, err := w.In(nil, []byte("X")); err != nil {
			if i != 299 {
				t.Fatalf("after %d bytes", i+1)
			}
			return
		}
		if cap(w.kept) > 600 {
			t.Fatalf("holds %d bytes", cap(w.kept))
		}
		if i == 10 {
			other := *w
			if b := other.Close(nil); len(b) != 0 {
				t.Fatalf("%q", b)
			}
		}
	}
}
