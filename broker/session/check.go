package session

import "fmt"

// Check panics if an invariant of the session is violated (see doc.go). The
// simulator and the tests call it after every turn.
func (s *Session) Check() {
	s.checkLane(&s.lane)
	if s.first != nil {
		s.checkLane(s.first)
	}
	bad := func(what string) { s.bad(&s.lane, what) }
	if s.connected && s.inflight() > int(s.receiveMax) {
		bad("more in flight than the receive maximum")
	}
	if !s.connected && len(s.acks.list) > 0 {
		bad("state of a connection without one")
	}
	s.checkExtras(bad)
	if len(s.acks.list) > 0 && s.acks.list[0].done {
		bad("an acknowledgement that need not wait, waits")
	}
}

func (s *Session) bad(l *lane, what string) {
	panic(fmt.Sprintf("BUG: session %q: %s: priority %v low %d end %d next %d have %d tail %d inflight %d queue %d connected %v",
		s.ClientID, what, l.priority, l.window.low, l.window.end, l.next, l.have, l.tail, l.window.inflight, len(l.queue), s.connected))
}

func (s *Session) checkLane(l *lane) {
	w := &l.window
	if w.low > w.end || w.end > l.next || l.next > l.have || l.have > l.tail {
		s.bad(l, "sequence numbers out of order")
	}
	n := 0
	for q := w.low; q < w.end; q++ {
		if w.slots()[q&uint64(len(w.slots())-1)] != flightDone {
			n++
		}
	}
	if n != w.inflight {
		s.bad(l, "inflight does not match the window")
	}
	last := uint64(0)
	bytes := 0
	for i := range l.queue {
		e := &l.queue[i]
		if e.Seq < l.next || e.Seq >= l.have || e.Seq <= last {
			s.bad(l, "queue out of order")
		}
		last = e.Seq
		if e.Msg != nil {
			bytes += e.Msg.Size()
		}
	}
	if bytes != l.queued {
		s.bad(l, "bytes of the queue do not add up")
	}
	if !s.connected && (len(l.queue) > 0 || l.fetching || l.opening) {
		s.bad(l, "state of a connection without one")
	}
	if l.opening && !l.priority {
		s.bad(l, "only the priority lane opens a connection")
	}
}

func (s *Session) checkExtras(bad func(string)) {
	x := s.extra
	if x == nil {
		return
	}
	bytes := 0
	for key, o := range x.shared {
		bytes += o.Msg.Size()
		l, seq := s.ofShareKey(key)
		_, f := l.window.find(packetID(seq, l.priority), l.priority)
		if s.Durable != 0 || seq >= l.tail || seq < l.next && f != flightPuback {
			bad("a message of a share group is kept that nobody else is to have")
		}
	}
	if bytes != x.sharedSize {
		bad("bytes of the messages of share groups do not add up")
	}
	if !s.connected && (x.away == nil || x.shared != nil || x.aliasesIn != nil || x.exchange != nil || x.authMethod != "") {
		bad("extras without a connection")
	}
}
