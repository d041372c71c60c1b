package bolt

import (
	"fmt"
	"testing"
	"time"

	"sluice/persist"
)

// The store reads no clock but Options.Now, which counts from the start of the
// process. Whatever the machine's clock says, a message lives for the time that
// the store is open: a boot in 1970, a clock that is set by years, and a
// machine that was suspended or off for a week change nothing.
func TestClockOfTheStore(t *testing.T) {
	const lifetime = 600 * time.Second
	for name, boots := range map[string][]struct{ from, length time.Duration }{
		"no clock at boot": {{time.Second, 100 * time.Second}, {time.Second, 100 * time.Second}},
		"up for years":     {{20 * 365 * 24 * time.Hour, 100 * time.Second}, {time.Second, 100 * time.Second}},
		"back again":       {{time.Second, 100 * time.Second}, {20 * 365 * 24 * time.Hour, 100 * time.Second}},
		"four boots":       {{time.Second, 50 * time.Second}, {time.Hour, 50 * time.Second}, {time.Second, 50 * time.Second}, {time.Minute, 50 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			last := uint64(0)
			for i, boot := range boots {
				now := int64(boot.from)
				a := newAnswers()
				opt := DefaultOptions()
				opt.Path, opt.Events, opt.CommitInterval, opt.Now = dir, a, 0, func() int64 { return now }
				s, err := Open(opt)
				if err != nil {
					t.Fatal(err)
				}
				image, err := s.Load()
				if err != nil || image.Boot != last+1 {
					t.Fatalf("boot %d after %d, %v", image.Boot, last, err)
				}
				last = image.Boot
				if i == 0 {
					m, w := msg(s, "x"), msg(s, "will")
					m.Expires = now + int64(lifetime)
					durable(s, a, put(1), enq(1, m), persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: m}},
						persist.Op{Kind: persist.OpPutWill, ID: 1, Will: &persist.Will{Msg: w, Due: now + int64(lifetime)}})
				}
				now += int64(boot.length)
				durable(s, a, enq(1, msg(s, fmt.Sprint("commit saves the clock", i))))
				s.kill()
			}
			now := int64(time.Hour)
			opt := DefaultOptions()
			a := newAnswers()
			opt.Path, opt.Events, opt.Now = dir, a, func() int64 { return now }
			s, err := Open(opt)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			image, err := s.Load()
			if err != nil {
				t.Fatal(err)
			}
			for what, at := range map[string]int64{
				"message": fetchAll(s, a, 1)[0].Msg.Expires, "retained": image.Retained[0].Expires, "will": image.Sessions[0].Will.Due,
			} {
				left, want := time.Duration(at-now), lifetime-200*time.Second
				if left < want || left > want+4*2*time.Second {
					t.Fatalf("%s: %v left, want %v", what, left, want)
				}
			}
		})
	}
}

// Commits have numbers that go on over restarts: of two copies of a store the
// later one is known without a clock.
func TestCommitNumber(t *testing.T) {
	dir := t.TempDir()
	last := uint64(0)
	for range 5 {
		s, a, _ := openAt(t, dir)
		for range 3 {
			durable(s, a, put(s.NewSessionID()))
			n := s.Stats().CommitNumber
			if n <= last {
				t.Fatalf("commit %d after %d", n, last)
			}
			last = n
		}
		s.kill()
	}
}
