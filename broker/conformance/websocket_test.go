package conformance

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"sluice/broker"
	"sluice/broker/mqtt"
	"sluice/broker/wire"
)

// Cases of WebSocket (MQTT5 6). Requests and frames are made by hand: what
// matters is where frames begin and end.

// Frame opcodes (RFC 6455 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
	finalFrame     = 0x80
)

// webSocket is a client's connection after the upgrade.
type webSocket struct {
	c    *trial
	conn net.Conn
	r    *bufio.Reader
	data []byte // of binary frames, not read yet
}

// upgrade asks for a WebSocket with the subprotocols offered.
func (c *trial) upgrade(offered string) (*http.Response, *webSocket) {
	c.Helper()
	conn, err := net.Dial("tcp", c.b.Addresses()[0])
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	request := "GET /mqtt HTTP/1.1\r\nHost: " + c.b.Addresses()[0] + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: c3ViamVjdCB0byB0ZXN0Lg==\r\nSec-WebSocket-Version: 13\r\n"
	if offered != "" {
		request += "Sec-WebSocket-Protocol: " + offered + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		c.Fatal(err)
	}
	r := bufio.NewReader(conn)
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		c.Fatal(err)
	}
	return answer, &webSocket{c: c, conn: conn, r: r}
}

// overWebSocket starts a broker with a WebSocket listener, and upgrades.
func (c *trial) overWebSocket() *webSocket {
	c.Helper()
	c.own(func(o *broker.Options) { o.Listeners[0].WebSocket = &wire.WebSocketOptions{Path: "/mqtt"} })
	answer, w := c.upgrade("mqtt")
	if answer.StatusCode != http.StatusSwitchingProtocols {
		c.Fatal(answer.Status)
	}
	return w
}

// frame sends a masked frame.
func (w *webSocket) frame(first byte, payload []byte) {
	w.c.Helper()
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 65536:
		b = append(append(b, 0x80|126), u16(uint16(n))...)
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{1, 0x80, 0xFE, 0x55}
	b = append(b, mask[:]...)
	for i, x := range payload {
		b = append(b, x^mask[i%4])
	}
	if _, err := w.conn.Write(b); err != nil {
		w.c.Fatal(err)
	}
}

// readFrame reads a frame from the broker.
func (w *webSocket) readFrame() (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(w.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1])
	switch n {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(w.r, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(w.r, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(w.r, payload)
	return head[0] & 0x0F, payload, err
}

// want reads bytes of MQTT, from binary frames.
func (w *webSocket) want(want []byte) {
	w.c.Helper()
	for len(w.data) < len(want) {
		op, payload, err := w.readFrame()
		if err != nil || op != opBinary && op != opContinuation {
			w.c.Fatalf("frame of opcode %d, %v; want binary ones", op, err)
		}
		w.data = append(w.data, payload...)
	}
	if got := w.data[:len(want)]; !slices.Equal(got, want) {
		w.c.Fatalf("% x, want % x", got, want)
	}
	w.data = w.data[len(want):]
}

// wantClosed reads the end of the connection; a close frame may come before it.
func (w *webSocket) wantClosed() {
	w.c.Helper()
	for {
		op, payload, err := w.readFrame()
		if err != nil {
			if explain(err) == err {
				w.c.Fatal(err)
			}
			return
		}
		if op != opClose && op != opPong && (op != opBinary || payload[0]>>4 != byte(mqtt.DISCONNECT)) {
			w.c.Fatalf("frame of opcode %d: % x, want the end", op, payload)
		}
	}
}

// connect connects in one frame, and subscribes to x.
func (w *webSocket) connect() {
	w.c.Helper()
	w.frame(finalFrame|opBinary, w.c.hello("x"))
	op, payload, err := w.readFrame()
	if err != nil || op != opBinary || len(payload) < 4 || payload[0] != 0x20 || payload[3] != 0 {
		w.c.Fatalf("frame of opcode %d: % x, %v; want a CONNACK", op, payload, err)
	}
	w.frame(finalFrame|opBinary, w.c.rawSubscribe(1, w.c.topic("x"), 0))
	w.want(raw(0x90, u16(1), w.c.props(), []byte{0}))
}

func webSocketBinary(c *trial) {
	w := c.overWebSocket()
	w.connect()
	w.frame(finalFrame|opPing, []byte("control frames are no data frames"))
	if op, payload, err := w.readFrame(); err != nil || op != opPong || string(payload) != "control frames are no data frames" {
		c.Fatalf("frame of opcode %d: %q, %v; want a pong", op, payload, err)
	}
	w.frame(finalFrame|opText, []byte{0xC0, 0})
	w.wantClosed()
	for _, op := range []byte{opText, 0x3} {
		_, w := c.upgrade("mqtt")
		w.frame(finalFrame|op, c.hello("x"))
		w.wantClosed()
	}
}

// webSocketUnaligned: packets in one frame, a packet in many, and frames that
// end in the middle of packets.
func webSocketUnaligned(c *trial) {
	w := c.overWebSocket()
	w.connect()
	var all, answers []byte
	for i := range 40 {
		payload := fmt.Sprintf("%0*d", i*i, i)
		all = append(all, c.publishPacket(c.topic("x"), 0, 0, payload)...)
		answers = append(answers, c.publishPacket(c.topic("x"), 0, 0, payload)...)
	}
	w.frame(finalFrame|opBinary, all)
	w.want(answers)
	for i := range all {
		w.frame(finalFrame|opBinary, all[i:i+1])
		if i == 2000 { // enough of this
			w.frame(opBinary, all[i+1:i+500])
			w.frame(opContinuation, nil)
			w.frame(opContinuation, all[i+500:i+501])
			w.frame(finalFrame|opContinuation, all[i+501:])
			break
		}
	}
	w.want(answers)
}

func webSocketProtocol(c *trial) {
	c.overWebSocket()
	for offered, want := range map[string]string{"mqtt": "mqtt", "chat, mqtt": "mqtt", "mqtt,other": "mqtt", "chat": "", "": ""} {
		answer, _ := c.upgrade(offered)
		got := answer.Header.Get("Sec-WebSocket-Protocol")
		if got != want || want != "" && answer.StatusCode != http.StatusSwitchingProtocols {
			c.Errorf("offered %q: %s, subprotocol %q, want %q", offered, answer.Status, got, want)
		}
	}
}
