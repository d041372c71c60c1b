package broker

import (
	"errors"
	"io"

	"sluice/persist"
)

// Announce publishes what the broker or what belongs to it has to tell, such as
// the state of bridges under $SYS: with QoS 0, retained, in memory only. An empty
// payload takes it back. The topic must be a valid name, and the payload may not
// be changed any more.
func (b *Broker) Announce(topic string, payload []byte) { b.group.Announce(topic, payload) }

// Backlog tells how many messages, and bytes of them, are in the store for a
// client's session, in both its lanes, those on their way to it included. known is false if there
// is no such session, or the store cannot tell.
func (b *Broker) Backlog(clientID string) (messages, bytes int64, known bool) {
	queues, ok := b.store.(persist.Queues)
	if !ok {
		return 0, 0, false
	}
	answer := make(chan uint64, 1)
	b.group.Durable(clientID, answer)
	id := uint64(0)
	select {
	case id = <-answer:
	case <-b.broken:
	case <-b.closed:
	}
	if id == 0 {
		return 0, 0, false
	}
	// A queue that holds nothing and has no limits is not told.
	for _, q := range queues.QueueStats(nil) {
		if q.Session == id || q.Session == persist.PriorityOf(id) {
			messages, bytes = messages+q.Messages, bytes+q.Bytes
		}
	}
	return messages, bytes, true
}

// Backup writes a copy of the store, as of some commit, while everything goes on, and gives
// its size and the number of the commit. A store without a file is an error.
func (b *Broker) Backup(w io.Writer) (bytes int64, commit uint64, err error) {
	s, ok := b.store.(interface {
		Backup(w io.Writer) (int64, uint64, error)
	})
	if !ok {
		return 0, 0, errors.New("the store has no file")
	}
	return s.Backup(w)
}
