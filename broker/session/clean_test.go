package session

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/platform/mono"
)

// A clean session keeps its messages itself: what it takes arrives once and in
// order, what it does not take is counted.
func TestCleanSessionAgainstModel(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 4))
		limits := DefaultLimits()
		limits.Queue.Messages, limits.Queue.Bytes = 1+r.Int64N(20), 1+r.Int64N(200)
		batch := persist.Batch{}
		fx := Effects{Batch: &batch}
		s := New(7, "clean", 0, &limits)
		rmax := 1 + r.IntN(5)
		c := mqtt.Connect{Version: mqtt.V5, Clean: true, Props: mqtt.Properties{ReceiveMax: uint16(rmax)}}
		s.Attach(&fx, &c, &Admission{}, false, 1)
		fx.Send = nil
		sent, dropped, arrived, newest := 0, uint64(0), 0, -1
		var open []uint16
		read := func() {
			for out := fx.Send; len(out) > 0; {
				h, n, _ := mqtt.ParseHeader(out, 0)
				var p mqtt.Publish
				if err := mqtt.DecodePublish(&p, h.Flags, out[n:n+h.Remaining], mqtt.V5); err != nil {
					t.Fatalf("seed %d: %s: %v", seed, h.Type, err)
				}
				out = out[n+h.Remaining:]
				if number, _ := strconv.Atoi(string(p.Payload)); number <= newest || p.Dup || fx.Blocked {
					t.Fatalf("seed %d: message %d after %d, DUP %v, blocked %v", seed, number, newest, p.Dup, fx.Blocked)
				} else {
					newest = number
				}
				open = append(open, p.PacketID)
				arrived++
			}
			if len(open) > rmax {
				t.Fatalf("seed %d: %d under way, at most %d are allowed", seed, len(open), rmax)
			}
			s.Check()
			dropped += fx.Dropped.QueueFull
			if !batch.Empty() || len(fx.Fetches) > 0 {
				t.Fatalf("seed %d: a clean session asked the store for something", seed)
			}
			fx = Effects{Batch: &batch, Blocked: fx.Blocked}
		}
		for range 2000 {
			switch n := r.IntN(10); {
			case n < 5:
				d := Delivery{Topic: []byte("t"), Payload: []byte(strconv.Itoa(sent)), QoS: 1}
				s.Deliver(&fx, &d, 1)
				spoilDelivery(&d)
				sent++
			case n < 9 && len(open) > 0:
				i := r.IntN(len(open))
				id := open[i]
				open = append(open[:i], open[i+1:]...)
				s.OnPuback(&fx, &mqtt.Ack{PacketID: id}, 1)
			default:
				if fx.Blocked = !fx.Blocked; !fx.Blocked {
					s.Resume(&fx, 1)
				}
			}
			read()
		}
		fx.Blocked = false
		s.Resume(&fx, 1)
		for read(); len(open) > 0; read() {
			id := open[0]
			open = open[1:]
			s.OnPuback(&fx, &mqtt.Ack{PacketID: id}, 1)
		}
		if uint64(arrived)+dropped != uint64(sent) || dropped == 0 || len(s.queue) > 0 || s.queued != 0 {
			t.Fatalf("seed %d: %d sent, %d arrived, %d dropped, %d (%d bytes) queued", seed, sent, arrived, dropped, len(s.queue), s.queued)
		}
	}
}

func spoilDelivery(d *Delivery) {
	if d.Msg == nil || &d.Topic[0] != &d.Msg.Topic[0] {
		spoil(d.Topic, d.Props, d.Payload)
	}
}

// What a session gives to its connection at once is bounded, however much it
// has; the rest follows when the connection has taken that.
func TestSendMaxBoundsResume(t *testing.T) {
	limits := DefaultLimits()
	batch := persist.Batch{}
	fx := Effects{Batch: &batch}
	s := New(7, "a", 0, &limits)
	s.Attach(&fx, &mqtt.Connect{Version: mqtt.V311, Clean: true}, &Admission{}, false, 1)
	fx = Effects{Batch: &batch, Blocked: true}
	payload := bytes.Repeat([]byte("x"), 1000)
	for range 100 {
		s.Deliver(&fx, &Delivery{Topic: []byte("t"), Payload: payload, QoS: 1}, 1)
	}
	for i, most := 0, 10_000; i < 100; {
		fx = Effects{Batch: &batch, SendMax: most}
		s.Resume(&fx, 1)
		if len(fx.Send) > most+1100 || fx.Sent == 0 {
			t.Fatalf("%d bytes in %d messages, at most %d are wanted", len(fx.Send), fx.Sent, most)
		}
		i += int(fx.Sent)
		if fx.Blocked != (i < 100) {
			t.Fatalf("%d of 100 are sent, blocked: %v", i, fx.Blocked)
		}
	}
	s.Check()
}

