package persist

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"sluice/broker/mqtt"
)

// DESIGN. A record is four bytes of CRC-32C, one byte of kind and version, and
// a body of variable-length integers and length-prefixed strings. The checksum
// covers the key too, so that a value that ended up under a wrong key is not
// taken for good. Encoders append; decoders take any bytes without panic,
// refuse what the encoder could not have made, allocate no more than a small
// multiple of the input, and keep nothing of it.

// ErrRecord says that a record is damaged or of a kind or version that this
// program does not know.
var ErrRecord = errors.New("damaged record")

// The kinds of record, in the high four bits of the fifth byte; the low four
// are the version of that kind.
const (
	recSession      = 0x11
	recSubscription = 0x21
	recEntry        = 0x31
	recMessage      = 0x41
	recCounters     = 0x51
	recNumber       = 0x61
	recState        = 0x71
	recWill         = 0x81

	// Later versions: written where the first cannot hold what is to be kept.
	recSessionQueue = 0x12 // with the limits of the queue
	recStateBoot    = 0x72 // with all that came after MessageID

	headBytes = 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func begin(dst []byte, kind byte) []byte { return append(dst, 0, 0, 0, 0, kind) }

// seal fills in the checksum of the record that begins at dst[start].
func seal(dst []byte, start int, key []byte) []byte {
	binary.LittleEndian.PutUint32(dst[start:], checksum(key, dst[start+4:]))
	return dst
}

func checksum(key, rec []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, rec)
}

// unseal checks the frame of a record and gives a reader of its body.
func unseal(key, rec []byte, kind byte) (body, error) {
	if len(rec) < headBytes || binary.LittleEndian.Uint32(rec) != checksum(key, rec[4:]) || rec[4] != kind {
		return body{}, ErrRecord
	}
	return body{b: rec[headBytes:]}, nil
}

// unsealEither is unseal for a record of two versions.
func unsealEither(key, rec []byte, first, second byte) (b body, kind byte, err error) {
	if len(rec) >= headBytes && rec[4] == second {
		first = second
	}
	b, err = unseal(key, rec, first)
	return b, first, err
}

// AppendSession appends a session record.
func AppendSession(dst, key []byte, s *Session) []byte {
	start, kind := len(dst), byte(recSession)
	if s.Queue != (QueueLimits{}) {
		kind = recSessionQueue
	}
	dst = begin(dst, kind)
	dst = binary.AppendUvarint(dst, s.ID)
	dst = append(dst, byte(s.Version))
	dst = binary.AppendUvarint(dst, uint64(s.ExpirySeconds))
	if kind == recSessionQueue {
		q := &s.Queue
		for _, v := range [...]uint64{uint64(max(q.Messages, 0)), uint64(max(q.Bytes, 0)), uint64(q.AgeSeconds)} {
			dst = binary.AppendUvarint(dst, v)
		}
		dst = append(dst, byte(q.Policy))
	}
	dst = appendString(dst, s.ClientID)
	dst = appendString(dst, s.Username)
	return seal(dst, start, key)
}

// DecodeSession reads a session record.
func DecodeSession(key, rec []byte) (s Session, err error) {
	b, kind, err := unsealEither(key, rec, recSession, recSessionQueue)
	if err != nil {
		return s, err
	}
	s.ID = b.uvarint()
	s.Version = mqtt.Version(b.byte())
	s.ExpirySeconds = b.uint32()
	if kind == recSessionQueue {
		s.Queue = QueueLimits{Messages: b.int64(), Bytes: b.int64(), AgeSeconds: b.uint32(), Policy: QueuePolicy(b.byte())}
		b.bad = b.bad || s.Queue == (QueueLimits{}) || s.Queue.Policy > DropNewest
	}
	s.ClientID = string(b.bytes())
	s.Username = string(b.bytes())
	return s, b.end()
}

// The bits of a subscription's flags; the QoS is in the lowest two, retain
// handling in the next two.
const (
	subNoLocal = 1 << (4 + iota)
	subAsPublished
)

// AppendSubscription appends a subscription record.
func AppendSubscription(dst, key []byte, s *Subscription) []byte {
	start := len(dst)
	dst = begin(dst, recSubscription)
	flags := byte(s.QoS)&3 | s.RetainHandling&3<<2
	if s.NoLocal {
		flags |= subNoLocal
	}
	if s.RetainAsPublished {
		flags |= subAsPublished
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(s.ID))
	dst = appendString(dst, s.Filter)
	return seal(dst, start, key)
}

