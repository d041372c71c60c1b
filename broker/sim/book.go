package sim

import (
	"slices"

	"sluice/broker/mqtt"
)

// DESIGN. book is what the oracle knows about one session of one client, from
// the CONNACK that began it. It knows only what the client sent and saw. Rules
// are of two kinds: what may arrive is judged at once; what must arrive is
// judged when the world has healed, and only for the session that the client
// has then, so whatever was lost with a session is forgotten with its book.

// grant is one SUBSCRIBE for one filter.
type grant struct {
	filter  string
	qos     mqtt.QoS
	noLocal bool
	rap     bool // retain as published
	rh      uint8
	id      uint32
	shared  bool
	bad     bool // not a valid filter: to be refused

	sent     int64 // stamps; 0: has not happened
	acked    int64
	unsent   int64 // UNSUBSCRIBE sent
	unacked  int64
	replaced int64 // another SUBSCRIBE for the filter was sent
}

// receipt is what a session has received of one publication.
type receipt struct {
	arrivals  [3]int // by QoS, as a new message: a resend of QoS 2 that its packet id gives away does not count
	processed int    // PUBACKs that the broker has processed, in its present life or durably
}

func (r *receipt) total() int { return r.arrivals[0] + r.arrivals[1] + r.arrivals[2] }

// uncommitted is a PUBACK that the broker has processed and may forget in a crash.
type uncommitted struct {
	r     *receipt
	stamp int64
}

type book struct {
	gen    int
	grants []*grant
	got    map[int]*receipt
	in1    map[uint16]int // packet ids of QoS 1 received and not acknowledged: publication
	in2    map[uint16]int // packet ids of QoS 2 received and not released: publication
	order  map[stream]int // the latest first arrival

	uncommitted []uncommitted
}

// stream is a sequence of messages that keeps its order.
type stream struct {
	from     int
	topic    string
	qos, eff mqtt.QoS
}

func newBook(gen int) *book {
	return &book{gen: gen, got: make(map[int]*receipt), in1: make(map[uint16]int),
		in2: make(map[uint16]int), order: make(map[stream]int)}
}

func (b *book) receipt(p *pub) *receipt {
	r := b.got[p.n]
	if r == nil {
		r = &receipt{}
		b.got[p.n] = r
	}
	return r
}

// processed notes that the broker has processed a PUBACK.
func (b *book) processed(n int, stamp int64) {
	r := b.got[n]
	r.processed++
	b.uncommitted = append(b.uncommitted, uncommitted{r, stamp})
}

func (b *book) committed(stamp int64) {
	for len(b.uncommitted) > 0 && b.uncommitted[0].stamp < stamp {
		b.uncommitted = b.uncommitted[1:]
	}
}

// crashed: what the broker had not written it may send again.
func (b *book) crashed() {
	for _, u := range b.uncommitted {
		u.r.processed--
	}
	b.uncommitted = nil
	clear(b.in1) // numbers of messages that nobody was promised are used again
}

// may tells whether a grant can be the reason for p to arrive.
func (g *grant) may(p *pub, d *device, retained bool) bool {
	switch {
	case !matches(g.filter, p.topic):
		return false
	case retained:
		return p.retain && !g.shared
	case g.noLocal && p.from == d:
		return false
	}
	return g.unacked == 0 || g.unacked > p.first
}

// stands tells whether a grant surely held from before p was sent until now.
func (g *grant) stands(p *pub) bool {
	return g.acked != 0 && g.acked < p.first && g.unsent == 0
}

// qosRange gives the lowest and the highest maximum QoS that p may meet.
func (b *book) qosRange(p *pub, d *device, retained bool) (low, high mqtt.QoS, any bool) {
	shared := false
	for _, g := range b.grants {
		if !g.may(p, d, retained) {
			continue
		}
		any = true
		shared = shared || g.shared
		high = max(high, g.qos)
		if !retained && g.stands(p) && g.replaced == 0 {
			low = max(low, g.qos)
		}
	}
	if shared { // which is a message of its own
		low = 0
	}
	return low, high, any
}

// copies is how often p may arrive as a new message, if it was routed n times.
func (b *book) copies(p *pub, n, others int) int {
	shared, retained := 0, 0
	for _, g := range b.grants {
		if !matches(g.filter, p.topic) {
			continue
		}
		if g.shared {
			shared++
		} else if p.retain {
			retained++
		}
	}
	if shared > 0 {
		// What another member has not acknowledged comes on top, and of a
		// member of several groups it is not known by which it came.
		shared += others
	}
	return n*(1+shared) + retained
}

// requires tells whether p, which the broker has accepted, had to arrive.
func (b *book) requires(p *pub, d *device, qos mqtt.QoS) bool {
	for _, g := range b.grants {
		if g.shared || !g.stands(p) || !matches(g.filter, p.topic) {
			continue
		}
		if b.always(g.filter, func(o *grant) bool { return o.qos >= qos && !(o.noLocal && p.from == d) }) {
			return true
		}
	}
	return false
}

// always tells whether f holds for all grants of a filter.
func (b *book) always(filter string, f func(*grant) bool) bool {
	for _, g := range b.grants {
		if g.filter == filter && !f(g) {
			return false
		}
	}
	return true
}

// gap: what was published until now may have missed the session.
func (b *book) gap(stamp int64) {
	for _, g := range b.grants {
		if g.acked != 0 {
			g.acked = stamp
		}
	}
}

// subscribe notes a SUBSCRIBE that is being sent.
func (b *book) subscribe(g *grant, stamp int64) {
	for _, o := range b.grants {
		if o.filter == g.filter && o.replaced == 0 {
			o.replaced = stamp
		}
	}
	g.sent = stamp
	b.grants = append(b.grants, g)
}

// drop removes a grant that was refused: what it would have replaced stands.
func (b *book) drop(g *grant) {
	b.grants = slices.DeleteFunc(b.grants, func(o *grant) bool { return o == g })
}

// unsubscribe notes an UNSUBSCRIBE that is being sent, and gives what it ends.
func (b *book) unsubscribe(filter string, stamp int64) (ended []*grant) {
	for _, g := range b.grants {
		if g.filter == filter && g.unsent == 0 {
			g.unsent = stamp
			ended = append(ended, g)
		}
	}
	return ended
}
