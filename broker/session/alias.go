package session

import (
	"bytes"
	"encoding/binary"

	"sluice/broker/mqtt"
)

// DESIGN. Topic aliases (MQTT5 3.3.2.3.4). Those of the client are a slice by
// number, in memory of their own.
//
// Ours are chosen by use. A topic gets an alias when it comes a second time
// while it is among the last few seen, so topics that come once cost nothing. A
// full table gives up the alias that was used least recently, but only if that
// was long ago: with more busy topics than aliases, as many as there are
// aliases keep theirs, instead of all taking turns and none being ever used.
// There is no table until the second packet that is worth one.

// aliasTopicMin is the length from which on a topic is worth an alias: the
// property takes 3 bytes in each packet.
const aliasTopicMin = 8

// aliasSeen is how many topics without an alias are remembered, by their hash.
const aliasSeen = 16

// aliasKeep times the size of the table is how many deliveries an alias must
// have gone unused to be given up.
const aliasKeep = 4

// aliasOutBytesMax bounds the topics that the aliases of one client stand for.
const aliasOutBytesMax = 4096

// aliasesOut are the aliases of one connection towards its client.
type aliasesOut struct {
	slots []aliasSlot // of alias i+1
	max   int
	bytes int    // memory of their topics
	clock uint32 // counts deliveries
	at    uint8  // in seen, to be overwritten next
	seen  [aliasSeen]uint32
}

type aliasSlot struct {
	topic      []byte
	hash, used uint32 // used: by clock
}

// choose gives the alias for a topic, 0 if it gets none. known: the client
// knows it; otherwise it is to be set once a packet says so.
func (t *aliasesOut) choose(topic []byte) (alias uint16, known bool) {
	t.clock++
	h := topicHash(topic)
	for i := range t.slots {
		if a := &t.slots[i]; a.hash == h && bytes.Equal(a.topic, topic) {
			a.used = t.clock
			return uint16(i + 1), true
		}
	}
	if !t.again(h) {
		return 0, false
	}
	if len(t.slots) < t.max {
		if t.bytes+len(topic) > aliasOutBytesMax {
			return 0, false
		}
		return uint16(len(t.slots) + 1), false
	}
	oldest := 0
	for i := range t.slots {
		if t.clock-t.slots[i].used > t.clock-t.slots[oldest].used {
			oldest = i
		}
	}
	a := &t.slots[oldest]
	if int(t.clock-a.used) <= aliasKeep*len(t.slots) || t.bytes-cap(a.topic)+len(topic) > aliasOutBytesMax {
		return 0, false
	}
	return uint16(oldest + 1), false
}

// again tells whether a topic was seen before, and notes that it was now.
func (t *aliasesOut) again(h uint32) bool {
	for _, s := range t.seen {
		if s == h {
			return true
		}
	}
	t.seen[t.at] = h
	t.at = (t.at + 1) % aliasSeen
	return false
}

// set notes that the client knows an alias that choose gave.
func (t *aliasesOut) set(alias uint16, topic []byte) {
	i := int(alias) - 1
	if i == len(t.slots) {
		t.slots = append(t.slots, aliasSlot{})
	}
	a := &t.slots[i]
	a.topic = replace(a.topic, topic, &t.bytes)
	a.hash, a.used = topicHash(topic), t.clock
}

// replace copies s into old if that has room, and else into new memory, and
// corrects the count of bytes.
func replace(old, s []byte, bytes *int) []byte {
	if len(s) <= cap(old) && old != nil {
		return append(old[:0], s...)
	}
	*bytes += len(s) - cap(old)
	n := make([]byte, len(s))
	copy(n, s)
	return n[:len(s):len(s)]
}

// topicHash is never 0. It need not be hard to guess: who makes two topics
// collide gets an alias one packet earlier.
func topicHash(b []byte) uint32 {
	const prime = 0x9E3779B97F4A7C15
	h := uint64(len(b)) * prime
	for ; len(b) >= 8; b = b[8:] {
		h = (h ^ binary.LittleEndian.Uint64(b)) * prime
		h ^= h >> 32
	}
	for _, c := range b {
		h = (h ^ uint64(c)) * prime
		h ^= h >> 32
	}
	return uint32(h) | 1
}

// chooseAlias gives the alias for a packet to the client, see aliasesOut.choose.
func (s *Session) chooseAlias(topic []byte) (alias uint16, known bool) {
	if len(topic) < aliasTopicMin {
		return 0, false
	}
	if s.extra == nil || s.extra.aliasesOut == nil {
		if !s.aliasing {
			s.aliasing = true
			return 0, false
		}
		s.extras().aliasesOut = &aliasesOut{max: int(s.aliasOutMax)}
	}
	return s.extra.aliasesOut.choose(topic)
}

var (
	errAlias        = &mqtt.Error{Reason: mqtt.TopicAliasInvalid, Statement: "MQTT-3.3.2-9", Text: "topic alias above the maximum"}
	errAliasUnknown = &mqtt.Error{Reason: mqtt.ProtocolError, Statement: "MQTT5 3.3.2.3.4", Text: "topic alias that was never set"}
	errAliasBytes   = &mqtt.Error{Reason: mqtt.QuotaExceeded, Text: "the topics of the topic aliases take more than limits.topic_alias_bytes_max"}
)

// resolveAlias handles a topic alias from the client.
func (s *Session) resolveAlias(p *mqtt.Publish) error {
	if p.TopicAlias == 0 || int(p.TopicAlias) > s.limits.TopicAliasMax {
		return errAlias
	}
	x, i := s.extras(), int(p.TopicAlias)-1
	if len(p.Topic) == 0 {
		if i >= len(x.aliasesIn) || x.aliasesIn[i] == nil {
			return errAliasUnknown
		}
		p.Topic = x.aliasesIn[i]
		return nil
	}
	for len(x.aliasesIn) <= i {
		x.aliasesIn = append(x.aliasesIn, nil)
	}
	x.aliasesIn[i] = replace(x.aliasesIn[i], p.Topic, &x.aliasBytes)
	if s.limits.AliasBytesMax > 0 && x.aliasBytes > s.limits.AliasBytesMax {
		return errAliasBytes
	}
	return nil
}
