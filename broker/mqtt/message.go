package mqtt

// Message is an application message on its way through the broker. It belongs
// to nobody: it is immutable from the moment it is shared, and its slices may
// be read by every worker, the committer and the fetcher at once.
type Message struct {
	Topic   []byte // the three are parts of one allocation
	Props   []byte // MQTT 5 properties that belong to the message, in wire form without the length before them; free of hop properties
	Payload []byte

	ID      uint64 // unique among all messages in the store and on the way to it; 0: not assigned (only durable messages need one)
	From    uint64 // the publishing session's id, for no local; 0: none
	Expires int64  // mono.Time (ns) at which it expires; 0: never
	QoS     QoS    // of the publication
	Retain  bool   // as published
}

// NewMessage makes a message of a publication: it copies topic, payload and
// the properties that belong to the message. p.Topic must be the topic itself:
// an alias is resolved before. ID, From and Expires are for the caller to set.
func NewMessage(p *Publish) *Message {
	propsBytes := forwardPropsSize(p)
	buf := make([]byte, 0, len(p.Topic)+propsBytes+len(p.Payload))
	buf = append(buf, p.Topic...)
	buf = AppendForwardProps(buf, p)
	buf = append(buf, p.Payload...)
	a, b := len(p.Topic), len(p.Topic)+propsBytes
	return &Message{
		Topic:   buf[:a:a],
		Props:   buf[a:b:b],
		Payload: buf[b:],
		QoS:     p.QoS,
		Retain:  p.Retain,
	}
}

// Size is how many bytes the message counts for in limits: those of topic,
// properties and payload.
func (m *Message) Size() int { return len(m.Topic) + len(m.Props) + len(m.Payload) }

// View fills p with topic, properties and payload of m and sets everything else
// to zero: QoS, retain, and what belongs to the hop are for the caller to set.
func (m *Message) View(p *Publish) {
	*p = Publish{Topic: m.Topic, Props: m.Props, Payload: m.Payload}
}
