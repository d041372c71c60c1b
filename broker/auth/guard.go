package auth

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"sluice/platform/mono"
)

// DESIGN. Failed logins are counted three times: of an address, of a user, and
// of the pair of both. Only the pair can be refused. So an attacker cannot
// lock a user out from another address; and a gateway behind NAT, with many
// devices on one address, gets slower by the failures of one device, but its
// other users are never refused. An IPv6 address counts as its /64, which is
// what one customer gets.
//
//	pair     beyond SlowAfter failures slower, from FailuresMax on refused for RefuseFor
//	address  after FailuresMax failures slower; somebody tries many users
//	user     after FailuresMax failures slower; a user is tried from many addresses
//
// Devices that share a user and an address share the pair. One of them with a
// wrong password must not shut the others out, so a pair that has once
// succeeded is trusted: it is refused only from trustFactor times FailuresMax
// failures on, more than a device that tries every second makes in a window.
// The price: who sits on the same address as the user's device may try that
// many passwords. An attempt without a user name (a token, say) is only ever
// slowed, as all such devices of an address are one pair.
//
// Nothing that succeeds resets a count, or an attacker with an account of his
// own would reset that of the address. Counts end with their window.
//
// Memory is bounded: EntriesMax entries. When they are all taken, a new one
// takes the place of one whose window is over, else of one with the fewest
// failures, the oldest of those. To be forgotten, a pair with n failures must
// be pushed out by EntriesMax entries with about as many failures each: that
// costs more attempts than it wins. Trust is a bit in a table of its own,
// which only successful logins can write.

// GuardOptions are the limits of a Guard.
type GuardOptions struct {
	// FailuresMax is how many failures of one user at one address in Window
	// are let pass before it is refused. At least 1; default 10.
	FailuresMax int

	// Window is how long failures are counted together. Default 1 minute.
	Window time.Duration

	// RefuseFor is for how long a pair is refused. Default 5 minutes. With the
	// defaults an attacker who stays below FailuresMax has some 500 attempts
	// an hour, one who does not has 100.
	RefuseFor time.Duration

	// SlowAfter is how many failures of a pair are let pass before attempts get slower.
	// Default 3: typing errors cost nothing.
	SlowAfter int

	// SlowMin is the first delay; each further failure doubles it up to
	// SlowMax. Defaults 100 ms and 2 s. A delayed attempt holds a connection
	// that is not authenticated: SlowMax is to stay well below the time that
	// those get. SlowMax 0: nothing is slowed.
	SlowMin time.Duration
	SlowMax time.Duration

	// EntriesMax bounds memory: each entry takes about 110 bytes once used,
	// and 8 bytes of trust from the start. At least 16; default 4096,
	// half a MiB at most.
	EntriesMax int
}

// DefaultGuardOptions are the defaults named at the fields.
func DefaultGuardOptions() GuardOptions {
	return GuardOptions{
		FailuresMax: 10,
		Window:      time.Minute,
		RefuseFor:   5 * time.Minute,
		SlowAfter:   3,
		SlowMin:     100 * time.Millisecond,
		SlowMax:     2 * time.Second,
		EntriesMax:  4096,
	}
}

// Validate tells what is wrong with the options, all at once.
func (o *GuardOptions) Validate() error {
	var p problems
	if o.FailuresMax < 1 || o.FailuresMax > 1_000_000 {
		p.add("", 0, "guard: %d failures at most: it must be 1 to 1000000", o.FailuresMax)
	}
	if o.Window <= 0 || o.RefuseFor < 0 {
		p.add("", 0, "guard: window %v, refused for %v: the first must be positive, the other not negative", o.Window, o.RefuseFor)
	}
	if o.SlowAfter < 0 || o.SlowMin < 0 || o.SlowMax < o.SlowMin {
		p.add("", 0, "guard: slower after %d failures by %v to %v: none may be negative, and the last not below the one before", o.SlowAfter, o.SlowMin, o.SlowMax)
	}
	if o.EntriesMax < 16 || o.EntriesMax > 1<<20 {
		p.add("", 0, "guard: %d entries: it must be 16 to %d", o.EntriesMax, 1<<20)
	}
	return p.err()
}

// trustFactor is how many times FailuresMax a pair may fail that has
// succeeded before.
const trustFactor = 10

// what an entry counts.
const (
	ofPair uint8 = iota
	ofAddr
	ofUser
)

