package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// Inspection is an overview of a store.
type Inspection struct {
	Path             string        `json:"path"`
	FileBytes        int64         `json:"file_bytes"`
	UsedBytes        int64         `json:"used_bytes"` // of the file, by pages that hold something or did
	Schema           uint64        `json:"schema"`
	Clean            bool          `json:"clean"`         // closed properly
	ClockSeconds     int64         `json:"clock_seconds"` // for how long the store has been open in its life
	Boot             uint64        `json:"boot"`          // how often it was opened
	Commit           uint64        `json:"commit"`        // number of its last transaction
	Sessions         []SessionInfo `json:"sessions"`
	QueuedMessages   int64         `json:"queued_messages"`
	QueuedBytes      int64         `json:"queued_bytes"`
	RetainedMessages int64         `json:"retained_messages"`
	RetainedBytes    int64         `json:"retained_bytes"`
	DamagedRecords   uint64        `json:"damaged_records"` // of those looked at
}

// SessionInfo is an overview of a session.
type SessionInfo struct {
	ID            uint64              `json:"id"`
	Priority      bool                `json:"priority,omitempty"` // its queue for messages with priority
	ClientID      string              `json:"client_id"`
	Username      string              `json:"username,omitempty"`
	Version       mqtt.Version        `json:"version"`
	ExpirySeconds uint32              `json:"expiry_seconds"`
	Subscriptions int                 `json:"subscriptions"`
	Inbound       int                 `json:"inbound"` // QoS 2 packet ids received and not released
	Messages      int64               `json:"messages"`
	Bytes         int64               `json:"bytes"`
	Head          uint64              `json:"head"`
	Tail          uint64              `json:"tail"`
	Will          bool                `json:"will"`
	Limits        persist.QueueLimits `json:"limits"`
}

