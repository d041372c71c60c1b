package bolt

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
)

// DESIGN. For each schema that was ever released, testdata has a store file as
// that release wrote it, and what must be read from it, as text. Both are made
// once, by the release itself, and never again: a change that makes a test
// here fail would lose somebody's messages.

var writeGolden = flag.Bool("golden", false, "write the golden file of the present schema, if there is none")

// goldenNow is the monotonic clock of the golden stores.
const goldenNow = int64(time.Hour)

// goldenOps are batches with everything that a record can hold.
func goldenOps(newID func() uint64) [][]persist.Op {
	msg := func(topic, payload string) *mqtt.Message {
		return &mqtt.Message{Topic: []byte(topic), Payload: []byte(payload), QoS: 1, ID: newID()}
	}
	full := msg("plant/7/temperature", "21.5")
	full.Props, full.QoS, full.Retain, full.From = []byte{1, 1, 3, 0, 1, 'j'}, 2, true, 77
	full.Expires = goldenNow + int64(500*time.Second)
	shared, long := msg("t", strings.Repeat("shared ", 60)), msg("t", strings.Repeat("long ", 2000))
	name := strings.Repeat("n", 600)
	flagged := enq(3, msg("t", "flagged"))
	flagged.Entry.Shared = true
	will := msg("w", "last words")
	will.QoS, will.Retain = 2, true
	put := func(s persist.Session) persist.Op { return persist.Op{Kind: persist.OpPutSession, Sess: &s} }
	sub := func(id uint64, s persist.Subscription) persist.Op {
		return persist.Op{Kind: persist.OpPutSubscription, ID: id, Sub: &s}
	}
	retained := func(m *mqtt.Message) persist.Op {
		return persist.Op{Kind: persist.OpPutRetained, Entry: persist.Entry{Msg: m}}
	}
	return [][]persist.Op{
		{
			put(persist.Session{ID: 1, ClientID: "one", Username: "user", Version: mqtt.V5, ExpirySeconds: 3600}),
			put(persist.Session{ID: 2, ClientID: "two", Version: mqtt.V311, ExpirySeconds: persist.NoExpiry}),
			put(persist.Session{ID: 3, ClientID: "$bridge/cloud", Version: mqtt.V5, ExpirySeconds: persist.NoExpiry,
				Queue: persist.QueueLimits{Messages: 1 << 40, Bytes: 1 << 50, AgeSeconds: 86400, Policy: persist.DropOldest}}),
		},
		{
			sub(1, persist.Subscription{Filter: "a/+/#", ID: 268435455, QoS: 2, NoLocal: true, RetainHandling: 2}),
			sub(1, persist.Subscription{Filter: "$share/g/a", QoS: 1, RetainAsPublished: true, RetainHandling: 1}),
			sub(2, persist.Subscription{Filter: name}),
			{Kind: persist.OpPutInbound, ID: 1, PacketID: 7}, {Kind: persist.OpPutInbound, ID: 1, PacketID: 65535},
		},
		{
			{Kind: persist.OpEnqueue, ID: 1, Entry: persist.Entry{Msg: full, QoS: 2, Retain: true, SubIDs: []uint32{1, 268435455}}},
			enq(1, msg("t", "")), enq(1, shared), enq(2, shared), enq(3, shared), enq(3, long), enq(2, long),
			{Kind: persist.OpEnqueue, ID: 2, Entry: persist.Entry{Msg: msg("t", "released"), QoS: 2}},
			{Kind: persist.OpEnqueue, ID: 2, Entry: persist.Entry{Msg: msg("t", "gone"), QoS: 1}},
			retained(full), retained(msg("r/long", strings.Repeat("x", 5000))), retained(msg(name, "long name")), retained(msg("r/gone", "x")),
		},
		{
			{Kind: persist.OpRelease, ID: 2, Seq: 3}, {Kind: persist.OpDequeue, ID: 2, Seq: 4}, {Kind: persist.OpDequeue, ID: 1, Seq: 2},
			{Kind: persist.OpPutWill, ID: 2, Will: &persist.Will{Msg: will, Due: goldenNow + int64(600*time.Second), HasExpiry: true, ExpirySeconds: 5}},
			flagged,
			{Kind: persist.OpDeleteInbound, ID: 1, PacketID: 7},
			{Kind: persist.OpDeleteRetained, Entry: persist.Entry{Msg: msg("r/gone", "")}},
		},
	}
}

