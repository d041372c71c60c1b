package worker

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"sluice/broker/mqtt"
)

// device is a client.
type device struct {
	r *rig
	*sock
	v mqtt.Version
}

// dial opens a connection that a worker accepts.
func (r *rig) dial(worker int, v mqtt.Version) *device {
	s := &sock{fd: len(r.socks), room: -1}
	r.socks = append(r.socks, s)
	r.nets[worker].backlog = append(r.nets[worker].backlog, s.fd)
	return &device{r: r, sock: s, v: v}
}

// connect opens a connection at worker 0 and sends CONNECT.
func (r *rig) connect(id string, v mqtt.Version, set func(*mqtt.Connect)) *device {
	r.t.Helper()
	d := r.dial(0, v)
	d.sendConnect(id, set)
	r.run()
	if got := d.read(); len(got) == 0 || !strings.HasPrefix(got[0], "CONNACK 0") {
		r.t.Fatalf("%s: CONNECT is answered by %v", id, got)
	}
	return d
}

func (d *device) sendConnect(id string, set func(*mqtt.Connect)) {
	c := mqtt.Connect{Version: d.v, ClientID: []byte(id), Clean: true}
	if set != nil {
		set(&c)
	}
	d.send(mqtt.AppendConnect(nil, &c))
}

// durableSession makes a session outlive its connection.
func durableSession(c *mqtt.Connect) {
	c.Clean = false
	expiry(c, 3600)
}

func expiry(c *mqtt.Connect, seconds uint32) {
	c.Props.HasSessionExpiry, c.Props.SessionExpirySeconds = true, seconds
}

func (d *device) send(packets ...[]byte) {
	for _, p := range packets {
		d.in = append(d.in, p...)
	}
}

func (d *device) subscribe(filters ...string) {
	d.r.t.Helper()
	p := mqtt.Subscribe{PacketID: 9}
	for _, f := range filters {
		name, qos, _ := strings.Cut(f, ":")
		p.Filters = append(p.Filters, mqtt.SubscribeFilter{Filter: []byte(name), QoS: mqtt.QoS(qos[0] - '0')})
	}
	d.send(mqtt.AppendSubscribe(nil, &p, d.v))
	d.r.run()
	if got := d.read(); len(got) == 0 || got[0] != "SUBACK 9" {
		d.r.t.Fatalf("SUBSCRIBE is answered by %v", got)
	}
}

func (d *device) publication(topic, payload string, qos mqtt.QoS, id uint16) []byte {
	return mqtt.AppendPublish(nil, &mqtt.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, PacketID: id}, d.v)
}

func (d *device) ack(t mqtt.Type, id uint16) {
	d.send(mqtt.AppendPuback(nil, t, id, mqtt.Success, d.v))
}

// read gives the packets that the worker has written, in words.
func (d *device) read() (packets []string) {
	d.r.t.Helper()
	for {
		h, n, err := mqtt.ParseHeader(d.out, 0)
		if err != nil {
			d.r.t.Fatalf("not a packet: % x", d.out[:min(len(d.out), 40)])
		}
		if n == 0 || len(d.out) < n+h.Remaining {
			return packets
		}
		body := d.out[n : n+h.Remaining]
		d.out = d.out[n+h.Remaining:]
		packets = append(packets, d.words(h, body))
	}
}

func (d *device) words(h mqtt.Header, body []byte) string {
	d.r.t.Helper()
	fail := func(err error) {
		if err != nil {
			d.r.t.Fatalf("%s: %v", h.Type, err)
		}
	}
	switch h.Type {
	case mqtt.CONNACK:
		var p mqtt.Connack
		fail(mqtt.DecodeConnack(&p, body, d.v))
		s := fmt.Sprintf("CONNACK %d", p.Code)
		if p.SessionPresent {
			s += " present"
		}
		if p.Props.AssignedClientID != nil {
			s += " " + string(p.Props.AssignedClientID)
		}
		return s
	case mqtt.PUBLISH:
		var p mqtt.Publish
		fail(mqtt.DecodePublish(&p, h.Flags, body, d.v))
		s := fmt.Sprintf("%s=%s qos%d", p.Topic, p.Payload, p.QoS)
		if p.QoS > 0 {
			s += fmt.Sprintf(" id%d", p.PacketID)
		}
		if p.Dup {
			s += " dup"
		}
		if p.Retain {
			s += " retain"
		}
		if len(p.SubIDs) > 0 {
			s += fmt.Sprint(" ", p.SubIDs)
		}
		return s
	case mqtt.DISCONNECT:
		var p mqtt.Disconnect
		fail(mqtt.DecodeDisconnect(&p, body, d.v))
		return fmt.Sprintf("DISCONNECT %#x", uint8(p.Reason))
	case mqtt.PINGRESP:
		return "PINGRESP"
	}
	s := fmt.Sprintf("%s %d", h.Type, uint16(body[0])<<8|uint16(body[1]))
	if d.v == mqtt.V5 && len(body) > 2 && h.Type != mqtt.SUBACK && h.Type != mqtt.UNSUBACK {
		s += fmt.Sprintf(" %#x", body[2])
	}
	return s
}

// expect runs the workers and compares what the client gets.
func (d *device) expect(want ...string) {
	d.r.t.Helper()
	d.r.run()
	d.got(want...)
}

// got compares what the client has got so far.
func (d *device) got(want ...string) {
	d.r.t.Helper()
	if got := d.read(); !slices.Equal(got, want) {
		d.r.t.Errorf("got  %q\nwant %q", got, want)
	}
}

// lose ends the connection from the client's side without DISCONNECT.
func (d *device) lose() {
	d.end = io.EOF
	d.r.run()
}
