package sim

import (
	"fmt"
	"time"

	"sluice/broker/mqtt"
)

// connect opens a connection and sends CONNECT, unless that must wait.
func (d *device) connect() {
	w := d.w
	if !w.host.up {
		d.retryAt = w.now.Add(time.Duration(w.between(1, 500)) * time.Millisecond)
		return
	}
	l := d.draw()
	if d.late(l.durable && !l.clean) {
		return
	}
	d.links++
	w.counts.Connects++
	l.name = fmt.Sprintf("%s.%d", d.id, d.links)
	l.opened, l.healed = w.next(), w.healing
	l.sure = l.opened
	l.wrong = d.user != "" && !w.healing && w.chance(w.cfg.wrong)
	l.connectAt, l.lastSent, l.lastHeard, l.crashes = w.now, w.now, w.now, w.crashes
	if d.late(false) {
		l.excuse |= rival
	}
	if w.cfg.crowds() {
		l.excuse |= crowded
	}
	if w.cfg.quota() && l.version != mqtt.V5 {
		l.excuse |= full
	}
	if d.internal {
		l.s = w.newSock(l)
		fd := w.host.kernel.put(l.s, nobody)
		w.host.group.Workers()[w.rng.IntN(w.cfg.workers)].Enter(fd)
	} else {
		l.s = w.open(l)
	}
	d.link = l
	if w.chance(0.5) { // as many clients do
		d.nextPID = 0
	}
	l.expect = d.expectation(l)
	d.sendConnect(l)
	if l.wrong && l.scram == nil && w.chance(0.3) {
		l.pipeline()
	}
	if !l.wrong && l.scram == nil && l.clean && !l.durable && !w.healing && len(d.out) == 0 && w.chance(0.2) { // need not wait for CONNACK (MQTT5 3.1.4)
		l.quota = 2
		d.publish(l)
		d.publish(l)
	}
}

// draw decides how to connect.
func (d *device) draw() *link {
	w := d.w
	l := &link{d: d, version: d.version, durable: d.keeps, inflight: make(map[uint16]bool), theirs: make(map[uint16]string)}
	if !w.healing && w.chance(0.05) {
		l.durable = !l.durable && (l.version == mqtt.V5 || !w.cfg.rejects())
	}
	if w.ending {
		l.durable = false
	}
	if d.version == mqtt.V5 {
		l.clean = d.unsure || w.chance(0.1) && !w.healing || !l.durable && (d.exp != surelyNot || d.zombie || w.chance(0.5))
	} else {
		if d.unsure {
			l.durable = false
		}
		l.clean = !l.durable
	}
	l.clean = l.clean || w.ending
	l.keepAlive = d.keepUp
	if c := w.cfg.limits.KeepAliveMax; c > 0 && d.version == mqtt.V5 && !d.internal && (l.keepAlive == 0 || l.keepAlive > c) {
		l.keepAlive = c
	}
	l.receiveMax = w.cfg.limits.InflightMax
	if d.version == mqtt.V5 && w.chance(0.5) {
		l.receiveMax = min(w.between(1, 10), l.receiveMax)
	}
	return l
}

// expectation is what the session present flag must say.
func (d *device) expectation(l *link) belief {
	switch {
	case l.clean:
		return surelyNot
	case d.exp == surely && d.expires() && d.goneAt != 0 && d.w.now.Sub(d.goneAt) > d.expiryTime():
		return surelyNot
	}
	return d.exp
}

func (d *device) sendConnect(l *link) {
	w := d.w
	p := mqtt.Connect{Version: l.version, Clean: l.clean, ClientID: []byte(d.id), KeepAliveSeconds: uint16(d.keepUp / time.Second)}
	if l.version == mqtt.V5 {
		if l.durable {
			p.Props.SessionExpirySeconds, p.Props.HasSessionExpiry = d.asks, true
		}
		p.Props.MaxPacketBytes = d.packetMax
		l.theirMax = pick(w, 0, 1, 2, 5, 65535)
		p.Props.TopicAliasMax = uint16(l.theirMax)
		if l.receiveMax < w.cfg.limits.InflightMax || w.chance(0.5) {
			p.Props.ReceiveMax = uint16(l.receiveMax)
		}
	}
	d.identify(l, &p)
	if w.cfg.wills && !w.healing && w.chance(0.5) {
		d.addWill(l, &p)
	}
	l.send("CONNECT", flags(l.clean, l.durable), mqtt.AppendConnect(nil, &p))
}

func flags(clean, durable bool) int {
	n := 0
	if clean {
		n++
	}
	if durable {
		n += 2
	}
	return n
}

