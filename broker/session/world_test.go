package session

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/platform/mono"
)

// world is what a session of a script lives in: it does what a worker does
// with it, and nothing more. All bytes that a worker would take from its read
// buffer are overwritten after the event, so a session that keeps them shows
// garbage.
type world struct {
	s       *Session
	limits  Limits
	now     mono.Time
	fx      Effects
	batch   persist.Batch
	blocked bool
	durable uint64 // the last id given to a session by the store
	permit  *auth.Permit
	guarded bool
	version mqtt.Version
	out     []string
}

func newWorld() *world {
	w := &world{limits: DefaultLimits(), now: mono.Time(time.Second)}
	w.fx.Batch = &w.batch
	return w
}

var errFullDisk = errors.New("full")

// play carries out one event and gives its effects.
func (w *world) play(event string) (effects []string, err error) {
	defer func() {
		if p := recover(); p != nil {
			if s, ok := p.(scriptError); ok {
				err = s
				return
			}
			panic(p)
		}
	}()
	w.out = nil
	words := strings.Fields(event)
	a := parseArgs(words[1:])
	if needs := words[0]; w.s == nil && needs != "limits" && needs != "wait" && needs != "connect" && needs != "restore" && needs != "allow" && needs != "blocked" {
		fail("there is no session")
	}
	switch words[0] {
	case "limits":
		w.setLimits(a)
	case "wait":
		w.now = w.now.Add(duration(words[1]))
	case "connect":
		w.connect(a)
	case "restore":
		w.restore(a)
	case "<":
		a = parseArgs(words[2:])
		w.fromClient(words[1], a)
	case "deliver":
		w.deliver(a)
	case "fetched":
		w.fetched(a)
	case "accepted":
		w.accepted(words[1], a)
	case "blocked":
		w.blocked = words[1] == "on"
		if !w.blocked {
			w.do(func() { w.s.Resume(&w.fx, w.now) })
		}
	case "allow":
		w.allow(a)
	case "kick":
		w.do(func() { w.s.Kick(&w.fx, reason(words[1]), "kicked") })
	case "lost":
		w.detach()
	default:
		return nil, fmt.Errorf("no such event")
	}
	a.mustBeUsed()
	return w.out, nil
}

func (w *world) say(format string, args ...any) { w.out = append(w.out, fmt.Sprintf(format, args...)) }

// do plays one event of the session and says its effects. A connection that is
// to be closed is closed.
func (w *world) do(event func()) {
	w.begin()
	event()
	w.end()
	if w.fx.Close {
		w.say("close %s: %s", w.fx.Reason, w.fx.Detail)
		w.detach()
	}
}

func (w *world) begin() {
	w.fx = Effects{Batch: &w.batch, Blocked: w.blocked, Waiting: w.fx.Waiting}
}

func (w *world) end() {
	w.sayPackets()
	w.sayBatch()
	for _, r := range w.fx.Fetches {
		w.say("fetch queue=%s from=%d max=%d", queueName(r.Session), r.From, r.MaxMessages)
	}
	w.sayDrops()
	w.sayOrphans(w.fx.Orphans)
	w.s.Check()
	if w.fx.Waiting != w.s.Pending() {
		panic(fmt.Sprintf("BUG: %d acknowledgements wait by the effects, %d in the session", w.fx.Waiting, w.s.Pending()))
	}
}

// detach does what a worker does when a connection has ended.
func (w *world) detach() {
	w.begin()
	d := w.s.Detach(&w.fx)
	w.end()
	switch {
	case d.Ends:
		w.say("session ends")
	case d.ExpireAfter == 0:
		w.say("session stays")
	default:
		w.say("session stays for %v", d.ExpireAfter)
	}
	w.sayOrphans(d.Orphans)
	if d.Will != nil {
		m := d.Will.Message(w.now)
		w.say("will%s%s", after(d.Will.Delay), w.message(m))
	}
	if d.Ends {
		w.s = nil
	}
}

func after(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return " after " + d.String()
}

