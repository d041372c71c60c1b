package sim

import (
	"cmp"
	"fmt"
	"slices"

	"sluice/broker/mqtt"
)

// probe is a client that comes when all is quiet, subscribes to the retained
// topics, and says what it got.
type probe struct {
	w       *World
	version mqtt.Version
	s       *sock
	in      []byte
	got     []*pub // by device
	done    bool
	gone    bool
}

// probe checks the retained messages: the last that was published to each
// topic, or nothing if that was empty. Each topic has one publisher, so which
// was the last is known, unless some were not acknowledged: then it may be any
// from the last acknowledged one on.
func (w *World) probe(v mqtt.Version) {
	q := &probe{w: w, version: v, got: make([]*pub, len(w.devices))}
	q.s = w.open(q)
	c := mqtt.Connect{Version: v, Clean: true, ClientID: []byte("probe")}
	if w.cfg.auth {
		c.HasUsername, c.Username, c.HasPassword, c.Password = true, []byte("probe"), true, []byte(secretOf("probe"))
	}
	q.s.send(w, mqtt.AppendConnect(nil, &c))
	for n, d := range w.devices {
		q.ask(fmt.Sprintf("r/%d", n))
		if !w.cfg.quota() { // what the store refuses is retained all the same until a restart
			w.checkRetained(d, q.got[n])
		}
	}
	q.s.send(w, mqtt.AppendDisconnect(nil, &mqtt.Disconnect{}, v))
	w.drainUntil(func() string {
		if !q.gone {
			return "stuck: the probe's connection does not end"
		}
		return ""
	})
}

// ask subscribes to one topic. Had it asked for all at once, the broker might
// have dropped some: they come with QoS 0, faster than they can be sent.
func (q *probe) ask(topic string) {
	s := mqtt.Subscribe{PacketID: 1, Filters: []mqtt.SubscribeFilter{{Filter: []byte(topic)}}}
	q.s.send(q.w, mqtt.AppendSubscribe(nil, &s, q.version))
	q.done = false
	q.w.drainUntil(func() string {
		if !q.done {
			return "stuck: the probe waits for SUBACK"
		}
		return ""
	})
}

func (w *World) checkRetained(d *device, got *pub) {
	topic := fmt.Sprintf("r/%d", d.n)
	var of []*pub
	for _, p := range w.pubs {
		if p.topic == topic && !p.will {
			of = append(of, p)
		}
	}
	slices.SortStableFunc(of, func(a, b *pub) int { return cmp.Compare(a.last, b.last) })
	may := []int{-1} // publications that may be the last; -1: none
	for _, p := range of {
		if p.acked != 0 {
			may = may[:0]
		}
		if p.clears {
			may = append(may, -1)
			continue
		}
		may = append(may, p.n)
		if p.expirySeconds != 0 {
			may = append(may, -1)
		}
	}
	n := -1
	if got != nil {
		n = got.n
	}
	if slices.Contains(may, n) {
		return
	}
	w.fail("retained", "the retained message of %s is %d, expected one of %v (-1: none)", topic, n, may)
}

// String names the probe in the trace.
func (q *probe) String() string  { return "probe" }
func (q *probe) ended(bool)      { q.gone = true }
func (q *probe) arrived(int)     {}
func (q *probe) reluctant() bool { return false }

func (q *probe) receive(b []byte) {
	q.in = append(q.in, b...)
	for {
		h, n, err := mqtt.ParseHeader(q.in, 0)
		if err != nil {
			q.w.fail("codec", "the broker sends what is no packet: %v", err)
		}
		if n == 0 || len(q.in) < n+h.Remaining {
			return
		}
		body := q.in[n : n+h.Remaining]
		q.in = q.in[n+h.Remaining:]
		switch h.Type {
		case mqtt.SUBACK:
			q.done = true
		case mqtt.PUBLISH:
			q.publish(h, body)
		}
	}
}

func (q *probe) publish(h mqtt.Header, body []byte) {
	var m mqtt.Publish
	if err := mqtt.DecodePublish(&m, h.Flags, body, q.version); err != nil {
		q.w.fail("codec", "PUBLISH from the broker: %v", err)
	}
	p := q.w.identify(m.Payload)
	q.w.note("< retained", "probe", 0, int64(h.Flags), string(m.Topic))
	if p == nil {
		return
	}
	if string(m.Topic) != p.topic || !m.Retain {
		q.w.fail("retained", "publication %d to %q comes to a new subscription on %q, retain %v", p.n, p.topic, m.Topic, m.Retain)
	}
	if q.got[p.from.n] != nil {
		q.w.fail("retained", "two retained messages on %q", m.Topic)
	}
	q.got[p.from.n] = p
}
