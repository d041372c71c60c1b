package worker

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/broker/mqtt"
	"sluice/broker/session"
	"sluice/persist"
)

// fullRig has a session "sub" on worker 1 that is away, whose queue takes two
// messages and has one.
func fullRig(t *testing.T, set func(*Options)) *rig {
	r := newRig(t, 2, func(o *Options) {
		o.Limits.Queue.Messages = 2
		if set != nil {
			set(o)
		}
	})
	sub := r.connect(r.idOn(1, "sub"), mqtt.V5, durableSession)
	sub.subscribe("t:2")
	sub.lose()
	first := r.connect(r.idOn(1, "first"), mqtt.V311, nil)
	first.send(first.publication("t", "0", 1, 1))
	first.expect("PUBACK 1")
	first.lose()
	return r
}

func (r *rig) back() *device {
	sub := r.dial(0, mqtt.V5)
	sub.sendConnect(r.idOn(1, "sub"), durableSession)
	return sub
}

// A client of MQTT 3.1.1 is held back until there is room: nothing is lost,
// acknowledgements and messages keep their order.
func TestHold(t *testing.T) {
	r := fullRig(t, nil)
	live := r.connect(r.idOn(0, "live"), mqtt.V5, nil)
	live.subscribe("t:1")
	pub := r.connect(r.idOn(0, "pub"), mqtt.V311, durableSession)
	for i := 1; i <= 5; i++ {
		pub.send(pub.publication("t", fmt.Sprint(i), mqtt.QoS(1+i%2), uint16(i)))
	}
	live.expect("t=1 qos1 id1", "t=2 qos1 id2", "t=3 qos1 id3", "t=4 qos1 id4", "t=5 qos1 id5") // does not wait
	pub.expect("PUBREC 1")
	if s := r.sum(); s.Holding != 1 || s.Held != 4 {
		t.Fatalf("%d clients are held, with %d publications", s.Holding, s.Held)
	}
	pub.send(pub.publication("t", "6", 1, 6)) // not read
	r.wait(3 * time.Second)
	pub.expect()
	if pub.closed {
		t.Fatal("closed")
	}
	sub := r.back()
	sub.expect("CONNACK 0 present", "t=0 qos1 id1", "t=1 qos2 id2")
	sub.ack(mqtt.PUBACK, 1) // nudges
	pub.expect("PUBACK 2")
	sub.expect("t=2 qos1 id3")
	sub.ack(mqtt.PUBREC, 2)
	sub.expect("PUBREL 2")
	sub.ack(mqtt.PUBCOMP, 2)
	sub.ack(mqtt.PUBACK, 3)
	for i := range 20 {
		r.wait(time.Second)
		for _, p := range sub.read() {
			switch word := strings.Fields(p); {
			case strings.HasPrefix(p, "PUBREL"):
				var id uint16
				fmt.Sscanf(p, "PUBREL %d", &id)
				sub.ack(mqtt.PUBCOMP, id)
			default:
				var id uint16
				fmt.Sscanf(word[2], "id%d", &id)
				if want := fmt.Sprint("t=", id-1); word[0] != want {
					t.Errorf("step %d: %s, want %s", i, p, want)
				}
				sub.ack(map[string]mqtt.Type{"qos1": mqtt.PUBACK, "qos2": mqtt.PUBREC}[word[1]], id)
			}
		}
	}
	pub.expect("PUBREC 3", "PUBACK 4", "PUBREC 5", "PUBACK 6")
	r.wait(time.Second)
	if s := r.sum(); s.Holding != 0 {
		t.Errorf("%d clients are held", s.Holding)
	}
	live.expect("t=6 qos1 id6") // and gets nothing twice
	if st := r.store.Stats(); st.QueuedMessages != 0 || st.Drops.Oldest+st.Drops.Newest != 0 {
		t.Errorf("%+v", st)
	}
}

// A client of MQTT 5 is told, unless its class says that it is held.
func TestHoldMQTT5(t *testing.T) {
	r := fullRig(t, func(o *Options) {
		q := o.Limits.Queue
		q.Hold = true
		o.Classes = []QueueClass{{Name: "patient", ClientIDs: []string{"patient*"}, Queue: q}}
	})
	pub := r.connect(r.idOn(0, "pub"), mqtt.V5, nil)
	patient := r.connect(r.idOn(0, "patient"), mqtt.V5, nil)
	pub.send(pub.publication("t", "x", 1, 1), pub.publication("t", "y", 1, 2), pub.publication("t", "y", 2, 3))
	pub.expect("PUBACK 1", "PUBACK 2 0x97", "PUBREC 3 0x97")
	patient.send(patient.publication("t", "z", 1, 1))
	patient.expect()
	if s := r.sum(); s.Holding != 1 || s.Held != 1 {
		t.Fatalf("%d clients are held, with %d publications", s.Holding, s.Held)
	}
	sub := r.back()
	sub.expect("CONNACK 0 present", "t=0 qos1 id1", "t=x qos1 id2")
	sub.ack(mqtt.PUBACK, 1)
	patient.expect("PUBACK 1")
}

