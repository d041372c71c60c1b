package e2e

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/cmd/sluice/e2e/rig"
)

// TestStorm: all devices come back at once, after the broker was killed and when
// their network was gone. Tickets do not outlive the broker's process; after the second
// time they spare every handshake its signature.
func TestStorm(t *testing.T) {
	t.Parallel()
	const devices = 300
	s := newSite(t, siteOptions{binary: plainBinary, only: []string{"mqtts"}, open: true, fixed: true})
	var full, resumed atomic.Int64
	var all [devices]*rig.Client
	for i := range all {
		config := s.clients.Clone()
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1) // each device has its own
		all[i] = rig.NewClient(rig.ClientOptions{ID: name("device", i), Version: 5, ExpirySeconds: 1000, Dial: func(string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			c, err := rig.Dial(ctx, s.url("mqtts", ""), config)
			if err != nil {
				return nil, err
			}
			if c.(*tls.Conn).ConnectionState().DidResume {
				resumed.Add(1)
			} else {
				full.Add(1)
			}
			return c, nil
		}})
		t.Cleanup(all[i].Close)
	}
	// come connects all at once, each trying until it is in.
	come := func(what string, known bool) {
		t.Helper()
		full.Store(0)
		resumed.Store(0)
		began := time.Now()
		var tasks sync.WaitGroup
		var tries atomic.Int64
		for _, c := range all {
			tasks.Go(func() {
				for end := time.Now().Add(patience); ; <-time.After(5 * time.Millisecond) {
					tries.Add(1)
					present, err := c.Connect("")
					if err == nil && present != known {
						t.Errorf("%s: session present is %v", what, present)
					}
					if err == nil || time.Now().After(end) {
						if err != nil {
							t.Errorf("%s: %v", what, err)
						}
						return
					}
				}
			})
		}
		tasks.Wait()
		t.Logf("%s: %d devices in %v, %d full handshakes, %d resumed, %d tries", what, devices,
			time.Since(began).Round(time.Millisecond), full.Load(), resumed.Load(), tries.Load())
	}
	come("first", false)
	for i, c := range all {
		_, err := c.Subscribe(1, name("to/", i)) // with SUBACK, session and subscription are safe
		must(t, err)
	}
	s.kill()
	s.start()
	come("after a SIGKILL", true)
	for _, c := range all {
		c.Close()
	}
	come("with tickets", true)
}
