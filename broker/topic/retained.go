package topic

import (
	"bytes"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"sluice/broker/mqtt"
)

// DESIGN. One mutex over a sorted shelf. A Match collects under the mutex and
// returns; what the caller does with the messages, which are immutable,
// happens outside. Whether an empty payload deletes, and what has expired, is
// the caller's business.

// messageBytes is what Bytes counts for a message beside its topic, properties
// and payload: the struct, what the allocator rounds up, and the place here.
const messageBytes = int64(unsafe.Sizeof(mqtt.Message{}) + 4*unsafe.Sizeof(uintptr(0)))

// Retained holds the retained message of each topic (MQTT5 3.3.1.3). It is
// safe for use by many goroutines.
type Retained struct {
	count atomic.Int64
	bytes atomic.Int64

	mu    sync.Mutex
	shelf shelf
}

// NewRetained returns a Retained without messages.
func NewRetained() *Retained { return new(Retained) }

// Len returns the number of messages.
func (r *Retained) Len() int { return int(r.count.Load()) }

// Bytes returns about how much memory the messages take.
func (r *Retained) Bytes() int64 { return r.bytes.Load() }

func size(m *mqtt.Message) int64 {
	return messageBytes + int64(len(m.Topic)) + int64(len(m.Props)) + int64(len(m.Payload))
}

// Set makes m the message of m.Topic and returns the one it replaces, or nil.
func (r *Retained) Set(m *mqtt.Message) (old *mqtt.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old = r.shelf.put(m); old == nil {
		r.count.Add(1)
		r.bytes.Add(size(m))
	} else {
		r.bytes.Add(size(m) - size(old))
	}
	return old
}

// Delete removes the message of topic and returns it, or nil.
func (r *Retained) Delete(topic []byte) (old *mqtt.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old = r.shelf.remove(topic); old != nil {
		r.count.Add(-1)
		r.bytes.Add(-size(old))
	}
	return old
}

// All appends all messages in the byte order of their topics.
func (r *Retained) All(dst []*mqtt.Message) []*mqtt.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.shelf.chunks {
		dst = append(dst, c...)
	}
	return dst
}

// Match appends the messages whose topics match filter, in the byte order of
// their topics. The filter has passed CheckFilter and is not a shared one: to
// a new shared subscription no retained messages are sent (MQTT5 4.8.2).
//
// A filter without wildcards costs a binary search. Each "+" visits the levels
// that exist at its place, below what the levels before it leave.
func (r *Retained) Match(filter string, dst []*mqtt.Message) []*mqtt.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := walk{shelf: &r.shelf, dst: dst}
	w.run(filter, place{})
	return w.dst
}

// walk is one Match.
type walk struct {
	shelf  *shelf
	dst    []*mqtt.Message
	prefix []byte // the levels chosen so far: empty or ending in '/'
}

// run appends the messages below prefix whose further levels match filter. All
// of them are at from or later.
func (w *walk) run(filter string, from place) {
	for {
		level, rest, more := strings.Cut(filter, "/")
		switch level {
		case "#":
			w.below(from)
			return
		case "+":
			w.each(rest, more, from)
			return
		}
		w.prefix = append(w.prefix, level...)
		if !more || rest == "#" { // "sport/#" matches "sport" (MQTT5 4.7.1.2)
			from = w.shelf.seek(w.prefix, from)
			if m := w.shelf.at(from); m != nil && bytes.Equal(m.Topic, w.prefix) {
				w.dst = append(w.dst, m)
			}
		}
		if !more {
			return
		}
		w.prefix = append(w.prefix, '/')
		filter = rest
	}
}

// Topics that begin with $ are these: from "$" up to "%". They are not matched
// by a filter that begins with a wildcard [MQTT-4.7.2-1].
var dollar, pastDollar = []byte{'$'}, []byte{'$' + 1}

// below appends everything below prefix.
func (w *walk) below(from place) {
	s := w.shelf
	if len(w.prefix) == 0 {
		first := s.seek(dollar, place{})
		w.dst = s.appendRange(w.dst, place{}, first)
		w.dst = s.appendRange(w.dst, s.seek(pastDollar, first), place{len(s.chunks), 0})
		return
	}
	from = s.seek(w.prefix, from)
	w.dst = s.appendRange(w.dst, from, w.past(from))
}

// past returns the first place behind everything below prefix, which is not empty.
func (w *walk) past(from place) place {
	end := &w.prefix[len(w.prefix)-1]
	*end = '/' + 1
	p := w.shelf.seek(w.prefix, from)
	*end = '/'
	return p
}

// each goes through the levels that exist below prefix, for a "+", and with
// each on to rest, the filter behind it, if there is more.
func (w *walk) each(rest string, more bool, from place) {
	base := len(w.prefix)
	p := w.shelf.seek(w.prefix, from)
	for {
		m := w.shelf.at(p)
		if m == nil || !bytes.HasPrefix(m.Topic, w.prefix) {
			return
		}
		if base == 0 && len(m.Topic) > 0 && m.Topic[0] == '$' {
			p = w.shelf.seek(pastDollar, p)
			continue
		}
		level, _, deeper := bytes.Cut(m.Topic[base:], slash)
		if !deeper {
			if !more || rest == "#" {
				w.dst = append(w.dst, m)
			}
			p = w.shelf.after(p)
			continue
		}
		w.prefix = append(append(w.prefix, level...), '/')
		if more {
			w.run(rest, p)
			w.prefix = w.prefix[:base+len(level)+1]
		}
		p = w.past(p)
		w.prefix = w.prefix[:base]
	}
}
