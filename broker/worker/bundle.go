package worker

import (
	"sync"

	"sluice/broker/mqtt"
	"sluice/broker/session"
)

// bundle is messages for the sessions of one worker, from one turn of another.
// It carries the bytes itself (except those of a Message, which is shared), so
// a message of QoS 0 crosses from worker to worker without an allocation:
// bundles are pooled.
type bundle struct {
	bytes []byte
	msgs  []bundleMsg
	to    []bundleTo
	ids   []uint32 // subscription identifiers

	shared int // bytes of the messages that are not in bytes
}

type bundleMsg struct {
	msg                   *mqtt.Message // or, if nil:
	off                   uint32        // of topic, properties, payload in bytes
	topic, props, payload uint32        // lengths
	expires               int64
}

// bundleTo is one delivery.
type bundleTo struct {
	session   uint64
	seq       uint64
	msg       uint32 // index into msgs
	ids, idsN uint32 // part of ids
	qos       mqtt.QoS
	retain    bool
	shared    bool
	urgent    bool
}

// bundleBytesKeep is the capacity up to which a bundle's memory is kept in the pool.
const bundleBytesKeep = 256 << 10

var bundles = sync.Pool{New: func() any { return new(bundle) }}

func (b *bundle) size() int { return len(b.bytes) + b.shared + 48*len(b.msgs) + 40*len(b.to) }

func (b *bundle) release() {
	if cap(b.bytes) > bundleBytesKeep || cap(b.to) > bundleBytesKeep/32 {
		return
	}
	clear(b.msgs)
	b.bytes, b.msgs, b.to, b.ids = b.bytes[:0], b.msgs[:0], b.to[:0], b.ids[:0]
	b.shared = 0
	bundles.Put(b)
}

// put adds a message and gives its index.
func (b *bundle) put(m *publication) uint32 {
	x := bundleMsg{msg: m.msg, expires: m.expires}
	if m.msg != nil {
		b.shared += m.msg.Size()
	} else {
		x.off = uint32(len(b.bytes))
		x.topic, x.payload = uint32(len(m.p.Topic)), uint32(len(m.p.Payload))
		b.bytes = append(b.bytes, m.p.Topic...)
		if len(m.p.Props) > 0 {
			b.bytes = mqtt.AppendForwardProps(b.bytes, m.p)
			x.props = uint32(len(b.bytes)) - x.off - x.topic
		}
		b.bytes = append(b.bytes, m.p.Payload...)
	}
	b.msgs = append(b.msgs, x)
	return uint32(len(b.msgs) - 1)
}

// delivery gives delivery i and the session it is for. It aliases the bundle.
func (b *bundle) delivery(i int) (d session.Delivery, to uint64) {
	t := &b.to[i]
	m := &b.msgs[t.msg]
	d = session.Delivery{Msg: m.msg, Seq: t.seq, Expires: m.expires, QoS: t.qos, Retain: t.retain, Shared: t.shared, Priority: t.urgent && !canaryLaneForgotten,
		SubIDs: b.ids[t.ids : t.ids+t.idsN]}
	if m.msg != nil {
		d.Topic, d.Props, d.Payload = m.msg.Topic, m.msg.Props, m.msg.Payload
		return d, t.session
	}
	x := b.bytes[m.off:]
	d.Topic = x[:m.topic]
	d.Props = x[m.topic : m.topic+m.props]
	d.Payload = x[m.topic+m.props : m.topic+m.props+m.payload]
	return d, t.session
}

// add adds a delivery of a message.
func (b *bundle) add(t bundleTo, ids []uint32) {
	t.ids, t.idsN = uint32(len(b.ids)), uint32(len(ids))
	b.ids = append(b.ids, ids...)
	b.to = append(b.to, t)
}
