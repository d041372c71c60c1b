package topic

// levelInline is the longest level that a node holds in itself: with it a node
// has 48 bytes on 64-bit machines, a size the allocator has. Nearly all levels
// are shorter; comparing one then touches no memory but the node's.
const levelInline = 23

// level is one level of a filter as a node keeps it. It is immutable, and does
// not hold on to the filter it was cut from.
type level struct {
	long  *string // nil: it is in short
	short [levelInline]byte
	size  uint8 // bytes of short
}

func makeLevel(b []byte) (l level) {
	if len(b) > levelInline {
		s := string(b)
		l.long = &s
		return l
	}
	l.size = uint8(copy(l.short[:], b))
	return l
}

// is tells whether the level is b.
func (l *level) is(b []byte) bool {
	if int(l.size) != len(b) || l.long != nil {
		return l.long != nil && *l.long == string(b)
	}
	return string(l.short[:l.size]) == string(b)
}

// bytes returns the level; the caller must not change it.
func (l *level) bytes() []byte {
	if l.long != nil {
		return []byte(*l.long)
	}
	return l.short[:l.size]
}

func (l *level) String() string { return string(l.bytes()) }

// cutLevel splits what is left of a topic or filter after its first level; more
// tells that there was a slash, so that rest, even if empty, is a level too.
func cutLevel(b []byte) (first, rest []byte, more bool) {
	for i, c := range b {
		if c == '/' {
			return b[:i], b[i+1:], true
		}
	}
	return b, nil, false
}
