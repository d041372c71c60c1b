package persist

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"sluice/broker/mqtt"
)

var testClock = Clock{Seconds: 1_000_000, Mono: int64(time.Hour)}

// sampleMessages have a From, which is not written.
func sampleMessages() []*mqtt.Message {
	return []*mqtt.Message{
		{Topic: []byte("t"), Payload: []byte{}},
		{Topic: []byte("a/b"), Payload: []byte("x"), QoS: 2, Retain: true, ID: 1<<63 + 1, From: 77, Props: []byte{1, 1}, Expires: int64(2 * time.Hour)},
		{Topic: bytes.Repeat([]byte("n"), 65535), Payload: make([]byte, 3000), QoS: 1, ID: 5},
		{Topic: []byte("t"), Payload: []byte("expired"), Expires: int64(time.Second)},
	}
}

func sampleEntries() (list []Entry) {
	for _, m := range sampleMessages() {
		list = append(list, Entry{Msg: m, QoS: 1}, Entry{Msg: m, QoS: 2, Retain: true, SubIDs: []uint32{1, 268435455}})
	}
	for _, e := range list {
		e.Shared, e.Until = true, int64(3*time.Hour)
		list = append(list, e)
	}
	return append(list, Entry{QoS: 2, Released: true}, Entry{QoS: 1, Released: true, Retain: true})
}

func sampleSessions() []Session {
	return []Session{{ID: 1}, {ID: 2, ClientID: "q", Queue: QueueLimits{Messages: 1000, Bytes: 1 << 40, AgeSeconds: NoExpiry, Policy: DropNewest}}, {ID: math.MaxUint64, ClientID: "c", Username: "u", Version: mqtt.V311, ExpirySeconds: NoExpiry}}
}

func sampleSubscriptions() []Subscription {
	return []Subscription{
		{Filter: "a/#"},
		{Filter: "$share/g/+", ID: 268435455, QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 2},
	}
}

func sampleWills() (list []Will) {
	for _, m := range sampleMessages() {
		w := *m
		w.Expires = 0
		list = append(list, Will{Msg: &w, Due: int64(2 * time.Hour)}, Will{Msg: &w, HasExpiry: true, ExpirySeconds: 60})
	}
	return list
}

// decode reads a record of any kind and gives what is in it, and its record.
func decode(key, rec []byte) (v any, again []byte, err error) {
	switch {
	case len(rec) < headBytes:
		return nil, nil, ErrRecord
	case rec[4] == recSession || rec[4] == recSessionQueue:
		s, err := DecodeSession(key, rec)
		return s, AppendSession(nil, key, &s), err
	case rec[4] == recSubscription:
		s, err := DecodeSubscription(key, rec)
		return s, AppendSubscription(nil, key, &s), err
	case rec[4] == recCounters:
		c, err := DecodeCounters(key, rec)
		return c, AppendCounters(nil, key, c), err
	case rec[4] == recNumber:
		n, err := DecodeNumber(key, rec)
		return n, AppendNumber(nil, key, n), err
	case rec[4] == recState || rec[4] == recStateBoot:
		s, err := DecodeState(key, rec)
		return s, AppendState(nil, key, s), err
	case rec[4] == recWill:
		w, err := DecodeWill(key, rec, testClock)
		if err != nil {
			return nil, nil, err
		}
		return w, AppendWill(nil, key, &w, testClock), nil
	case rec[4] == recMessage:
		m, err := DecodeMessage(key, rec, testClock)
		if err != nil {
			return nil, nil, err
		}
		return *m, AppendMessage(nil, key, m, testClock), nil
	case rec[4] == recEntry:
		e, h, err := DecodeEntry(key, rec, testClock)
		if err != nil || h.Ref != 0 {
			return e, rec, err
		}
		return e, AppendEntry(nil, key, &e, 0, testClock), nil
	}
	return nil, nil, ErrRecord
}

