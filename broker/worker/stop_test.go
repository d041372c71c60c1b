package worker

import (
	"testing"
	"time"

	"sluice/broker/mqtt"
)

// A stop in steps: nothing more is read, what the store owes still leaves,
// MQTT 5 clients are told, no will is published, and sessions stay in the store.
func TestStop(t *testing.T) {
	r := newRig(t, 2, nil)
	away := r.connect(r.idOn(1, "away"), mqtt.V311, durableSession)
	away.subscribe("t:1", "will:1")
	away.lose()
	pub := r.connect(r.idOn(0, "pub"), mqtt.V5, willOf("dead", 0, 0))
	old := r.connect(r.idOn(1, "old"), mqtt.V311, nil)
	r.lazy = true
	pub.send(pub.publication("t", "x", 1, 1))
	r.run()
	for _, w := range r.ws {
		w.Quiesce()
	}
	r.run()
	pub.send(pub.publication("t", "not read", 1, 2))
	late := r.dial(0, mqtt.V5)
	late.sendConnect("late", nil)
	r.run()
	if waiting := waitingIn(r); waiting != 1 || len(pub.in) == 0 || len(late.in) == 0 || len(r.nets[0].backlog) == 0 {
		t.Errorf("%d acknowledgements wait, %d bytes unread, CONNECT unread: %v", waiting, len(pub.in), len(late.in) > 0)
	}
	r.lazy = false
	r.run()
	pub.got("PUBACK 1")
	if waiting := waitingIn(r); waiting != 0 || len(pub.in) == 0 {
		t.Errorf("%d acknowledgements wait, %d bytes unread", waiting, len(pub.in))
	}
	for _, w := range r.ws {
		w.Stop()
	}
	for _, w := range r.ws {
		r.turn(w, nil)
		if !w.stopped || w.conns.used != 0 {
			t.Errorf("stopped %v, %d connections", w.stopped, w.conns.used)
		}
	}
	pub.got("DISCONNECT 0x8b")
	old.got()
	if !pub.closed || !old.closed || r.sum().Wills != 1 { // [MQTT-3.1.2-8]
		t.Errorf("closed %v, %v; %d wills", pub.closed, old.closed, r.sum().Wills)
	}
	r.run()
	if im, _ := r.store.Load(); len(im.Sessions) != 1 || im.Sessions[0].Tail-im.Sessions[0].Head != 1 {
		t.Errorf("the store has %+v", im.Sessions)
	}
}

// waitingIn asks the workers how many acknowledgements wait.
func waitingIn(r *rig) (sum int) {
	for _, w := range r.ws {
		answer := make(chan int, 1)
		w.Waiting(answer)
		r.run()
		sum += <-answer
	}
	return sum
}

// Connections on their way to another worker when that one stops are closed.
func TestStopDuringHandover(t *testing.T) {
	r := newRig(t, 2, nil)
	d := r.dial(0, mqtt.V5)
	d.sendConnect(r.idOn(1, "a"), nil)
	for range 2 { // accept, read
		r.turn(r.ws[0], r.nets[0].events())
	}
	r.ws[1].stopped = true
	if err := r.ws[1].Run(); err != nil {
		t.Fatal(err)
	}
	if !d.closed || r.g.Connections() != 0 || r.open.Load() != 0 {
		t.Errorf("closed %v, %d connections, %d of the listener", d.closed, r.g.Connections(), r.open.Load())
	}
}

// Counters and sessions can be asked for from outside.
func TestSnapshotAndInspect(t *testing.T) {
	r := newRig(t, 1, nil)
	r.connect("b", mqtt.V311, durableSession).subscribe("x:0", "y:1")
	r.connect("a", mqtt.V5, nil)
	r.connect("other", mqtt.V5, nil)
	counters, sessions := make(chan Stats, 1), make(chan []SessionInfo, 2)
	r.ws[0].Snapshot(counters)
	r.ws[0].Inspect("", sessions)
	r.ws[0].Inspect("b", sessions)
	r.run()
	if s := <-counters; s.Connections != 3 || s.Sessions != 3 || s.Connects != 3 {
		t.Errorf("%+v", s)
	}
	if all := <-sessions; len(all) != 3 || all[0].ClientID != "a" || all[0].Durable || all[2].ClientID != "other" {
		t.Errorf("%+v", all)
	}
	if b := <-sessions; len(b) != 1 || !b[0].Durable || !b[0].Connected || len(b[0].Filters) != 2 {
		t.Errorf("%+v", b)
	}
}

// Mute takes the subscriptions of a session that is away, for good.
func TestMute(t *testing.T) {
	r := newRig(t, 2, nil)
	id := r.idOn(1, "a")
	a := r.connect(id, mqtt.V311, durableSession)
	a.subscribe("t:1")
	r.g.Mute(id) // somebody is connected: nothing happens
	r.run()
	pub := r.connect("pub", mqtt.V5, nil)
	pub.send(pub.publication("t", "1", 1, 1))
	pub.expect("PUBACK 1")
	a.got("t=1 qos1 id1")
	a.lose()
	r.g.Mute(id)
	r.g.Mute("nobody")
	r.run()
	pub.send(pub.publication("t", "2", 1, 1))
	pub.expect("PUBACK 1 0x10")
	r.restart()
	r.connect(id, mqtt.V311, durableSession)
	r.wait(time.Second)
	if x := r.ws[1].byID[id]; len(x.Subscriptions()) != 0 {
		t.Errorf("subscriptions after a restart: %v", x.Subscriptions())
	}
}
