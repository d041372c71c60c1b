package e2e

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"sluice/broker/mqtt"
)

// rawConn is a connection on which a test writes what it likes.
type rawConn struct {
	net.Conn
	t testing.TB
}

// dial opens a connection and sends nothing.
func dial(t testing.TB, address string) rawConn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	must(t, err)
	must(t, c.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { _ = c.Close() })
	return rawConn{c, t}
}

// raw connects with MQTT 5.
func raw(t testing.TB, address, id string) rawConn {
	t.Helper()
	c := dial(t, address)
	c.send(mqtt.AppendConnect(nil, &mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: []byte(id)}))
	if h, body := c.packet(); h.Type != mqtt.CONNACK || body[1] != 0 {
		t.Fatalf("%v instead of CONNACK", h.Type)
	}
	return c
}

func (c rawConn) send(b []byte) {
	c.t.Helper()
	_, err := c.Write(b)
	must(c.t, err)
}

// packet reads one packet.
func (c rawConn) packet() (h mqtt.Header, body []byte) {
	c.t.Helper()
	var head []byte
	for n := 0; n == 0; {
		var b [1]byte
		_, err := io.ReadFull(c, b[:])
		must(c.t, err)
		head = append(head, b[0])
		h, n, err = mqtt.ParseHeader(head, 0)
		must(c.t, err)
	}
	body = make([]byte, h.Remaining)
	_, err := io.ReadFull(c, body)
	must(c.t, err)
	return h, body
}

// disconnected reads up to a DISCONNECT and gives its reason.
func (c rawConn) disconnected() mqtt.Reason {
	c.t.Helper()
	for {
		if h, body := c.packet(); h.Type == mqtt.DISCONNECT {
			var d mqtt.Disconnect
			must(c.t, mqtt.DecodeDisconnect(&d, body, mqtt.V5))
			return d.Reason
		}
	}
}

// closed waits until the broker has closed the connection. It tells whether it
// did so in time.
func (c rawConn) closed(within time.Duration) bool {
	must(c.t, c.SetReadDeadline(time.Now().Add(within)))
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}
