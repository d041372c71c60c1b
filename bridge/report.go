package bridge

import (
	"fmt"
	"strconv"
	"time"
)

// DESIGN. The reporter is one goroutine for the life of a Bridge. Every second
// it looks how full the queues are, for Status; and it tells what has changed
// by Options.Announce, the state at once, figures every ReportInterval. What is
// told is retained, so who asks later finds it; Close takes the figures back.
//
//	$SYS/broker/connection/<client id>/state    1 or 0, as mosquitto tells it
//	$SYS/sluice/bridge/<name>/state             a State constant
//	$SYS/sluice/bridge/<name>/upstream          the address of the link, or the one that was dialled last
//	$SYS/sluice/bridge/<name>/error             why there is no link; nothing once there is one
//	$SYS/sluice/bridge/<name>/<figure>          see figures
//	$SYS/sluice/bridge/<name>/queue/<q>/...     backlog of one queue, if there are several
type reporter struct {
	b       *Bridge
	told    map[string]string // by topic
	figured time.Time
}

// gaugeInterval is how often the queues are looked at.
const gaugeInterval = time.Second

// ConnectionTopic is where the state of the connection to an upstream is told, as
// mosquitto does it.
func (o *Options) ConnectionTopic() string { return "$SYS/broker/connection/" + o.ClientID + "/state" }

func (b *Bridge) report() {
	defer close(b.reported)
	r := reporter{b: b, told: map[string]string{}}
	tick := time.NewTicker(gaugeInterval)
	defer tick.Stop()
	for {
		b.gaugeQueues()
		r.tell(time.Now())
		select {
		case <-tick.C:
		case <-b.status.changed:
		case <-b.ended:
			r.end()
			return
		}
	}
}

// gaugeQueues looks at all queues.
func (b *Bridge) gaugeQueues() {
	if b.opts.Backlog == nil {
		return
	}
	for _, q := range living(b.queues) {
		depth, known := b.opts.Backlog(q.session)
		if !known {
			continue
		}
		b.status.mu.Lock()
		q.gauge.observe(time.Since(b.status.born), depth, q.settled.Load())
		b.status.mu.Unlock()
	}
}

func (r *reporter) tell(now time.Time) {
	if r.b.opts.Announce == nil {
		return
	}
	st := r.b.Status()
	r.say(r.b.opts.ConnectionTopic(), connected(&st))
	base := "$SYS/sluice/bridge/" + st.Name + "/"
	r.say(base+"state", st.State)
	r.say(base+"upstream", st.Upstream)
	err := ""
	if st.State != StateUp && st.State != StateDegraded {
		err = st.LastError
	}
	r.say(base+"error", err)
	if now.Sub(r.figured) < r.b.opts.ReportInterval {
		return
	}
	r.figured = now
	for name, value := range figures(&st) {
		r.say(base+name, value)
	}
}

func connected(st *Status) string {
	if st.State == StateUp || st.State == StateDegraded {
		return notifyUp
	}
	return notifyDown
}

// say announces what is new. An empty value takes back what was said.
func (r *reporter) say(topic, value string) {
	if was, ok := r.told[topic]; was == value && (ok || value == "") {
		return
	}
	r.told[topic] = value
	r.b.opts.Announce(topic, []byte(value))
}

// end takes everything back but that the bridge is stopped.
func (r *reporter) end() {
	if r.b.opts.Announce == nil {
		return
	}
	keep := map[string]string{r.b.opts.ConnectionTopic(): notifyDown, "$SYS/sluice/bridge/" + r.b.opts.Name + "/state": StateStopped}
	for topic := range r.told {
		r.say(topic, keep[topic])
	}
}

// figures are what is told of a Bridge beside its state; times are in seconds.
func figures(st *Status) map[string]string {
	all := map[string]string{}
	number := func(name string, n int64) { all[name] = strconv.FormatInt(n, 10) }
	number("links", st.Links)
	number("messages/received", st.Received)
	number("messages/sent", st.Sent)
	number("messages/acknowledged", st.Acked)
	number("messages/dropped", st.Dropped())
	number("messages/inflight", int64(st.InflightOut))
	number("downlink/received", st.RemoteReceived)
	number("downlink/acknowledged", st.LocalAcked)
	backlog := func(prefix string, b Backlog, oldest time.Duration) {
		number(prefix+"messages", b.Messages)
		number(prefix+"bytes", b.Bytes)
		number(prefix+"oldest", int64(oldest/time.Second))
	}
	sum, oldest := st.Backlog()
	eta, known := time.Duration(0), true
	for i := range st.Queues {
		q := &st.Queues[i]
		known = known && q.Known
		if eta >= 0 && (q.ETA < 0 || q.ETA > eta) {
			eta = q.ETA
		}
		if len(st.Queues) > 1 && q.Known {
			name := q.Name
			if name == "" {
				name = "default"
			}
			backlog("queue/"+name+"/", Backlog{q.Messages, q.Bytes}, q.Oldest)
			all["queue/"+name+"/rate"] = fmt.Sprintf("%.1f", q.PerSecond)
		}
	}
	if !known {
		return all
	}
	backlog("backlog/", sum, oldest)
	if number("backlog/eta", int64(eta.Round(time.Second)/time.Second)); eta < 0 {
		number("backlog/eta", -1) // it does not become shorter
	}
	return all
}
