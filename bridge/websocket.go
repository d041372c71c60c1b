package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// DESIGN. MQTT over WebSocket (MQTT5 6) as one more layer of the connection. Each
// write is one binary message; what comes is a stream, however it is cut into messages.
// One goroutine reads and one writes, as the library demands. It allocates nothing by a
// length that a header announces: what is too large is the guard's to find.

// wsConn is a WebSocket as a net.Conn.
type wsConn struct {
	*websocket.Conn
	message io.Reader // the one that is being read; nil: none
}

// mqttOverWS is the subprotocol [MQTT-6.0.0-3].
const mqttOverWS = "mqtt"

// dialWebSocket does the handshake on a connection, which it closes if that fails.
func dialWebSocket(ctx context.Context, at address, conn net.Conn, told trace) (net.Conn, error) {
	given := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	d := websocket.Dialer{NetDialContext: given, NetDialTLSContext: given, Subprotocols: []string{mqttOverWS}}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	c, answer, err := d.DialContext(ctx, at.url(), nil)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		} else if answer != nil {
			err = &wsRefused{answer.StatusCode, answer.Status}
		}
		return nil, &stepError{stepWebSocket, err}
	}
	told.tell(stepWebSocket, "%s, subprotocol %q", at.path, c.Subprotocol())
	return &wsConn{Conn: c}, nil
}

// wsRefused is an answer that is no WebSocket.
type wsRefused struct {
	code   int
	status string
}

func (e *wsRefused) Error() string { return fmt.Sprintf("the server answers %.100q", e.status) }

func hintWebSocket(at address, err error) string {
	var refused *wsRefused
	if !errors.As(err, &refused) {
		return "what answers there speaks no HTTP: look at the port, and whether it is ws:// or wss://"
	}
	switch refused.code {
	case http.StatusNotFound:
		return fmt.Sprintf("there are no WebSockets at the path %q: write the right one behind the port in address", at.path)
	case http.StatusUnauthorized, http.StatusForbidden:
		return "the web server before the broker refuses us"
	}
	return "the server does not take WebSockets there: look at the path and the port"
}

func (c *wsConn) Read(p []byte) (int, error) {
	for {
		if c.message == nil {
			kind, r, err := c.NextReader()
			if err != nil {
				return 0, endOfStream(err)
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("the upstream sends text where binary data is due [MQTT-6.0.0-1]")
			}
			c.message = r
		}
		n, err := c.message.Read(p)
		if err == io.EOF {
			c.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, endOfStream(err)
		}
	}
}

// endOfStream makes the end of a WebSocket what it is on other connections.
func endOfStream(err error) error {
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		return fmt.Errorf("%w (%w)", io.EOF, err)
	}
	return err
}

func (c *wsConn) Write(p []byte) (int, error) {
	if err := c.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetDeadline sets both.
func (c *wsConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
