package conformance

import (
	"time"

	"sluice/broker"
	"sluice/broker/mqtt"
)

// Cases of the keepalive.

// A keepalive of one second: the broker closes after one and a half, and well
// before twice that; the width of its timer wheel and a loaded machine have room
// in between.
func silence(c *trial, change func(*mqtt.Connect)) {
	c.Helper()
	p := c.dial()
	began := time.Now()
	p.send(c.hello("x", change))
	p.wantConnack(mqtt.Success)
	p.wantClosed(mqtt.KeepAliveTimeout)
	if took := time.Since(began); took < 1500*time.Millisecond || took > patience/2 {
		c.Errorf("closed after %v of silence, want 1.5 s", took)
	}
}

func keepAliveEnds(c *trial) {
	sub := c.connect("sub")
	sub.subscribe(c.topic("will"), 0)
	alive := c.connect("alive", keepAlive(3)) // with time to spare, for a machine that is busy
	done := make(chan struct{})
	go func() { // who says something in time, stays
		defer close(done)
		for range 6 {
			c.wait(time.Second)
			alive.send(mqtt.AppendPingreq(nil))
		}
	}()
	silence(c, func(m *mqtt.Connect) { keepAlive(1)(m); will(c.topic("will"), "as if the network had failed")(m) })
	sub.take("as if the network had failed")
	<-done
	for range 6 {
		alive.want(mqtt.PINGRESP)
	}
}

func keepAliveOfClient(c *trial) {
	p := c.connect("y", keepAlive(1))
	if p.connack.Props.HasServerKeepAlive {
		c.Errorf("server keep alive %d, not asked for", p.connack.Props.ServerKeepAliveSeconds)
	}
	p.drop()
	silence(c, keepAlive(1))
}

// keepAliveOfServer: the broker lowers a keepalive that is too long, and none,
// says so, and counts by its own.
func keepAliveOfServer(c *trial) {
	c.own(func(o *broker.Options) { o.Limits.KeepAliveMax = time.Second })
	for _, asked := range []uint16{0, 100} {
		p := c.connect("y", keepAlive(asked))
		if k := p.connack.Props; !k.HasServerKeepAlive || k.ServerKeepAliveSeconds != 1 {
			c.Errorf("asked for %d s: server keep alive %v, %d s, want 1 s", asked, k.HasServerKeepAlive, k.ServerKeepAliveSeconds)
		}
		p.drop()
	}
	silence(c, keepAlive(100))
}
