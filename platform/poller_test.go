package platform

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sluice/platform/mono"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests; none is expected to come near it.
const patience = 20 * time.Second

func newPoller(t testing.TB) *Poller {
	t.Helper()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// pair returns both ends of a socket pair, raw and non-blocking; the test closes what it has not closed itself.
func pair(t testing.TB) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t testing.TB, fd int, text string) {
	t.Helper()
	n, err := Write(fd, []byte(text))
	if err != nil || n != len(text) {
		t.Fatalf("write: %d, %v", n, err)
	}
}

// wait calls Wait with the tests' patience and room for 16 events.
func wait(t testing.TB, p *Poller) ([]Event, bool) {
	t.Helper()
	dst := make([]Event, 16)
	n, woken, err := p.Wait(dst, mono.Now().Add(patience))
	must(t, err)
	return dst[:n], woken
}

func TestWaitReportsReadiness(t *testing.T) {
	p := newPoller(t)
	a, b := pair(t)
	defer unix.Close(a)
	must(t, p.Add(a, 7, false))
	mustWrite(t, b, "x")

	events, woken := wait(t, p)
	if want := (Event{Tag: 7, Readable: true}); len(events) != 1 || events[0] != want || woken {
		t.Fatalf("got %+v, woken %v, want %+v", events, woken, want)
	}
	// Level-triggered: what was left unread is reported again.
	if events, _ = wait(t, p); len(events) != 1 || !events[0].Readable {
		t.Fatalf("unread bytes are not reported again: %+v", events)
	}
	var buf [8]byte
	if n, err := Read(a, buf[:]); n != 1 || err != nil {
		t.Fatalf("read: %d, %v", n, err)
	}

	must(t, p.Modify(a, 8, true, true))
	if events, _ = wait(t, p); len(events) != 1 || events[0] != (Event{Tag: 8, Writable: true}) {
		t.Fatalf("after asking for room: %+v", events)
	}

	must(t, p.Modify(a, 9, true, false))
	unix.Close(b)
	if events, _ = wait(t, p); len(events) != 1 || events[0] != (Event{Tag: 9, Readable: true, Hangup: true}) {
		t.Fatalf("after the peer closed: %+v", events)
	}
	must(t, p.Remove(a))
	if n, _, err := p.Wait(make([]Event, 4), mono.Now()); n != 0 || err != nil {
		t.Fatalf("after Remove: %d events, %v", n, err)
	}
}

// A paused reader must not spin on a peer that has shut down its sending half, but must hear of one that is gone.
func TestPausedReaderHearsOnlyOfTheEnd(t *testing.T) {
	p := newPoller(t)
	fd, addr, err := Listen("tcp", "127.0.0.1:0", ListenOptions{})
	must(t, err)
	defer unix.Close(fd)
	client, err := net.Dial("tcp", addr)
	must(t, err)
	defer client.Close()
	conn := accept(t, fd)
	defer unix.Close(conn)

	must(t, p.Add(conn, 1, false))
	must(t, client.(*net.TCPConn).CloseWrite())
	if events, _ := wait(t, p); len(events) != 1 || events[0] != (Event{Tag: 1, Readable: true, Hangup: true}) {
		t.Fatalf("a half-closed peer: %+v", events)
	}
	must(t, p.Modify(conn, 1, false, false))
	if n, _, err := p.Wait(make([]Event, 4), mono.Now().Add(20*time.Millisecond)); n != 0 || err != nil {
		t.Fatalf("a half-closed peer was reported to a paused reader: %d, %v", n, err)
	}
	must(t, client.(*net.TCPConn).SetLinger(0))
	must(t, client.Close()) // resets the connection
	if events, _ := wait(t, p); len(events) != 1 || !events[0].Hangup {
		t.Fatalf("a reset was not reported: %+v", events)
	}
}

