package bridge

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"
)

// board keeps what was announced.
type board struct {
	mu   sync.Mutex
	now  map[string]string
	said []string // topic=payload
}

func (b *board) announce(topic string, payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now == nil {
		b.now = map[string]string{}
	}
	b.said = append(b.said, topic+"="+string(payload))
	b.now[topic] = string(payload)
	if len(payload) == 0 {
		delete(b.now, topic)
	}
}

func (b *board) at(topic string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now[topic]
}

func TestStateTopics(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms"), newFakeUpstream(t)
	var told board
	up.connackCode = 3
	o := queueOptions(local, up.addr(), outAlarm, outAll)
	o.Announce, o.ReportInterval = told.announce, time.Millisecond
	b := startBridge(t, o)
	const connection, base = "$SYS/broker/connection/gateway/state", "$SYS/sluice/bridge/t/"
	eventually(t, "the error is told", func() bool {
		return told.at(connection) == "0" && strings.Contains(told.at(base+"error"), "server unavailable")
	})
	for i := range 7 {
		publishRound(local, 1, i)
	}
	eventually(t, "the backlog is told", func() bool {
		return told.at(base+"backlog/messages") == "7" && told.at(base+"queue/default/messages") == "7" && told.at(base+"queue/alarms/messages") == "0"
	})
	if st := b.Status(); st.Queues[0].Oldest == 0 || !st.Queues[0].Known || st.Queues[0].Messages != 7 {
		t.Errorf("queue %+v", st.Queues[0])
	}
	up.with(func() { up.connackCode = 0 })
	eventually(t, "the link is told", func() bool {
		return told.at(connection) == "1" && told.at(base+"state") == StateUp && told.at(base+"error") == "" &&
			told.at(base+"messages/acknowledged") == "7" && told.at(base+"backlog/messages") == "0" && told.at(base+"backlog/eta") == "0"
	})
	_ = b.Close()
	want := map[string]string{connection: "0", base + "state": StateStopped}
	if !maps.Equal(told.now, want) {
		t.Errorf("after Close: %v", told.now)
	}
	for i, line := range told.said {
		if i > 0 && line == told.said[i-1] {
			t.Errorf("said twice: %s", line)
		}
	}
}

func TestFigures(t *testing.T) {
	st := Status{Name: "x", Acked: 5, DroppedQoS0: 2, Queues: []QueueStatus{
		{Known: true, Messages: 10, Bytes: 100, Oldest: 90 * time.Second, ETA: 30 * time.Second},
		{Name: "q", Known: true, Messages: 1, Bytes: 7, Oldest: time.Second, PerSecond: 2.5, ETA: -1},
	}}
	got := figures(&st)
	for name, want := range map[string]string{
		"messages/acknowledged": "5", "messages/dropped": "2", "backlog/messages": "11", "backlog/bytes": "107", "backlog/oldest": "90",
		"backlog/eta": "-1", "queue/default/messages": "10", "queue/q/bytes": "7", "queue/q/oldest": "1", "queue/q/rate": "2.5",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	st.Queues = st.Queues[:1]
	if got := figures(&st); got["backlog/eta"] != "30" || len(got) != 12 {
		t.Errorf("one queue: %v", got)
	}
	st.Queues[0].Known = false
	if got := figures(&st); got["backlog/messages"] != "" {
		t.Errorf("a depth that nobody knows is told: %v", fmt.Sprint(got))
	}
}

// The upstream is told, too, if that is wanted: as we come, as we go, and by a will.
func TestNotifications(t *testing.T) {
	for _, wanted := range []bool{true, false} {
		local, up := newFakeLocal(t), newFakeUpstream(t)
		o := testOptions(local, up.addr(), outAll)
		o.Notifications = wanted
		b := startBridge(t, o)
		eventually(t, "up", inState(b, StateUp))
		up.with(func() {
			if will := string(up.lastHi.Will.Topic) + "=" + string(up.lastHi.Will.Payload); up.lastHi.HasWill != wanted || wanted && will != "$SYS/broker/connection/gateway/state=0" {
				t.Errorf("will %v %s", up.lastHi.HasWill, will)
			}
		})
		local.publish("s/0", "0/0", 1, false)
		eventually(t, "acknowledged", func() bool { return local.open() == 0 })
		_ = b.Close()
		got := fmt.Sprint(up.messages())
		if want := "map[$SYS/broker/connection/gateway/state:[1 0] up/s/0:[0/0]]"; wanted && got != want {
			t.Errorf("told: %s, want %s", got, want)
		}
		if !wanted && up.count() != 1 {
			t.Errorf("told unasked: %s", got)
		}
		if st := b.Status(); st.Sent != 1 || st.Acked != 1 {
			t.Errorf("status %+v", st)
		}
	}
}
