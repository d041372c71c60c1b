package topic

import (
	"bytes"
	"slices"
	"sort"

	"sluice/broker/mqtt"
)

// DESIGN. A shelf is a sorted set: messages in the byte order of their topics,
// in chunks of up to shelfChunk pointers. The key is the message's own topic,
// so a message costs about 12 bytes here, whereas a trie would keep every
// level again. Everything below "a/b/" is one run of neighbours, from the key
// "a/b/" to the key "a/b0", '0' being the byte after '/'; so a walk by levels
// is a matter of seeking forward.

// shelfChunk is the most messages in a chunk: 1 KiB to move on an insertion.
// Two neighbours that have together less than shelfMerge become one.
const (
	shelfChunk = 128
	shelfMerge = 64
)

// shelf's zero value is empty. Chunks are not empty.
type shelf struct{ chunks [][]*mqtt.Message }

// place is a position on a shelf: a message, or the end with chunk == len(chunks).
type place struct{ chunk, i int }

// at returns the message at p, nil at the end.
func (s *shelf) at(p place) *mqtt.Message {
	if p.chunk == len(s.chunks) {
		return nil
	}
	return s.chunks[p.chunk][p.i]
}

func (s *shelf) after(p place) place {
	if p.i++; p.i == len(s.chunks[p.chunk]) {
		return place{p.chunk + 1, 0}
	}
	return p
}

// seek returns the first place from from on whose topic is not less than key.
// It costs the logarithm of the distance.
func (s *shelf) seek(key []byte, from place) place {
	if from.chunk == len(s.chunks) {
		return from
	}
	less := func(c []*mqtt.Message, i int) bool { return bytes.Compare(c[i].Topic, key) < 0 }
	c := gallop(from.chunk, len(s.chunks), func(i int) bool { return less(s.chunks[i], len(s.chunks[i])-1) })
	if c == len(s.chunks) {
		return place{c, 0}
	}
	first := 0
	if c == from.chunk {
		first = from.i
	}
	return place{c, gallop(first, len(s.chunks[c]), func(i int) bool { return less(s.chunks[c], i) })}
}

// gallop returns the first i in [from, n) that is not less, or n.
func gallop(from, n int, less func(int) bool) int {
	step := 1
	for from < n && less(from) {
		next := from + step
		if next >= n || !less(next) {
			from++
			return from + sort.Search(min(next, n)-from, func(i int) bool { return !less(from + i) })
		}
		from, step = next+1, step*2
	}
	return from
}

// find returns where topic is, or would be.
func (s *shelf) find(topic []byte) (p place, found bool) {
	less := func(m *mqtt.Message) bool { return bytes.Compare(m.Topic, topic) < 0 }
	p.chunk = sort.Search(len(s.chunks), func(i int) bool { return !less(s.chunks[i][len(s.chunks[i])-1]) })
	if p.chunk < len(s.chunks) {
		c := s.chunks[p.chunk]
		p.i = sort.Search(len(c), func(i int) bool { return !less(c[i]) })
	}
	m := s.at(p)
	return p, m != nil && bytes.Equal(m.Topic, topic)
}

// put adds m, or replaces the message of the same topic and returns that.
func (s *shelf) put(m *mqtt.Message) (old *mqtt.Message) {
	p, found := s.find(m.Topic)
	if found {
		c := s.chunks[p.chunk]
		old, c[p.i] = c[p.i], m
		return old
	}
	if p.chunk == len(s.chunks) { // behind all
		if p.chunk == 0 || len(s.chunks[p.chunk-1]) == shelfChunk {
			s.chunks = append(s.chunks, []*mqtt.Message{m})
			return nil
		}
		s.chunks[p.chunk-1] = append(s.chunks[p.chunk-1], m)
		return nil
	}
	if c := s.chunks[p.chunk]; len(c) == shelfChunk {
		const half = shelfChunk / 2
		s.chunks = slices.Insert(s.chunks, p.chunk+1, slices.Clone(c[half:]))
		clear(c[half:])
		s.chunks[p.chunk] = c[:half]
		if p.i > half {
			p = place{p.chunk + 1, p.i - half}
		}
	}
	s.chunks[p.chunk] = slices.Insert(s.chunks[p.chunk], p.i, m)
	return nil
}

// remove takes the message of topic out and returns it, or nil.
func (s *shelf) remove(topic []byte) (old *mqtt.Message) {
	p, found := s.find(topic)
	if !found {
		return nil
	}
	old = s.at(p)
	s.chunks[p.chunk] = slices.Delete(s.chunks[p.chunk], p.i, p.i+1)
	if len(s.chunks[p.chunk]) == 0 {
		s.drop(p.chunk)
		return old
	}
	for _, first := range [...]int{p.chunk - 1, p.chunk} {
		if first >= 0 && first+1 < len(s.chunks) && len(s.chunks[first])+len(s.chunks[first+1]) < shelfMerge {
			s.chunks[first] = append(s.chunks[first], s.chunks[first+1]...)
			s.drop(first + 1)
			break
		}
	}
	return old
}

// drop removes a chunk from the list, and the list when it is empty.
func (s *shelf) drop(chunk int) {
	s.chunks = slices.Delete(s.chunks, chunk, chunk+1)
	if 4*len(s.chunks) < cap(s.chunks) {
		s.chunks = slices.Clone(s.chunks)
	}
}

// appendRange appends the messages from from up to, and without, to.
func (s *shelf) appendRange(dst []*mqtt.Message, from, to place) []*mqtt.Message {
	for ; from.chunk < to.chunk; from = (place{from.chunk + 1, 0}) {
		dst = append(dst, s.chunks[from.chunk][from.i:]...)
	}
	if to.chunk < len(s.chunks) && from.i < to.i {
		dst = append(dst, s.chunks[to.chunk][from.i:to.i]...)
	}
	return dst
}
