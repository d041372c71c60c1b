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
	Shared      bool   // came through a $share filter; set by the Index, ignored in what is handed to it
}
