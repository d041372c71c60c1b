package rig

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"
)

// Dial opens a connection to a URL with the scheme mqtt, mqtts, ws, wss or unix; config
// is for those with TLS. What it returns carries MQTT as it is.
func Dial(ctx context.Context, to string, config *tls.Config) (net.Conn, error) {
	if path, ok := strings.CutPrefix(to, "unix:"); ok {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(path, "//"))
	}
	u, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "mqtt":
		return new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	case "mqtts":
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", u.Host)
	case "ws", "wss":
		web := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		c, resp, err := websocket.Dial(ctx, to, &websocket.DialOptions{HTTPClient: web, Subprotocols: []string{"mqtt"}})
		if err != nil {
			return nil, err
		}
		if resp.Header.Get("Sec-WebSocket-Protocol") != "mqtt" { // [MQTT-6.0.0-4]
			return nil, fmt.Errorf("%s: the sub-protocol is %q", to, resp.Header.Get("Sec-WebSocket-Protocol"))
		}
		c.SetReadLimit(-1)
		return websocket.NetConn(context.Background(), c, websocket.MessageBinary), nil
	}
	return nil, fmt.Errorf("%s: the scheme is unknown", to)
}
