package platform

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/platform/mono"
)

func TestWaitAndWakeDoNotAllocate(t *testing.T) {
	p := newPoller(t)
	a, b := pair(t)
	defer unix.Close(a)
	defer unix.Close(b)
	dst := make([]Event, 16)
	if n := testing.AllocsPerRun(200, func() {
		p.Wake()
		p.Wait(dst, mono.Now().Add(patience)) // ready at once
	}); n != 0 {
		t.Errorf("a wait that finds something: %v allocations", n)
	}
	if n := testing.AllocsPerRun(200, func() {
		p.Wait(dst, mono.Now().Add(100*time.Microsecond)) // parks
	}); n != 0 {
		t.Errorf("a wait that parks: %v allocations", n)
	}
	must(t, p.Add(a, 1, false))
	one, buf := []byte{1}, make([]byte, 8)
	if n := testing.AllocsPerRun(200, func() {
		Write(b, one)
		p.Wait(dst, 0)
		Read(a, buf)
	}); n != 0 {
		t.Errorf("a byte through a socket: %v allocations", n)
	}
}

func BenchmarkWakeReady(b *testing.B) {
	p := newPoller(b)
	dst := make([]Event, 16)
	b.ReportAllocs()
	for b.Loop() {
		p.Wake()
		p.Wait(dst, 0)
	}
}

// BenchmarkPingPong measures two workers that wake each other out of parking: one round trip per iteration.
func BenchmarkPingPong(b *testing.B) {
	p, q := newPoller(b), newPoller(b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		dst := make([]Event, 16)
		for {
			n, _, err := q.Wait(dst, 0)
			if err != nil || n > 0 {
				return
			}
			p.Wake()
		}
	}()
	dst := make([]Event, 16)
	b.ReportAllocs()
	for b.Loop() {
		q.Wake()
		p.Wait(dst, mono.Now().Add(patience))
	}
	x, y := pair(b)
	must(b, q.Add(x, 1, false))
	mustWrite(b, y, "stop")
	<-done
	unix.Close(x)
	unix.Close(y)
}
