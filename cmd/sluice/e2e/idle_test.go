package e2e

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// TestIdleConnections: threads do not grow with connections, and a connection
// that does nothing costs little memory.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	b := startGateway(t, &rig.Gateway{Binary: plainBinary})
	control := b.control()
	crowd := &crowd{t: t, b: b}
	t.Cleanup(crowd.leave)
	crowd.grow(10)
	few := b.quiet()
	crowd.grow(10_000)
	many := b.quiet()
	t.Logf("10 connections: %v; 10,000: %v", few, many)
	if got := many.Descriptors - few.Descriptors; got != 9990 {
		t.Errorf("%d more descriptors, want 9990", got)
	}
	if many.Threads > few.Threads+threadsSlack {
		t.Errorf("threads: %d with 10 connections, %d with 10,000", few.Threads, many.Threads)
	}
	const perConnectionMax = 4 << 10 // a read buffer of its own would be more
	if per := (many.HeapBytes - few.HeapBytes) / 9990; per > perConnectionMax {
		t.Errorf("%d bytes for each idle connection", per)
	}
	crowd.leave()
	eventually(t, patience, "the connections are gone", func() bool {
		u, err := b.Usage()
		must(t, err)
		return u.Descriptors <= few.Descriptors-10
	})
	control.finish()
}

// crowd is many connections that do nothing.
type crowd struct {
	t     testing.TB
	b     *broker
	conns []net.Conn
}

// grow connects until there are n.
func (c *crowd) grow(n int) {
	c.t.Helper()
	const atOnce = 8
	var mu sync.Mutex
	var tasks sync.WaitGroup
	var errs []error
	first := len(c.conns)
	for task := range atOnce {
		tasks.Go(func() {
			for k := first + task; k < n; k += atOnce {
				conn, err := idle(c.b.Addr(), name("idle", k))
				mu.Lock()
				if c.conns = append(c.conns, conn); err != nil {
					errs = append(errs, err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	tasks.Wait()
	must(c.t, errors.Join(errs...))
}

func (c *crowd) leave() {
	for _, conn := range c.conns {
		if conn != nil {
			_ = conn.Close() // a second time does nothing
		}
	}
}

// idle connects with no keepalive and a subscription.
func idle(address, id string) (net.Conn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return c, settle(c, id)
}

// settle makes an idle client of a connection.
func settle(c net.Conn, id string) error {
	p := mqtt.AppendConnect(nil, &mqtt.Connect{Version: mqtt.V311, Clean: true, ClientID: []byte(id)})
	p = mqtt.AppendSubscribe(p, &mqtt.Subscribe{PacketID: 1, Filters: []mqtt.SubscribeFilter{{Filter: []byte("to/" + id)}}}, mqtt.V311)
	if _, err := c.Write(p); err != nil {
		return err
	}
	var answers [9]byte // CONNACK and SUBACK
	if _, err := io.ReadFull(c, answers[:]); err != nil {
		return err
	}
	if answers[3] != 0 || answers[8] != 0 {
		return errors.New("refused")
	}
	return nil
}
