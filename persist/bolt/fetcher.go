package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"

	"go.etcd.io/bbolt"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// DESIGN. The fetcher goroutine answers one request after the other, each with
// a transaction of its own, and gives out at most fetchMessages and fetchBytes
// at a time: nobody waits long for another's answer, and no page is kept from
// being reused for long. Requests that have to wait for a commit are set aside
// until the next round of the committer; rounds counts them, so that none is
// set aside for a round that is over.

const (
	fetchMessages = 1024
	fetchBytes    = 1 << 20
)

type fetcher struct {
	mu       sync.Mutex
	requests []persist.FetchRequest
	waiting  []persist.FetchRequest
	rounds   uint64
	stopped  bool

	wake chan struct{}
	done chan struct{}
}

func (f *fetcher) init() {
	f.wake, f.done = make(chan struct{}, 1), make(chan struct{})
}

func (f *fetcher) kick() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *fetcher) ask(r persist.FetchRequest) {
	f.mu.Lock()
	f.requests = append(f.requests, r)
	f.mu.Unlock()
	f.kick()
}

// retry makes the requests that wait be answered again.
func (f *fetcher) retry() {
	f.mu.Lock()
	f.rounds++
	n := len(f.waiting)
	f.requests = append(f.requests, f.waiting...)
	f.waiting = f.waiting[:0]
	f.mu.Unlock()
	if n > 0 {
		f.kick()
	}
}

// next gives the first request, and the number of the round.
func (f *fetcher) next() (r persist.FetchRequest, round uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.requests) == 0 || f.stopped {
		f.requests = nil
		return r, 0, false
	}
	r = f.requests[0]
	f.requests = f.requests[1:]
	return r, f.rounds, true
}

// wait sets a request aside until the round after the given one.
func (f *fetcher) wait(r persist.FetchRequest, round uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rounds == round {
		f.waiting = append(f.waiting, r)
	} else {
		f.requests = append(f.requests, r)
	}
}

// stop ends the fetcher, and waits for it. What is not answered is lost.
func (f *fetcher) stop() {
	f.mu.Lock()
	f.stopped = true
	f.mu.Unlock()
	f.kick()
	<-f.done
}

func (f *fetcher) isStopped() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stopped
}

// fetchLoop runs until Close.
func (s *Store) fetchLoop() {
	defer close(s.fetcher.done)
	for !s.fetcher.isStopped() {
		for {
			r, round, ok := s.fetcher.next()
			if !ok {
				break
			}
			if f, wait := s.answer(r); wait {
				s.fetcher.wait(r, round)
			} else {
				s.opt.Events.Fetched(r.Owner, f)
			}
		}
		<-s.fetcher.wake
	}
}

// answer reads what r asks for; wait is true if that takes a commit first.
func (s *Store) answer(r persist.FetchRequest) (f persist.Fetched, wait bool) {
	r.MaxMessages = min(max(r.MaxMessages, 1), fetchMessages)
	r.MaxBytes = min(r.MaxBytes, fetchBytes)
	overlay, ok := s.pending.Overlay(r.Session, r.From, r.MaxMessages)
	if !ok {
		return persist.Fetched{Tag: r.Tag, Epoch: r.Epoch, Session: r.Session, From: r.From, Next: r.From}, false
	}
	s.dbMu.RLock()
	defer s.dbMu.RUnlock()
	err := errClosed
	var bad, aged []uint64
	if s.db != nil {
		err = guard(func() error {
			return s.db.View(func(tx *bbolt.Tx) error {
				q := queueReader{tx: tx, clk: s.clk, id: r.Session, from: r.From, limit: overlay.Base, now: s.opt.Now(), handed: overlay.Handed}
				f, wait = overlay.Answer(r, &q)
				bad, aged = q.bad, q.aged
				return nil
			})
		})
	}
	if err != nil {
		return persist.Fetched{Tag: r.Tag, Epoch: r.Epoch, Session: r.Session, From: r.From, Next: r.From, Err: err}, false
	}
	s.skipped.Add(uint64(len(bad)))
	s.drop(r.Session, persist.OpDequeue, bad)
	s.drop(r.Session, persist.OpExpire, aged)
	return f, wait || !s.pending.Handed(&overlay, &f)
}

var errClosed = errors.New("store file is not open")

// drop removes entries that cannot be read, or are too old.
func (s *Store) drop(id uint64, kind persist.OpKind, seqs []uint64) {
	if len(seqs) == 0 {
		return
	}
	var b persist.Batch
	for _, seq := range seqs {
		b.Add(persist.Op{Kind: kind, ID: id, Seq: seq})
	}
	s.Submit(&b)
}

// queueReader reads the committed part of a queue. It implements persist.Reader.
type queueReader struct {
	tx    *bbolt.Tx
	clk   persist.Clock
	id    uint64
	from  uint64
	limit uint64 // beyond it only whether an entry is there is of interest
	c     *bbolt.Cursor
	bad   []uint64

	now    int64  // of Options.Now
	handed uint64 // Overlay.Handed
	aged   []uint64
}

// Next implements persist.Reader.
func (q *queueReader) Next() (e persist.Entry, ok bool, err error) {
	for {
		var k, v []byte
		if q.c == nil {
			q.c = q.tx.Bucket(bucketQueue).Cursor()
			key := queueKey(q.id, q.from)
			k, v = q.c.Seek(key[:])
		} else {
			k, v = q.c.Next()
		}
		if p := idKey(q.id); len(k) != 16 || !bytes.HasPrefix(k, p[:]) {
			return e, false, nil
		}
		seq := binary.BigEndian.Uint64(k[8:])
		if seq >= q.limit {
			return persist.Entry{Seq: seq}, true, nil
		}
		if e, err = q.read(k, v); err == nil {
			e.Seq = seq
			if e.Until == 0 || e.Until > q.now || e.Released || e.QoS == 2 && seq < q.handed {
				return e, true, nil
			}
			q.aged = append(q.aged, seq)
			continue
		}
		q.bad = append(q.bad, seq)
	}
}

func (q *queueReader) read(k, v []byte) (persist.Entry, error) {
	e, h, err := persist.DecodeEntry(k, v, q.clk)
	if err == nil && h.Ref != 0 {
		e.Msg, err = readMessage(q.tx.Bucket(bucketMessage), h.Ref, q.clk)
	}
	return e, err
}

// readMessage reads a message that has a record of its own.
func readMessage(b *bbolt.Bucket, id uint64, clk persist.Clock) (*mqtt.Message, error) {
	p := idKey(id)
	c := b.Cursor()
	k, v := c.Seek(p[:])
	var rec []byte
	for part := uint32(0); len(k) == 12 && bytes.HasPrefix(k, p[:]) && binary.BigEndian.Uint32(k[8:]) == part; part++ {
		if len(v) < partBytes && part == 0 {
			rec = v
			break
		}
		rec = append(rec, v...)
		k, v = c.Next()
	}
	return persist.DecodeMessage(p[:], rec, clk)
}
