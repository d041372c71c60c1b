package bridge

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/broker/mqtt"

	"go.uber.org/zap"
)

func TestPayloadLimit(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	o := testOptions(local, up.addr(), outAll)
	o.MaxPayloadBytes = 10
	logs, log := observed()
	b := startLogged(t, o, log)
	eventually(t, "up", inState(b, StateUp))
	local.publish("s/0", strings.Repeat("x", 11), 1, false)
	local.publish("s/0", strings.Repeat("y", 10), 1, false)
	local.publish("s/0", strings.Repeat("z", 12), 1, false)
	eventually(t, "all acknowledged", func() bool { return local.open() == 0 })
	if st := b.Status(); st.DroppedTooLarge != 2 || st.Acked != 1 || up.count() != 1 {
		t.Errorf("status %+v", st)
	}
	if logs.FilterMessageSnippet("too large").Len() != 1 {
		t.Error("want one warning, then silence")
	}
}

// What was queued under routes that are gone is acknowledged and counted.
func TestUnroutedMessagesAreCounted(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	b := startBridge(t, testOptions(local, up.addr(), Route{Direction: Out, Filter: "new/#", QoS: 1}))
	local.with(func() {
		local.queue = append(local.queue, &localMsg{topic: "old/a", payload: "1", qos: 1}, &localMsg{topic: "new/a", payload: "2", qos: 1})
	})
	local.kick()
	eventually(t, "all acknowledged", func() bool { return local.open() == 0 })
	if st := b.Status(); st.DroppedUnrouted != 1 || st.Acked != 1 {
		t.Errorf("status %+v", st)
	}
}

func TestPacedDrain(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	o := testOptions(local, up.addr(), outAll)
	o.OutMaxMessagesPerSecond = 100
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	began := time.Now()
	for i := range 150 { // one second's burst of 100, then half a second
		publishRound(local, 1, i)
	}
	eventually(t, "all acknowledged", func() bool { return local.open() == 0 })
	if took := time.Since(began); took < 480*time.Millisecond {
		t.Errorf("150 messages at 100/s and a burst of 100 took only %v", took)
	}
	expectOrder(t, up.messages(), 1, 150)
}

func TestInflightBytesAreBounded(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	up.neverAck = true
	o := testOptions(local, up.addr(), outAll)
	o.InflightMaxBytes = 10_000
	b := startBridge(t, o)
	for i := range 50 {
		local.publish("s/0", fmt.Sprintf("%d %s", i, strings.Repeat("x", 1000)), 1, false)
	}
	eventually(t, "the budget is used", func() bool { return b.Status().InflightOut == 9 && up.count() == 9 })
	if st := b.Status(); st.InflightOutBytes > 10_000 {
		t.Errorf("%d bytes", st.InflightOutBytes)
	}
	up.with(func() { up.neverAck = false })
	up.cutAll()
	eventually(t, "all acknowledged", func() bool { return local.open() == 0 })
}

// QoS 0 messages that come while the uplink is down do not come later.
func TestQoS0IsNotKept(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	up.connackCode = 3
	b := startBridge(t, testOptions(local, up.addr(), outAll))
	eventually(t, "an attempt fails", func() bool { return b.Status().LastError != "" })
	local.publish("s/0", "zero", 0, false)
	local.publish("s/0", "one", 1, false)
	up.with(func() { up.connackCode = 0 })
	eventually(t, "all acknowledged", func() bool { return local.open() == 0 })
	if got := up.messages()["up/s/0"]; len(got) != 1 || got[0] != "one" {
		t.Errorf("arrived: %v", got)
	}
}

// brokenLocal answers CONNECT and then says what the test wants.
func brokenLocal(t *testing.T, say []byte) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) {
		mine, theirs := socketpair(t)
		go func() {
			defer mine.Close()
			in := frames{src: mine, max: localPacketMax}
			if _, _, err := in.next(); err != nil {
				return
			}
			ack := mqtt.AppendConnack(nil, &mqtt.Connack{SessionPresent: true}, mqtt.V5)
			_, _ = mine.Write(append(ack, say...))
			for {
				if _, _, err := in.next(); err != nil {
					return
				}
			}
		}()
		return theirs, nil
	}
}

// The local broker is ours; if it misbehaves all the same, the link ends.
func TestLocalBrokerMisbehaves(t *testing.T) {
	publish := func(id uint16, qos mqtt.QoS) []byte {
		return mqtt.AppendPublish(nil, &mqtt.Publish{Topic: []byte("a"), Payload: []byte("x"), QoS: qos, PacketID: id}, mqtt.V5)
	}
	var flood []byte
	for id := range uint16(50) {
		flood = append(flood, publish(id+1, 1)...)
	}
	bye := mqtt.AppendDisconnect(nil, &mqtt.Disconnect{Reason: mqtt.SessionTakenOver}, mqtt.V5)
	for _, c := range []struct {
		name string
		say  []byte
		want string
	}{
		{"qos 2", publish(1, 2), errLocalQoS.Error()},
		{"beyond the receive maximum", flood, ""}, // see below
		{"disconnect", bye, mqtt.SessionTakenOver.String()},
		{"suback out of the blue", []byte("\x90\x04\x12\x34\x00\x01\x90\x04\x12\x34\x00\x01"), "answers nothing"},
		{"pubrec", []byte("\x50\x02\x00\x01"), "not for a client"},
		{"rubbish", []byte("\x00\x00\x00"), "reserved"},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newFakeUpstream(t)
			up.neverAck = true
			o := testOptions(nil, up.addr(), outAll)
			o.InflightMax = 4
			l := newLink(&o, newAddresses(&o).current(), mqtt.V311, newQueueStates(&o), new(counters), &logger{Logger: zap.NewNop()}, new(sync.WaitGroup))
			o.DialLocal = brokenLocal(t, c.say)
			_, err := l.open(t.Context())
			if c.want == "" {
				// The budget keeps the reader from reading on: backpressure,
				// no failure, and memory for four.
				eventually(t, "the window is full", func() bool { return up.count() == 4 })
				if items, _ := l.out.held(); items > 4 {
					t.Errorf("%d messages held", items)
				}
				l.out.lanes[0].budget.lift(true) // as if the in direction waited
				c.want = errLocalWindow.Error()
			}
			if err == nil {
				<-l.done
				err = l.reason()
			}
			l.close()
			l.tails.Wait()
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("link ended with %v, want %s", err, c.want)
			}
		})
	}
}