// A descriptor is closed and its number reused while an event for it is still in the batch: the event names the old
// generation, which the owner no longer knows, and the new one gets its own.
func TestTagSurvivesReuseOfADescriptor(t *testing.T) {
	const slot = Tag(3)
	tagOf := func(generation uint32) Tag { return slot | Tag(generation)<<32 }
	p := newPoller(t)

	first, firstPeer := pair(t)
	trigger, triggerPeer := pair(t)
	defer unix.Close(trigger)
	defer unix.Close(triggerPeer)
	must(t, p.Add(trigger, 1, false))
	must(t, p.Add(first, tagOf(0xFFFF_FFFE), false))
	mustWrite(t, triggerPeer, "close the other one")
	mustWrite(t, firstPeer, "old")

	batch, _ := wait(t, p)
	if len(batch) != 2 {
		t.Fatalf("want both events in one batch, got %+v", batch)
	}
	// Handling the first event closes the other descriptor and opens a new connection in its place.
	unix.Close(first)
	unix.Close(firstPeer)
	second, secondPeer := pair(t)
	defer unix.Close(second)
	defer unix.Close(secondPeer)
	if second != first && secondPeer != first {
		t.Fatalf("descriptor %d was not reused (%d, %d): the test shows nothing", first, second, secondPeer)
	}
	must(t, p.Add(first, tagOf(0xFFFF_FFFF), false))
	if batch[0].Tag != tagOf(0xFFFF_FFFE) && batch[1].Tag != tagOf(0xFFFF_FFFE) {
		t.Fatalf("the old generation is not in the batch: %+v", batch)
	}

	must(t, p.Remove(trigger))
	mustWrite(t, second+secondPeer-first, "new")
	if events, _ := wait(t, p); len(events) != 1 || events[0].Tag != tagOf(0xFFFF_FFFF) {
		t.Fatalf("the new generation: %+v", events)
	}
}

func TestReservedTagPanics(t *testing.T) {
	p := newPoller(t)
	defer func() {
		if r := recover(); r == nil || !strings.HasPrefix(fmt.Sprint(r), "BUG:") {
			t.Fatalf("recovered %v", r)
		}
	}()
	p.Add(0, wakeTag, false)
}

func TestWaitEndsAtTheDeadline(t *testing.T) {
	p := newPoller(t)
	dst := make([]Event, 4)
	// In turn: first one, one that moves away (left armed as it was), an earlier one, and one in the past.
	for _, d := range []time.Duration{20 * time.Millisecond, 60 * time.Millisecond, 5 * time.Millisecond, -time.Second} {
		deadline := mono.Now().Add(d)
		n, woken, err := p.Wait(dst, deadline)
		if n != 0 || woken || err != nil {
			t.Fatalf("%v: got %d, %v, %v", d, n, woken, err)
		}
		if late := mono.Now().Sub(deadline); late < 0 {
			t.Fatalf("%v: returned %v early", d, -late)
		}
	}
}

// A wait that ends early leaves its deadline armed; the next one, with an earlier deadline, must not wait for that.
func TestLaterArmedDeadlineDoesNotDelayAnEarlierOne(t *testing.T) {
	p := newPoller(t)
	dst := make([]Event, 4)
	timer := time.AfterFunc(10*time.Millisecond, p.Wake)
	defer timer.Stop()
	if _, woken, err := p.Wait(dst, mono.Now().Add(patience)); !woken || err != nil {
		t.Fatalf("woken %v, %v", woken, err)
	}
	deadline := mono.Now().Add(5 * time.Millisecond)
	if n, woken, err := p.Wait(dst, deadline); n != 0 || woken || err != nil {
		t.Fatalf("got %d, %v, %v", n, woken, err)
	}
	if late := mono.Now().Sub(deadline); late > patience/2 {
		t.Fatalf("%v late", late)
	}
}

// An armed deadline that is too early for the current wait must not end it.
func TestEarlierArmedDeadlineDoesNotEndALaterWait(t *testing.T) {
	p := newPoller(t)
	dst := make([]Event, 4)
	p.Wake()
	if _, woken, _ := p.Wait(dst, mono.Now().Add(time.Millisecond)); !woken {
		t.Fatal("not woken")
	}
	for _, deadline := range []mono.Time{mono.Now().Add(time.Millisecond), 0} {
		// The armed one strikes while the goroutine waits without a deadline, or for a later one.
		p.Wait(dst, mono.Now().Add(2*time.Millisecond))
		timer := time.AfterFunc(30*time.Millisecond, p.Wake)
		defer timer.Stop()
		if deadline != 0 {
			deadline = mono.Now().Add(patience)
		}
		if n, woken, err := p.Wait(dst, deadline); n != 0 || !woken || err != nil {
			t.Fatalf("deadline %d: got %d, %v, %v", deadline, n, woken, err)
		}
	}
}

