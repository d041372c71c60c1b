package sim

import (
	"time"

	"sluice/broker/session"
)

// config is what a seed decides before anything happens: the size of the
// world, its limits, and how often what goes wrong. Rates are chances per step
// of the world, or per action of a client.
type config struct {
	steps    int
	workers  int
	devices  int
	hostiles int
	tick     time.Duration // longest time a step takes

	// The network.
	partial  float64 // a read or write does less than it could
	spurious float64 // a read or write says EAGAIN although it need not
	rxBytes  int     // socket buffers
	txBytes  int
	reuseFDs bool    // lowest free descriptor first; otherwise no number is used twice
	emfile   float64 // accept fails for want of descriptors
	jump     float64 // nothing happens for a while

	// The disk.
	commit  float64
	fetch   float64
	fail    float64 // commits begin, or cease, to fail
	disk    bool    // see storage
	pending int64   // mem.Options.MaxPendingBytes

	// The process.
	crash   float64
	restart float64 // an orderly one
	mute    float64 // the subscriptions of a session are taken from it

	// The clients.
	die      float64
	takeover float64
	leave    float64
	lazy     float64 // an acknowledgement is not sent yet
	slow     float64 // share of devices that hardly read
	pidMax   int
	window   int // QoS 1 and 2 publications under way per device
	large    float64
	wills    bool
	shared   bool

	// The way in, see arrival.go.
	proxy     bool
	shake     bool
	shakeFail float64
	shakeHang float64
	layer     bool

	// Logins, see login.go.
	auth   bool
	busy   float64
	wrong  float64 // share of logins with a wrong password
	impose float64
	acl    bool // see rules.go
	reload float64

	// 0: any number
	perAddressMax     int
	connectsPerSecond int
	connectsPerSecondPerAddress,
	messagesPerSecond int
	bytesPerSecond int

	// calm: nothing may be dropped, so every message of QoS 0 between
	// connections that last must arrive.
	calm bool

	// filters of topics with priority. They are the same for a whole life of the
	// world: a topic whose rule changes may be overtaken by itself.
	priority []string

	limits         session.Limits
	connectionsMax int
	connectBytes   int
	outputBytes    int
	connectTimeout time.Duration

	// worker.Tighten
	tight                      bool
	acks, turnBytes, mailBytes int
}