// What is held goes with its connection, and may be sent again.
func TestHoldEnds(t *testing.T) {
	for name, end := range map[string]func(r *rig, pub *device){
		"closed": func(r *rig, pub *device) { pub.end = io.EOF },
		"reset":  func(r *rig, pub *device) { pub.end = unix.ECONNRESET },
		"taken over": func(r *rig, pub *device) {
			other := r.dial(1, mqtt.V311)
			other.sendConnect(r.idOn(0, "pub"), durableSession)
			other.expect("CONNACK 0 present")
			other.lose()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := fullRig(t, nil)
			pub := r.connect(r.idOn(0, "pub"), mqtt.V311, durableSession)
			pub.send(pub.publication("t", "1", 1, 1), pub.publication("t", "2", 2, 2))
			pub.expect("PUBACK 1")
			if n := r.sum().Holding; n != 1 {
				t.Fatalf("%d clients are held", n)
			}
			end(r, pub)
			r.run()
			if n := r.sum().Holding; n != 0 || !pub.closed || len(r.ws[0].holds) != 0 {
				t.Fatalf("%d clients are held, closed %v", n, pub.closed)
			}
			sub := r.back()
			sub.expect("CONNACK 0 present", "t=0 qos1 id1", "t=1 qos1 id2")
			sub.ack(mqtt.PUBACK, 1)
			sub.ack(mqtt.PUBACK, 2)
			pub = r.dial(0, mqtt.V311)
			pub.sendConnect(r.idOn(0, "pub"), durableSession)
			p := mqtt.Publish{Topic: []byte("t"), Payload: []byte("2"), QoS: 2, PacketID: 2, Dup: true}
			pub.send(mqtt.AppendPublish(nil, &p, mqtt.V311))
			pub.expect("CONNACK 0 present", "PUBREC 2")
			sub.expect("t=2 qos2 id3")
		})
	}
}

// A retained message that waited is not stored over a newer one.
func TestHoldRetained(t *testing.T) {
	r := fullRig(t, nil)
	pub := r.connect(r.idOn(0, "pub"), mqtt.V311, nil)
	pub.send(pub.publication("t", "1", 1, 1))
	old := mqtt.Publish{Topic: []byte("t"), Payload: []byte("old"), QoS: 1, PacketID: 2, Retain: true}
	pub.send(mqtt.AppendPublish(nil, &old, mqtt.V311))
	pub.expect("PUBACK 1")
	newer := r.connect(r.idOn(1, "newer"), mqtt.V311, nil)
	p := mqtt.Publish{Topic: []byte("t"), Payload: []byte("new"), Retain: true}
	newer.send(mqtt.AppendPublish(nil, &p, mqtt.V311))
	sub := r.back()
	sub.expect("CONNACK 0 present", "t=0 qos1 id1", "t=1 qos1 id2")
	sub.ack(mqtt.PUBACK, 1)
	pub.expect("PUBACK 2")
	im, err := r.store.Crash().Load()
	if err != nil || len(im.Retained) != 1 || string(im.Retained[0].Payload) != "new" {
		t.Fatalf("%v, %v", im.Retained, err)
	}
}

// Many are held for one queue; each gets its turn, and a stop does not wait for them.
func TestHoldMany(t *testing.T) {
	r := fullRig(t, nil)
	const n = 200
	var pubs []*device
	for i := range n {
		d := r.connect(r.idOn(i%2, fmt.Sprint("pub", i)), mqtt.V311, nil)
		d.send(d.publication("t", fmt.Sprint("p", i), 1, 1))
		pubs = append(pubs, d)
	}
	r.run()
	if h := r.sum().Holding; h != n-1 {
		t.Fatalf("%d clients are held", h)
	}
	answer := make(chan int, 2)
	for _, w := range r.ws {
		w.Waiting(answer)
	}
	r.run()
	if a, b := <-answer, <-answer; a != 0 || b != 0 {
		t.Errorf("a stop waits for %d and %d acknowledgements", a, b)
	}
	sub := r.back()
	got := 0
	for range 10 * n {
		for _, p := range sub.read() {
			var id uint16
			if k := strings.Index(p, " id"); k >= 0 {
				fmt.Sscanf(p[k:], " id%d", &id)
				sub.ack(mqtt.PUBACK, id)
				got++
			}
		}
		r.wait(100 * time.Millisecond)
		if got == n+1 {
			break
		}
	}
	for i, d := range pubs {
		if p := d.read(); len(p) != 1 || p[0] != "PUBACK 1" {
			t.Errorf("publisher %d got %v", i, p)
		}
	}
	if got != n+1 || r.sum().Holding != 0 {
		t.Errorf("%d messages arrived, want %d; %d clients are held", got, n+1, r.sum().Holding)
	}
}