// Inspect gives an overview of a stopped store.
func Inspect(path string) (*Inspection, error) {
	s, err := openStopped(path)
	if err != nil {
		return nil, err
	}
	defer s.close()
	in := &Inspection{Path: s.path, FileBytes: s.bytes, Clean: s.clean}
	err = s.view(func(tx *bbolt.Tx) error {
		in.UsedBytes = tx.Size()
		in.Schema, _ = persist.DecodeNumber(keySchema, tx.Bucket(bucketMeta).Get(keySchema))
		l := newLoader(tx, 0)
		l.read()
		in.ClockSeconds, in.Boot, in.Commit = l.state.Seconds, l.state.Boot, l.state.Commit
		in.DamagedRecords = l.skipped
		for i := range l.image.Sessions {
			x := &l.image.Sessions[i]
			id, priority := persist.OfPriority(x.ID)
			in.Sessions = append(in.Sessions, SessionInfo{
				ID: id, Priority: priority, ClientID: x.ClientID, Username: x.Username, Version: x.Version, ExpirySeconds: x.ExpirySeconds,
				Subscriptions: len(x.Subscriptions), Inbound: len(x.Inbound), Messages: l.queues[i].Depth, Bytes: l.queues[i].Bytes,
				Head: x.Head, Tail: x.Tail, Will: x.Will != nil, Limits: x.Queue,
			})
			in.QueuedMessages += l.queues[i].Depth
			in.QueuedBytes += l.queues[i].Bytes
		}
		for _, m := range l.image.Retained {
			in.RetainedMessages++
			in.RetainedBytes += messageBytes(m)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return in, nil
}

// Record is one record of a store, as Dump gives it. Which fields mean
// something depends on Kind: session, subscription, inbound, will, entry or
// retained.
type Record struct {
	Kind         string                `json:"kind"`
	Session      uint64                `json:"session,omitempty"`
	Seq          uint64                `json:"seq,omitempty"`
	PacketID     uint16                `json:"packet_id,omitempty"`
	ClientID     string                `json:"client_id,omitempty"`
	Subscription *persist.Subscription `json:"subscription,omitempty"`
	Topic        string                `json:"topic,omitempty"`
	Payload      []byte                `json:"payload,omitempty"`
	Props        []byte                `json:"props,omitempty"` // MQTT 5, in wire form
	QoS          mqtt.QoS              `json:"qos"`             // of an entry: to this receiver
	Retain       bool                  `json:"retain,omitempty"`
	Released     bool                  `json:"released,omitempty"`
	Shared       bool                  `json:"shared,omitempty"`
	SubIDs       []uint32              `json:"subscription_ids,omitempty"`
	ExpiresIn    *int64                `json:"expires_in_seconds,omitempty"` // of the store's clock
	DueIn        *int64                `json:"due_in_seconds,omitempty"`
	Damaged      bool                  `json:"damaged,omitempty"` // what else is said may be missing
}

func (r *Record) message(m *mqtt.Message) {
	if m == nil {
		return
	}
	r.Topic, r.Payload, r.Props = string(m.Topic), m.Payload, m.Props
	r.ExpiresIn = inSeconds(m.Expires)
}

// dumpNow is the instant of the store's clock at which a dump is made.
const dumpNow = int64(1) << 61

func inSeconds(at int64) *int64 {
	if at == 0 {
		return nil
	}
	s := (at - dumpNow) / 1e9
	return &s
}

// Dump gives all records of a stopped store, sessions first, until f gives an
// error.
func Dump(path string, f func(r *Record) error) error {
	s, err := openStopped(path)
	if err != nil {
		return err
	}
	defer s.close()
	return s.view(func(tx *bbolt.Tx) error {
		l := newLoader(tx, dumpNow)
		l.loadState()
		l.clk = persist.Clock{Seconds: l.state.Seconds, Mono: dumpNow}
		for _, b := range []struct {
			bucket *bbolt.Bucket
			read   func(k, v []byte) *Record
		}{
			{l.b.session, l.dumpSession}, {l.b.sub, l.dumpSub}, {l.b.inbound, l.dumpInbound},
			{l.b.will, l.dumpWill}, {l.b.queue, l.dumpEntry}, {l.b.retained, l.dumpRetained},
		} {
			if b.bucket == nil {
				continue
			}
			c := b.bucket.Cursor()
			for k, v := c.First(); k != nil; k, v = c.Next() {
				if err := f(b.read(k, v)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (l *loader) dumpSession(k, v []byte) *Record {
	s, err := persist.DecodeSession(k, v)
	id, _ := idOf(k)
	return &Record{Kind: "session", Session: id, ClientID: s.ClientID, Damaged: err != nil}
}

func (l *loader) dumpSub(k, v []byte) *Record {
	sub, err := persist.DecodeSubscription(k, v)
	id, _ := idOf(k)
	return &Record{Kind: "subscription", Session: id, Subscription: &sub, QoS: sub.QoS, Damaged: err != nil}
}

func (l *loader) dumpInbound(k, _ []byte) *Record {
	r := &Record{Kind: "inbound", Damaged: len(k) != 10}
	if !r.Damaged {
		r.Session, r.PacketID = binary.BigEndian.Uint64(k), binary.BigEndian.Uint16(k[8:])
	}
	return r
}

func (l *loader) dumpWill(k, v []byte) *Record {
	w, err := persist.DecodeWill(k, v, l.clk)
	id, _ := idOf(k)
	r := &Record{Kind: "will", Session: id, DueIn: inSeconds(w.Due), Damaged: err != nil}
	if err == nil {
		r.message(w.Msg)
		r.QoS, r.Retain = w.Msg.QoS, w.Msg.Retain
	}
	return r
}

func (l *loader) dumpEntry(k, v []byte) *Record {
	if len(k) != 16 {
		return &Record{Kind: "entry", Damaged: true}
	}
	e, h, err := persist.DecodeEntry(k, v, l.clk)
	if err == nil && h.Ref != 0 {
		e.Msg, err = readMessage(l.b.message, h.Ref, l.clk)
	}
	r := &Record{
		Kind: "entry", Session: binary.BigEndian.Uint64(k), Seq: binary.BigEndian.Uint64(k[8:]), QoS: e.QoS, Retain: e.Retain,
		Released: e.Released, Shared: e.Shared, SubIDs: e.SubIDs, Damaged: err != nil,
	}
	r.message(e.Msg)
	return r
}

func (l *loader) dumpRetained(k, v []byte) *Record {
	m, err := l.retained(k, v)
	r := &Record{Kind: "retained", Damaged: err != nil}
	if err == nil {
		r.message(m)
		r.QoS, r.Retain = m.QoS, true
	}
	return r
}

// CheckReport is the result of Check.
type CheckReport struct {
	Path     string   `json:"path"`
	Sound    bool     `json:"sound"`
	Records  int      `json:"records"`
	Problems []string `json:"problems"` // at most problemsMax
	More     int      `json:"more"`     // problems left out
}

// problemsMax bounds CheckReport.Problems.
const problemsMax = 100

func (r *CheckReport) add(format string, args ...any) {
	r.Sound = false
	if len(r.Problems) >= problemsMax {
		r.More++
		return
	}
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// Check reads all of a stopped store: pages, checksums, and whether what
// refers to something finds it. err is only for a file that cannot be read at
// all, or is in use; a damaged one is a problem in the report.
func Check(path string) (r CheckReport, err error) {
	r = CheckReport{Path: existingFile(path), Sound: true}
	s, err := openStopped(path)
	if isDamage(err) {
		r.add("%v", err)
		return r, nil
	}
	if err != nil {
		return r, err
	}
	defer s.close()
	c := &checker{f: s.f, size: s.bytes, names: make(map[string]bool)}
	if err = c.readMeta(); err == nil { // the quick check may have left out most pages
		c.seen = make([]uint64, c.meta.high/64+1)
		err = c.checkTree(c.meta.root, nil, nil, 0, true)
	}
	if err != nil {
		r.add("%v", err)
		return r, nil
	}
	err = s.view(func(tx *bbolt.Tx) error {
		checkRecords(&r, tx)
		return nil
	})
	if isDamage(err) {
		r.add("%v", err)
		err = nil
	}
	return r, err
}

// checkRecords looks at each record, and at what they say of each other.
func checkRecords(r *CheckReport, tx *bbolt.Tx) {
	l := newLoader(tx, dumpNow)
	for i, b := range []*bbolt.Bucket{l.b.session, l.b.sub, l.b.inbound, l.b.will, l.b.queue, l.b.retained} {
		if b == nil {
			continue
		}
		read := []func(k, v []byte) *Record{l.dumpSession, l.dumpSub, l.dumpInbound, l.dumpWill, l.dumpEntry, l.dumpRetained}[i]
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			r.Records++
			if rec := read(k, v); rec.Damaged {
				r.add("damaged %s record, key %x", rec.Kind, k)
			} else if rec.Kind != "retained" && l.b.session.Get(k[:8]) == nil {
				r.add("%s of session %d, which is not there", rec.Kind, rec.Session)
			}
		}
	}
	m := mender{b: l.b, refs: make(map[uint64]int64), sound: make(map[uint64]bool), queues: make(map[uint64]*persist.Counters)}
	m.look()
	for id, want := range m.queues {
		k := idKey(id)
		if got, err := persist.DecodeCounters(k[:], l.b.counter.Get(k[:])); err != nil || got != *want && want.Depth+want.Bytes > 0 {
			r.add("queue of session %d has %+v, its counters say %+v", id, *want, got)
		}
	}
	for id, n := range m.refs {
		k := idKey(id)
		got := uint64(1)
		if rec := l.b.ref.Get(k[:]); rec != nil {
			got, _ = persist.DecodeNumber(k[:], rec)
		}
		if got != uint64(n) {
			r.add("message %d has %d references, the count says %d", id, n, got)
		}
	}
	for _, d := range m.drop {
		if bytes.Equal(d[0], bucketMessage) {
			r.add("part of a message that nobody refers to, key %x", d[1])
		}
	}
}
