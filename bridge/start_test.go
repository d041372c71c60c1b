package bridge

import (
	"sync/atomic"
	"testing"
	"time"
)

func TestWindows(t *testing.T) {
	at := func(hour, minute, year int) time.Time { return time.Date(year, 5, 5, hour, minute, 59, 0, time.Local) }
	parse := func(s string) Window {
		w, err := ParseWindow(s)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	o := Options{Active: []Window{parse("22:00-06:00"), parse("12:30-12:31")}}
	for _, c := range []struct {
		hour, minute, year int
		want               bool
	}{
		{21, 59, 2030, false}, {22, 0, 2030, true}, {23, 59, 2030, true}, {0, 0, 2030, true}, {5, 59, 2030, true}, {6, 0, 2030, false},
		{12, 29, 2030, false}, {12, 30, 2030, true}, {12, 31, 2030, false}, {12, 0, 1970, true},
	} {
		if got := o.active(at(c.hour, c.minute, c.year)); got != c.want {
			t.Errorf("%d:%02d in %d: %t", c.hour, c.minute, c.year, got)
		}
	}
	if o = (Options{}); !o.active(at(3, 0, 2030)) {
		t.Error("without windows it is not active")
	}
	for _, s := range []string{"", "22:00", "22:00-24:00", "22:60-23:00", "-1:00-02:00", "1:00-02:00", "01:00-01:00", "01:00-02:00 ", "a:b-c:d", "01:00-02:-1"} {
		if w, err := ParseWindow(s); err == nil {
			t.Errorf("%q is accepted as %v", s, w)
		}
	}
}

func TestLazyStart(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	o := testOptions(local, up.addr(), outAll)
	o.Start, o.Backlog, o.IdleTimeout, o.ProgressTimeout = StartLazy, local.backlog, 50*time.Millisecond, 200*time.Millisecond
	b := startBridge(t, o)
	eventually(t, "idle", inState(b, StateIdle))
	up.with(func() {
		if up.connects != 0 {
			t.Error("it dialled although nothing is queued")
		}
	})
	for round := range 2 {
		publishRound(local, 1, round)
		eventually(t, "acknowledged", func() bool { return local.open() == 0 })
		eventually(t, "idle again", inState(b, StateIdle))
	}
	if st := b.Status(); st.Links != 2 || st.LastError != "" || st.Acked != 2 {
		t.Errorf("status %+v", st)
	}
	up.with(func() {
		if up.goodbyes != 2 {
			t.Errorf("%d DISCONNECTs", up.goodbyes)
		}
	})
}

func TestStartOnce(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	up.connackCode = 3
	o := testOptions(local, up.addr(), outAll)
	o.Start = StartOnce
	b := startBridge(t, o)
	eventually(t, "attempts that fail are repeated", func() bool { up.mu.Lock(); defer up.mu.Unlock(); return up.connects >= 3 })
	up.with(func() { up.connackCode = 0 })
	eventually(t, "up", inState(b, StateUp))
	up.cutAll()
	eventually(t, "it stays away", inState(b, StateIdle))
	publishRound(local, 1, 0)
	if local.open() != 1 || b.Status().LastError == "" {
		t.Errorf("%d queued, status %+v", local.open(), b.Status())
	}
}

func TestActiveWindow(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	o := testOptions(local, up.addr(), outAll)
	var hour atomic.Int64
	hour.Store(12)
	o.Active, o.ProgressTimeout = []Window{{22 * 60, 6 * 60}}, 200*time.Millisecond
	o.Now = func() time.Time { return time.Date(2030, 1, 1, int(hour.Load()), 0, 0, 0, time.Local) }
	b := startBridge(t, o)
	eventually(t, "idle", inState(b, StateIdle))
	publishRound(local, 1, 0)
	hour.Store(22)
	eventually(t, "acknowledged", func() bool { return local.open() == 0 })
	hour.Store(6)
	eventually(t, "idle again", inState(b, StateIdle))
	publishRound(local, 1, 1)
	if st := b.Status(); st.Links != 1 || st.LastError != "" || local.open() != 1 {
		t.Errorf("status %+v", st)
	}
}