// makeGolden writes a golden file.
func makeGolden(t *testing.T, file string) {
	dir := t.TempDir()
	s, a := openGolden(t, dir)
	for _, ops := range goldenOps(s.NewMessageID) {
		durable(s, a, ops...)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	z.Write(raw)
	z.Close()
	if err := os.WriteFile(file+".db.gz", b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	s, a = openGolden(t, dir)
	if err := os.WriteFile(file+".txt", []byte(dumpStore(t, s, a)), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func openGolden(t *testing.T, dir string) (*Store, *answers) {
	t.Helper()
	a := newAnswers()
	opt := DefaultOptions()
	opt.Path, opt.Events, opt.Now = dir, a, func() int64 { return goldenNow }
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return s, a
}

// dumpStore gives all that a store has, one line for each record.
func dumpStore(t *testing.T, s *Store, a *answers) string {
	t.Helper()
	image, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	text := func(m *mqtt.Message) string {
		if m == nil {
			return "-"
		}
		left := "never"
		if m.Expires != 0 {
			left = fmt.Sprint(time.Duration(m.Expires - goldenNow).Round(10 * time.Second))
		}
		short := func(p []byte) string {
			if len(p) <= 40 {
				return fmt.Sprintf("%q", p)
			}
			return fmt.Sprintf("%d bytes %08x", len(p), crc32.ChecksumIEEE(p))
		}
		return fmt.Sprintf("topic %s payload %s props %x qos %d retain %v expires %s", short(m.Topic), short(m.Payload), m.Props, m.QoS, m.Retain, left)
	}
	for i := range image.Sessions {
		x := &image.Sessions[i]
		fmt.Fprintf(&b, "session %d client %q user %q version %d expiry %d head %d tail %d bytes %d inbound %v\n",
			x.ID, x.ClientID, x.Username, x.Version, x.ExpirySeconds, x.Head, x.Tail, x.QueuedBytes, x.Inbound)
		for _, sub := range x.Subscriptions {
			sub.Filter = fmt.Sprintf("%.20s(%d)", sub.Filter, len(sub.Filter))
			fmt.Fprintf(&b, "  sub %+v\n", sub)
		}
		if x.Queue != (persist.QueueLimits{}) {
			fmt.Fprintf(&b, "  limits %+v\n", x.Queue)
		}
		if w := x.Will; w != nil {
			fmt.Fprintf(&b, "  will due in %v expiry %v %d: %s\n", time.Duration(w.Due-goldenNow).Round(10*time.Second), w.HasExpiry, w.ExpirySeconds, text(w.Msg))
		}
		for _, e := range fetchAll(s, a, x.ID) {
			if e.Shared || e.Until != 0 {
				fmt.Fprintf(&b, "  shared %v until %v", e.Shared, time.Duration(e.Until-goldenNow).Round(10*time.Second))
			}
			fmt.Fprintf(&b, "  entry %d qos %d retain %v released %v ids %v: %s\n", e.Seq, e.QoS, e.Retain, e.Released, e.SubIDs, text(e.Msg))
		}
	}
	for _, m := range image.Retained {
		fmt.Fprintf(&b, "retained %s\n", text(m))
	}
	return b.String()
}

// unpackGolden puts a golden store into a directory of its own.
func unpackGolden(t *testing.T, file string) (dir string) {
	t.Helper()
	packed, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A store of each released schema is read in full, used, and read again.
func TestGolden(t *testing.T) {
	if name := fmt.Sprintf("testdata/schema%d", schema); *writeGolden {
		if _, err := os.Stat(name + ".txt"); err != nil {
			makeGolden(t, name)
		}
	}
	files, _ := filepath.Glob("testdata/schema*.db.gz")
	slices.Sort(files)
	if len(files) != schema {
		t.Fatalf("%d golden files for %d schemas", len(files), schema)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(strings.TrimSuffix(file, ".db.gz") + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			dir := unpackGolden(t, file)
			for range 3 {
				s, a := openGolden(t, dir)
				if st := s.Stats(); st.Quarantined != "" || st.Skipped != 0 {
					t.Fatalf("%+v", st)
				}
				if got := dumpStore(t, s, a); got != string(want) {
					t.Fatalf("read\n%s\nwant\n%s", got, want)
				}
				m := msg(s, "passing") // a change, so that the file is written
				op := durable(s, a, enq(1, m))[0]
				want = []byte(strings.Replace(string(want), "tail "+fmt.Sprint(op.Seq), "tail "+fmt.Sprint(op.Seq+1), 1))
				durable(s, a, persist.Op{Kind: persist.OpDequeue, ID: 1, Seq: op.Seq})
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
