package worker

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/broker/topic"
	"sluice/broker/wire"
)

// 500 devices come back at once; one hash takes 80 ms on one core (hash.go).
func TestCollapse(t *testing.T) {
	r := newRig(t, 1, nil)
	r.raw = true
	r.opt.ConnectTimeout = 10 * time.Second
	var queue []func()
	r.g.opt.Offload = func(j func()) error {
		if len(queue) >= 1024 {
			return errors.New("busy")
		}
		queue = append(queue, j)
		return nil
	}
	r.g.SetRules(rules(t, ""))
	const n = 500
	ds := make([]*device, n)
	in := make([]bool, n)
	dial := func(i int) {
		d := r.dial(0, mqtt.V311)
		d.remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1)
		d.sendConnect(fmt.Sprint("dev", i), password("ann", "secret"))
		ds[i] = d
	}
	for i := range n {
		dial(i)
	}
	r.run()
	hashes, before := 0, uint64(0)
	for tick := range 10 * 60 * 1000 / 80 { // ten minutes
		for len(queue) > 0 {
			j := queue[0]
			queue = queue[1:]
			j()
			hashes++
			r.run()
			if s := r.ws[0].stats.Connects + r.ws[0].stats.LoginsFailed; s != before {
				before = s
				break
			}
		}
		r.wait(80 * time.Millisecond)
		done := 0
		for i, d := range ds {
			if in[i] {
				done++
				continue
			}
			if d.closed {
				dial(i) // it tries again at once
			} else if len(d.out) > 0 && d.out[3] == 0 {
				in[i] = true
			}
		}
		if tick%750 == 0 {
			t.Logf("minute %d: %d of %d in, %d hashes, %d queued", tick/750, done, n, hashes, len(queue))
		}
		if done == n {
			return
		}
	}
	t.Error("not all are in after ten minutes")
}

func TestCertGuard(t *testing.T) {
	r := newRig(t, 1, nil)
	r.g.SetRules(rules(t, ""))
	var done func(wire.Layer, string, error)
	r.ws[0].listeners[0].Handshake = func(_ int, _ []byte, _ time.Duration, d func(wire.Layer, string, error)) error {
		done = d
		return nil
	}
	addr := netip.MustParseAddrPort("192.0.2.1:1")
	for range 10 { // somebody else at this address, on any listener
		r.g.guard.Failed(addr.Addr(), "dev", r.now)
	}
	d := r.dial(0, mqtt.V5)
	d.remote = addr
	d.send([]byte("h"))
	r.run()
	done(wire.Plain{}, "dev", nil)
	d.sendConnect("x", func(c *mqtt.Connect) { c.HasUsername, c.Username = true, []byte("dev") })
	for range 10 {
		r.run()
		r.work()
		r.wait(time.Second)
	}
	d.expect("CONNACK 0")
}

func TestMayReceiveRace(t *testing.T) {
	r := newRig(t, 2, nil)
	r.g.SetRules(rules(t, "user ann\ntopic read a/#\nuser bob\ntopic readwrite #\n"))
	d := r.dial(0, mqtt.V5)
	id := r.idOn(1, "ann")
	d.sendConnect(id, func(c *mqtt.Connect) { password("ann", "secret")(c); durableSession(c) })
	r.run()
	r.work()
	d.expect("CONNACK 0")
	d.subscribe("#:1")
	var hits topic.Hits
	r.g.index.Match([]byte("a/x"), &hits) // worker 0, in the middle of match
	r.g.Reload(rules(t, "user ann\ntopic read #\nuser bob\ntopic readwrite #\n"))
	r.turn(r.ws[1], nil)
	h := hits.Subs[0]
	if h.Marks&topic.Guarded != 0 && !r.g.mayReceive(h.Subscriber, []byte("a/x")) {
		t.Error("a/x is allowed by the old rules and by the new ones, and not queued")
	}
}

var _ = auth.Publish
