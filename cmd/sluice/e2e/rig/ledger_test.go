package rig

import (
	"testing"
	"time"
)

func TestLedger(t *testing.T) {
	l := NewLedger()
	for n := range uint64(5) {
		l.Acked("a", n)
		l.Acked("a", n) // a second time counts nothing
	}
	l.Acked("b", 0)
	mark := l.Mark()
	l.Acked("a", 5)
	for _, n := range []uint64{0, 2, 1, 1, 5} {
		l.ArrivedPayload(Payload("a", n, 40))
	}
	l.ArrivedPayload(Payload("c", 7, 40)) // arrived before its acknowledgement
	l.ArrivedPayload([]byte("nonsense"))
	if lost, some := l.Lost(); lost != 3 || some != "a/3 a/4 b/0" {
		t.Errorf("%d lost: %s", lost, some)
	}
	if n := l.Missing(mark); n != 3 {
		t.Errorf("%d missing up to the mark", n)
	}
	sum := l.Sum()
	sum.LongestGap = 0
	if want := (Sum{Acked: 7, Arrived: 5, Duplicates: 1, Disorder: 1, Strange: 1}); sum != want {
		t.Errorf("got %+v, want %+v", sum, want)
	}
	for _, n := range []uint64{3, 4} {
		l.Arrived("a", n)
	}
	l.Arrived("b", 0)
	if n, _ := l.Lost(); n != 0 || l.Missing(mark) != 0 {
		t.Errorf("%d lost after all came", n)
	}
	if gap := l.Sum().LongestGap; gap <= 0 || gap > time.Minute {
		t.Errorf("longest gap %v", gap)
	}
}
