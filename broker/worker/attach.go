package worker

import (
	"strings"
	"time"

	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/broker/session"
	"sluice/broker/topic"
	"sluice/persist"
	"sluice/platform/mono"
)

// client is a session on its worker, with its connection if it has one.
type client struct {
	session.Session
	conn     *conn
	identity *auth.Identity // nil: the session was restored, or nobody asked
	slot     uint32
	absence  *absence // nil: it is connected, or nothing is to be done while it is not
}

// absence is what is to be done while a session has no connection.
type absence struct {
	will     *session.Will // delayed; to be published at willAt
	willAt   mono.Time
	expireAt mono.Time // the session ends then; 0: never
}

// absent gives the session's absence, which may be changed.
func (x *client) absent() *absence {
	if x.absence == nil {
		x.absence = new(absence)
	}
	return x.absence
}

// expired tells whether a session's time is up.
func (x *client) expired(now mono.Time) bool {
	return x.absence != nil && x.absence.expireAt != 0 && x.absence.expireAt <= now
}

// attach connects a client whose CONNECT is accepted.
func (w *Worker) attach(c *conn, p *mqtt.Connect, a *session.Admission) {
	old := w.byID[string(p.ClientID)]
	if old != nil && foreign(old, a) {
		w.connack(c, p, mqtt.ClientIDNotValid, "the session of this client id belongs to another user")
		return
	}
	if old != nil && old.conn != nil { // [MQTT-3.1.4-3]
		w.kick(old.conn, mqtt.SessionTakenOver, "another connection has taken over the client id")
		if old = w.detach(old.conn); old != nil {
			w.stats.Takeovers++
		}
	}
	if old != nil && (p.Clean || old.expired(w.now)) { // its timer may be late
		w.endSession(old)
		old = nil
	}
	x, present := old, old != nil
	if x == nil {
		_, durable := session.Outlives(p, w.g.limits)
		x = w.newClient(string(p.ClientID), durable)
	}
	x.conn, c.client = c, x
	w.callOff(x)
	x.absence = nil
	x.Internal = c.listener.internal
	w.settleIn(c, x)
	w.classify(x, userOf(p, a))
	fx := w.begin(x)
	x.Attach(fx, p, a, present, w.now)
	w.end(x)
	x.identity = a.Identity
	w.permit(x, a.Permit)
	w.expires(c, a.Identity)
	c.seen = w.now
	c.idleMax = x.KeepAlive + x.KeepAlive/2 // [MQTT-3.1.2-22]
	if c.idleMax > 0 {
		w.timers.add(w.now.Add(c.idleMax), timerConn, c.name())
	}
	w.stats.Connects++
}

// foreign tells whether a session belongs to another user than the one who is
// let in now: merely knowing a client id gives nobody a session, nor lets him end
// it. Who has proved nothing owns nothing.
func foreign(old *client, a *session.Admission) bool {
	return a.Identity != nil && old.Username != "" && old.Username != a.Identity.User
}

// userOf is who the client proved to be, or said, if nobody asked.
func userOf(p *mqtt.Connect, a *session.Admission) string {
	if a.Identity != nil {
		return a.Identity.User
	}
	return string(p.Username)
}

// permitOf is what a session's client may do by new rules.
func (x *client) permitOf(r *auth.Rules) *auth.Permit {
	if x.identity != nil {
		return r.Permit(x.identity, x.ClientID)
	}
	return r.PermitByName(x.Username, x.ClientID)
}

func (w *Worker) newClient(id string, durable bool) *client {
	x := &client{}
	slot, gen := w.clients.put(x)
	number := uint64(0)
	if durable {
		number = w.g.store.NewSessionID()
	}
	x.slot = slot
	x.Session = *session.New(sessionID(w.id, slot, gen), id, number, w.g.limitsOf(id, ""))
	w.byID[id] = x
	return x
}

// restore makes a session that the store kept; lane is its queue for messages
// with priority, nil if there is none.
func (w *Worker) restore(im, lane *persist.SessionImage) {
	if im.ExpirySeconds == 0 {
		w.restoreLeaving(im, lane)
		return
	}
	x := w.newClient(im.ClientID, false)
	x.Durable = im.ID
	x.Restore(im)
	w.classify(x, im.Username)
	w.relimit(x, im)
	w.restoreLane(x, im, lane)
	x.Internal = strings.HasPrefix(im.ClientID, session.InternalPrefix)
	if rules := w.g.rules.Load(); rules != nil && !x.Internal {
		x.SetPermit(x.permitOf(rules))
	}
	subs := x.Subscriptions()
	for i := range subs {
		w.enter(x, &subs[i])
	}
	if im.Will != nil {
		w.postpone(x, session.RestoreWill(im.Will), mono.Time(im.Will.Due))
	}
	if im.ExpirySeconds != persist.NoExpiry {
		// It has been away since before the start, nobody knows how long
		// without a clock: it gets its whole time again.
		w.expire(x, time.Duration(im.ExpirySeconds)*time.Second)
	}
}