// Many goroutines wake one poller with a coalescing flag, in the order that the workers use: post, then flag, then
// wake; clear the flag, then drain. No post may be left behind.
func TestWakeIsNeverLost(t *testing.T) {
	p := newPoller(t)
	const senders, each = 8, 5000
	var posted, flag atomic.Int64
	var group sync.WaitGroup
	for range senders {
		group.Go(func() {
			for range each {
				posted.Add(1)
				if flag.Swap(1) == 0 {
					p.Wake()
				}
			}
		})
	}
	dst := make([]Event, 4)
	for taken := int64(0); taken < senders*each; {
		_, woken, err := p.Wait(dst, mono.Now().Add(patience))
		must(t, err)
		if !woken {
			t.Fatalf("slept with %d of %d posts taken and %d posted", taken, senders*each, posted.Load())
		}
		flag.Store(0)
		taken = posted.Load()
	}
	group.Wait()
}

// The same with one event at a time, so that nearly every Wake meets a poller that is just about to park.
func TestWakeMeetsAPollerThatParks(t *testing.T) {
	p, q := newPoller(t), newPoller(t)
	const rounds = 20000
	var group sync.WaitGroup
	bounce := func(mine, theirs *Poller) {
		dst := make([]Event, 4)
		for i := range rounds {
			if _, woken, err := mine.Wait(dst, mono.Now().Add(patience)); !woken || err != nil {
				t.Errorf("round %d: woken %v, %v", i, woken, err)
				return
			}
			theirs.Wake()
		}
	}
	group.Go(func() { bounce(p, q) })
	group.Go(func() { bounce(q, p) })
	p.Wake()
	group.Wait()
}

func TestWakeAfterCloseIsHarmless(t *testing.T) {
	p := newPoller(t)
	wakefd := p.wakefd
	must(t, p.Close())
	a, b := pair(t)
	defer unix.Close(a)
	defer unix.Close(b)
	if a != wakefd && b != wakefd && a != p.epfd && b != p.epfd {
		t.Fatal("no descriptor of the poller was reused: the test shows nothing")
	}
	p.Wake()
	var buf [8]byte
	for _, fd := range []int{a, b} {
		if n, err := Read(fd, buf[:]); n != 0 || err != unix.EAGAIN {
			t.Fatalf("Wake wrote into somebody else's socket: %d, %v", n, err)
		}
	}
	if err := p.Close(); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("second Close: %v", err)
	}
}

func threads(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Threads:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			must(t, err)
			return n
		}
	}
	t.Fatal("no Threads line in /proc/self/status")
	return 0
}

// parkedWaits counts the goroutines that are inside Wait and do not run: parked, or blocked in a system call.
func parkedWaits() int {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	n := 0
	for _, goroutine := range strings.Split(string(buf), "\n\n") {
		state, stack, _ := strings.Cut(goroutine, "\n")
		if strings.Contains(stack, "(*Poller).Wait") && (strings.Contains(state, "[IO wait") || strings.Contains(state, "[syscall")) {
			n++
		}
	}
	return n
}

// Fifty parked pollers need fewer than fifty threads, in fact hardly any.
func TestParkedPollersHoldNoThread(t *testing.T) {
	const pollers = 50
	before := threads(t)
	var group sync.WaitGroup
	var parked []*Poller
	for range pollers {
		p := newPoller(t)
		parked = append(parked, p)
		group.Go(func() {
			if _, woken, err := p.Wait(make([]Event, 4), 0); !woken || err != nil {
				t.Errorf("woken %v, %v", woken, err)
			}
		})
	}
	for deadline := time.Now().Add(patience); parkedWaits() < pollers; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d pollers wait", parkedWaits(), pollers)
		}
	}
	after := threads(t)
	for _, p := range parked {
		p.Wake()
	}
	group.Wait()
	t.Logf("threads: %d before, %d with %d parked pollers", before, after, pollers)
	if after-before >= pollers/2 {
		t.Fatalf("%d threads more for %d parked pollers", after-before, pollers)
	}
}
