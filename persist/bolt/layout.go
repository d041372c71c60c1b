package bolt

import (
	"crypto/sha256"
	"encoding/binary"

	"go.etcd.io/bbolt"

	"sluice/persist"
)

// schema is the version of the layout that this program writes. 2 added wills,
// the limits of queues, Entry.Shared and Entry.Until, and left out
// Message.From; it reads all that 1 wrote.
const schema = 2

var (
	bucketMeta     = []byte("meta")
	bucketSession  = []byte("session")
	bucketSub      = []byte("sub")
	bucketInbound  = []byte("inbound")
	bucketCounter  = []byte("counter")
	bucketQueue    = []byte("queue")
	bucketMessage  = []byte("message")
	bucketRef      = []byte("ref")
	bucketRetained = []byte("retained")
	bucketWill     = []byte("will")

	bucketNames = [][]byte{
		bucketMeta, bucketSession, bucketSub, bucketInbound, bucketCounter,
		bucketQueue, bucketMessage, bucketRef, bucketRetained, bucketWill,
	}

	keySchema = []byte("schema")
	keyState  = []byte("state")
)

// bucketsFirst is how many of bucketNames each file has, from the first schema
// on. The others come with the first change.
const bucketsFirst = 9

// buckets are all buckets in one transaction.
type buckets struct {
	meta, session, sub, inbound, counter, queue, message, ref, retained, will *bbolt.Bucket
}

func bucketsOf(tx *bbolt.Tx) (b buckets) {
	for i, p := range []**bbolt.Bucket{
		&b.meta, &b.session, &b.sub, &b.inbound, &b.counter, &b.queue, &b.message, &b.ref, &b.retained, &b.will,
	} {
		*p = tx.Bucket(bucketNames[i])
	}
	return b
}

// fill sets how full pages are made. Queues and messages grow at their ends,
// so full pages stay as they are.
func (b *buckets) fill() {
	b.queue.FillPercent, b.message.FillPercent, b.ref.FillPercent = 1, 1, 1
}

// prefix is a key, or the first part of one, that is a session or message id.
type prefix [8]byte

func idKey(id uint64) (k prefix) {
	binary.BigEndian.PutUint64(k[:], id)
	return k
}

// idOf gives the id that a key begins with.
func idOf(key []byte) (id uint64, ok bool) {
	if len(key) < 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(key), true
}

func queueKey(id, seq uint64) (k [16]byte) {
	binary.BigEndian.PutUint64(k[:], id)
	binary.BigEndian.PutUint64(k[8:], seq)
	return k
}

func inboundKey(id uint64, packetID uint16) (k [10]byte) {
	binary.BigEndian.PutUint64(k[:], id)
	binary.BigEndian.PutUint16(k[8:], packetID)
	return k
}

func partKey(id uint64, part uint32) (k [12]byte) {
	binary.BigEndian.PutUint64(k[:], id)
	binary.BigEndian.PutUint32(k[8:], part)
	return k
}

// longName is the length from which on a filter or topic is hashed in keys:
// bbolt takes keys up to 32 KiB, MQTT allows twice that, and long keys are
// repeated in branch pages.
const longName = 512

// appendName appends a topic or filter as part of a key.
func appendName(dst []byte, name string) []byte {
	if len(name) > longName {
		sum := sha256.Sum256([]byte(name))
		return append(append(dst, 1), sum[:]...)
	}
	return append(append(dst, 0), name...)
}

func subKey(id uint64, filter string) []byte {
	k := idKey(id)
	return appendName(k[:], filter)
}

func retainedKey(topic string) []byte { return appendName(nil, topic) }

// createBuckets makes an empty store of an empty file.
func createBuckets(tx *bbolt.Tx) error {
	for _, name := range bucketNames[:bucketsFirst] {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return upgrade(tx)
}

// upgrade makes a file of an older schema one of this, as part of a transaction
// that changes something: so it needs no room on a full disk before there is
// some, and a file that is only read stays as it is.
func upgrade(tx *bbolt.Tx) error {
	for _, name := range bucketNames[bucketsFirst:] {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMeta).Put(keySchema, persist.AppendNumber(nil, keySchema, schema))
}