// samples gives records of all kinds.
func samples(key []byte) (recs [][]byte) {
	for _, m := range sampleMessages() {
		recs = append(recs, AppendMessage(nil, key, m, testClock))
	}
	for _, e := range sampleEntries() {
		recs = append(recs, AppendEntry(nil, key, &e, 0, testClock))
		if !e.Released {
			recs = append(recs, AppendEntry(nil, key, &e, 99, testClock))
		}
	}
	for _, s := range sampleSessions() {
		recs = append(recs, AppendSession(nil, key, &s))
	}
	for _, s := range sampleSubscriptions() {
		recs = append(recs, AppendSubscription(nil, key, &s))
	}
	for _, w := range sampleWills() {
		recs = append(recs, AppendWill(nil, key, &w, testClock))
	}
	return append(recs,
		AppendState(nil, key, State{Boot: 9, Commit: math.MaxUint64, Spent: 1 << 31, Day: 3, DayBytes: 4}),
		AppendCounters(nil, key, Counters{Tail: math.MaxUint64, Depth: 3, Bytes: math.MaxInt64}),
		AppendNumber(nil, key, 300), AppendNumber(nil, key, 0),
		AppendState(nil, key, State{Seconds: 5, SessionID: 6, MessageID: 1 << 60}))
}

func TestRecordsRoundTrip(t *testing.T) {
	key := []byte("key")
	for i, s := range sampleSessions() {
		if got, err := DecodeSession(key, AppendSession(nil, key, &s)); err != nil || got != s {
			t.Errorf("session %d: %+v, %v", i, got, err)
		}
	}
	for i, s := range sampleSubscriptions() {
		if got, err := DecodeSubscription(key, AppendSubscription(nil, key, &s)); err != nil || got != s {
			t.Errorf("subscription %d: %+v, %v", i, got, err)
		}
	}
	for i, w := range sampleWills() {
		got, err := DecodeWill(key, AppendWill(nil, key, &w, testClock), testClock)
		if err != nil || !sameMessage(got.Msg, w.Msg) || got.Due != w.Due || got.HasExpiry != w.HasExpiry || got.ExpirySeconds != w.ExpirySeconds {
			t.Errorf("will %d: %+v, %v", i, got, err)
		}
	}
	for i, m := range sampleMessages() {
		got, err := DecodeMessage(key, AppendMessage([]byte("before")[:0], key, m, testClock), testClock)
		if err != nil || !sameMessage(got, m) {
			t.Errorf("message %d: %+v, %v", i, got, err)
		}
	}
	for i, e := range sampleEntries() {
		rec := AppendEntry(nil, key, &e, 0, testClock)
		got, h, err := DecodeEntry(key, rec, testClock)
		if err != nil || h.Ref != 0 || got.QoS != e.QoS || got.Retain != e.Retain || got.Released != e.Released || got.Shared != e.Shared || got.Until != e.Until {
			t.Fatalf("entry %d: %+v, %v", i, got, err)
		}
		if e.Released {
			continue
		}
		if !sameMessage(got.Msg, e.Msg) || !reflect.DeepEqual(got.SubIDs, e.SubIDs) || h.Bytes != messageBytes(e.Msg) {
			t.Errorf("entry %d: %+v", i, got)
		}
		got, h, err = DecodeEntry(key, AppendEntry(nil, key, &e, 7, testClock), testClock)
		if err != nil || h.Ref != 7 || h.Bytes != messageBytes(e.Msg) || got.Msg != nil {
			t.Errorf("entry %d with reference: %+v, %+v, %v", i, got, h, err)
		}
	}
}

func sameMessage(a, b *mqtt.Message) bool {
	return bytes.Equal(a.Topic, b.Topic) && bytes.Equal(a.Props, b.Props) && bytes.Equal(a.Payload, b.Payload) &&
		a.ID == b.ID && a.QoS == b.QoS && a.Retain == b.Retain && a.Expires == b.Expires
}

// Every change of a record or of its key is noticed.
func TestRecordsDamaged(t *testing.T) {
	key := []byte{1, 2, 3}
	rnd := rand.New(rand.NewPCG(1, 1))
	for i, rec := range samples(key) {
		if _, _, err := decode(key, rec); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if _, _, err := decode([]byte{1, 2, 4}, rec); err == nil {
			t.Errorf("record %d was accepted under another key", i)
		}
		for range 200 {
			bad := bytes.Clone(rec)
			bad[rnd.IntN(len(bad))] ^= 1 << rnd.IntN(8)
			if _, _, err := decode(key, bad); err == nil {
				t.Errorf("record %d was accepted with a bit changed", i)
			}
		}
		if _, _, err := decode(key, rec[:rnd.IntN(len(rec))]); err == nil {
			t.Errorf("record %d was accepted cut short", i)
		}
		if _, _, err := decode(key, append(bytes.Clone(rec), 0)); err == nil {
			t.Errorf("record %d was accepted with a byte more", i)
		}
	}
}