// Nothing is added for the peer once its connection is to be closed.
func TestNothingAfterClose(t *testing.T) {
	limits := DefaultLimits()
	batch := persist.Batch{}
	fx := Effects{Batch: &batch}
	s := New(7, "a", 0, &limits)
	s.Attach(&fx, &mqtt.Connect{Version: mqtt.V5, Clean: true}, &Admission{}, false, 1)
	p := mqtt.Publish{Topic: []byte("t"), QoS: 1, PacketID: 1}
	s.Begin(&fx, &p)
	s.Deliver(&Effects{Batch: &batch, Blocked: true}, &Delivery{Topic: []byte("t"), QoS: 1}, 1)

	fx = Effects{Batch: &batch, Waiting: 1}
	s.Fail(&fx, errors.New("not of the codec"))
	if fx.Reason != mqtt.MalformedPacket || fx.Detail != "not of the codec" {
		t.Errorf("closed with %v, %q", fx.Reason, fx.Detail)
	}
	closed := len(fx.Send)
	s.Kick(&fx, mqtt.SessionTakenOver, "again")
	s.Resume(&fx, 1)
	s.Accepted(&fx, s.token(mqtt.PUBACK, 1), nil)
	s.Deliver(&fx, &Delivery{Topic: []byte("t"), QoS: 1}, 1)
	if len(fx.Send) != closed || fx.Reason != mqtt.MalformedPacket || s.Pending() != 0 {
		t.Errorf("after DISCONNECT: % x, %v, %d acknowledgements wait", fx.Send[closed:], fx.Reason, s.Pending())
	}
}

func TestExpires(t *testing.T) {
	if got, want := Expires(mono.Time(5), 4294967295), int64(5)+4294967295*int64(time.Second); got != want {
		t.Errorf("the longest expiry ends at %d, want %d", got, want)
	}
}

func TestDrops(t *testing.T) {
	d := Drops{1, 2, 4, 8, 16, 32, 64, 128}
	e := Drops{64, 128, 256, 512, 1024, 2048, 4096, 8192}
	if d.Sum() != 255 {
		t.Errorf("sum %d", d.Sum())
	}
	if d.Add(&e); d != (Drops{65, 130, 260, 520, 1040, 2080, 4160, 8320}) {
		t.Errorf("added: %v", d)
	}
}

func TestCheckFindsBrokenSessions(t *testing.T) {
	limits := DefaultLimits()
	for name, spoil := range map[string]func(s *Session){
		"sequence numbers out of order":      func(s *Session) { s.have = s.next - 1 },
		"inflight does not match the window": func(s *Session) { s.window.inflight++ },
		"queue out of order":                 func(s *Session) { s.queue = append(s.queue, persist.Entry{Seq: s.have}) },
		"bytes of the queue do not add up":   func(s *Session) { s.queued++ },
		"state of a connection without one":  func(s *Session) { s.connected = false; s.fetching = true },
		"extras without a connection": func(s *Session) {
			s.rewind(1, 1)
			s.connected, s.extra = false, new(extras)
		},
		"share groups do not add up": func(s *Session) { s.extras().sharedSize++ },
		"nobody else is to have": func(s *Session) {
			s.extras().shared = map[uint64]orphaned{s.tail: {Msg: new(mqtt.Message)}}
		},
		"an acknowledgement that need not wait, waits": func(s *Session) { s.acks.list = []ack{{done: true}} },
	} {
		batch := persist.Batch{}
		fx := Effects{Batch: &batch}
		s := New(7, "a", 0, &limits)
		s.Attach(&fx, &mqtt.Connect{Version: mqtt.V311, Clean: true}, &Admission{}, false, 1)
		s.Deliver(&fx, &Delivery{Topic: []byte("t"), QoS: 1}, 1)
		s.Check()
		spoil(s)
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !bytes.Contains([]byte(got), []byte(name)) {
					t.Errorf("%s: %s", name, got)
				}
			}()
			s.Check()
		}()
	}
}

// QoS 0 to a client, and QoS 1 with its acknowledgement, cost no allocation.
func TestDeliverAllocates(t *testing.T) {
	limits := DefaultLimits()
	batch := persist.Batch{}
	out := make([]byte, 0, 1<<16)
	s := New(7, "a", 0, &limits)
	s.Attach(&Effects{Batch: &batch}, &mqtt.Connect{Version: mqtt.V5, Clean: true}, &Admission{}, false, 1)
	topic, payload := []byte("a/b/c"), bytes.Repeat([]byte("x"), 100)
	fx := Effects{Batch: &batch}
	for _, qos := range []mqtt.QoS{0, 1} {
		fx = Effects{Batch: &batch}
		if n := testing.AllocsPerRun(1000, func() {
			fx = Effects{Batch: &batch, Send: out[:0]}
			d := Delivery{Topic: topic, Payload: payload, QoS: qos}
			s.Deliver(&fx, &d, 1)
			if qos == 1 {
				a := mqtt.Ack{PacketID: packetID(s.next-1, false)}
				s.OnPuback(&fx, &a, 1)
			}
		}); n != 0 {
			t.Errorf("QoS %d: %v allocations", qos, n)
		}
	}
}

func BenchmarkDeliver(b *testing.B) {
	limits := DefaultLimits()
	batch := persist.Batch{}
	out := make([]byte, 0, 1<<16)
	s := New(7, "a", 0, &limits)
	s.Attach(&Effects{Batch: &batch}, &mqtt.Connect{Version: mqtt.V5, Clean: true}, &Admission{}, false, 1)
	topic, payload := []byte("a/b/c"), bytes.Repeat([]byte("x"), 100)
	fx := Effects{Batch: &batch}
	for _, qos := range []mqtt.QoS{0, 1} {
		b.Run(fmt.Sprintf("qos%d", qos), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				fx = Effects{Batch: &batch, Send: out[:0]}
				d := Delivery{Topic: topic, Payload: payload, QoS: qos}
				s.Deliver(&fx, &d, 1)
				if qos == 1 {
					a := mqtt.Ack{PacketID: packetID(s.next-1, false)}
					s.OnPuback(&fx, &a, 1)
				}
			}
		})
	}
}
