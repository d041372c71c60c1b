package persist

import (
	"encoding/binary"

	"sluice/broker/mqtt"
)

// DESIGN. A message is written either within the queue entry of its one
// receiver, or as a record of its own that entries refer to by id. The fields
// are the same in both: appendMessage and decodeMessage.

// The bits of a message's flags; the QoS is in the lowest two.
const (
	msgRetain = 1 << (2 + iota)
	msgID
	msgFrom // of the first schema; read and forgotten: a session's id means nothing after a restart
	msgExpires
	msgProps
	msgEnd
)

// AppendMessage appends a record of a message. The clock is that of the store.
func AppendMessage(dst, key []byte, m *mqtt.Message, clk Clock) []byte {
	start := len(dst)
	return seal(appendMessage(begin(dst, recMessage), m, clk), start, key)
}

// DecodeMessage reads a record of a message, into new memory.
func DecodeMessage(key, rec []byte, clk Clock) (*mqtt.Message, error) {
	b, err := unseal(key, rec, recMessage)
	if err != nil {
		return nil, err
	}
	return decodeMessage(&b, clk)
}

func appendMessage(dst []byte, m *mqtt.Message, clk Clock) []byte {
	flags := byte(m.QoS) & 3
	if m.Retain {
		flags |= msgRetain
	}
	expiry := clk.expiry(m.Expires)
	for _, f := range [...]struct {
		set bool
		bit byte
	}{{m.ID != 0, msgID}, {expiry != 0, msgExpires}, {len(m.Props) != 0, msgProps}} {
		if f.set {
			flags |= f.bit
		}
	}
	dst = append(dst, flags)
	for _, v := range [...]uint64{m.ID, expiry} {
		if v != 0 {
			dst = binary.AppendUvarint(dst, v)
		}
	}
	dst = appendString(dst, m.Topic)
	if len(m.Props) != 0 {
		dst = appendString(dst, m.Props)
	}
	return append(dst, m.Payload...)
}

// number reads a number whose presence says that it is not 0.
func (b *body) number(present bool) uint64 {
	if !present {
		return 0
	}
	v := b.uvarint()
	if v == 0 {
		b.bad = true
	}
	return v
}

// decodeMessage reads the rest of the body as a message.
func decodeMessage(b *body, clk Clock) (*mqtt.Message, error) {
	flags := b.byte()
	if flags >= msgEnd || flags&3 == 3 {
		return nil, ErrRecord
	}
	m := &mqtt.Message{QoS: mqtt.QoS(flags & 3), Retain: flags&msgRetain != 0}
	m.ID = b.number(flags&msgID != 0)
	b.number(flags&msgFrom != 0)
	m.Expires = clk.mono(b.number(flags&msgExpires != 0))
	topic := b.bytes()
	var props []byte
	if flags&msgProps != 0 {
		if props = b.bytes(); len(props) == 0 {
			b.bad = true
		}
	}
	if b.bad {
		return nil, ErrRecord
	}
	buf := make([]byte, 0, len(topic)+len(props)+len(b.b))
	buf = append(append(append(buf, topic...), props...), b.b...)
	t, p := len(topic), len(topic)+len(props)
	m.Topic, m.Payload = buf[:t:t], buf[p:]
	if len(props) > 0 {
		m.Props = buf[t:p:p]
	}
	return m, nil
}

// EntryHead is what a queue entry says without its message.
type EntryHead struct {
	Ref   uint64 // id of the message's own record, 0: the message is in the entry, or the entry is released
	Bytes int64  // topic, properties and payload

	Until          int64 // Entry.Until
	QoS2, Released bool
}

// The bits of an entry's flags.
const (
	entryQoS2 = 1 << iota
	entryRetain
	entryReleased
	entrySubIDs
	entryRef
	entryShared
	entryUntil
	entryEnd
)

// AppendEntry appends a record of a queue entry. With ref 0 it contains the
// message, else it refers to the message's own record.
func AppendEntry(dst, key []byte, e *Entry, ref uint64, clk Clock) []byte {
	start := len(dst)
	var flags byte
	if e.QoS == 2 {
		flags |= entryQoS2
	}
	if e.Retain {
		flags |= entryRetain
	}
	if e.Released {
		return seal(append(begin(dst, recEntry), flags|entryReleased), start, key)
	}
	if len(e.SubIDs) > 0 {
		flags |= entrySubIDs
	}
	if ref != 0 {
		flags |= entryRef
	}
	if e.Shared {
		flags |= entryShared
	}
	until := clk.expiry(e.Until)
	if until != 0 {
		flags |= entryUntil
	}
	dst = append(begin(dst, recEntry), flags)
	if until != 0 {
		dst = binary.AppendUvarint(dst, until)
	}
	if len(e.SubIDs) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(e.SubIDs)))
		for _, id := range e.SubIDs {
			dst = binary.AppendUvarint(dst, uint64(id))
		}
	}
	if ref != 0 {
		dst = binary.AppendUvarint(dst, ref)
		dst = binary.AppendUvarint(dst, uint64(messageBytes(e.Msg)))
	} else {
		dst = appendMessage(dst, e.Msg, clk)
	}
	return seal(dst, start, key)
}