func (w *world) setLimits(a *args) {
	l := &w.limits
	for name, field := range map[string]*int{
		"packet": &l.PacketBytesMax, "levels": &l.TopicLevelsMax, "clientid": &l.ClientIDBytesMax, "subs": &l.SubscriptionsMax,
		"inflight": &l.InflightMax, "receive": &l.ReceiveMax,
		"aliases": &l.TopicAliasMax, "topicbytes": &l.TopicBytesMax, "aliasbytes": &l.AliasBytesMax, "aliasesout": &l.TopicAliasOutMax,
	} {
		if a.has(name) {
			*field = a.number(name)
		}
	}
	q := &l.Queue
	if a.has("queue") {
		q.Messages = int64(a.number("queue"))
	}
	if a.has("queuebytes") {
		q.Bytes = int64(a.number("queuebytes"))
	}
	if a.has("age") {
		q.AgeSeconds = a.seconds("age")
	}
	if a.has("policy") {
		q.Policy = map[string]persist.QueuePolicy{"reject": persist.Reject, "drop-oldest": persist.DropOldest, "drop-newest": persist.DropNewest}[a.text("policy")]
	}
	if a.has("qos0") {
		q.QoS0 = map[string]QoS0{"off": QoS0Off, "memory": QoS0Memory}[a.text("qos0")]
	}
	if a.has("expiry") {
		l.SessionExpiryMax = duration(a.text("expiry"))
	}
	l.Priority = l.Priority || a.flag("priority")
	l.DeniedDisconnects, l.ResponseInfo = a.flag("deniedcloses"), a.text("responseinfo")
	if a.has("keepalive") {
		l.KeepAliveMax = duration(a.text("keepalive"))
	}
}

// connect plays a CONNECT as the lobby and Worker.attach do.
func (w *world) connect(a *args) {
	c := mqtt.Connect{Version: a.version(), ClientID: a.bytes("id"), Clean: a.flag("clean"), KeepAliveSeconds: uint16(a.number("keepalive")), Bridge: a.flag("bridge")}
	if a.has("user") {
		c.HasUsername, c.Username = true, a.bytes("user")
	}
	p := &c.Props
	if a.has("expiry") {
		p.HasSessionExpiry, p.SessionExpirySeconds = true, a.seconds("expiry")
	}
	p.ReceiveMax, p.MaxPacketBytes, p.NoProblemInfo = uint16(a.number("rmax")), a.unsigned("maxpacket"), a.flag("noproblem")
	p.TopicAliasMax, p.RequestResponseInfo = uint16(a.number("aliasmax")), a.flag("askresponse")
	ad := Admission{Permit: w.permit, AuthMethod: a.text("auth")}
	if a.has("auth") {
		p.AuthMethod = a.bytes("auth")
		if !a.flag("noword") {
			ad.AuthData = []byte("last word")
		}
	}
	if a.has("identity") {
		ad.Identity = &auth.Identity{User: a.text("identity")}
	}
	if a.has("will") {
		topic, payload, _ := strings.Cut(a.text("will"), ":")
		c.HasWill = true
		c.Will = mqtt.Will{Topic: []byte(topic), Payload: []byte(payload), QoS: mqtt.QoS(a.number("willqos")), Retain: a.flag("willretain")}
		c.Will.Props.WillDelaySeconds = uint32(a.number("willdelay"))
		if a.has("willexpiry") {
			c.Will.Props.HasMessageExpiry, c.Will.Props.MessageExpirySeconds = true, uint32(a.number("willexpiry"))
		}
		if a.has("willtype") {
			c.Will.Props.ContentType = a.bytes("willtype")
		}
	}
	internal := a.flag("internal")
	body := encode(mqtt.AppendConnect(nil, &c))
	defer spoil(body.whole)
	var got mqtt.Connect
	if err := mqtt.DecodeConnect(&got, body.body); err != nil {
		w.say("refused by the codec: %v", err)
		return
	}
	if r, why := CheckConnect(&got, &w.limits, internal); r != mqtt.Success {
		w.say("refused %s: %s", r, why)
		return
	}
	if r, why := CheckWill(&got, w.permit, internal, &w.limits); r != mqtt.Success {
		w.say("refused %s: %s", r, why)
		return
	}
	assigned := len(got.ClientID) == 0
	if assigned {
		got.ClientID = []byte("assigned")
	}
	ad.Assigned = assigned
	w.attach(&got, &ad, internal)
}

func (w *world) attach(c *mqtt.Connect, ad *Admission, internal bool) {
	if w.s != nil && w.s.Connected() {
		w.do(func() { w.s.Kick(&w.fx, mqtt.SessionTakenOver, "taken over") })
	}
	if w.s != nil && c.Clean {
		if w.s.Durable != 0 {
			w.batch.Add(persist.Op{Kind: persist.OpDeleteSession, ID: w.s.Durable})
		}
		w.s = nil
	}
	present := w.s != nil
	if !present {
		number := uint64(0)
		if _, yes := Outlives(c, &w.limits); yes {
			w.durable++
			number = w.durable
		}
		w.s = New(7, string(c.ClientID), number, &w.limits)
	}
	w.s.Internal, w.s.Guarded = internal, w.guarded
	w.version = c.Version
	w.do(func() { w.s.Attach(&w.fx, c, ad, present, w.now) })
	if w.s != nil && w.s.KeepAlive != time.Duration(c.KeepAliveSeconds)*time.Second {
		w.say("keepalive %v", w.s.KeepAlive)
	}
}

