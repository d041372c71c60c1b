package bridge

import (
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The order in which addresses are dialled, as a script: f a failure, s a link that
// was lost soon, h one that had held, r a return to the primary. A round that is over
// is marked.
func TestAddressOrder(t *testing.T) {
	for _, c := range []struct {
		mode   Failover
		script string
		want   string
	}{
		{FailoverOrder, "ffff", "0 1 2 |0 1"},
		{FailoverOrder, "fh", "0 1 0"},
		{FailoverOrder, "hff", "0 0 1 |2"}, // the lost primary counts as the first of the round
		{FailoverOrder, "fsf", "0 1 2 |0"},
		{FailoverOrder, "frfr", "0 1 0 1 0"},
		{FailoverRoundRobin, "fffh", "0 1 2 |0 1"},
		{FailoverRoundRobin, "hh", "0 1 2"},
	} {
		o := validOptions()
		o.MoreAddresses, o.Failover = []string{"tcp://b", "tcp://c"}, c.mode
		a := newAddresses(&o)
		got := fmt.Sprint(a.at)
		for _, step := range c.script {
			round := false
			switch step {
			case 'r':
				a.primaryBack()
			default:
				round = a.lost(step == 'h')
			}
			got += " "
			if round {
				got += "|"
			}
			got += fmt.Sprint(a.at)
		}
		if got != c.want {
			t.Errorf("%s %s: %s, want %s", c.mode, c.script, got, c.want)
		}
	}
}

// A primary that can be reached but does not hold is looked at less and less.
func TestReturnsBackOff(t *testing.T) {
	o := validOptions()
	o.MoreAddresses = []string{"tcp://b"}
	a := newAddresses(&o)
	if a.look() != 0 {
		t.Error("the primary looks at itself")
	}
	a.lost(false)
	for _, want := range []time.Duration{5, 10, 20, 40, 60, 60} {
		if got := a.look(); got != want*time.Minute {
			t.Errorf("after %d returns in vain: %v, want %d minutes", a.returns, got, want)
		}
		a.primaryBack()
		a.lost(false)
	}
	a.primaryBack()
	a.lost(true)
	a.lost(false)
	if got := a.look(); got != 5*time.Minute {
		t.Errorf("after the primary has held: %v", got)
	}
	a.mode = FailoverRoundRobin
	if a.look() != 0 {
		t.Error("round robin has a primary")
	}
}

// deadAddress is one where nobody listens.
func deadAddress(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return "tcp://" + ln.Addr().String()
}

func TestFailoverLosesNothing(t *testing.T) {
	local, up1, up2 := newFakeLocal(t), newFakeUpstream(t), newFakeUpstream(t)
	o := testOptions(local, up1.addr(), outAll)
	o.MoreAddresses = []string{deadAddress(t), up2.addr()}
	b := startBridge(t, o)
	eventually(t, "up at the primary", func() bool { return b.Status().State == StateUp && b.Status().Upstream == up1.addr() })
	up1.with(func() { up1.neverAck = true })
	for i := range 50 {
		publishRound(local, 1, i)
	}
	eventually(t, "under way", func() bool { return up1.count() == 50 })
	_ = up1.ln.Close()
	up1.cutAll()
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	expectOrder(t, up2.messages(), 1, 50)
	if st := b.Status(); st.Upstream != up2.addr() || !strings.HasPrefix(st.Upstream, "tcp://") {
		t.Errorf("status %+v", st)
	}
}

// What fails here is no reason to go elsewhere.
func TestLocalErrorsKeepTheAddress(t *testing.T) {
	local, up1, up2 := newFakeLocal(t), newFakeUpstream(t), newFakeUpstream(t)
	o := testOptions(local, up1.addr(), outAll)
	o.MoreAddresses = []string{up2.addr()}
	b := startBridge(t, o)
	for range 5 {
		links := b.Status().Links
		eventually(t, "up", inState(b, StateUp))
		local.kick()
		eventually(t, "up again", func() bool { return b.Status().Links > links })
	}
	up2.with(func() {
		if up2.connects > 0 {
			t.Error("the other address was dialled")
		}
	})
}

// While a link is up with another address, the primary sees connections but no
// CONNECT, until it can be reached; then everything goes there, and nothing is lost.
func TestReturnToPrimary(t *testing.T) {
	local, up1, up2 := newFakeLocal(t), newFakeUpstream(t), newFakeUpstream(t)
	dir := t.TempDir()
	cert := selfSigned(t, dir)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	primary := "tls://" + ln.Addr().String()
	var looks atomic.Int64
	go func() { // a port that answers, but does no TLS
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			looks.Add(1)
			_ = c.Close()
		}
	}()
	o := testOptions(local, primary, outAll)
	o.TLS = TLS{CAFile: filepath.Join(dir, "cert.pem"), ServerName: "broker.test"}
	o.MoreAddresses, o.ReturnToPrimary = []string{up2.addr()}, 5*time.Millisecond
	b := startBridge(t, o)
	eventually(t, "up at the other", func() bool { return b.Status().State == StateUp && b.Status().Upstream == up2.addr() })
	eventually(t, "looks", func() bool { return looks.Load() > 5 })
	if st := b.Status(); st.Links != 1 || st.State != StateUp {
		t.Errorf("looking at the primary harms the link: %+v", st)
	}
	for i := range 20 {
		publishRound(local, 1, i)
	}
	_ = ln.Close()
	tlsLn, err := tls.Listen("tcp", strings.TrimPrefix(primary, "tls://"), &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	p := pipeAll(tlsLn, up1.ln.Addr().String())
	t.Cleanup(p.close)
	for i := 20; i < 200; i++ {
		publishRound(local, 1, i)
	}
	eventually(t, "back at the primary", func() bool { return b.Status().State == StateUp && b.Status().Upstream == primary })
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	publishRound(local, 1, 200)
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	all := append(up2.messages()["up/s/0"], up1.messages()["up/s/0"]...)
	seen := map[string]bool{}
	for _, m := range all {
		seen[m] = true
	}
	if len(seen) != 201 {
		t.Errorf("%d of 201 messages", len(seen))
	}
	if n := len(up1.messages()["up/s/0"]); n == 0 {
		t.Error("nothing went to the primary")
	}
	eventually(t, "a goodbye to the other address", func() bool { up2.mu.Lock(); defer up2.mu.Unlock(); return up2.goodbyes == 1 })
}
