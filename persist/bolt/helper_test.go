package bolt

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// openAt opens and loads a store in a directory.
func openAt(t testing.TB, dir string) (*Store, *answers, *persist.Image) {
	t.Helper()
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.CommitInterval = dir, a, time.Millisecond
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	image, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return s, a, image
}

// durable submits ops and waits until they are on disk.
func durable(s *Store, a *answers, ops ...persist.Op) []persist.Op {
	var b persist.Batch
	b.Begin(persist.Token{})
	for _, op := range ops {
		b.Add(op)
	}
	b.End()
	a.mu.Lock()
	n := a.settled
	a.mu.Unlock()
	s.Submit(&b)
	a.waitSettled(n + 1)
	return b.Ops
}

func msg(s *Store, payload string) *mqtt.Message {
	return &mqtt.Message{Topic: []byte("t"), Payload: []byte(payload), ID: s.NewMessageID()}
}

func put(id uint64) persist.Op {
	return persist.Op{Kind: persist.OpPutSession, Sess: &persist.Session{ID: id, ClientID: fmt.Sprint("client", id)}}
}

func enq(id uint64, m *mqtt.Message) persist.Op {
	return persist.Op{Kind: persist.OpEnqueue, ID: id, Entry: persist.Entry{Msg: m, QoS: 1}}
}

// fill makes a store with some of everything.
func fill(t *testing.T, dir string, clean bool) {
	s, a, _ := openAt(t, dir)
	var ids []uint64
	for range 3 {
		ids = append(ids, s.NewSessionID())
		durable(s, a, put(ids[len(ids)-1]))
	}
	for i := range 60 {
		m := msg(s, fmt.Sprintf("payload-%d-%s", i, strings.Repeat("x", 50*i)))
		ops := []persist.Op{
			enq(ids[i%3], m),
			{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: &mqtt.Message{Topic: fmt.Appendf(nil, "r/%d", i%20), Payload: m.Payload}}},
			{Kind: persist.OpPutSubscription, ID: ids[i%3], Sub: &persist.Subscription{Filter: fmt.Sprint("f", i)}},
			{Kind: persist.OpPutInbound, ID: ids[i%3], PacketID: uint16(i + 1)},
		}
		if i%4 == 0 {
			ops = append(ops, enq(ids[(i+1)%3], m))
		}
		durable(s, a, ops...)
		if i%5 == 0 {
			durable(s, a, persist.Op{Kind: persist.OpDequeue, ID: ids[0], Seq: uint64(i / 5)})
		}
	}
	if !clean {
		s.kill()
	} else if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// use does a bit of everything with a store that was opened from a damaged file.
func use(t *testing.T, s *Store, a *answers, image *persist.Image) {
	t.Helper()
	id := s.NewSessionID()
	ops := []persist.Op{put(id), enq(id, msg(s, "new"))}
	for _, sess := range image.Sessions {
		if sess.ID >= id {
			t.Fatalf("new session %d, there is %d", id, sess.ID)
		}
		entries := fetchAll(s, a, sess.ID)
		for i, e := range entries {
			if i%2 == 0 {
				ops = append(ops, persist.Op{Kind: persist.OpDequeue, ID: sess.ID, Seq: e.Seq})
			}
		}
		ops = append(ops, enq(sess.ID, msg(s, "new")))
	}
	durable(s, a, ops...)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}