// DecodeSubscription reads a subscription record.
func DecodeSubscription(key, rec []byte) (s Subscription, err error) {
	b, err := unseal(key, rec, recSubscription)
	if err != nil {
		return s, err
	}
	flags := b.byte()
	if flags >= subAsPublished<<1 || flags&3 == 3 || flags>>2&3 == 3 {
		return s, ErrRecord
	}
	s.QoS, s.RetainHandling = mqtt.QoS(flags&3), flags>>2&3
	s.NoLocal, s.RetainAsPublished = flags&subNoLocal != 0, flags&subAsPublished != 0
	s.ID = b.uint32()
	s.Filter = string(b.bytes())
	return s, b.end()
}

// AppendCounters appends a record of a queue's counters.
func AppendCounters(dst, key []byte, c Counters) []byte {
	start := len(dst)
	dst = begin(dst, recCounters)
	dst = binary.AppendUvarint(dst, c.Tail)
	dst = binary.AppendUvarint(dst, uint64(max(c.Depth, 0)))
	dst = binary.AppendUvarint(dst, uint64(max(c.Bytes, 0)))
	return seal(dst, start, key)
}

// DecodeCounters reads a record of a queue's counters.
func DecodeCounters(key, rec []byte) (c Counters, err error) {
	b, err := unseal(key, rec, recCounters)
	if err != nil {
		return c, err
	}
	c.Tail, c.Depth, c.Bytes = b.uvarint(), b.int64(), b.int64()
	return c, b.end()
}

// AppendNumber appends a record of one number.
func AppendNumber(dst, key []byte, n uint64) []byte {
	start := len(dst)
	return seal(binary.AppendUvarint(begin(dst, recNumber), n), start, key)
}

// DecodeNumber reads a record of one number.
func DecodeNumber(key, rec []byte) (n uint64, err error) {
	b, err := unseal(key, rec, recNumber)
	if err != nil {
		return 0, err
	}
	n = b.uvarint()
	return n, b.end()
}

// State is what a store keeps about itself.
type State struct {
	Seconds   int64  // the store's clock
	SessionID uint64 // highest session id given out
	MessageID uint64 // highest message id given out

	// Boot counts how often the store was opened, Commit the transactions of
	// its life. Two copies of a store are ordered by them, whatever the clocks
	// said.
	Boot, Commit uint64

	Spent    uint64 // bytes: how far the write budget is used up
	Day      uint64 // day of the store's clock
	DayBytes uint64 // written in it
}

// AppendState appends a state record.
func AppendState(dst, key []byte, s State) []byte {
	start := len(dst)
	dst = begin(dst, recStateBoot)
	for _, v := range [...]uint64{uint64(max(s.Seconds, 0)), s.SessionID, s.MessageID, s.Boot, s.Commit, s.Spent, s.Day, s.DayBytes} {
		dst = binary.AppendUvarint(dst, v)
	}
	return seal(dst, start, key)
}

// DecodeState reads a state record.
func DecodeState(key, rec []byte) (s State, err error) {
	b, kind, err := unsealEither(key, rec, recState, recStateBoot)
	if err != nil {
		return s, err
	}
	s.Seconds, s.SessionID, s.MessageID = b.int64(), b.uvarint(), b.uvarint()
	if kind == recStateBoot {
		s.Boot, s.Commit, s.Spent, s.Day, s.DayBytes = b.uvarint(), b.uvarint(), b.uvarint(), b.uvarint(), b.uvarint()
	}
	return s, b.end()
}

func appendString[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// body reads the body of a record. After the first error it gives zeros; end
// tells.
type body struct {
	b   []byte
	bad bool
}

func (b *body) byte() byte {
	if len(b.b) == 0 {
		b.bad = true
		return 0
	}
	v := b.b[0]
	b.b = b.b[1:]
	return v
}

func (b *body) uvarint() uint64 {
	v, n := binary.Uvarint(b.b)
	if n <= 0 || n > 1 && b.b[n-1] == 0 { // a longer form than need be
		b.b, b.bad = nil, true
		return 0
	}
	b.b = b.b[n:]
	return v
}

func (b *body) uint32() uint32 {
	v := b.uvarint()
	if v > 1<<32-1 {
		b.bad = true
	}
	return uint32(v)
}

// int64 reads a number that is not negative.
func (b *body) int64() int64 {
	v := b.uvarint()
	if v > 1<<63-1 {
		b.bad = true
	}
	return int64(v)
}

// length reads a length of something that is still to come in the body, at
// least one byte for each.
func (b *body) length() int {
	v := b.uvarint()
	if v > uint64(len(b.b)) {
		b.bad = true
		return 0
	}
	return int(v)
}

// bytes reads a string; it aliases the record.
func (b *body) bytes() []byte {
	n := b.length()
	v := b.b[:n]
	b.b = b.b[n:]
	return v
}

// end tells whether all was read and sound.
func (b *body) end() error {
	if b.bad || len(b.b) != 0 {
		return ErrRecord
	}
	return nil
}