func (w *World) drawConfig() config {
	c := config{
		steps:    w.between(1500, 6000),
		workers:  w.between(1, 4),
		devices:  w.between(2, 8),
		hostiles: pick(w, 0, 0, 1, 2),
		tick:     pick(w, 100*time.Microsecond, time.Millisecond, 10*time.Millisecond),

		partial:  pick(w, 0, 0.1, 0.5),
		spurious: pick(w, 0, 0.02),
		rxBytes:  pick(w, 64, 1000, 16<<10, 64<<10),
		txBytes:  pick(w, 64, 1000, 16<<10, 256<<10),
		reuseFDs: w.chance(0.5),
		emfile:   pick(w, 0, 0, 0.02),
		jump:     pick(w, 0, 0.001, 0.004),

		commit: pick(w, 0.2, 0.05, 0.01, 0.003),
		fetch:  pick(w, 0.3, 0.1, 0.03),
		fail:   pick(w, 0, 0, 0.002),
		disk:   w.chance(0.5),

		crash:   pick(w, 0, 0.0003, 0.001, 0.002),
		restart: pick(w, 0, 0, 0.0005),
		mute:    pick(w, 0, 0, 0.001),

		die:      pick(w, 0, 0.003, 0.01, 0.03),
		takeover: pick(w, 0, 0.005, 0.02),
		leave:    pick(w, 0, 0.005, 0.02),
		lazy:     pick(w, 0.1, 0.5, 0.9),
		slow:     pick(w, 0, 0.2),
		pidMax:   pick(w, 64, 300, 65535),
		window:   w.between(1, 25),
		large:    pick(w, 0, 0.01, 0.05),
		wills:    w.chance(0.5),
		shared:   w.chance(0.3),
		calm:     w.chance(0.3),

		limits:         session.DefaultLimits(),
		connectionsMax: 1000,
		connectBytes:   4 << 10,
		outputBytes:    pick(w, 1<<10, 16<<10, 256<<10),
		connectTimeout: 10 * time.Second,

		tight:     w.chance(0.5),
		acks:      pick(w, 2, 5, 20),
		turnBytes: pick(w, 1, 100, 2000),
		mailBytes: pick(w, 1, 300, 3000),
	}
	if w.chance(0.3) {
		c.proxy = w.chance(0.5)
		c.layer = w.chance(0.7)
		if w.chance(0.5) {
			c.shake, c.shakeFail, c.shakeHang = true, pick(w, 0, 0.1), pick(w, 0, 0.1)
		}
	}
	if w.chance(0.4) {
		c.auth, c.busy, c.wrong, c.impose = true, pick(w, 0, 0.1), pick(w, 0, 0.1, 0.3), pick(w, 0, 0.002)
	}
	if c.auth && w.chance(0.6) {
		c.acl, c.reload = true, pick(w, 0, 0.0005, 0.002)
	}
	if w.chance(0.2) {
		c.perAddressMax = c.devices + 2
	}
	if w.chance(0.2) {
		c.connectsPerSecond, c.connectsPerSecondPerAddress = pick(w, 0, 10, 50), pick(w, 0, 5, 20)
	}
	if w.chance(0.2) {
		c.messagesPerSecond, c.bytesPerSecond = pick(w, 0, 20, 200), pick(w, 0, 5000, 50_000)
	}
	c.limits.TopicAliasOutMax = pick(w, 0, 1, 2, 16)
	c.limits.InflightMax = pick(w, 1, 3, 20, 1024)
	c.limits.ReceiveMax = pick(w, 2, 10, 1024)
	c.limits.TopicAliasMax = pick(w, 0, 4)
	c.limits.KeepAliveMax = pick(w, 0, 0, 10*time.Second)
	c.limits.SessionExpiryMax = pick(w, 0, 0, 15*time.Second)
	if w.chance(0.1) {
		// More than one client has under way: what is refused ends the connection
		// of a client of MQTT 3.1.1, and what it then sends again must fit.
		c.pending, c.large, c.fail = pick(w, int64(8000), 15_000), 0, 0.002
	}
	if w.chance(0.1) {
		c.connectionsMax = c.devices + 3
	}
	if c.bytesPerSecond > 0 {
		c.large = 0
	}
	if c.shake && knownShakeRead {
		c.turnBytes = 1 << 20
	}
	switch w.rng.IntN(6) {
	case 0:
		c.priority = []string{"s/#", plainTopics[w.rng.IntN(len(plainTopics))]}
	case 1:
		c.priority = []string{"r/+", plainTopics[0], plainTopics[1]}
	case 2:
		c.priority = []string{"#"}
	}
	if w.chance(0.2) {
		// Small queues that reject: publishers of MQTT 3.1.1 are held back, others are
		// refused or held. What a share group's member leaves is not yet held back
		// for the next one's queue, see the worker's handOn.
		c.limits.Queue.Messages, c.limits.Queue.Hold, c.shared = int64(pick(w, 2, 5, 20)), w.chance(0.5), false
	}
	if c.calm {
		c.slow, c.outputBytes, c.large = 0, 8<<20, 0
	}
	return c
}

// cuts tells whether the last bytes that are written to a connection may not all
// reach the client.
func (c *config) cuts() bool { return c.partial > 0 || c.spurious > 0 || c.txBytes < 4000 }

// throttles tells whether clients may send only so much.
func (c *config) throttles() bool { return c.messagesPerSecond > 0 || c.bytesPerSecond > 0 }

// crowds tells whether a connection may be turned away for what others do.
func (c *config) crowds() bool {
	return c.connectionsMax < 1000 || c.perAddressMax > 0 || c.connectsPerSecondPerAddress > 0
}

// patience is how far time may go on while the world heals.
func (c *config) patience() time.Duration {
	d := 5 * time.Second
	if c.auth || c.connectsPerSecond > 0 || c.connectsPerSecondPerAddress > 0 {
		d += 15 * time.Second
	}
	if c.throttles() {
		d += 200 * time.Second
	}
	return d
}

// quota tells whether the store, or a queue, may refuse publications.
func (c *config) quota() bool { return c.pending > 0 || c.rejects() }

// rejects tells whether queues are so small that they are full at times.
func (c *config) rejects() bool {
	return c.limits.Queue.Messages < session.DefaultLimits().Queue.Messages
}
