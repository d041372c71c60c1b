package auth

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/platform/mono"
)

var (
	home   = netip.MustParseAddr("192.0.2.1")
	abroad = netip.MustParseAddr("198.51.100.7")
)

const begun = mono.Time(time.Hour)

func fail(g *Guard, addr netip.Addr, user string, now mono.Time, times int) {
	for range times {
		g.Failed(addr, user, now)
	}
}

func expectGuard(t *testing.T, g *Guard, what string, addr netip.Addr, user string, now mono.Time, wantWait time.Duration, wantOK bool) {
	t.Helper()
	if wait, ok := g.Check(addr, user, now); wait != wantWait || ok != wantOK {
		t.Errorf("%s: %v %v, want %v %v", what, wait, ok, wantWait, wantOK)
	}
}

func TestGuardSlowsThenRefusesThenForgets(t *testing.T) {
	g := NewGuard(DefaultGuardOptions())
	for i, want := range []time.Duration{0, 0, 0, 0, 100, 200, 400, 800, 1600, 2000} {
		expectGuard(t, g, fmt.Sprint(i), home, "u", begun, want*time.Millisecond, true)
		g.Failed(home, "u", begun)
	}
	expectGuard(t, g, "the tenth", home, "u", begun, 0, false)
	expectGuard(t, g, "refused past the window", home, "u", begun.Add(5*time.Minute-1), 0, false)
	expectGuard(t, g, "after RefuseFor", home, "u", begun.Add(5*time.Minute), 0, true)
}

func TestGuardForgetsWithTheWindow(t *testing.T) {
	g := NewGuard(DefaultGuardOptions())
	fail(g, home, "u", begun, 9)
	expectGuard(t, g, "in the window", home, "u", begun.Add(time.Minute-1), 2*time.Second, true)
	expectGuard(t, g, "after it", home, "u", begun.Add(time.Minute), 0, true)
	fail(g, home, "u", begun.Add(time.Minute), 9)
	expectGuard(t, g, "counted anew", home, "u", begun.Add(time.Minute), 2*time.Second, true)
}

// An attacker cannot lock the user out elsewhere: he only makes it slower.
func TestGuardDoesNotLockTheUserOutElsewhere(t *testing.T) {
	g := NewGuard(DefaultGuardOptions())
	fail(g, abroad, "u", begun, 1000)
	expectGuard(t, g, "the attacker", abroad, "u", begun, 0, false)
	expectGuard(t, g, "the user", home, "u", begun, 2*time.Second, true)
}

// Many devices behind one address: one with a wrong password slows the others
// and no more, and one that succeeds clears nobody.
func TestGuardBehindNAT(t *testing.T) {
	g := NewGuard(DefaultGuardOptions())
	fail(g, home, "broken", begun, 30)
	expectGuard(t, g, "another user", home, "good", begun, 2*time.Second, true)
	g.Succeeded(home, "good")
	expectGuard(t, g, "still slow", home, "good", begun, 2*time.Second, true)
	expectGuard(t, g, "still refused", home, "broken", begun, 0, false)
}

// Devices that share user and address: the working ones go on.
func TestGuardTrustsWhoHasSucceeded(t *testing.T) {
	g := NewGuard(DefaultGuardOptions())
	g.Succeeded(home, "sensor")
	fail(g, home, "sensor", begun, 60) // one try a second by the broken one
	expectGuard(t, g, "slowed, not refused", home, "sensor", begun, 2*time.Second, true)
	fail(g, home, "sensor", begun, 40)
	expectGuard(t, g, "an attack", home, "sensor", begun, 0, false)
	fail(g, abroad, "sensor", begun, 10)
	expectGuard(t, g, "trust is of the pair", abroad, "sensor", begun, 0, false)
}

func TestGuardNeverRefusesWhoNamesNoUser(t *testing.T) {
	g := NewGuard(DefaultGuardOptions())
	fail(g, home, "", begun, 1000)
	expectGuard(t, g, "no user", home, "", begun, 2*time.Second, true)
	expectGuard(t, g, "no user elsewhere", abroad, "", begun, 0, true)
}

