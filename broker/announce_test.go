package broker

import (
	"context"
	"fmt"
	"testing"

	"sluice/broker/mqtt"
	"sluice/broker/session"
	"sluice/persist"
)

// What the broker announces comes to who subscribes later, too, is not in the
// store, and can be taken back.
func TestAnnounce(t *testing.T) {
	var store persist.Store
	b := start(t, func(o *Options) {
		open := o.OpenStore
		o.OpenStore = func(e persist.Events) (s persist.Store, err error) {
			store, err = open(e)
			return store, err
		}
	})
	early := connect(t, dial(t, b), "early", nil)
	early.subscribe("$SYS/#", 1)
	b.Announce("$SYS/sluice/bridge/x/state", []byte("up"))
	expect := func(p *peer, payload string) {
		t.Helper()
		typ, body := p.next()
		var m mqtt.Publish
		if err := mqtt.DecodePublish(&m, 0, body, p.v); typ != mqtt.PUBLISH || err != nil {
			t.Fatalf("%v, %v", typ, err)
		}
		if string(m.Topic) != "$SYS/sluice/bridge/x/state" || string(m.Payload) != payload || m.QoS != 0 {
			t.Errorf("%s %q, QoS %d; want %q", m.Topic, m.Payload, m.QoS, payload)
		}
	}
	expect(early, "up")
	late := connect(t, dial(t, b), "late", nil)
	late.subscribe("$SYS/#", 1)
	expect(late, "up")
	b.Announce("$SYS/sluice/bridge/x/state", nil)
	expect(early, "")
	if n := b.group.Retained().Len(); n != 0 {
		t.Errorf("%d retained messages after it was taken back", n)
	}
	if s := store.Stats(); s.Enqueued != 0 || s.BytesSubmitted != 0 {
		t.Errorf("the store got something: %+v", s)
	}
}

func TestBacklog(t *testing.T) {
	b := start(t, func(o *Options) { o.Priority = []string{"sensors/alarm"} })
	const id = session.InternalPrefix + "cloud"
	if _, _, known := b.Backlog(id); known {
		t.Error("a backlog without a session")
	}
	c, err := b.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	p := connect(t, c, id, func(m *mqtt.Connect) {
		m.Props.HasSessionExpiry, m.Props.SessionExpirySeconds = true, persist.NoExpiry
	})
	p.subscribe("sensors/#", 1)
	if n, bytes, known := b.Backlog(id); n != 0 || bytes != 0 || !known {
		t.Errorf("%d messages, %d bytes, %t in an empty queue", n, bytes, known)
	}
	p.Close()
	until(t, "it is gone", func() bool { return !b.Sessions(id)[0].Connected })
	pub := connect(t, dial(t, b), "pub", nil)
	for i := range 10 {
		pub.send(publish("sensors/a", 1, uint16(i+1), fmt.Sprint(i), mqtt.V5))
	}
	until(t, "ten messages", func() bool { n, bytes, _ := b.Backlog(id); return n == 10 && bytes == 100 })
	pub.send(publish("sensors/alarm", 1, 11, "fire", mqtt.V5)) // in the other lane
	until(t, "eleven messages", func() bool { n, bytes, _ := b.Backlog(id); return n == 11 && bytes == 117 })
}
