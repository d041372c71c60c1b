package bridge

import (
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
)

var (
	outAlarm   = Route{Direction: Out, Filter: "alarm/#", RemotePrefix: "up/", QoS: 1, Queue: "alarms"}
	alarmQueue = Queue{Name: "alarms", Priority: 5, Share: 1}
)

func queueOptions(local *fakeLocal, upstream string, routes ...Route) Options {
	o := testOptions(local, upstream, routes...)
	o.Queues = []Queue{alarmQueue}
	o.Backlog = local.backlog
	return o
}

// An alarm that comes after ten thousand others goes before nearly all of them.
func TestAlarmOvertakesTheBacklog(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms"), newFakeUpstream(t)
	oracle(t, local.of("alarms"), up)
	up.connackCode = 3
	o := queueOptions(local, up.addr(), outAlarm, outAll)
	b := startBridge(t, o)
	eventually(t, "an attempt fails", func() bool { return b.Status().LastError != "" })
	const n = 10_000
	for i := range n {
		publishRound(local, 1, i)
	}
	local.publish("alarm/fire", "fire", 1, false)
	up.with(func() { up.connackCode = 0 })
	eventually(t, "all acknowledged", func() bool { return local.open() == 0 && local.of("alarms").open() == 0 })
	expectOrder(t, up.messages(), 1, n)
	up.with(func() {
		at := slices.IndexFunc(up.got, func(m upMsg) bool { return m.payload == "fire" })
		if at < 0 || at > 2*o.InflightMax {
			t.Errorf("the alarm arrived as number %d", at)
		}
		if len(up.got) != n+1 {
			t.Errorf("%d messages arrived, want %d: the alarm goes once although both queues have it", len(up.got), n+1)
		}
	})
	if st := b.Status(); st.Dropped() != 0 || len(st.Queues) != 2 || st.Queues[1].Acked != 1 || st.Queues[0].Acked != n {
		t.Errorf("status %+v", st)
	}
}

// While the upstream acknowledges nothing, the backlog leaves places in the
// window, so the alarm is on its way at once.
func TestAlarmFindsAPlaceInAFullWindow(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms"), newFakeUpstream(t)
	up.neverAck = true
	o := queueOptions(local, up.addr(), outAlarm, outAll)
	o.InflightMax, o.DrainTimeout = 16, 0
	b := startBridge(t, o)
	for i := range 100 {
		publishRound(local, 1, i)
	}
	eventually(t, "the backlog's part of the window", func() bool { return up.count() == 14 })
	local.publish("alarm/fire", "fire", 1, false)
	eventually(t, "the alarm", func() bool { return len(up.messages()["up/alarm/fire"]) == 1 })
	if st := b.Status(); st.Links != 1 {
		t.Errorf("status %+v", st)
	}
}

// A message that routes of two queues send to different topics goes to both.
func TestTwoQueuesTwoTopics(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms"), newFakeUpstream(t)
	copied := outAlarm
	copied.RemotePrefix = "urgent/"
	b := startBridge(t, queueOptions(local, up.addr(), copied, outAll))
	eventually(t, "up", inState(b, StateUp))
	local.publish("alarm/fire", "fire", 1, false)
	eventually(t, "acknowledged", func() bool { return local.open() == 0 && local.of("alarms").open() == 0 })
	if got := up.messages(); len(got["urgent/alarm/fire"]) != 1 || len(got["up/alarm/fire"]) != 1 || up.count() != 2 {
		t.Errorf("arrived: %v", got)
	}
	if st := b.Status(); st.Dropped() != 0 {
		t.Errorf("status %+v", st)
	}
}

