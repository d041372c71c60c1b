package worker

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/broker/wire"
)

func TestChaos(t *testing.T) {
	for seed := range uint64(400) {
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("seed %d: %v", seed, p)
					panic(p)
				}
			}()
			chaos(t, seed)
		}()
		if t.Failed() {
			return
		}
	}
}

func chaos(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	rate := rnd.IntN(3) * 20
	r := newRig(t, 1+rnd.IntN(3), func(o *Options) {
		o.ConnectionsPerAddressMax = rnd.IntN(2) * 8
		o.ConnectsPerSecondPerAddressMax = rnd.IntN(2) * 5
		o.ConnectsPerSecondMax = rnd.IntN(2) * 20
		o.MessagesPerSecondMax = rate
		o.OutputBytesMax = 200 + rnd.IntN(1000)
	})
	type shake func(wire.Layer, string, error)
	var shakes []shake
	tls, proxy, anon := rnd.IntN(2) == 0, rnd.IntN(2) == 0, rnd.IntN(2) == 0
	layered := tls || rnd.IntN(2) == 0
	for _, w := range r.ws {
		l := w.listeners[0]
		l.Proxy, l.Anonymous = proxy, anon
		if tls {
			l.Handshake = func(_ int, hello []byte, left time.Duration, done func(wire.Layer, string, error)) error {
				if rnd.IntN(10) == 0 {
					return errors.New("busy")
				}
				shakes = append(shakes, done)
				return nil
			}
		} else if layered {
			l.Layer = func(wire.Layer) wire.Layer { return &doubler{pending: []byte("hi")} }
		}
	}
	acls := []string{"", "user ann\ntopic readwrite #\nuser bob\ntopic readwrite a/#\n", "user ann\ntopic read a/+\ntopic write b/#\nuser bob\ntopic readwrite #\n"}
	sets := func() *auth.Rules {
		s := auth.Sources{Passwords: &auth.File{Name: "p", Data: []byte("ann:" + auth.HashPassword([]byte("secret"), 1, []byte("saltsaltsalt")) + "\nbob:" + auth.ScramVerifier([]byte("hidden"), 1, []byte("saltsaltsalt")) + "\n")}}
		if a := acls[rnd.IntN(len(acls))]; a != "" {
			s.ACL = &auth.File{Name: "acl", Data: []byte(a)}
		}
		ru, err := auth.New(&s)
		if err != nil {
			t.Fatal(err)
		}
		return ru
	}
	r.g.SetRules(sets())
	var ds []*device
	enc := func(b []byte) []byte {
		if layered {
			return double(b)
		}
		return b
	}
	topics := []string{"a/x", "b/x", "a/y", "$SYS/x"}
	filters := []string{"#", "a/#", "b/x", "$share/g/#", "$share/g/a/+"}
	step := func() {
		switch rnd.IntN(15) {
		case 0, 1:
			d := r.dial(rnd.IntN(len(r.ws)), mqtt.V5)
			if rnd.IntN(2) == 0 {
				d.v = mqtt.V311
			}
			d.remote = netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:1", rnd.IntN(3)))
			if proxy {
				d.send([]byte(fmt.Sprintf("PROXY TCP4 192.0.2.%d 192.0.2.8 1234 1883\r\n", rnd.IntN(3))))
			}
			if tls {
				d.send([]byte("h"))
			}
			ds = append(ds, d)
			return
		case 2:
			if len(shakes) > 0 {
				f := shakes[0]
				shakes = shakes[1:]
				if rnd.IntN(5) == 0 {
					f(nil, "", errors.New("bad"))
				} else {
					f(&doubler{pending: []byte("hi")}, []string{"", "ann"}[rnd.IntN(2)], nil)
				}
			}
			return
		case 3:
			if len(r.jobs) > 0 {
				i := rnd.IntN(len(r.jobs))
				j := r.jobs[i]
				r.jobs = append(r.jobs[:i:i], r.jobs[i+1:]...)
				j()
			}
			return
		case 4:
			r.g.Reload(sets())
			return
		case 5:
			r.wait(time.Duration(rnd.IntN(5000)) * time.Millisecond)
			return
		case 6:
			r.round()
			return
		}
		if len(ds) == 0 {
			return
		}
		d := ds[rnd.IntN(len(ds))]
		if d.closed {
			return
		}
		switch rnd.IntN(9) {
		case 0:
			if rnd.IntN(3) == 0 {
				d.end = io.EOF
			} else if rnd.IntN(3) == 0 {
				d.end = unix.ECONNRESET
			}
		case 1:
			d.room = rnd.IntN(400) - 1
		case 2:
			d.room = -1
		case 3:
			id := fmt.Sprint("c", rnd.IntN(5))
			c := mqtt.Connect{Version: d.v, ClientID: []byte(id), Clean: rnd.IntN(2) == 0}
			if d.v == mqtt.V5 && rnd.IntN(2) == 0 {
				expiry(&c, 5)
			}
			switch rnd.IntN(4) {
			case 0:
				password("ann", []string{"secret", "x"}[rnd.IntN(2)])(&c)
			case 1:
				password("bob", "hidden")(&c)
			case 2:
				if d.v == mqtt.V5 {
					c.Props.AuthMethod, c.Props.AuthData = []byte("SCRAM-SHA-256"), []byte("n,,n=bob,r=abcdef")
				}
			}
			if rnd.IntN(2) == 0 {
				c.HasWill, c.Will = true, mqtt.Will{Topic: []byte(topics[rnd.IntN(4)]), Payload: []byte("w"), QoS: 1}
			}
			d.send(enc(mqtt.AppendConnect(nil, &c)))
		case 4:
			d.send(enc(mqtt.AppendSubscribe(nil, &mqtt.Subscribe{PacketID: 7, Filters: []mqtt.SubscribeFilter{{Filter: []byte(filters[rnd.IntN(len(filters))]), QoS: mqtt.QoS(rnd.IntN(3))}}}, d.v)))
		case 5, 6:
			for i := range rnd.IntN(20) {
				q := mqtt.QoS(rnd.IntN(3))
				id := uint16(0)
				if q > 0 {
					id = uint16(i + 1)
				}
				d.send(enc(d.publication(topics[rnd.IntN(4)], string(make([]byte, rnd.IntN(100))), q, id)))
			}
		case 7:
			if rnd.IntN(5) == 0 {
				d.send([]byte("xy"))
			} else {
				d.send(enc([]byte{byte(mqtt.PINGREQ) << 4, 0}))
			}
		case 8:
			for i := range 10 {
				d.send(enc(mqtt.AppendPuback(nil, mqtt.PUBACK, uint16(i+1), mqtt.Success, d.v)))
			}
		}
	}
	for range 300 {
		step()
	}
	if rnd.IntN(2) == 0 {
		for _, w := range r.ws {
			w.Quiesce()
		}
		r.run()
		for range 20 {
			step()
		}
		for _, w := range r.ws {
			w.Stop()
		}
	}
	for _, d := range ds {
		if !d.closed {
			d.end, d.room = unix.ECONNRESET, -1
		}
	}
	for _, f := range shakes {
		f(nil, "", errors.New("end"))
	}
	shakes = nil
	for range 5 {
		r.work()
		r.wait(20 * time.Second)
		for _, f := range shakes {
			f(nil, "", errors.New("end"))
		}
		shakes = nil
	}
	if n := r.g.Connections(); n != 0 {
		t.Errorf("seed %d: %d connections", seed, n)
	}
	if n := r.open.Load(); n != 0 {
		t.Errorf("seed %d: listener open %d", seed, n)
	}
	for _, s := range r.socks[1:] {
		accepted := s.net != nil || s.closed
		if accepted && !s.closed {
			t.Errorf("seed %d: fd %d open", seed, s.fd)
		}
	}
	for a, v := range r.g.door.visitors {
		if v.open != 0 {
			t.Errorf("seed %d: door %v %d", seed, a, v.open)
		}
	}
	for _, w := range r.ws {
		if len(w.expiries) != 0 {
			t.Errorf("seed %d: expiries", seed)
		}
	}
}