// No decoder panics. What is accepted behind a right checksum is written again
// as the same record, with these exceptions: a record of the first schema, and
// an instant that is out of range, or so long ago that nobody can tell when.
func FuzzRecord(f *testing.F) {
	key := []byte("k")
	for _, rec := range samples(key) {
		if len(rec) < 1000 {
			f.Add(rec[4:])
		}
	}
	f.Fuzz(func(t *testing.T, tail []byte) {
		if _, _, err := decode(key, tail); err == nil && len(tail) > headBytes {
			return // a right checksum by chance
		}
		rec := seal(append(make([]byte, 4), tail...), 0, key)
		v, again, err := decode(key, rec)
		if err != nil || bytes.Equal(again, rec) {
			return
		}
		w, _, err := decode(key, again)
		if err != nil {
			t.Fatalf("%x is accepted, and written as %x, which is not", rec, again)
		}
		if v, w = timeless(v), timeless(w); !reflect.DeepEqual(v, w) {
			t.Fatalf("%+v\nwas written as %+v", v, w)
		}
	})
}

// timeless takes the instants out of what decode gave.
func timeless(v any) any {
	message := func(m *mqtt.Message) *mqtt.Message {
		if m == nil {
			return nil
		}
		c := *m
		c.Expires = 0
		return &c
	}
	switch v := v.(type) {
	case mqtt.Message:
		return *message(&v)
	case Entry:
		v.Until, v.Msg = 0, message(v.Msg)
		return v
	case Will:
		v.Due, v.Msg = 0, message(v.Msg)
		return v
	}
	return v
}

// DecodeEntryHead and DecodeEntry accept the same.
func FuzzEntryHead(f *testing.F) {
	key := []byte("k")
	for _, e := range sampleEntries() {
		if e.Msg == nil || messageBytes(e.Msg) < 1000 {
			f.Add(AppendEntry(nil, key, &e, 0, testClock)[5:])
		}
	}
	f.Fuzz(func(t *testing.T, tail []byte) {
		rec := seal(append(begin(nil, recEntry), tail...), 0, key)
		_, h, err := DecodeEntry(key, rec, testClock)
		head, herr := DecodeEntryHead(key, rec, testClock)
		if err == nil && (herr != nil || head != h) {
			t.Fatalf("head %+v, %v; the entry has %+v", head, herr, h)
		}
	})
}

func TestClock(t *testing.T) {
	c := Clock{Seconds: 100, Mono: int64(50 * time.Second)}
	for _, x := range []struct {
		mono time.Duration
		at   int64
		exp  uint64
	}{
		{50 * time.Second, 100, 100}, {50*time.Second + 1, 100, 101}, {50*time.Second - 1, 99, 100},
		{60 * time.Second, 110, 110}, {1, 50, 51}, {-100 * time.Second, -50, 1},
	} {
		if at, exp := c.At(int64(x.mono)), c.expiry(int64(x.mono)); at != x.at || exp != x.exp {
			t.Errorf("%v: reading %d, expiry %d; want %d and %d", x.mono, at, exp, x.at, x.exp)
		}
	}
	if c.expiry(0) != 0 || c.mono(0) != 0 {
		t.Error("never does not stay never")
	}
	for _, x := range []struct {
		exp  uint64
		mono int64
	}{{100, c.Mono}, {110, c.Mono + int64(10*time.Second)}, {1, 1}, {50, 1}, {51, int64(time.Second)}, {math.MaxUint64, 0}, {1 << 35, 0}} {
		if got := c.mono(x.exp); got != x.mono {
			t.Errorf("expiry %d: %d, want %d", x.exp, got, x.mono)
		}
	}
	far := Clock{Seconds: math.MaxInt64, Mono: 5}
	if got := far.mono(7); got != 1 {
		t.Errorf("long ago: %d", got)
	}
}