func (w *world) restore(a *args) {
	im := persist.SessionImage{
		Session: persist.Session{ID: 1, ClientID: a.text("id"), Username: "u", Version: a.version(), ExpirySeconds: a.seconds("expiry")},
		Head:    uint64(a.number("head")), Tail: uint64(a.number("tail")),
	}
	for _, id := range a.numbers("inbound") {
		im.Inbound = append(im.Inbound, uint16(id))
	}
	for _, f := range a.list("sub") {
		filter, qos, _ := strings.Cut(f, ":")
		im.Subscriptions = append(im.Subscriptions, persist.Subscription{Filter: filter, QoS: mqtt.QoS(number(qos))})
	}
	w.durable = 1
	w.s = New(7, im.ClientID, 1, &w.limits)
	w.s.Restore(&im)
	if a.has("priohead") {
		im.Head, im.Tail = uint64(a.number("priohead")), uint64(a.number("priotail"))
		w.s.RestorePriority(&im)
	}
	w.s.Check()
}

// deliver plays a message that comes for the session.
func (w *world) deliver(a *args) {
	d := Delivery{
		Topic: a.bytes("topic"), Payload: a.bytes("payload"), QoS: mqtt.QoS(a.number("qos")),
		Seq: uint64(a.number("seq")), Retain: a.flag("retain"), Shared: a.flag("shared"), Priority: a.flag("prio"), SubIDs: a.numbers("subids"),
	}
	if a.has("size") {
		d.Payload = []byte(strings.Repeat("x", a.number("size")))
	}
	if a.has("type") { // content type
		t := a.text("type")
		d.Props = append([]byte{3, 0, byte(len(t))}, t...)
	}
	if a.has("expires") {
		d.Expires = int64(w.now.Add(duration(a.text("expires"))))
	}
	w.do(func() { w.s.Deliver(&w.fx, &d, w.now) })
	if d.Msg == nil {
		spoil(d.Topic, d.Props, d.Payload)
	}
	for i := range d.SubIDs {
		d.SubIDs[i] = 0xDDDDDDD
	}
}

// fetched plays the answer of the store: entries are seq:qos:topic:payload with
// flags behind, or seq:released.
func (w *world) fetched(a *args) {
	f := persist.Fetched{Tag: w.s.ID, Epoch: w.s.Epoch, Session: w.s.Durable, From: uint64(a.number("from")), Next: uint64(a.number("next"))}
	if a.flag("prio") {
		f.Session = persist.PriorityOf(f.Session)
	}
	if a.has("epoch") {
		f.Epoch = uint32(a.number("epoch"))
	}
	if a.flag("failed") {
		f.Err = errors.New("input/output error")
	}
	for _, e := range a.list("e") {
		f.Entries = append(f.Entries, w.entry(strings.Split(e, ":")))
	}
	w.do(func() { w.s.Fetched(&w.fx, &f, w.now) })
}

func (w *world) entry(part []string) persist.Entry {
	e := persist.Entry{Seq: uint64(number(part[0]))}
	if part[1] == "released" {
		e.Released, e.QoS = true, 2
		return e
	}
	e.QoS = mqtt.QoS(number(part[1]))
	e.Msg = mqtt.NewMessage(&mqtt.Publish{Topic: []byte(part[2]), Payload: []byte(part[3]), QoS: e.QoS})
	for _, flag := range part[4:] {
		name, value, _ := strings.Cut(flag, "=")
		switch name {
		case "retain":
			e.Retain = true
		case "subid":
			e.SubIDs = append(e.SubIDs, uint32(number(value)))
		case "expires":
			e.Msg.Expires = int64(w.now.Add(duration(value)))
		default:
			fail("no such flag of an entry: %s", flag)
		}
	}
	return e
}

// accepted plays the settlement of the group that an acknowledgement waits for.
func (w *world) accepted(what string, a *args) {
	t := w.s.token(packetType(what), uint16(a.number("id")))
	if a.has("epoch") {
		t.Epoch = uint32(a.number("epoch"))
	}
	var err error
	if a.flag("full") {
		err = errFullDisk
	}
	w.do(func() { w.s.Accepted(&w.fx, t, err) })
}

// allow plays rules that are loaded: for who is connected and who comes.
func (w *world) allow(a *args) {
	var acl strings.Builder
	for _, what := range []string{"read", "write", "subscribe"} {
		for _, filter := range a.list(what) {
			fmt.Fprintf(&acl, "pattern %s %s\n", what, filter)
		}
	}
	rules, err := auth.New(&auth.Sources{ACL: &auth.File{Name: "acl", Data: []byte(acl.String())}})
	if err != nil {
		fail("acl: %v", err)
	}
	w.permit, w.guarded = rules.Permit(&auth.Identity{User: "joe"}, "a"), a.flag("guarded")
	if w.s != nil {
		w.s.SetPermit(w.permit)
		w.s.Guarded = w.guarded
	}
}
