package bolt

import (
	"testing"
	"time"

	"sluice/persist"
)

// The interval is as configured up to half of the bucket, grows from there by
// equal factors, and is at its maximum when the bucket is full.
func TestBudgetInterval(t *testing.T) {
	opt := Options{WriteBudgetBytes: 100 << 20, CommitInterval: 50 * time.Millisecond, CommitIntervalMax: 5 * time.Second}
	var m meter
	m.init(&opt, 1)
	for _, x := range []struct {
		mib  uint64
		want time.Duration
	}{{0, 50 * time.Millisecond}, {10, 50 * time.Millisecond}, {5, 500 * time.Millisecond}, {5, 5 * time.Second}, {50, 5 * time.Second}} {
		m.wrote(1, x.mib<<20, 1, 0)
		if got := m.interval(1); got < x.want*99/100 || got > x.want*101/100 {
			t.Fatalf("with %.2f of the bucket: %v, want %v", m.used(), got, x.want)
		}
	}
	for _, o := range []Options{{CommitInterval: 0, CommitIntervalMax: time.Second}, {CommitInterval: time.Second, CommitIntervalMax: time.Second}, {CommitInterval: time.Minute}} {
		o.WriteBudgetBytes = 1 << 20
		m = meter{}
		m.init(&o, 1)
		if got := m.interval(1); got != o.CommitInterval {
			t.Fatalf("%+v: %v with an empty bucket", o, got)
		}
		m.wrote(1, 1<<30, 1, 0)
		if got := m.interval(1); got != max(o.CommitInterval, o.CommitIntervalMax) {
			t.Fatalf("%+v: %v with a full bucket", o, got)
		}
	}
}

// A publisher that never rests: in no 24 hours is more written than the budget,
// a restart in between or not; without a budget it is far more.
func TestBudgetHolds(t *testing.T) {
	const commit = 12 << 10
	run := func(budget int64) (most uint64, longest time.Duration) {
		opt := DefaultOptions()
		opt.WriteBudgetBytes = budget
		var m meter
		m.init(&opt, 0)
		var hours [72]uint64
		for now := int64(0); now < int64(72*time.Hour); {
			interval := m.interval(now)
			longest = max(longest, interval)
			now += int64(interval)
			if h := now / int64(time.Hour); h < 72 {
				if hours[h] == 0 { // a restart
					spent, day, dayBytes := m.saved()
					m = meter{}
					m.init(&opt, now)
					m.restore(spent, day, dayBytes)
				}
				hours[h] += commit
			}
			m.wrote(now, commit, 1, uint64(now/int64(24*time.Hour)))
		}
		for h := range hours[:48] {
			sum := uint64(0)
			for _, n := range hours[h : h+24] {
				sum += n
			}
			most = max(most, sum)
		}
		return most, longest
	}
	const budget = int64(2 << 30)
	most, longest := run(budget)
	if most > uint64(budget) || most < uint64(budget)/2 || longest > 5*time.Second {
		t.Fatalf("%d bytes in 24 hours, the budget is %d; longest interval %v", most, budget, longest)
	}
	if most, _ := run(0); most < uint64(5*budget) {
		t.Fatalf("without a budget %d bytes in 24 hours: the test shows nothing", most)
	}
}

// Commits are counted for an hour; the bytes of a day and the level of the
// bucket are in the file.
func TestBudgetStats(t *testing.T) {
	dir := t.TempDir()
	now := int64(time.Hour)
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval, opt.WriteBudgetBytes = dir, a, 0, 100<<20
	opt.Now = func() int64 { return now }
	open := func() *Store {
		s, err := Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	for i := range 10 {
		durable(s, a, put(uint64(i+1)))
	}
	s.Close()
	st := s.Stats()
	if st.CommitsLastHour != st.Commits || st.Commits < 10 || st.BytesToday != st.BytesWritten || st.WriteBudgetUsed <= 0 || st.CommitTimeMax <= 0 {
		t.Fatalf("%+v", st)
	}
	s = open()
	again := s.Stats()
	if n := st.BytesToday - again.BytesToday; n > 64<<10 || again.WriteBudgetUsed < st.WriteBudgetUsed*0.7 || again.CommitNumber < st.CommitNumber-1 || again.Boot != 2 {
		t.Fatalf("after a restart %+v\nbefore %+v", again, st)
	}
	now += int64(25 * time.Hour)
	if later := s.Stats(); later.CommitsLastHour != 0 || later.WriteBudgetUsed != 0 || later.BytesToday != 0 || later.CommitInterval != 0 {
		t.Fatalf("a day later %+v", later)
	}
	s.Close()
}

// While the budget is short, publishers that wait do not make a commit begin
// early; who waits for a session does.
func TestBudgetHoldsBack(t *testing.T) {
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval, opt.CommitIntervalMax, opt.WriteBudgetBytes = t.TempDir(), a, time.Millisecond, time.Hour, 1<<20
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	urgent(s, a, put(1))
	s.meter.wrote(s.opt.Now(), 1<<20, 0, 0)
	urgent(s, a, put(2))
	before := s.Stats()
	if before.CommitInterval != time.Hour || before.WriteBudgetUsed < 1 {
		t.Fatalf("%+v", before)
	}
	for range 10 * earlyGroups {
		publish(s, enq(1, msg(s, "x")))
	}
	time.Sleep(50 * time.Millisecond) // nothing must happen
	if n := s.Stats().Commits - before.Commits; n != 0 {
		t.Fatalf("%d commits", n)
	}
	urgent(s, a, put(3))
	if n := s.Stats().Commits - before.Commits; n != 1 {
		t.Fatalf("%d commits", n)
	}
}

// BytesWritten is what reaches the file.
func TestBytesWrittenIsHonest(t *testing.T) {
	var p tap
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval = t.TempDir(), a, 0
	opt.hooks.opened = p.put
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	durable(s, a, put(1), put(2))
	for i := range 50 {
		m := msg(s, string(make([]byte, i*i*3)))
		durable(s, a, enq(1, m), enq(2, m), persist.Op{Kind: persist.OpDequeue, ID: 1, Seq: uint64(i)})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Stats().BytesWritten, uint64(p.bytes()+freshBytes); got != want {
		t.Fatalf("Stats says %d, the file got %d", got, want)
	}
}

func TestPresets(t *testing.T) {
	last := time.Duration(0)
	for _, name := range []string{"latency", "balanced", "flash"} {
		opt := DefaultOptions()
		if err := opt.SetPreset(name); err != nil || opt.CommitInterval <= last || opt.CommitIntervalMax <= opt.CommitInterval {
			t.Fatalf("%s: %+v, %v", name, opt, err)
		}
		last = opt.CommitInterval
		d := DefaultOptions()
		if same := opt.CommitInterval == d.CommitInterval && opt.CommitIntervalMax == d.CommitIntervalMax && !opt.Patient; same != (name == "balanced") {
			t.Fatalf("%s is the default: %v", name, same)
		}
	}
	var opt Options
	if opt.SetPreset("fast") == nil {
		t.Fatal("an unknown preset was accepted")
	}
}
