package topic

// Subscription is one subscription of one subscriber. It is a value of 24
// bytes without pointers: the Index keeps copies and hands out copies.
type Subscription struct {
	Subscriber  uint64 // who: unique in the Index per filter
	Durable     uint64 // the subscriber's id in the store, or 0: nothing needs to be stored for it
	ID          uint32 // subscription identifier (MQTT5 3.8.2.1.2), 0: none
	QoS         uint8  // maximum QoS granted: 0, 1, 2
	NoLocal     bool   // MQTT5 3.8.3.1
	AsPublished bool   // retain as published
	Marks       Marks
}

// Marks say what else is to be known of a subscription when it is hit.
type Marks uint8

const (
	// Shared: it came through a $share filter. Set by the Index, ignored in what
	// is handed to it.
	Shared Marks = 1 << iota
	// Guarded: not all that the filter matches may be received; whoever sends
	// must ask for each topic.
	Guarded
	// Away: the subscriber is not connected. Of a share group it is passed over
	// as long as others are there.
	Away
)

// Shared tells whether the subscription came through a $share filter.
func (s *Subscription) Shared() bool { return s.Marks&Shared != 0 }
