package front

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/broker/wire"
	"sluice/platform"
)

// BenchmarkHandshake does handshakes through the pool over loopback TCP, 8 clients at once. The clients compute on the
// same CPUs, and about as much as the server: of a machine that only serves, expect twice the rate.
func BenchmarkHandshake(b *testing.B) {
	for _, key := range []string{"P256", "RSA2048"} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, tickets := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/%s/tickets=%v", key, tls.VersionName(version), tickets), func(b *testing.B) {
					benchmarkHandshake(b, key, version, tickets)
				})
			}
		}
	}
}

func benchmarkHandshake(b *testing.B, key string, version uint16, tickets bool) {
	s := newSite(b)
	if key == "RSA2048" {
		s.server = issue(b, "broker.test", s.ca, rsaKey(b), nil)
		s.file(b, "server.crt", s.server.certPEM())
		s.file(b, "server.key", s.server.keyPEM(b))
	}
	server, pool := s.tls(b), NewPool(PoolOptions{})
	defer pool.Close()
	sockets, err := Open([]Listener{{Address: "127.0.0.1:0"}})
	must(b, err)
	defer Close(sockets)
	work := make(chan struct{})
	var wg sync.WaitGroup
	var accept sync.Mutex
	for range 8 {
		c := s.clientConfig()
		c.MaxVersion = version
		if !tickets {
			c.ClientSessionCache = nil
		}
		wg.Go(func() {
			for range work {
				if err := benchmarkOne(b, sockets[0], &accept, pool, server, c); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "handshakes/s")
	if got := pool.Stats(); tickets != (got.HandshakesResumed > 0) {
		b.Errorf("statistics %+v", got)
	}
}

// cpuTime is what the process has computed so far, the same on a busy machine as on an idle one.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchmarkOne connects, does a handshake, and reads one byte, with which the ticket comes.
func benchmarkOne(b *testing.B, l *Socket, accept *sync.Mutex, pool *Pool, server *TLS, c *tls.Config) error {
	accept.Lock()
	conn, err := net.Dial("tcp", l.Bound)
	if err != nil {
		accept.Unlock()
		return err
	}
	readable(b, l.FD)
	fd, _, err := platform.Accept(l.FD)
	accept.Unlock()
	if err != nil {
		return err
	}
	defer conn.Close()
	done := make(chan error, 1)
	err = pool.Handshake(Handshake{FD: fd, Config: server.Config(), Deadline: time.Now().Add(patience), Done: func(t *wire.TLS, err error) {
		if err == nil {
			var out []byte
			if out, err = t.Out(nil, []byte{'x'}); err == nil {
				_, err = platform.Write(fd, out)
			}
		}
		platform.CloseFD(fd)
		done <- err
	}})
	if err != nil {
		return err
	}
	client := tls.Client(conn, c)
	if _, err := client.Read(make([]byte, 1)); err != nil {
		return err
	}
	return <-done
}
