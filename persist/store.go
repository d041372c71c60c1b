package persist

import (
	"time"

	"sluice/broker/mqtt"
)

// Store keeps what must outlive a connection. Submit and Fetch may be called
// from any goroutine and never wait for the disk.
type Store interface {
	// Load gives everything but the messages in the queues, as of the last
	// Close or crash. It is called once, before anything else.
	Load() (*Image, error)

	// NewSessionID gives a session id never used before in this store.
	NewSessionID() uint64

	// NewMessageID gives an id for a message, unique among all in the store.
	NewMessageID() uint64

	// Submit takes over the batch's ops, in order, and writes the sequence
	// number of every Enqueue into its Op (0: the queue does not exist, or is
	// full and drops the newest, or the group was refused: the op had no
	// effect; sequence numbers begin at 1). Batch.Refused tells which groups were
	// refused; Events.Settled tells it, too. The batch may be Reset and
	// used again as soon as Submit returns. Messages are kept by reference
	// until written.
	Submit(b *Batch)

	// Fetch asks for messages of a queue; the answer comes through
	// Events.Fetched, to r.Owner, never from within Fetch. See Fetch.
	Fetch(r FetchRequest)

	// Stats gives counters for metrics.
	Stats() Stats

	// Close commits what is pending, reports it settled, and releases the
	// files. No Submit or Fetch may follow.
	Close() error
}

// Events is how a store answers. The methods are called from the store's own
// goroutines, or from within a Submit of any goroutine (Settled only); they
// must not block and must not call the store.
type Events interface {
	// Settled names groups that are settled, by owner. err is nil, or says
	// why they cannot be stored; then nothing of them will be, and they must
	// not be acknowledged as successful. The slice may be kept.
	Settled(owner int, tokens []Token, err error)

	// Fetched answers a FetchRequest.
	Fetched(owner int, f Fetched)
}

// Token names a group to its owner. The store does not look into it.
type Token struct {
	Session uint64 // the worker's id of the session that waits
	Index   uint32 // which of its acknowledgements
	Epoch   uint32 // which of its connections
}

// FetchRequest asks for the messages of queue Session from sequence number
// From on, in order, at most MaxMessages and, beyond the first, MaxBytes of
// topic, properties and payload.
//
// An entry of effective QoS 2 that is not on disk yet is not given out (its
// packet id must survive a crash before the client sees it): the answer ends
// before it. If it is the first, the answer waits for the commit.
//
// A store may give fewer messages than there are; from Next on there are more.
// The answer is of some moment between Fetch and Fetched: what was dequeued in
// between may be in it, what was enqueued may not.
type FetchRequest struct {
	Owner       int    // whom to answer
	Tag         uint64 // comes back in the answer: the worker's id of the session
	Epoch       uint32 // comes back in the answer
	Session     uint64 // queue
	From        uint64
	MaxMessages int
	MaxBytes    int
}

// Fetched is the answer to a FetchRequest. Entries may be empty when there is
// nothing from From on. Next is the sequence number to go on from; it may be
// beyond the last entry's successor, over numbers that are gone. The messages
// are immutable and may be kept.
type Fetched struct {
	Tag     uint64
	Epoch   uint32
	Session uint64
	From    uint64
	Next    uint64
	Entries []Entry
	Err     error // the disk could not be read: the owner asks again later
}

// Entry is a message in a queue, with how it is to be delivered to this
// receiver.
type Entry struct {
	Seq      uint64
	Msg      *mqtt.Message // nil once Released
	SubIDs   []uint32      // MQTT 5 subscription identifiers, nil for none
	QoS      mqtt.QoS      // effective: the lower of publication and subscription, 1 or 2
	Retain   bool          // retain flag to send
	Released bool          // QoS 2: PUBREC came, PUBREL is next; the message itself is gone
	Shared   bool          // came through a shared subscription
	Until    int64         // set by the store: when it becomes too old for its queue, as a reading of the clock of Message.Expires; 0: never
}

// Session is the durable part of a session that is not messages.
type Session struct {
	ID            uint64
	ClientID      string
	Username      string
	Version       mqtt.Version
	ExpirySeconds uint32 // 0xFFFFFFFF: never expires
	Queue         QueueLimits
}

// NoExpiry as ExpirySeconds means that the session does not expire (MQTT5 3.1.2.11.2).
const NoExpiry = 0xFFFFFFFF

// Subscription is a durable session's subscription. Filter is as the client
// gave it, including $share.
type Subscription struct {
	Filter            string
	ID                uint32
	QoS               mqtt.QoS
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    uint8
}

// Will is a will whose delay is running: its connection has ended.
type Will struct {
	Msg           *mqtt.Message // Expires is 0: that is counted from the publication
	Due           int64         // when it is to be published, as a reading of the clock of Message.Expires; time for which the store is closed does not count
	ExpirySeconds uint32        // message expiry
	HasExpiry     bool
}

// SessionImage is a session as Load finds it.
type SessionImage struct {
	Session
	Subscriptions []Subscription
	Inbound       []uint16 // QoS 2 packet ids received and not released
	Head          uint64   // lowest sequence number in the queue; Tail if empty
	Tail          uint64   // the sequence number that the next message will get, at least 1
	QueuedBytes   int64
	Will          *Will // nil: none
}

// Image is what Load gives, in a fixed order: sessions by ID, subscriptions
// in the order they were made if the store knows it, else by filter; retained
// by topic. The ids of retained messages may be new ones.
type Image struct {
	Sessions []SessionImage
	Retained []*mqtt.Message
	Boot     uint64 // how often the store has been opened; it orders what no clock can
}

// Stats are counters since the store was opened, and gauges.
type Stats struct {
	Commits        uint64 // transactions written
	CommitErrors   uint64
	BytesSubmitted uint64 // message bytes enqueued
	BytesWritten   uint64 // to the disk, by the store
	Cancelled      uint64 // enqueues that never touched the disk
	Enqueued       uint64
	Dequeued       uint64
	FileBytes      int64
	QueuedMessages int64 // in all queues
	QueuedBytes    int64
	PendingBytes   int64 // in memory, not yet on disk
	Err            error // why the last commit failed, nil if it did not

	Refused          uint64        // groups settled with ErrFull, and messages without a group that did not fit
	Skipped          uint64        // records that were damaged and left out
	CommitInterval   time.Duration // at present; longer than configured while the write budget is short
	CommitsLastHour  uint64
	WriteBudgetBytes int64         // per day, 0: none
	WriteBudgetUsed  float64       // how much of what may be written ahead is used: from 0.5 on commits become rarer, above 1 the budget is exceeded
	BytesToday       uint64        // written in this day of the store's clock, which runs while the store is open; across restarts
	CommitTime       time.Duration // of the last commit, with its syncs
	CommitTimeMax    time.Duration
	Boot             uint64 // how often the store has been opened
	CommitNumber     uint64 // of the last transaction, over the life of the store

	Drops       Drops  // messages not kept, by reason, of all queues; of each: see Queues
	Quarantined string // where a damaged file was moved to when the store was opened, "" if it was sound
	Salvaged    int    // records that could be read of it, and are in use
}

// BytesPerMessage is what was written for each message that was submitted, 0 if
// there was none.
func (s *Stats) BytesPerMessage() float64 {
	if s.Enqueued == 0 {
		return 0
	}
	return float64(s.BytesWritten) / float64(s.Enqueued)
}
