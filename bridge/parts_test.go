package bridge

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/broker/mqtt"
)

func TestBudgetBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(2, 10, nil)
		if !b.acquire(100, false) {
			t.Fatal("one message always fits")
		}
		in := false
		go func() { in = b.acquire(1, false) }()
		synctest.Wait()
		if in {
			t.Fatal("a second one fits beside it")
		}
		b.release(100)
		synctest.Wait()
		if !in || !b.acquire(9, false) {
			t.Fatal("no room after release")
		}
		if items, n := b.held(); items != 2 || n != 10 {
			t.Errorf("holds %d items, %d bytes", items, n)
		}
		third := make(chan bool, 1)
		go func() { third <- b.acquire(0, false) }()
		synctest.Wait()
		b.close()
		if <-third || b.acquire(0, true) {
			t.Error("acquire succeeds after close")
		}
	})
}

func TestBudgetLift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newBudget(1, 10, nil)
		in := newBudget(1, 10, out.lift)
		out.acquire(1, true)
		in.acquire(1, false)

		waits := make(chan bool, 2)
		go func() { waits <- out.acquire(1, true) }()
		synctest.Wait()
		if len(waits) != 0 {
			t.Fatal("out has room although in does not wait")
		}
		inside := make(chan bool, 1)
		go func() { inside <- in.acquire(1, false) }()
		synctest.Wait()
		if len(waits) != 1 || !<-waits {
			t.Fatal("in waits and the limits of out are not lifted")
		}
		if out.acquire(1, false) {
			t.Error("QoS 0 passes beyond the limit")
		}
		in.release(1)
		if !<-inside {
			t.Error("in did not get its room")
		}
		go func() { waits <- out.acquire(1, true) }()
		synctest.Wait()
		if len(waits) != 0 {
			t.Error("out is still lifted")
		}
		out.close()
		<-waits
	})
}

func TestBudgetPanicsOnTooMuchReleased(t *testing.T) {
	defer func() {
		if r, _ := recover().(string); !strings.HasPrefix(r, "BUG:") {
			t.Errorf("recovered %q", r)
		}
	}()
	newBudget(1, 1, nil).release(1)
}

