package e2e

import (
	"crypto/tls"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"

	"sluice/cmd/sluice/e2e/rig"
)

// traffic is pairs of clients that exchange messages all the time, over one scheme.
type traffic struct {
	t      *testing.T
	ledger *rig.Ledger
	subs   []*rig.Client
	end    chan struct{}
	tasks  sync.WaitGroup
}

// traffic starts n connections, half of which publish to the other half.
func (s *site) traffic(t *testing.T, scheme string, n int) *traffic {
	t.Helper()
	x := &traffic{t: t, ledger: rig.NewLedger(), end: make(chan struct{})}
	for i := range n / 2 {
		topic := name("traffic", i)
		x.subs = append(x.subs, subscribed(t, "", s.client(scheme, rig.ClientOptions{ID: "to " + topic, Clean: true, OnMessage: arrive(x.ledger)}), 1, topic))
		pub := connected(t, "", s.client(scheme, rig.ClientOptions{ID: "from " + topic, Clean: true, Window: 1,
			OnAcked: func(tag uint64) { x.ledger.Acked(topic, tag) }}))
		x.tasks.Go(func() {
			for k := uint64(0); ; k++ {
				select {
				case <-x.end:
					if err := pub.Flush(patience); err != nil {
						t.Errorf("%s: %v", topic, err)
					}
					return
				default:
				}
				if err := pub.Publish(topic, rig.Payload(topic, k, 100), 1, false, k); err != nil { // waits for the one before
					t.Errorf("%s: %v", topic, err)
					return
				}
			}
		})
	}
	return x
}

// more waits until every pair has exchanged some messages from now on.
func (x *traffic) more() {
	x.t.Helper()
	before := x.ledger.Mark()
	eventually(x.t, patience, "each pair exchanges messages", func() bool {
		now := x.ledger.Mark()
		moved := 0
		for source, n := range now {
			if n > before[source]+3 {
				moved++
			}
		}
		return moved == len(x.subs)
	})
}

// finish ends it: all of it has arrived, and nobody was disconnected.
func (x *traffic) finish() {
	x.t.Helper()
	close(x.end)
	x.tasks.Wait()
	for _, sub := range x.subs {
		if why := sub.Why(); why != nil {
			x.t.Errorf("a subscriber was disconnected: %v", why)
		}
	}
	settled(x.t, x.ledger, patience, once, ordered)
	x.t.Logf("%d connections exchanged %d messages", 2*len(x.subs), x.ledger.Sum().Arrived)
}

// TestCertificateReload: the certificate is replaced by rename, again and again,
// while 50 connections exchange messages. None notices; new connections get the new
// one; one that is broken is refused, and said.
func TestCertificateReload(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{only: []string{"mqtts", "wss"}})
	traffic := s.traffic(t, "mqtts", 50)
	traffic.more()
	config := s.clients.Clone()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	seen := func(scheme string) *big.Int {
		t.Helper()
		conn, err := tls.Dial("tcp", s.at(scheme), config)
		must(t, err)
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber
	}
	want := s.server.Leaf.SerialNumber
	check := func(when string) {
		t.Helper()
		for _, scheme := range s.schemes {
			if got := seen(scheme); got.Cmp(want) != 0 {
				t.Errorf("%s: %s shows certificate %v, want %v", when, scheme, got, want)
			}
		}
		traffic.more()
	}
	check("at first")
	for range 3 {
		next, err := s.ca.Issue("broker", "server") // renames over the files in use
		must(t, err)
		want = next.Leaf.SerialNumber
		if log := s.reload(); !strings.Contains(log, "certificate "+s.server.CertFile) {
			t.Errorf("the new certificate is not told of:\n%s", log)
		}
		check("after SIGHUP")
	}

	good, err := s.ca.Issue("broker", "other")
	must(t, err)
	stolen, err := s.ca.Issue("broker", "stolen")
	must(t, err)
	for what, text := range map[string]string{"an empty file": "", "no PEM": "certificate\n", "a certificate of another key": read(t, good.CertFile)} {
		s.write(t, "server.pem", text)
		if log := s.reload(); !strings.Contains(log, "a certificate stays as it was") || !strings.Contains(log, `"level":"error"`) || !strings.Contains(log, s.server.CertFile) {
			t.Errorf("%s is told as:\n%s", what, log)
		}
		check(what)
	}

	// Without a signal, too: the broker looks at the files.
	s.write(t, "server.key", read(t, stolen.KeyFile))
	s.write(t, "server.pem", read(t, stolen.CertFile))
	want = stolen.Leaf.SerialNumber
	eventually(t, patience, "the broker sees the new files by itself", func() bool { return seen("mqtts").Cmp(want) == 0 })
	check("without a signal")
	traffic.finish()
}

// TestBrokenCertificateAtStart: a broker does not start with a broken
// certificate, and says which.
func TestBrokenCertificateAtStart(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{only: []string{"mqtts"}})
	s.stop()
	s.write(t, "server.pem", "certificate\n")
	for _, command := range []string{"check", "run"} {
		code, out := ended(t, command, "-c", s.ConfigFile())
		if code != 2 {
			t.Errorf("%s: exit code %d, want 2", command, code)
		}
		contains(t, out, s.server.CertFile)
	}
	if c, err := net.Dial("tcp", s.Addr()); err == nil {
		_ = c.Close()
		t.Error("it listens all the same")
	}
}
