package worker

import (
	"net/netip"
	"sync"
	"time"

	"sluice/platform/mono"
)

// DESIGN. The door counts who comes from where: connections per address, and new
// ones per second, in all and per address. It is shared by the workers and asked
// once per connection. An address has an entry only while it has connections
// or has used some of its rate; an IPv6 address counts by its /64, which one
// customer has whole. So the book is bounded by the connections there are, and by
// those that came within the last second.

type door struct {
	openMax       int // connections of one address; 0: any number
	rateMax       int // new ones per second; 0: any number
	addressMax    int // the same of one address
	mu            sync.Mutex
	used          mono.Time // as in rate
	visitors      map[netip.Addr]*visitor
	swept         mono.Time
	sweepAboveLen int
}

type visitor struct {
	open int
	used mono.Time
}

func newDoor(openMax, rateMax, addressMax int) *door {
	return &door{openMax: openMax, rateMax: rateMax, addressMax: addressMax, visitors: make(map[netip.Addr]*visitor)}
}

// origin is the unit that addresses are counted by.
func origin(a netip.Addr) netip.Addr {
	if a.Is6() {
		p, _ := a.WithZone("").Prefix(64) // 64 is valid for IPv6
		return p.Addr()
	}
	return a
}

// open tells how long to wait before the next connection may be accepted.
func (d *door) open(now mono.Time) (wait time.Duration) {
	if d.rateMax == 0 {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(0, d.used.Add(-rateBurst).Sub(now))
}

// count notes that a connection was accepted, wherever it comes from.
func (d *door) count(now mono.Time) {
	if d.rateMax == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.used = max(d.used, now).Add(time.Second / time.Duration(d.rateMax))
}

// enter notes a new connection, and tells why it must not come in, or "". Those
// by a unix socket have no address.
func (d *door) enter(a netip.Addr, now mono.Time) (refused string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !a.IsValid() || d.openMax == 0 && d.addressMax == 0 {
		return ""
	}
	d.sweep(now)
	v := d.visitors[a]
	if v == nil {
		v = new(visitor)
		d.visitors[a] = v
	}
	switch {
	case d.openMax > 0 && v.open >= d.openMax:
		return "limits.connections_per_address_max"
	case d.addressMax > 0 && v.used.Add(-rateBurst) > now:
		return "limits.connects_per_second_per_address_max"
	}
	v.open++
	if d.addressMax > 0 {
		v.used = max(v.used, now).Add(time.Second / time.Duration(d.addressMax))
	}
	return ""
}

// leave notes that a connection that entered has gone.
func (d *door) leave(a netip.Addr, now mono.Time) {
	if d.openMax == 0 && d.addressMax == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.visitors[a]
	if v.open--; v.open == 0 && v.used <= now {
		delete(d.visitors, a)
	}
}

// sweep forgets addresses without connections whose rate has recovered, once a
// second and as the book has doubled.
func (d *door) sweep(now mono.Time) {
	if now.Sub(d.swept) < time.Second && len(d.visitors) <= d.sweepAboveLen {
		return
	}
	for a, v := range d.visitors {
		if v.open == 0 && v.used <= now {
			delete(d.visitors, a)
		}
	}
	d.swept, d.sweepAboveLen = now, 2*len(d.visitors)+1024
}

// come takes a new connection to the door. It tells whether it may go on; if
// not, it is dying.
func (w *Worker) come(c *conn) bool {
	a := origin(c.remote.addr())
	if c.listener.internal {
		return true
	}
	if why := w.g.door.enter(a, w.now); why != "" {
		w.stats.Refused++
		w.kill(c, refusedAtDoor, "refused by "+why)
		return false
	}
	if a.IsValid() && (w.g.door.openMax > 0 || w.g.door.addressMax > 0) {
		if c.extra == nil {
			c.extra = &extra{}
		}
		c.extra.counted, c.extra.address = true, a
	}
	return true
}

// leave is the end of come.
func (w *Worker) leave(c *conn) {
	if c.extra != nil && c.extra.counted {
		c.extra.counted = false
		w.g.door.leave(c.extra.address, w.now)
	}
}