func (d *device) addWill(l *link, p *mqtt.Connect) {
	w := d.w
	m := w.newPub(d, pick(w, plainTopics...), mqtt.QoS(w.rng.IntN(3)))
	m.voided = l.wrong
	m.will, m.first, m.sends, m.fresh, m.sentAt = true, w.next(), 1, 1, w.now
	l.will = m
	p.HasWill = true
	p.Will = mqtt.Will{Topic: []byte(m.topic), Payload: m.payload(), QoS: m.qos}
	if l.version == mqtt.V5 && w.chance(0.5) {
		l.willDelay = uint32(w.between(1, 3))
		p.Will.Props.WillDelaySeconds = l.willDelay
	}
}

// onConnack begins the connection.
func (d *device) onConnack(l *link, p *mqtt.Connack) {
	w := d.w
	w.note("< CONNACK", l.name, int64(p.Code), int64(flags(p.SessionPresent, false)), "")
	if p.Code != 0 {
		l.onRefused(p.Code)
		return
	}
	l.judgeLogin(p)
	expired := d.expires() && w.now.Sub(d.lastAt) >= d.expiryTime()
	if expired {
		l.expect = min(l.expect, maybe)
	}
	if l.expect == surely && !p.SessionPresent {
		l.fail("session lost", "CONNACK without session present: session %d must be there", d.book.gen)
	}
	if l.expect == surelyNot && p.SessionPresent {
		l.fail("session present", "CONNACK with session present: there must not be one after session %d", d.book.gen)
	}
	l.connected, l.lastSent = true, w.now
	l.excuse &^= crowded | slowConnect
	l.begun = w.next()
	l.quota, l.aliasMax = 65535, 0
	if l.version == mqtt.V5 {
		l.judgeConnack(p)
		if p.Props.ReceiveMax != 0 {
			l.quota = int(p.Props.ReceiveMax)
		}
		l.aliasMax = int(p.Props.TopicAliasMax)
	}
	l.aliases = make([]string, l.aliasMax)
	if !p.SessionPresent && (d.exp != surelyNot || d.unsure) {
		d.zombie, d.endedAt = true, l.begun
	}
	d.since = l.begun
	if !p.SessionPresent || d.blank {
		d.newSession(l)
	} else {
		d.kept = d.kept && d.exp == surely
		if expired { // it may have ended, and a crash has brought it back
			d.book.gap(w.next())
		}
	}
	unsure := d.unsure
	d.exp, d.blank, d.unsure, d.goneAt = surelyNot, true, false, 0
	if l.durable {
		d.exp, d.blank = surely, false
	}
	if l.excuse&crashed != 0 { // it comes from a process that is gone, and so may be what it says
		d.doubt()
		d.unsure = d.unsure || unsure
	}
	d.resume(l)
}

// judgeConnack: what the broker does not grant as asked it must tell.
func (l *link) judgeConnack(p *mqtt.Connack) {
	d := l.d
	if differs := l.keepAlive != d.keepUp; p.Props.HasServerKeepAlive != differs ||
		differs && p.Props.ServerKeepAliveSeconds != uint16(l.keepAlive/time.Second) {
		l.fail("protocol", "CONNACK with server keep alive %v %d, expected %v", p.Props.HasServerKeepAlive, p.Props.ServerKeepAliveSeconds, l.keepAlive)
	}
	if differs := l.durable && d.expiry != d.asks; p.Props.HasSessionExpiry != differs ||
		differs && p.Props.SessionExpirySeconds != d.expiry {
		l.fail("protocol", "CONNACK with session expiry %v %d, asked for %d", p.Props.HasSessionExpiry, p.Props.SessionExpirySeconds, d.asks)
	}
}

// resume sends again what was not acknowledged [MQTT-4.4.0-1], and subscribes
// if the session is new.
func (d *device) resume(l *link) {
	for _, f := range d.out {
		if f.link == l {
			continue
		}
		f.link = l
		if f.received {
			l.send("PUBREL", int(f.pid), mqtt.AppendPuback(nil, mqtt.PUBREL, f.pid, mqtt.Success, l.version))
			l.wantPubcomp = append(l.wantPubcomp, f.pid)
			continue
		}
		d.transmit(l, f.p, f.pid, f.again)
		f.again = true
	}
	if len(d.book.grants) > 0 || len(d.wants) == 0 {
		return
	}
	if d.version != mqtt.V5 && d.w.chance(0.5) {
		d.sendSubscribe(l, d.wants)
		return
	}
	for _, g := range d.wants {
		d.sendSubscribe(l, []grant{g})
	}
}