// What was queued before a route moved to another queue is sent from where it is.
func TestMovedRouteLosesNothing(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms"), newFakeUpstream(t)
	up.connackCode = 3
	plain := outAlarm
	plain.Queue = ""
	old := queueOptions(local, up.addr(), plain, outAll)
	b := startBridge(t, old)
	for i := range 50 {
		local.publish("alarm/a", fmt.Sprint("old ", i), 1, false)
	}
	_ = b.Close()
	up.with(func() { up.connackCode = 0 })
	renewed := queueOptions(local, up.addr(), outAlarm, outAll)
	if renewed.generation() == old.generation() || renewed.generation() == 0 {
		t.Fatalf("generations %d and %d", old.generation(), renewed.generation())
	}
	startBridge(t, renewed)
	for i := range 50 {
		local.publish("alarm/a", fmt.Sprint("new ", i), 1, false)
	}
	eventually(t, "all acknowledged", func() bool { return local.open() == 0 && local.of("alarms").open() == 0 })
	if got := up.messages()["up/alarm/a"]; len(got) != 100 || up.count() != 100 {
		t.Errorf("%d different ones of %d arrived, want 100 of 100", len(got), up.count())
	}
}

// A queue that is not configured any more is emptied; then its session ends.
func TestRemovedQueueIsEmptiedAndEnded(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms"), newFakeUpstream(t)
	up.connackCode = 3
	b := startBridge(t, queueOptions(local, up.addr(), outAlarm, outAll))
	for i := range 500 {
		local.publish("alarm/a", fmt.Sprint(i), 1, false)
	}
	_ = b.Close()
	up.with(func() { up.connackCode = 0 })

	o := testOptions(local, up.addr(), outAll)
	o.Backlog = local.backlog
	o.Sessions = map[string][]string{"$bridge/t/alarms": {"alarm/#"}}
	b = startBridge(t, o)
	gone := local.of("alarms")
	gone.with(func() {
		if len(gone.subs) != 0 {
			t.Errorf("the removed queue still subscribes %v", gone.subs)
		}
	})
	eventually(t, "its session has ended", func() bool { gone.mu.Lock(); defer gone.mu.Unlock(); return gone.ended == 1 })
	if got := up.messages()["up/alarm/a"]; len(got) != 500 {
		t.Errorf("%d of 500 arrived", len(got))
	}
	eventually(t, "it is not shown any more", func() bool { return len(b.Status().Queues) == 1 })
	up.cutAll() // the next link does without it
	eventually(t, "another link", func() bool { st := b.Status(); return st.Links == 2 && st.State == StateUp })
	gone.with(func() {
		if gone.exists {
			t.Error("the ended session was attached again")
		}
	})
}

// Without knowing what is in the session, it is emptied and kept.
func TestRemovedQueueWithoutGaugeStays(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms"), newFakeUpstream(t)
	gone := local.of("alarms")
	gone.exists = true
	gone.queue = []*localMsg{{topic: "alarm/a", payload: "x", qos: 1}}
	o := testOptions(local, up.addr(), outAll)
	o.Sessions = map[string][]string{"$bridge/t/alarms": nil}
	b := startBridge(t, o)
	eventually(t, "emptied", func() bool { return gone.open() == 0 })
	_ = b.Close()
	if gone.ended != 0 || up.count() != 1 {
		t.Errorf("ended %d times, %d arrived", gone.ended, up.count())
	}
}

// If somebody else has ended the session of a removed queue, none is made again.
func TestRemovedQueueThatIsGone(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms"), newFakeUpstream(t)
	up.connackCode = 3
	gone := local.of("alarms")
	o := testOptions(local, up.addr(), outAll)
	o.Sessions = map[string][]string{"$bridge/t/alarms": nil}
	b := startBridge(t, o)
	gone.with(func() { gone.exists = false })
	up.with(func() { up.connackCode = 0 })
	eventually(t, "up", inState(b, StateUp))
	gone.with(func() {
		if gone.exists || len(b.Status().Queues) != 1 {
			t.Errorf("exists: %t, queues %+v", gone.exists, b.Status().Queues)
		}
	})
}