func TestPace(t *testing.T) {
	p := pace{perSecond: 10}
	now := time.Duration(0)
	send := func() (waited time.Duration) {
		waited = p.wait(now)
		now += waited
		p.book(now, 1)
		return waited
	}
	// A burst of one second's worth, then one every 100 ms.
	for i := range 40 {
		if wait := send(); i <= 10 && wait != 0 {
			t.Fatalf("message %d waits %v", i, wait)
		}
	}
	if want := 29 * 100 * time.Millisecond; now != want {
		t.Errorf("40 messages took %v, want %v", now, want)
	}
	now += time.Hour // an idle hour is worth one second, not one hour
	start := now
	for range 40 {
		send()
	}
	if want := 29 * 100 * time.Millisecond; now-start != want {
		t.Errorf("40 messages after an idle hour took %v, want %v", now-start, want)
	}
	var free pace
	if free.book(0, 1<<30); free.wait(0) != 0 {
		t.Error("no limit makes us wait")
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{min: time.Second, max: 60 * time.Second}
	limits := []time.Duration{2, 4, 8, 16, 32, 60, 60}
	seen := map[time.Duration]bool{}
	for range 100 {
		b.reset()
		for i, limit := range limits {
			d := b.next()
			if d < b.min || d > limit*time.Second {
				t.Fatalf("wait %d is %v, want %v to %v s", i, d, b.min, limit)
			}
			seen[d] = true
		}
	}
	if len(seen) < 500 {
		t.Errorf("only %d different waits: no jitter", len(seen))
	}
	if d := (&backoff{min: time.Second, max: time.Second}).next(); d != time.Second {
		t.Errorf("min == max waits %v", d)
	}
}

func TestProgress(t *testing.T) {
	var p progress
	const timeout = 10
	at := func(now time.Duration, want bool) {
		t.Helper()
		if got := p.stuck(now, timeout); got != want {
			t.Errorf("at %d stuck is %t", now, got)
		}
	}
	at(1000, false) // nothing outstanding
	p.begin(1000)
	at(1010, false)
	at(1011, true)
	p.begin(1011) // more work is no progress
	at(1011, true)
	p.step(1012)
	at(1022, false)
	p.end(1015)
	at(1025, false)
	at(1026, true)
	p.end(1030)
	at(5000, false)
	p.begin(5000)
	at(5010, false)
}

func TestThrottle(t *testing.T) {
	var th throttle
	t0 := time.Now()
	if n, ok := th.allow(t0); !ok || n != 0 {
		t.Error("the first line is kept back")
	}
	for i := range 5 {
		if _, ok := th.allow(t0.Add(time.Duration(i) * time.Second)); ok {
			t.Error("a line too many")
		}
	}
	if n, ok := th.allow(t0.Add(throttleInterval)); !ok || n != 5 {
		t.Errorf("after the interval: %d, %t", n, ok)
	}
}

func TestFrames(t *testing.T) {
	var stream []byte
	var want []string
	for i := range 300 {
		payload := strings.Repeat(string(rune('a'+i%26)), i*i%40000)
		p := mqtt.Publish{Topic: []byte("t"), Payload: []byte(payload)}
		stream = mqtt.AppendPublish(stream, &p, mqtt.V311)
		want = append(want, payload)
	}
	for _, step := range []int{1, 7, 5000, 1 << 20} {
		f := frames{src: &stepper{stream, step}, max: 1 << 20}
		for i := range want {
			h, body, err := f.next()
			var p mqtt.Publish
			if err == nil {
				err = mqtt.DecodePublish(&p, h.Flags, body, mqtt.V311)
			}
			if err != nil || string(p.Payload) != want[i] {
				t.Fatalf("step %d, packet %d: %v", step, i, err)
			}
			if len(f.buf) > 128<<10 {
				t.Fatalf("buffer of %d bytes for packets of 40000", len(f.buf))
			}
		}
		if _, _, err := f.next(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
}

func TestFramesTakeMemoryOnlyForWhatIsThere(t *testing.T) {
	f := frames{src: strings.NewReader("\x30\xff\xff\xff\x7f\x00\x01a"), max: mqtt.PacketBytesMax}
	if _, _, err := f.next(); err != io.EOF {
		t.Errorf("%v", err)
	}
	if len(f.buf) != framesFirstBytes {
		t.Errorf("buffer of %d bytes for 8", len(f.buf))
	}
	f = frames{src: strings.NewReader("\x30\xff\x7f\x00\x01a"), max: 1000}
	var refused *mqtt.Error
	if _, _, err := f.next(); !errors.As(err, &refused) || refused.Reason != mqtt.PacketTooLarge {
		t.Errorf("%v", err)
	}
}

// stepper reads at most n bytes at a time.
type stepper struct {
	b []byte
	n int
}

func (s *stepper) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.b[:min(s.n, len(s.b))])
	s.b = s.b[n:]
	return n, nil
}

func TestWriterBatches(t *testing.T) {
	a, b := net.Pipe()
	moved := 0
	w := newWriter(a, time.Minute, func(err error) { t.Error(err) }, func() { moved++ })
	var want []byte
	for i := range 100 {
		p := bytes.Repeat([]byte{byte(i)}, 1000)
		want = append(want, p...)
		w.end(append(w.begin(), p...))
	}
	w.finish()
	w.end(append(w.begin(), "late"...))
	go func() {
		w.run()
		_ = a.Close()
	}()
	writes, got := 0, []byte(nil)
	buf := make([]byte, 1<<20)
	for {
		n, err := b.Read(buf)
		if err != nil {
			break
		}
		writes++
		got = append(got, buf[:n]...)
	}
	<-w.ended
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes arrived, want %d", len(got), len(want))
	}
	if writes != 7 || moved != 6 { // 100000 / 16384, rounded up
		t.Errorf("%d writes, %d steps", writes, moved)
	}
}