// guardKey is what failures are counted by: hashes, with a seed that an
// attacker does not know.
type guardKey struct {
	hash uint64
	what uint8
}

// Guard counts failed logins, and tells who has to wait or go. It is safe for
// use by many goroutines.
type Guard struct {
	o    GuardOptions
	seed maphash.Seed

	mu      sync.Mutex
	table   failures
	trusted [][2]uint64 // pairs that have succeeded, by their hash; a newer one may take the place of an older
}

// NewGuard returns a Guard. Options that Validate refuses panic.
func NewGuard(o GuardOptions) *Guard {
	if err := o.Validate(); err != nil {
		panic("BUG: " + err.Error())
	}
	g := &Guard{o: o, seed: maphash.MakeSeed(), trusted: make([][2]uint64, (o.EntriesMax+1)/2)}
	g.table.init(o.EntriesMax, o.Window)
	return g
}

// keys are those of an attempt.
func (g *Guard) keys(addr netip.Addr, user string) (pair, address, name guardKey) {
	var b [16]byte
	if addr = addr.Unmap(); addr.IsValid() {
		b = addr.As16()
	}
	if addr.Is6() {
		clear(b[8:])
	}
	var h maphash.Hash
	h.SetSeed(g.seed)
	h.Write(b[:])
	address = guardKey{h.Sum64(), ofAddr}
	h.WriteString(user)
	pair = guardKey{h.Sum64(), ofPair}
	return pair, address, guardKey{maphash.String(g.seed, user), ofUser}
}

// Check tells what to do with an attempt: refuse it without trying (!ok), or
// try it after a delay, which is at most SlowMax. A zero addr stands for all
// clients of unix sockets; user "" for an attempt that names none.
func (g *Guard) Check(addr netip.Addr, user string, now mono.Time) (wait time.Duration, ok bool) {
	pair, address, name := g.keys(addr, user)
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.table.find(pair, now); e != nil {
		if user != "" && now < e.refusedUntil {
			return 0, false
		}
		wait = g.delay(int(e.count) - g.o.SlowAfter)
	}
	if e := g.table.find(address, now); e != nil {
		wait = max(wait, g.delay(int(e.count)-g.o.FailuresMax))
	}
	if user != "" {
		if e := g.table.find(name, now); e != nil {
			wait = max(wait, g.delay(int(e.count)-g.o.FailuresMax))
		}
	}
	return wait, true
}

// delay is that of the nth failure too many.
func (g *Guard) delay(n int) time.Duration {
	if n <= 0 || g.o.SlowMax == 0 {
		return 0
	}
	d := g.o.SlowMin
	for ; n > 1 && d < g.o.SlowMax; n-- {
		d *= 2
	}
	return min(d, g.o.SlowMax)
}

// Failed counts a failed attempt; one that was refused by Check counts not.
// log tells whether to write it down: of an address the first, and one per
// Window while it goes on. burst is how many failures of the address that line
// stands for: those since the line before, this one included.
func (g *Guard) Failed(addr netip.Addr, user string, now mono.Time) (burst int, log bool) {
	pair, address, name := g.keys(addr, user)
	g.mu.Lock()
	defer g.mu.Unlock()
	// The address first: it has the most failures, and what is new is what
	// the next one may push out.
	e := g.table.count(address, now)
	e.unlogged++
	burst = int(e.unlogged)
	if log = e.logged == 0 || now.Sub(e.logged) >= g.o.Window; log {
		e.logged, e.unlogged = now, 0
	}
	if user != "" {
		g.table.count(name, now)
	}
	e = g.table.count(pair, now)
	limit := g.o.FailuresMax
	if g.trusts(pair) {
		limit *= trustFactor
	}
	if int(e.count) >= limit {
		e.refusedUntil = now.Add(g.o.RefuseFor)
	}
	return burst, log
}

// Succeeded notes that a user has come in from an address.
func (g *Guard) Succeeded(addr netip.Addr, user string) {
	pair, _, _ := g.keys(addr, user)
	g.mu.Lock()
	defer g.mu.Unlock()
	slot := g.slot(pair)
	if slot[0] != pair.hash {
		slot[0], slot[1] = pair.hash, slot[0]
	}
}

func (g *Guard) slot(pair guardKey) *[2]uint64 {
	return &g.trusted[pair.hash%uint64(len(g.trusted))]
}

func (g *Guard) trusts(pair guardKey) bool {
	slot := g.slot(pair)
	return slot[0] == pair.hash || slot[1] == pair.hash
}
