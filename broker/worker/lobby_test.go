package worker

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/broker/session"
)

// A connection has its time for CONNECT, whether it sends nothing or one byte
// at a time.
func TestConnectTimeout(t *testing.T) {
	r := newRig(t, 1, nil)
	silent, slow := r.dial(0, mqtt.V5), r.dial(0, mqtt.V5)
	r.run()
	packet := mqtt.AppendConnect(nil, &mqtt.Connect{Version: mqtt.V5, Clean: true, ClientID: []byte(strings.Repeat("x", 100))})
	for _, b := range packet[:19] {
		slow.send([]byte{b})
		r.wait(500 * time.Millisecond)
	}
	if silent.closed || slow.closed {
		t.Fatal("closed before the time was up")
	}
	r.wait(500*time.Millisecond + 2*timerTick)
	if !silent.closed || !slow.closed {
		t.Errorf("silent closed: %v, slow closed: %v", silent.closed, slow.closed)
	}
	if n := r.g.Connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
	// Who has connected has no such limit any more.
	d := r.connect("a", mqtt.V5, nil)
	r.wait(time.Hour)
	if d.closed {
		t.Error("a client was closed for its CONNECT")
	}
}

func TestConnectRefused(t *testing.T) {
	r := newRig(t, 2, func(o *Options) { o.ConnectBytesMax = 200 })
	for _, x := range []struct {
		v    mqtt.Version
		set  func(*mqtt.Connect)
		want string
	}{
		{mqtt.V5, func(c *mqtt.Connect) { c.ClientID = []byte(session.InternalPrefix + "x") }, "CONNACK 133"},
		{mqtt.V311, func(c *mqtt.Connect) { c.ClientID = []byte(session.InternalPrefix + "x") }, "CONNACK 2"},
		{mqtt.V311, func(c *mqtt.Connect) { c.ClientID, c.Clean = nil, false }, "CONNACK 2"},
		{mqtt.V31, func(c *mqtt.Connect) { c.ClientID = nil }, "CONNACK 2"},
		{mqtt.V5, func(c *mqtt.Connect) { c.Props.AuthMethod = []byte("x") }, "CONNACK 140"},
	} {
		d := r.dial(0, x.v)
		d.sendConnect("a", x.set)
		d.expect(x.want)
		if !d.closed {
			t.Errorf("%s: not closed", x.want)
		}
	}
	for name, raw := range map[string]string{
		"not CONNECT":     "\xc0\x00",
		"too large":       "\x10\xff\x7f",
		"broken":          "\x10\x03\x00\x04M",
		"not MQTT at all": "GET / HTTP/1.1\r\n",
	} {
		d := r.dial(0, mqtt.V311)
		d.send([]byte(raw))
		d.expect()
		if !d.closed {
			t.Errorf("%s: not closed", name)
		}
	}
	// A version that we do not know is told so, in the form of 3.1.1.
	d := r.dial(0, mqtt.V311)
	d.send([]byte("\x10\x10\x00\x04MQTT\x06\x02\x00\x00\x00\x04abcd"))
	d.expect("CONNACK 1")
	if n := r.g.Connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// A client without an id gets one, which its worker owns.
func TestAssignedID(t *testing.T) {
	r := newRig(t, 4, nil)
	rnd := rand.New(rand.NewPCG(1, 1))
	r.g.opt.Random = rnd.Uint64
	seen := make(map[string]bool)
	for i := range 20 {
		d := r.dial(i%4, mqtt.V5)
		d.sendConnect("", nil)
		r.run()
		got := d.read()
		id, ok := strings.CutPrefix(strings.Join(got, ""), "CONNACK 0 ")
		if !ok || seen[id] || len(id) > 36 || r.g.owner([]byte(id)) != r.ws[i%4] {
			t.Errorf("%q", got)
		}
		seen[id] = true
	}
}

// More connections than allowed are closed; places that get free are used again.
func TestConnectionsMax(t *testing.T) {
	r := newRig(t, 2, func(o *Options) { o.ConnectionsMax = 3 })
	for i := range 3 {
		r.connect(fmt.Sprint(i), mqtt.V5, nil)
	}
	d := r.dial(1, mqtt.V5)
	d.sendConnect("x", nil)
	d.expect()
	if !d.closed || r.sum().Refused != 1 {
		t.Errorf("closed %v, %d refused", d.closed, r.sum().Refused)
	}
	for _, w := range r.ws {
		w.Call(func(w *Worker) { w.conns.each(func(c *conn) { w.lost(c, io.EOF) }) })
	}
	r.run()
	for i := range 3 {
		r.connect(fmt.Sprint(i), mqtt.V5, nil)
	}
	if n := r.g.Connections(); n != 3 {
		t.Errorf("%d connections", n)
	}
}

// The worker of a client id is one of those there are: also where int has 32
// bits, and a hash can be negative.
func TestOwner(t *testing.T) {
	r := newRig(t, 3, nil)
	hits := make(map[*Worker]int)
	for i := range 3000 {
		hits[r.g.owner([]byte(fmt.Sprint("client-", i)))]++
	}
	for i, w := range r.ws {
		if n := hits[w]; n < 800 || n > 1200 {
			t.Errorf("worker %d owns %d of 3000", i, n)
		}
	}
}