// DecodeEntry reads a record of a queue entry, into new memory. Entry.Msg is
// nil if the head has a Ref; Entry.Seq is not set.
func DecodeEntry(key, rec []byte, clk Clock) (e Entry, h EntryHead, err error) {
	b, err := unseal(key, rec, recEntry)
	if err != nil {
		return e, h, err
	}
	flags := b.entryFlags()
	e.QoS = 1 + mqtt.QoS(flags&entryQoS2)
	e.Retain, e.Released, e.Shared = flags&entryRetain != 0, flags&entryReleased != 0, flags&entryShared != 0
	h.QoS2, h.Released = e.QoS == 2, e.Released
	if e.Released || b.bad {
		return e, h, b.end()
	}
	e.Until = clk.mono(b.number(flags&entryUntil != 0))
	h.Until = e.Until
	if flags&entrySubIDs != 0 {
		n := b.length()
		b.bad = b.bad || n == 0
		e.SubIDs = make([]uint32, n)
		for i := range e.SubIDs {
			e.SubIDs[i] = b.uint32()
		}
	}
	if flags&entryRef != 0 {
		h.Ref, h.Bytes = b.number(true), b.int64()
		return e, h, b.end()
	}
	if b.bad {
		return e, h, ErrRecord
	}
	if e.Msg, err = decodeMessage(&b, clk); err == nil {
		h.Bytes = messageBytes(e.Msg)
	}
	return e, h, err
}

// DecodeEntryHead reads the head of a record that DecodeEntry would accept,
// without allocating.
func DecodeEntryHead(key, rec []byte, clk Clock) (h EntryHead, err error) {
	b, err := unseal(key, rec, recEntry)
	if err != nil {
		return h, err
	}
	flags := b.entryFlags()
	h.QoS2, h.Released = flags&entryQoS2 != 0, flags&entryReleased != 0
	if h.Released || b.bad {
		return h, b.end()
	}
	h.Until = clk.mono(b.number(flags&entryUntil != 0))
	if flags&entrySubIDs != 0 {
		for n := b.length(); n > 0; n-- {
			b.uint32()
		}
	}
	if flags&entryRef != 0 {
		h.Ref, h.Bytes = b.number(true), b.int64()
		return h, b.end()
	}
	msg := b.byte()
	for _, bit := range [...]byte{msgID, msgFrom, msgExpires} {
		b.number(msg&bit != 0)
	}
	h.Bytes = int64(len(b.bytes()))
	if msg&msgProps != 0 {
		h.Bytes += int64(len(b.bytes()))
	}
	h.Bytes += int64(len(b.b))
	if b.bad {
		return EntryHead{}, ErrRecord
	}
	return h, nil
}

func (b *body) entryFlags() byte {
	flags := b.byte()
	if flags >= entryEnd || flags&entryReleased != 0 && flags&^(entryQoS2|entryRetain|entryReleased) != 0 {
		b.bad = true
	}
	return flags
}

// AppendWill appends a record of a will.
func AppendWill(dst, key []byte, w *Will, clk Clock) []byte {
	start := len(dst)
	dst = begin(dst, recWill)
	dst = binary.AppendUvarint(dst, clk.expiry(w.Due))
	if w.HasExpiry {
		dst = binary.AppendUvarint(append(dst, 1), uint64(w.ExpirySeconds))
	} else {
		dst = append(dst, 0)
	}
	return seal(appendMessage(dst, w.Msg, clk), start, key)
}

// DecodeWill reads a record of a will, into new memory.
func DecodeWill(key, rec []byte, clk Clock) (w Will, err error) {
	b, err := unseal(key, rec, recWill)
	if err != nil {
		return w, err
	}
	w.Due = clk.mono(b.uvarint())
	switch b.byte() {
	case 0:
	case 1:
		w.HasExpiry, w.ExpirySeconds = true, b.uint32()
	default:
		b.bad = true
	}
	if b.bad {
		return w, ErrRecord
	}
	w.Msg, err = decodeMessage(&b, clk)
	return w, err
}
