package session

import "fmt"

// Check panics if an invariant of the session is violated (see doc.go). The
// simulator and the tests call it after every turn.
func (s *Session) Check() {
	bad := func(what string) {
		panic(fmt.Sprintf("BUG: session %q: %s: low %d end %d next %d have %d tail %d inflight %d queue %d connected %v",
			s.ClientID, what, s.window.low, s.window.end, s.next, s.have, s.tail, s.window.inflight, len(s.queue), s.connected))
	}
	w := &s.window
	if w.low > w.end || w.end > s.next || s.next > s.have || s.have > s.tail {
		bad("sequence numbers out of order")
	}
	n := 0
	for q := w.low; q < w.end; q++ {
		if w.slots()[q&uint64(len(w.slots())-1)] != flightDone {
			n++
		}
	}
	if n != w.inflight {
		bad("inflight does not match the window")
	}
	last := uint64(0)
	bytes := 0
	for i := range s.queue {
		e := &s.queue[i]
		if e.Seq < s.next || e.Seq >= s.have || e.Seq <= last {
			bad("queue out of order")
		}
		last = e.Seq
		if e.Msg != nil {
			bytes += e.Msg.Size()
		}
	}
	if bytes != s.queued {
		bad("bytes of the queue do not add up")
	}
	if !s.connected && (len(s.queue) > 0 || s.fetching || len(s.acks.list) > 0) {
		bad("state of a connection without one")
	}
	s.checkExtras(bad)
	if len(s.acks.list) > 0 && s.acks.list[0].done {
		bad("an acknowledgement that need not wait, waits")
	}
}

func (s *Session) checkExtras(bad func(string)) {
	x := s.extra
	if x == nil {
		return
	}
	bytes := 0
	for seq, o := range x.shared {
		bytes += o.Msg.Size()
		_, f := s.window.find(packetID(seq))
		if s.Durable != 0 || seq >= s.tail || seq < s.next && f != flightPuback {
			bad("a message of a share group is kept that nobody else is to have")
		}
	}
	if bytes != x.sharedSize {
		bad("bytes of the messages of share groups do not add up")
	}
	if !s.connected {
		bad("extras without a connection")
	}
}
