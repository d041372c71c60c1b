package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

func TestCloseUnderLoadDrains(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	inOracle(t, local, up)
	o := testOptions(local, up.addr(), outAll, inCmd)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Microsecond):
				publishRound(local, 1, i)
				up.send("dev/cmd/a", fmt.Sprint(i), 1, false)
			}
		}
	}()
	for round := range 5 {
		b := startBridge(t, o)
		eventually(t, "traffic", func() bool { st := b.Status(); return st.Acked > 100 && st.LocalAcked > 10 })
		began := time.Now()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > o.DrainTimeout+3*time.Second {
			t.Errorf("Close took %v", took)
		}
		st := b.Status()
		if st.State != StateStopped || st.InflightOut != 0 {
			t.Errorf("status %+v", st)
		}
		// What was sent was acknowledged, and the acknowledgement reached the
		// session: nothing is to be sent again.
		if st.Sent != st.Acked {
			t.Errorf("round %d: sent %d, acknowledged %d", round, st.Sent, st.Acked)
		}
	}
	local.with(func() {
		if local.goodbyes != local.attached {
			t.Errorf("%d DISCONNECTs on %d local connections", local.goodbyes, local.attached)
		}
	})
	up.with(func() {
		if up.goodbyes != up.connects {
			t.Errorf("%d DISCONNECTs on %d uplinks", up.goodbyes, up.connects)
		}
		seen := map[string]int{}
		for _, m := range up.got {
			if seen[m.payload]++; seen[m.payload] > 1 {
				t.Errorf("%s arrived twice although every Close drained", m.payload)
			}
		}
	})
}

// Close finishes what is under way and begins nothing new.
func TestCloseTakesNoNewDownlink(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	inOracle(t, local, up)
	local.hold = true
	b := startBridge(t, testOptions(local, up.addr(), inCmd))
	eventually(t, "up", inState(b, StateUp))
	up.send("dev/cmd/a", "before", 1, false)
	eventually(t, "the first", func() bool { return len(local.received()) == 1 })
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = b.Close()
	}()
	<-b.closing
	eventually(t, "new ones are not taken", func() bool {
		up.send("dev/cmd/a", "after", 1, false)
		st := b.Status()
		return st.RemoteReceived > int64(st.InflightIn)
	})
	local.letGo()
	<-closed
	up.with(func() {
		if !up.downAck["before"] {
			t.Error("the first was not acknowledged upstream")
		}
	})
	if st := b.Status(); st.RemoteReceived <= st.LocalAcked {
		t.Errorf("status %+v", st)
	}
}

func TestCloseDoesNotWaitLongerThanDrainTimeout(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	up.neverAck = true
	o := testOptions(local, up.addr(), outAll)
	o.DrainTimeout = 50 * time.Millisecond
	b := startBridge(t, o)
	publishRound(local, 1, 0)
	eventually(t, "it is on the way", func() bool { return up.count() == 1 })
	began := time.Now()
	_ = b.Close()
	if took := time.Since(began); took < o.DrainTimeout || took > 10*time.Second {
		t.Errorf("Close took %v", took)
	}
	if local.open() != 1 {
		t.Error("the session does not have the message any more")
	}
}

func TestCloseWhileDialling(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // connects, by the backlog, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	local := newFakeLocal(t)
	b := startBridge(t, testOptions(local, "tcp://"+ln.Addr().String(), outAll))
	began := time.Now()
	_ = b.Close()
	_ = b.Close()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Close took %v", took)
	}
	if got := b.Status().State; got != StateStopped {
		t.Errorf("state %s", got)
	}
	if err := b.Start(context.Background()); err == nil {
		t.Error("Start after Close succeeds")
	}
}