func TestGuardCountsAddresses(t *testing.T) {
	addr := netip.MustParseAddr
	for _, x := range []struct {
		name string
		a, b netip.Addr
		same bool
	}{
		{"a /64 is one address", addr("2001:db8::1"), addr("2001:db8::ffff:2"), true},
		{"two /64 are two", addr("2001:db8::1"), addr("2001:db8:0:1::1"), false},
		{"IPv4 in IPv6 is IPv4", addr("192.0.2.1"), addr("::ffff:192.0.2.1"), true},
		{"IPv4 addresses differ", addr("192.0.2.1"), addr("192.0.2.2"), false},
		{"a zone does not matter", addr("fe80::1%eth0"), addr("fe80::1"), true},
		{"unix sockets are one", netip.Addr{}, netip.Addr{}, true},
		{"unix sockets are not 0.0.0.0", netip.Addr{}, addr("0.0.0.0"), false},
	} {
		g := NewGuard(DefaultGuardOptions())
		fail(g, x.a, "u", begun, 10)
		if _, ok := g.Check(x.b, "u", begun); ok == x.same {
			t.Errorf("%s: not so", x.name)
		}
	}
}

func TestGuardLogsOncePerBurst(t *testing.T) {
	g := NewGuard(DefaultGuardOptions())
	var lines []string
	for i := range 150 {
		if burst, log := g.Failed(home, "u", begun.Add(time.Duration(i)*time.Second)); log {
			lines = append(lines, fmt.Sprintf("%d:%d", i, burst))
		}
	}
	if got := strings.Join(lines, " "); got != "0:1 60:60 120:60" {
		t.Error(got)
	}
	if burst, log := g.Failed(abroad, "u", begun); burst != 1 || !log {
		t.Errorf("another address: %d %v", burst, log)
	}
}

// An attacker cannot make the Guard forget him by names that he makes up: his
// own entry is heavier than theirs.
func TestGuardCannotBeWashedByManyNames(t *testing.T) {
	o := DefaultGuardOptions()
	o.EntriesMax = 64
	g := NewGuard(o)
	fail(g, abroad, "victim", begun, o.FailuresMax)
	for i := range 10_000 {
		g.Failed(abroad, fmt.Sprint("made up ", i), begun)
		g.Failed(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), "x", begun)
	}
	expectGuard(t, g, "the attacker", abroad, "victim", begun, 0, false)
	if n := len(g.table.entries); n != 64 || len(g.table.places) != 64 {
		t.Errorf("%d entries, %d places", n, len(g.table.places))
	}
}

func TestGuardTakesTheRoomOfWhatIsOver(t *testing.T) {
	o := DefaultGuardOptions()
	o.EntriesMax = 16
	g := NewGuard(o)
	for i := range 5 {
		fail(g, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), fmt.Sprint(i), begun, 9)
	}
	later := begun.Add(o.Window)
	for i := range 5 {
		fail(g, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), fmt.Sprint("new", i), later, 9)
	}
	for i := range 5 {
		expectGuard(t, g, "new", netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), fmt.Sprint("new", i), later, 2*time.Second, true)
	}
}

func TestGuardOptionsAreCheckedAllAtOnce(t *testing.T) {
	err := (&GuardOptions{Window: -1, SlowMin: 2, SlowMax: 1}).Validate()
	if err == nil || strings.Count(err.Error(), "guard:") != 4 {
		t.Errorf("%v", err)
	}
	o := DefaultGuardOptions()
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
}

func BenchmarkGuard(b *testing.B) {
	g := NewGuard(DefaultGuardOptions())
	for i := range 10_000 {
		g.Failed(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), fmt.Sprint(i), begun)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		addr := netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
		g.Check(addr, "user", begun)
		g.Failed(addr, "user", begun)
	}
}
