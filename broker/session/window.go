package session

// DESIGN. The outbound window knows the state of each sequence number from low
// (the oldest that is not done) up to the next to be sent. It holds no
// messages: within a connection nothing is ever sent twice [MQTT-4.4.0-1], and
// after a reconnect a durable session reads them from the store again.
//
// States lie in a ring indexed by the sequence number, one byte each; the first
// 16 are part of the session, so that a client with few messages in flight
// costs no allocation.

// flight is the state of one sequence number in the window.
type flight uint8

const (
	flightDone    flight = iota // acknowledged, dropped, or never existed
	flightPuback                // QoS 1 sent, PUBACK expected
	flightPubrec                // QoS 2 sent, PUBREC expected
	flightRelease               // PUBREC came, being made durable; PUBREL to be sent then
	flightPubcomp               // PUBREL sent, PUBCOMP expected
)

// spanMax bounds next-low, so that a client that never acknowledges one message
// cannot make the ring grow without end. It must stay below priorityIDs, for
// within the span packet ids must be unique.
const spanMax = 4096

// The packet ids from priorityIDMin on are those of the priority lane.
const (
	priorityIDMin = 49152
	normalIDs     = priorityIDMin - 1
	priorityIDs   = 65536 - priorityIDMin
)

// packetID is the packet id of a sequence number: never 0, and unique within
// normalIDs or priorityIDs consecutive ones of its lane.
func packetID(seq uint64, priority bool) uint16 {
	if priority {
		return uint16((seq-1)%priorityIDs) + priorityIDMin
	}
	return uint16((seq-1)%normalIDs) + 1
}

type window struct {
	low      uint64 // oldest sequence number not done; == end if there is none
	end      uint64 // one above the newest sent
	inflight int
	ring     []flight // nil: small; length is a power of two
	small    [16]flight
}

func (w *window) reset(at uint64) {
	*w = window{low: at, end: at}
}

func (w *window) slots() []flight {
	if w.ring == nil {
		return w.small[:]
	}
	return w.ring
}

// room tells whether seq can be put into the window as to its span.
func (w *window) room(seq uint64) bool { return w.low == w.end || seq-w.low < spanMax }

// put notes that seq, at or above end, is in flight. The numbers skipped are
// done.
func (w *window) put(seq uint64, f flight) {
	if w.low == w.end {
		w.low, w.end = seq, seq
	}
	for seq-w.low >= uint64(len(w.slots())) {
		w.grow()
	}
	s := w.slots()
	mask := uint64(len(s) - 1)
	for ; w.end < seq; w.end++ {
		s[w.end&mask] = flightDone
	}
	s[seq&mask] = f
	w.end = seq + 1
	w.inflight++
}

func (w *window) grow() {
	old := w.slots()
	ring := make([]flight, 2*len(old))
	for q := w.low; q < w.end; q++ {
		ring[q&uint64(len(ring)-1)] = old[q&uint64(len(old)-1)]
	}
	w.ring = ring
}

// find gives the sequence number in flight that has the packet id, which is one
// of this lane, and its state.
func (w *window) find(id uint16, priority bool) (seq uint64, f flight) {
	if id == 0 || w.low == w.end {
		return 0, flightDone
	}
	if priority {
		seq = w.low + (uint64(id-priorityIDMin)+priorityIDs-(w.low-1)%priorityIDs)%priorityIDs
	} else {
		seq = w.low + (uint64(id-1)+normalIDs-(w.low-1)%normalIDs)%normalIDs
	}
	if seq >= w.end {
		return 0, flightDone
	}
	s := w.slots()
	return seq, s[seq&uint64(len(s)-1)]
}

// set changes the state of a sequence number that find gave.
func (w *window) set(seq uint64, f flight) {
	s := w.slots()
	mask := uint64(len(s) - 1)
	s[seq&mask] = f
	if f != flightDone {
		return
	}
	w.inflight--
	for w.low < w.end && s[w.low&mask] == flightDone {
		w.low++
	}
	if w.low == w.end && len(w.ring) > 256 {
		w.ring = nil
	}
}
