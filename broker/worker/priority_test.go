package worker

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
)

func withPriority(o *Options) { o.Priority = []string{"alarm/#"} }

func (r *rig) stored() (sessions, messages int) {
	r.t.Helper()
	im, err := r.store.Load()
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range im.Sessions {
		messages += int(im.Sessions[i].Tail - im.Sessions[i].Head)
	}
	return len(im.Sessions), messages
}

// readAll reads and acknowledges until nothing comes any more.
func (d *device) readAll() (all []string) {
	for {
		d.r.run()
		packets := d.read()
		if len(packets) == 0 {
			return all
		}
		all = append(all, payloads(packets)...)
		for _, p := range packets {
			if _, text, ok := strings.Cut(p, " id"); ok {
				id := uint16(0)
				_, _ = fmt.Sscan(text, &id)
				d.ack(mqtt.PUBACK, id)
			}
		}
	}
}

// again connects a session of before, without reading.
func (r *rig) again(id string) *device {
	d := r.dial(0, mqtt.V5)
	d.sendConnect(id, durableSession)
	return d
}

// What has priority overtakes the backlog of a session that was away, whatever
// became of broker and rules in between. Order within a lane is kept.
func TestPriorityOvertakesTheBacklog(t *testing.T) {
	type step = func(r *rig)
	restart := func(r *rig) { r.restart() }
	for name, x := range map[string]struct{ first, before, after step }{
		"as it is":                       {withoutStep, withoutStep, withoutStep},
		"restart":                        {withoutStep, withoutStep, restart},
		"rules are new":                  {func(r *rig) { r.opt.Priority = nil; r.restart() }, func(r *rig) { withPriority(&r.opt); r.restart() }, withoutStep},
		"rules are gone":                 {withoutStep, withoutStep, func(r *rig) { r.opt.Priority = nil; r.restart() }},
		"other limits":                   {withoutStep, withoutStep, func(r *rig) { r.opt.Limits.Queue.Messages = 500; r.restart() }},
		"rules are gone, and back again": {withoutStep, func(r *rig) { r.opt.Priority = nil; r.restart(); withPriority(&r.opt); r.restart() }, restart},
	} {
		for _, workers := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s, %d workers", name, workers), func(t *testing.T) {
				r := newRig(t, workers, withPriority)
				x.first(r)
				sub := r.connect("sub", mqtt.V5, durableSession)
				sub.subscribe("#:1")
				sub.lose()
				x.before(r)
				pub := r.connect("pub", mqtt.V5, nil)
				var want, normal []string
				for i := range 300 {
					name, topic := fmt.Sprint("n", i), "t"
					if i%100 == 99 {
						name, topic = fmt.Sprint("a", i), "alarm/fire"
						want = append(want, name)
					} else {
						normal = append(normal, name)
					}
					pub.send(pub.publication(topic, name, 1, uint16(i+1)))
				}
				r.run()
				x.after(r)
				sub = r.again("sub")
				if got := sub.readAll(); !slices.Equal(got, append(want, normal...)) {
					t.Errorf("got %v", got)
				}
				if _, messages := r.stored(); messages != 0 {
					t.Errorf("%d messages are left in the store", messages)
				}
				sub.lose()
				r.connect("sub", mqtt.V5, nil) // begins anew, with a session that is not in the store
				if sessions, _ := r.stored(); sessions != 0 {
					t.Errorf("%d sessions are left in the store", sessions)
				}
			})
		}
	}
}

func withoutStep(*rig) {}

// A queue with priority whose session is not in the store is removed at the start.
func TestPriorityWithoutSession(t *testing.T) {
	r := newRig(t, 1, withPriority)
	var b persist.Batch
	b.Add(persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{ID: persist.PriorityOf(7), ClientID: "x", ExpirySeconds: 9}})
	r.store.Submit(&b)
	r.run()
	if n, _ := r.stored(); n != 1 {
		t.Fatalf("%d records", n)
	}
	r.restart()
	r.run()
	if n, _ := r.stored(); n != 0 || r.sum().Sessions != 0 {
		t.Errorf("%d records, %d sessions", n, r.sum().Sessions)
	}
}

// Retained messages and wills have the priority of their topic.
func TestPriorityOfRetainedAndWills(t *testing.T) {
	r := newRig(t, 2, withPriority)
	d := r.connect("will", mqtt.V5, func(c *mqtt.Connect) {
		c.HasWill, c.Will = true, mqtt.Will{Topic: []byte("alarm/will"), Payload: []byte("will"), QoS: 1}
	})
	d.send(retainedPublication(d, "t/r", "normal", 1), retainedPublication(d, "alarm/r", "urgent", 1))
	r.run()
	for _, set := range []func(*mqtt.Connect){nil, durableSession} {
		sub := r.connect("sub", mqtt.V5, func(c *mqtt.Connect) {
			if set != nil {
				set(c)
			}
		})
		subscribeWith(sub, 0, mqtt.SubscribeFilter{Filter: []byte("#"), QoS: 1})
		r.run()
		got := strings.Join(sub.read(), "\n")
		for _, id := range []string{"id1", "id49152"} {
			if !strings.Contains(got, id) {
				t.Errorf("no %s in %s", id, got)
			}
		}
		if set != nil {
			d.end = io.EOF
			r.run()
			if got := strings.Join(sub.read(), "\n"); !strings.Contains(got, "id49153") {
				t.Errorf("the will came as %s", got)
			}
		}
	}
}

// Both lanes of a session that ends are handed on to the share group, and both its
// records go.
func TestPriorityInShareGroups(t *testing.T) {
	for _, crash := range []bool{false, true} {
		r := newRig(t, 2, withPriority)
		first := r.connect("first", mqtt.V5, func(c *mqtt.Connect) { c.Clean = false; expiry(c, 2) })
		first.subscribe("$share/g/#:1")
		first.lose()
		pub := r.connect("pub", mqtt.V5, nil)
		for i := range 20 {
			pub.send(pub.publication([]string{"t", "alarm/x"}[i%2], fmt.Sprint(i), 1, uint16(i+1)))
		}
		r.run()
		second := r.connect("second", mqtt.V5, durableSession)
		second.subscribe("$share/g/#:1")
		if crash {
			r.restart()
			second = r.again("second")
		}
		r.wait(4 * time.Second)
		got := second.readAll()
		if len(got) != 20 {
			t.Errorf("crash %v: got %v", crash, got)
		}
		last := [2]int{-1, -1}
		for _, p := range got {
			n := 0
			_, _ = fmt.Sscan(p, &n)
			if n < last[n%2] {
				t.Errorf("crash %v: order %v", crash, got)
			}
			last[n%2] = n
		}
		if sessions, messages := r.stored(); sessions != 2 || messages != 0 {
			t.Errorf("crash %v: %d records and %d messages in the store, want the two of the second", crash, sessions, messages)
		}
	}
}
