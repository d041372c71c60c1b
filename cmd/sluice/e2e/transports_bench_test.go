package e2e

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/cmd/sluice/e2e/rig"
)

// BenchmarkIdle tells what an idle client costs over each transport: resident
// memory of the broker as it is shipped, with so many clients that have subscribed and
// say nothing, when the broker has given back what it does not need.
func BenchmarkIdle(b *testing.B) {
	const clients = 2000
	rest := func() { pass(15 * time.Second) } // the broker looks for memory to give back every 5 s
	for _, scheme := range []string{"mqtt", "mqtts", "ws", "wss"} {
		b.Run(scheme, func(b *testing.B) {
			for b.Loop() {
				s := newSite(b, siteOptions{binary: plainBinary, only: []string{scheme}, open: true})
				var conns sync.Map
				come := func(from, to int) {
					spread(b, to-from, func(k int) error {
						c, err := rig.Dial(within(b), s.url(scheme, ""), s.clients)
						if err != nil {
							return err
						}
						conns.Store(k+from, c)
						return settle(c, name("idle", k+from))
					})
				}
				come(0, 10)
				rest()
				before, err := s.Usage()
				must(b, err)
				come(10, 10+clients)
				at, err := s.Usage()
				must(b, err)
				rest()
				after, err := s.Usage()
				must(b, err)
				b.ReportMetric(float64(after.HeapBytes-before.HeapBytes)/clients, "B/client")
				b.ReportMetric(float64(at.HeapBytes-before.HeapBytes)/clients, "B/client-at-once")
				conns.Range(func(_, c any) bool {
					_ = c.(net.Conn).Close()
					return true
				})
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkHandshakes tells how many TLS handshakes the broker does in a second, the
// clients on the same machine, and in a second of processor time of its own.
func BenchmarkHandshakes(b *testing.B) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tickets := range []bool{false, true} {
			what := tls.VersionName(version)
			if tickets {
				what += " resumed"
			}
			b.Run(what, func(b *testing.B) {
				s := newSite(b, siteOptions{binary: plainBinary, only: []string{"mqtts"}, open: true})
				config := s.clients.Clone()
				config.MinVersion, config.MaxVersion = version, version
				var resumed atomic.Int64
				shake := func(int) error {
					c, err := tls.Dial("tcp", s.Addr(), config)
					if err != nil {
						return err
					}
					if c.ConnectionState().DidResume {
						resumed.Add(1)
					}
					// CONNACK comes after the ticket of TLS 1.3.
					if err := settle(c, ""); err != nil {
						return err
					}
					return c.Close()
				}
				if tickets {
					config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
					must(b, shake(0))
				}
				before, err := s.CPU()
				must(b, err)
				n := 0
				began := time.Now()
				for b.Loop() {
					const round = 100
					spread(b, round, shake)
					n += round
				}
				took := time.Since(began)
				after, err := s.CPU()
				must(b, err)
				b.ReportMetric(float64(n)/took.Seconds(), "handshakes/s")
				b.ReportMetric(float64(n)/(after-before).Seconds(), "handshakes/cpu-s")
				b.ReportMetric(float64(resumed.Load())/float64(n), "resumed")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// spread calls do with 0 to n-1, some at once.
func spread(t testing.TB, n int, do func(k int) error) {
	t.Helper()
	const atOnce = 8
	var next atomic.Int64
	var tasks sync.WaitGroup
	for range atOnce {
		tasks.Go(func() {
			for k := int(next.Add(1)) - 1; k < n; k = int(next.Add(1)) - 1 {
				if err := do(k); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	tasks.Wait()
}