// Policies of queues in the store, by class; each drop is counted.
func TestQueuePolicies(t *testing.T) {
	limits := func(p persist.QueuePolicy) session.Queue {
		return session.Queue{QueueLimits: persist.QueueLimits{Messages: 3, Policy: p}}
	}
	r := newRig(t, 2, func(o *Options) {
		o.Classes = []QueueClass{
			{Name: "old", ClientIDs: []string{"old?*"}, Queue: limits(persist.DropOldest)},
			{Name: "new", ClientIDs: []string{"x", "new*"}, Queue: limits(persist.DropNewest)},
		}
	})
	for _, id := range []string{"old-1", "new-1"} {
		sub := r.connect(id, mqtt.V5, durableSession)
		sub.subscribe("t:1")
		sub.lose()
	}
	pub := r.connect("pub", mqtt.V5, nil)
	for i := range 10 {
		pub.send(pub.publication("t", fmt.Sprint(i), 1, uint16(i+1)))
		pub.expect(fmt.Sprint("PUBACK ", i+1))
	}
	for id, want := range map[string][]string{
		"old-1": {"CONNACK 0 present", "t=7 qos1 id8", "t=8 qos1 id9", "t=9 qos1 id10"},
		"new-1": {"CONNACK 0 present", "t=0 qos1 id1", "t=1 qos1 id2", "t=2 qos1 id3"},
	} {
		sub := r.dial(0, mqtt.V5)
		sub.sendConnect(id, durableSession)
		sub.expect(want...)
	}
	if d := r.store.Stats().Drops; d != (persist.Drops{Oldest: 7, Newest: 7}) {
		t.Errorf("%+v", d)
	}
}

// New limits hold after a restart, and when a client comes back.
func TestQueueLimitsChange(t *testing.T) {
	r := fullRig(t, nil)
	limits := func() persist.QueueLimits {
		for _, q := range r.store.QueueStats(nil) {
			if q.Messages == 1 {
				return q.Limits
			}
		}
		t.Fatal("no queue")
		return persist.QueueLimits{}
	}
	if l := limits(); l.Messages != 2 {
		t.Fatalf("%+v", l)
	}
	r.opt.Limits.Queue.Messages, r.opt.Limits.Queue.Policy = 77, persist.DropOldest
	r.restart()
	r.run()
	if l := limits(); l.Messages != 77 || l.Policy != persist.DropOldest {
		t.Errorf("after a restart: %+v", l)
	}
	if im, err := r.store.Crash().Load(); err != nil || im.Sessions[0].Queue.Messages != 77 {
		t.Errorf("%+v, %v", im, err)
	}
}

// The sessions of bridges have no limits, unless a class names them.
func TestClasses(t *testing.T) {
	q := func(n int64) session.Queue {
		return session.Queue{QueueLimits: persist.QueueLimits{Messages: n}}
	}
	r := newRig(t, 1, func(o *Options) {
		o.Limits.Queue = q(9)
		o.Classes = []QueueClass{
			{ClientIDs: []string{"$bridge/a"}, Queue: q(1)},
			{ClientIDs: []string{"s*-?"}, Users: []string{"ann", "b*b"}, Queue: q(2)},
			{Users: []string{"carl"}, Queue: q(3)},
			{ClientIDs: []string{"*x"}, Queue: q(4)},
		}
	})
	for _, x := range []struct {
		id, user string
		want     int64
	}{
		{"$bridge/a", "", 1}, {"$bridge/x", "", 0}, {"$bridge/b", "carl", 0},
		{"s-1", "ann", 2}, {"ss-s-é", "bob", 2}, {"s-", "ann", 9}, {"s-1", "eve", 9}, {"s-12", "ann", 9},
		{"s-1", "carl", 3}, {"", "carl", 3}, {"", "", 9}, {"x", "", 4}, {"xxxy", "", 9}, {"yxyx", "", 4},
	} {
		if got := r.g.limitsOf(x.id, x.user).Queue.Messages; got != x.want {
			t.Errorf("%q of %q has limit %d, want %d", x.id, x.user, got, x.want)
		}
	}
}