// A backlog drains at its part of the rate; the alarm queue does not wait.
func TestBacklogIsPacedAndAlarmsAreNot(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms"), newFakeUpstream(t)
	o := queueOptions(local, up.addr(), outAlarm, outAll)
	o.OutMaxMessagesPerSecond, o.BacklogPercent, o.InflightMax = 200, 10, 20
	up.connackCode = 3
	b := startBridge(t, o)
	for i := range 5000 {
		publishRound(local, 1, i)
	}
	up.with(func() { up.connackCode = 0 })
	eventually(t, "the burst is over", func() bool { return up.count() >= 40 })
	began, before := time.Now(), up.count()
	for i := range 100 {
		local.publish("alarm/a", fmt.Sprint(i), 1, false)
		eventually(t, "the alarm", func() bool { return len(up.messages()["up/alarm/a"]) == i+1 })
	}
	passed := time.Since(began)
	if backlog := up.count() - before - 100; float64(backlog) > 20*passed.Seconds()+40 {
		t.Errorf("%d of the backlog went in %v, want 20 per second", backlog, passed)
	}
	if q := b.Status().Queues[0]; !q.Backlogged {
		t.Errorf("queue %+v", q)
	}
}

// All lanes of a link are lost and found together, at random moments.
func TestQueuesOverLinkLoss(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms", "bulk"), newFakeUpstream(t)
	oracle(t, local.of("alarms"), up) // the first only acknowledges what is another's
	oracle(t, local.of("bulk"), up)
	up.publishFault = func(n int, _ upMsg) fault {
		switch n % 97 {
		case 30:
			return cutAfter
		case 60:
			return ackOnlyLost
		}
		return noFault
	}
	o := queueOptions(local, up.addr(), outAlarm, Route{Direction: Out, Filter: "bulk/#", RemotePrefix: "up/", QoS: 1, Queue: "bulk"}, outAll)
	o.Queues = append(o.Queues, Queue{Name: "bulk", Share: 2})
	b := startBridge(t, o)
	for i := range 500 {
		for _, name := range []string{"alarm/a", "bulk/a", "s/0"} {
			local.publish(name, fmt.Sprintf("%s %d", name, i), 1, false)
		}
		if i%100 == 50 {
			local.of("bulk").kick()
		}
	}
	eventually(t, "all acknowledged", func() bool {
		return local.open()+local.of("alarms").open()+local.of("bulk").open() == 0
	})
	for _, name := range []string{"alarm/a", "bulk/a", "s/0"} {
		got := up.messages()["up/"+name]
		if len(got) != 500 {
			t.Errorf("%s: %d of 500 arrived", name, len(got))
			continue
		}
		for i, payload := range got {
			if payload != fmt.Sprintf("%s %d", name, i) {
				t.Errorf("%s: number %d is %s", name, i, payload)
				break
			}
		}
	}
	if st := b.Status(); st.Reconnects < 5 || st.Dropped() != 0 {
		t.Errorf("status %+v", st)
	}
}

// A hundred thousand messages wait: the bridge holds its windows of them, and as
// much memory with the last as with the first.
func TestMemoryIsFlatWithALargeBacklog(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms"), newFakeUpstream(t)
	up.neverAck = true
	o := queueOptions(local, up.addr(), outAlarm, outAll)
	o.DrainTimeout, o.InflightMaxBytes = 0, 64<<10
	b := startBridge(t, o)
	payload := strings.Repeat("x", 1000)
	for i := range 100_000 {
		name := "s/0"
		if i%2 == 0 {
			name = "alarm/a"
		}
		local.publish(name, payload, 1, false)
	}
	eventually(t, "both budgets are used", func() bool {
		return b.Status().InflightOutBytes > 62<<10
	})
	if st := b.Status(); st.InflightOutBytes > 64<<10 || st.InflightOut > 2*o.InflightMax || st.Received > 2*int64(o.InflightMax) {
		t.Errorf("held: %+v", st)
	}
}