// enter puts a subscription of a session into the index. It tells whether the
// session had that filter before.
func (w *Worker) enter(x *client, sub *session.Subscription) bool {
	s := topic.Subscription{
		Subscriber: x.ID, Durable: x.Durable, ID: sub.ID, QoS: uint8(sub.QoS),
		NoLocal: sub.NoLocal, AsPublished: sub.RetainAsPublished,
	}
	covered := x.Permit.Covers([]byte(sub.Filter))
	if !covered && isShare(sub.Filter) {
		// A member that may not have all would swallow what others may have. New
		// ones are refused; these are of before the rules changed.
		return w.g.index.Unsubscribe(sub.Filter, x.ID)
	}
	if !covered {
		s.Marks |= topic.Guarded
		x.Guarded = true
		w.g.permits.Store(x.ID, x.Permit)
	}
	if x.conn == nil {
		s.Marks |= topic.Away
	}
	return w.g.index.Subscribe(sub.Filter, s)
}

// reenter brings the subscriptions of a session up to date in the index, after
// what they are marked with has changed.
func (w *Worker) reenter(x *client, which func(*session.Subscription) bool) {
	subs := x.Subscriptions()
	for i := range subs {
		if which(&subs[i]) {
			w.enter(x, &subs[i])
		}
	}
}

// permit gives a session what its client may do from now on. What it was marked
// with before is made anew.
func (w *Worker) permit(x *client, p *auth.Permit) {
	x.SetPermit(p)
	if was := x.Guarded; was || p != nil {
		x.Guarded = false
		w.reenter(x, func(*session.Subscription) bool { return true })
		if was && !x.Guarded {
			w.g.permits.Delete(x.ID)
		}
	} else {
		w.moved(x)
	}
}

// moved tells the share groups of a session that outlives its connection that
// its client has come or gone.
func (w *Worker) moved(x *client) {
	if x.Durable == 0 {
		return
	}
	w.reenter(x, func(s *session.Subscription) bool { return isShare(s.Filter) })
}

// kick ends a connection from our side, telling an MQTT 5 client why.
func (w *Worker) kick(c *conn, r mqtt.Reason, detail string) {
	if c.client == nil {
		w.kill(c, r, detail)
		return
	}
	fx := w.begin(c.client)
	c.client.Kick(fx, r, detail)
	w.end(c.client)
}

// detach parts a session from its connection, which is dying. It gives the
// session if that goes on.
func (w *Worker) detach(c *conn) *client {
	x := c.client
	if x == nil {
		return nil
	}
	x.conn, c.client = nil, nil
	w.owe(c, x)
	w.fx.Send = nil
	d := x.Detach(&w.fx)
	w.dropHold(x)
	if d.Will != nil {
		if d.Ends || d.Will.Delay == 0 {
			w.publishWill(x, d.Will)
		} else {
			w.postpone(x, d.Will, w.now.Add(d.Will.Delay))
			w.batch.Add(persist.Op{Kind: persist.OpPutWill, ID: x.Durable, Will: d.Will.Stored(x.absence.willAt)})
		}
	}
	if d.Ends {
		w.forget(x)
		w.readdress(d.Orphans)
		return nil
	}
	if d.ExpireAfter > 0 {
		w.expire(x, d.ExpireAfter)
	}
	w.moved(x)
	return x
}

// postpone makes a will wait. A session that does not end with its connection is
// in the store, and so is its will.
func (w *Worker) postpone(x *client, will *session.Will, until mono.Time) {
	a := x.absent()
	a.will, a.willAt = will, until
	w.timers.add(until, timerClient, x.ID)
}

// callOff takes back a will that waits, and gives it; nil if there is none. Who
// publishes it does so in the same turn: the store then knows either the will or
// what has become of it.
func (w *Worker) callOff(x *client) (will *session.Will) {
	if x.absence == nil || x.absence.will == nil {
		return nil
	}
	will, x.absence.will = x.absence.will, nil
	w.batch.Add(persist.Op{Kind: persist.OpDeleteWill, ID: x.Durable})
	return will
}

func (w *Worker) expire(x *client, after time.Duration) {
	a := x.absent()
	a.expireAt = w.now.Add(after)
	w.timers.add(a.expireAt, timerClient, x.ID)
}

// endSession ends a session that has no connection: its time is up, or its client
// begins anew.
func (w *Worker) endSession(x *client) {
	if will := w.callOff(x); will != nil { // [MQTT-3.1.3-9]: the will goes with the session at the latest
		w.publishWill(x, will)
	}
	w.forget(x)
}

// forget removes a session from all tables.
func (w *Worker) forget(x *client) {
	subs := x.Subscriptions()
	for i := range subs {
		w.g.index.Unsubscribe(subs[i].Filter, x.ID)
	}
	if x.Guarded {
		w.g.permits.Delete(x.ID)
	}
	delete(w.byID, x.ClientID)
	w.clients.drop(x.slot)
	w.abandon(x)
}
