package worker

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/broker/mqtt"
)

// parcel is a delivery as it was put into a bundle.
type parcel struct {
	topic, props, payload string
	msg                   *mqtt.Message
	expires               int64
	to                    bundleTo
	ids                   []uint32
}

// randomPublication makes a message, sometimes with properties of the hop,
// which are not sent on, and sometimes as a Message that is shared.
func randomPublication(r *rand.Rand) (publication, parcel) {
	text := func(max int) string { return string(bytes.Repeat([]byte{'a' + byte(r.IntN(26))}, r.IntN(max))) }
	x := parcel{topic: "t/" + text(20), payload: text(300), expires: r.Int64N(3)}
	p := &mqtt.Publish{Topic: []byte(x.topic), Payload: []byte(x.payload)}
	if r.IntN(2) == 0 {
		x.props = "\x03\x00\x04text" // content type
		p.Props = []byte(x.props)
		if r.IntN(2) == 0 {
			p.HasHopProps = true
			p.Props = append([]byte{0x23, 0, 7}, p.Props...) // topic alias
		}
	}
	m := publication{p: p, expires: x.expires}
	if r.IntN(3) == 0 {
		m.msg = mqtt.NewMessage(p)
		x.msg = m.msg
	}
	return m, x
}

func TestBundleRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 6))
	b := new(bundle)
	for round := range 200 {
		var want []parcel
		payloads := 0
		for range r.IntN(30) {
			m, x := randomPublication(r)
			payloads += len(x.payload)
			at := b.put(&m)
			spoilAll(m.p.Topic, m.p.Props, m.p.Payload)
			for range 1 + r.IntN(3) {
				ids := make([]uint32, r.IntN(4))
				for i := range ids {
					ids[i] = r.Uint32()
				}
				x.ids = slices.Clone(ids)
				x.to = bundleTo{session: r.Uint64(), seq: r.Uint64(), msg: at, qos: mqtt.QoS(r.IntN(3)), retain: r.IntN(2) == 0}
				b.add(x.to, ids)
				clear(ids)
				want = append(want, x)
			}
		}
		if b.size() < payloads {
			t.Fatalf("round %d: size %d for %d bytes of payload", round, b.size(), payloads)
		}
		checkBundle(t, b, want)
		b.release()
		if len(b.bytes)+len(b.msgs)+len(b.to)+len(b.ids)+b.size() != 0 {
			t.Fatalf("round %d: released, and not empty", round)
		}
		b = bundles.Get().(*bundle)
	}
}

func checkBundle(t *testing.T, b *bundle, want []parcel) {
	t.Helper()
	if len(b.to) != len(want) {
		t.Fatalf("%d deliveries, want %d", len(b.to), len(want))
	}
	for i := range want {
		x := &want[i]
		d, to := b.delivery(i)
		if string(d.Topic) != x.topic || string(d.Props) != x.props || string(d.Payload) != x.payload || d.Msg != x.msg {
			t.Fatalf("delivery %d: %q %q %q %p", i, d.Topic, d.Props, d.Payload, d.Msg)
		}
		if to != x.to.session || d.Seq != x.to.seq || d.QoS != x.to.qos || d.Retain != x.to.retain || d.Expires != x.expires {
			t.Fatalf("delivery %d: to %d, %+v", i, to, d)
		}
		if !slices.Equal(d.SubIDs, x.ids) {
			t.Fatalf("delivery %d: identifiers %v, want %v", i, d.SubIDs, x.ids)
		}
	}
}

func spoilAll(lent ...[]byte) {
	for _, b := range lent {
		for i := range b {
			b[i] = 0xDD
		}
	}
}

// A bundle that one giant turn made big is given up.
func TestBundleIsNotKeptForEver(t *testing.T) {
	b := &bundle{bytes: make([]byte, bundleBytesKeep+1)}
	b.release()
	if len(b.bytes) == 0 {
		t.Error("a giant bundle went back to the pool")
	}
}