// Links with several queues come and go; nothing stays behind.
func TestReconnectsWithQueues(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms", "bulk"), newFakeUpstream(t)
	up.publishFault = func(n int, _ upMsg) fault {
		if n < 300 {
			return cutAfter
		}
		return noFault
	}
	before, fds, heap := goleak.IgnoreCurrent(), openFDs(t), heapBytes()
	o := queueOptions(local, up.addr(), outAlarm, Route{Direction: Out, Filter: "bulk/#", RemotePrefix: "up/", QoS: 1, Queue: "bulk"})
	o.Queues = append(o.Queues, Queue{Name: "bulk", Share: 2})
	o.ReconnectMax = 2 * time.Millisecond
	b := startBridge(t, o)
	for i := range 200 {
		local.publish("alarm/a", fmt.Sprint("a", i), 1, false)
		local.publish("bulk/a", fmt.Sprint("b", i), 1, false)
	}
	eventually(t, "all acknowledged", func() bool { return local.of("alarms").open()+local.of("bulk").open() == 0 })
	if st := b.Status(); st.Reconnects < 290 {
		t.Errorf("only %d reconnects", st.Reconnects)
	}
	_ = b.Close()
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
	eventually(t, "as many descriptors as before", func() bool { return openFDs(t) <= fds })
	eventually(t, "as much memory as before, but for what the fakes keep", func() bool { return heapBytes() < heap+1<<20 })
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// What came down is not sent up again by another queue whose routes match it.
func TestQueuesDoNotEcho(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms"), newFakeUpstream(t)
	b := startBridge(t, queueOptions(local, up.addr(), outAlarm, Route{Direction: In, Filter: "alarm/#", QoS: 1}))
	eventually(t, "up", inState(b, StateUp))
	up.send("alarm/a", "down", 1, false)
	eventually(t, "it is here", func() bool { return len(local.received()) == 1 })
	local.publish("alarm/a", "up", 1, false)
	eventually(t, "acknowledged", func() bool { return local.of("alarms").open() == 0 })
	if got := fmt.Sprint(up.messages()); got != "map[up/alarm/a:[up]]" {
		t.Errorf("went up: %s", got)
	}
	if got := fmt.Sprint(b.Status().Routes); got != "[{out alarm/# 1 2} {in alarm/# 1 4}]" {
		t.Errorf("routes %s", got)
	}
	if st := b.Status(); st.Dropped() != 0 {
		t.Errorf("status %+v", st)
	}
}

// BenchmarkAlarm is how long an alarm takes to the upstream's acknowledgement
// while a backlog drains over a link of about 700 kB/s, each message of 1 kB.
func BenchmarkAlarm(b *testing.B) {
	for _, c := range []struct {
		name     string
		queue    string
		inflight int
	}{{"same-queue", "", 100}, {"own-queue", "alarms", 100}, {"own-queue-window-16", "alarms", 16}} {
		b.Run(c.name, func(b *testing.B) {
			local, up := newFakeLocal(b).withQueues("alarms"), newFakeUpstream(b)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			p := pipeAll(ln, up.ln.Addr().String())
			p.setDelay(22 * time.Millisecond)
			defer p.close()
			alarm := outAlarm
			alarm.Queue = c.queue
			o := queueOptions(local, "tcp://"+ln.Addr().String(), alarm, outAll)
			o.InflightMax, o.DrainTimeout = c.inflight, 0
			br, err := New(o, zap.NewNop())
			if err != nil {
				b.Fatal(err)
			}
			if err := br.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			defer br.Close()
			payload := strings.Repeat("x", 1000)
			for range 3000 {
				local.publish("s/0", payload, 1, false)
			}
			var took []time.Duration
			for i := range b.N {
				began, id := time.Now(), fmt.Sprint(i)
				local.publish("alarm/a", id, 1, false)
				for there := false; !there; time.Sleep(time.Millisecond) {
					up.with(func() { there = up.acked[id] })
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e6, "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100])/1e6, "p99-ms")
		})
	}
}