func TestCloseWithoutStart(t *testing.T) {
	local := newFakeLocal(t)
	b, err := New(testOptions(local, "tcp://127.0.0.1:1", outAll), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Status().State; got != StateStarting {
		t.Errorf("state %s", got)
	}
	_ = b.Close()
}

func TestStartNeedsTheLocalBroker(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	local.refuseDial = true
	b, err := New(testOptions(local, up.addr(), outAll), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Start(context.Background()); err == nil || !strings.Contains(err.Error(), "local broker is away") {
		t.Errorf("Start: %v", err)
	}
	local.with(func() { local.refuseDial = false })
	began := time.Now()
	if err := b.Start(context.Background()); err != nil {
		t.Errorf("second Start: %v", err)
	}
	if took := time.Since(began); took >= farewellTimeout {
		t.Errorf("Start took %v: it waited for the end of the farewell", took)
	}
	eventually(t, "up", inState(b, StateUp))
	if err := b.Start(context.Background()); err == nil {
		t.Error("third Start succeeds")
	}
}

func TestStartHonoursItsContext(t *testing.T) {
	o := testOptions(nil, "tcp://127.0.0.1:1", outAll)
	mine, theirs := socketpair(t)
	defer mine.Close()
	o.DialLocal = func(context.Context) (net.Conn, error) { return theirs, nil } // never answers
	b, err := New(o, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := b.Start(ctx); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("Start: %v after %v", err, time.Since(began))
	}
}

// What fails again and again is logged once and then now and then; nothing that
// is logged or shown contains the password.
func TestLogsAreFewAndWithoutSecrets(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	up.connackCode = 4
	o := testOptions(local, up.addr(), outAll)
	o.ReconnectMax = time.Millisecond
	dials := 0
	o.Credentials = func(context.Context) (Login, error) {
		if dials++; dials%2 == 0 {
			return Login{}, errors.New("no token today")
		}
		return Login{Username: "user", Password: "hunter2"}, nil
	}
	logs, log := observed()
	b := startLogged(t, o, log)
	eventually(t, "a hundred attempts", func() bool { up.mu.Lock(); defer up.mu.Unlock(); return up.connects > 100 })
	up.with(func() {
		if string(up.lastHi.Username) != "user" || string(up.lastHi.Password) != "hunter2" {
			t.Errorf("CONNECT %+v", up.lastHi)
		}
	})
	if n := logs.Len(); n != 1 {
		t.Errorf("%d log lines for a hundred failures", n)
	}
	text := fmt.Sprintf("%+v %+v", logs.All(), b.Status())
	if strings.Contains(text, "hunter2") {
		t.Error("the password shows: " + text)
	}
	up.with(func() { up.connackCode = 0 })
	eventually(t, "up", inState(b, StateUp))
}

// A reader that waits for room does not keep Close from its goodbye.
func TestCloseWithABacklogIsPolite(t *testing.T) {
	local, up := newFakeLocal(t).withQueues("alarms"), newFakeUpstream(t)
	o := queueOptions(local, up.addr(), outAlarm, outAll)
	o.OutMaxMessagesPerSecond, o.InflightMaxBytes = 1, 4000 // room for one message of each queue
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	for range 20 {
		local.publish("s/0", strings.Repeat("x", 1500), 1, false)
		local.publish("alarm/a", strings.Repeat("y", 1500), 1, false)
	}
	eventually(t, "both readers wait for room", func() bool {
		b.status.mu.Lock()
		defer b.status.mu.Unlock()
		for _, l := range b.status.link.out.lanes {
			if full, _ := l.budget.pressure(); !full {
				return false
			}
		}
		return true
	})
	began := time.Now()
	_ = b.Close()
	if took := time.Since(began); took >= farewellTimeout {
		t.Errorf("Close took %v", took)
	}
	for _, q := range []*fakeLocal{local, local.of("alarms")} {
		q.with(func() {
			if q.goodbyes != q.attached {
				t.Errorf("%s: %d goodbyes of %d", q.id, q.goodbyes, q.attached)
			}
		})
	}
}
