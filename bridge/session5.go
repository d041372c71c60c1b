package bridge

import (
	"context"
	"errors"
	"io"
	"sync"

	"sluice/broker/mqtt"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/log"
	"github.com/eclipse/paho.golang/paho/session"
)

// DESIGN. session5 is paho's session manager, reduced to what lives as long as one
// connection: the packet ids that are in use, and who waits for their answers. It keeps
// no message and sends none again. A receipt is done when the PUBACK with the id that
// was given to its PUBLISH has come, on this connection, and by nothing else; when the
// connection is lost, receipts stay as they are.
type session5 struct {
	mu      sync.Mutex
	waiting map[uint16]waiting5
	last    uint16 // id that was given
	lost    bool
}

// waiting5 is what a packet id stands for.
type waiting5 struct {
	receipt *receipt5                    // of a PUBLISH; nil: a request
	answer  chan<- packets.ControlPacket // of a request; has room for one
}

// receipt5 is the outcome of a publish.
type receipt5 struct {
	done  chan struct{}
	err   error  // valid when done is closed
	alias *alias // that the message teaches; nil: none
}

func (r *receipt5) Done() <-chan struct{} { return r.done }

func (r *receipt5) Error() error { return r.err }

func (r *receipt5) finish(err error) {
	if r.alias != nil && err == nil {
		r.alias.known.Store(true)
	}
	r.err = err
	close(r.done)
}

type receiptKey struct{}

// withReceipt hands a receipt through paho to the session.
func withReceipt(r *receipt5) context.Context {
	return context.WithValue(context.Background(), receiptKey{}, r)
}

func newSession5() *session5 { return &session5{waiting: map[uint16]waiting5{}} }

var (
	errNoID        = errors.New("all packet identifiers are in use")
	errSessionLost = errors.New("the connection is lost")
)

// ConAckReceived has nothing to send again.
func (s *session5) ConAckReceived(io.Writer, *packets.Connect, *packets.Connack) error { return nil }

// AddToSession gives a packet its id.
func (s *session5) AddToSession(ctx context.Context, p session.Packet, answer chan<- packets.ControlPacket) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		return errSessionLost
	}
	w := waiting5{answer: answer}
	w.receipt, _ = ctx.Value(receiptKey{}).(*receipt5)
	if (w.receipt != nil) != (p.Type() == packets.PUBLISH) {
		panic("BUG: bridge: a packet without a receipt, or a receipt for none")
	}
	for range receiveMaxAny {
		if s.last++; s.last == 0 {
			s.last = 1
		}
		if _, used := s.waiting[s.last]; !used {
			s.waiting[s.last] = w
			p.SetIdentifier(s.last)
			return nil
		}
	}
	return errNoID
}

// PacketReceived is called by paho's reader.
func (s *session5) PacketReceived(p *packets.ControlPacket, messages chan<- *packets.Publish) error {
	switch c := p.Content.(type) {
	case *packets.Publish:
		messages <- c // empty: see gate5
	case *packets.Puback:
		if w, ok := s.take(c.PacketID, true); ok {
			var err error
			if c.ReasonCode >= 0x80 {
				err = &refusal{mqtt.Reason(c.ReasonCode)}
			}
			w.receipt.finish(err)
		}
	case *packets.Suback:
		if w, ok := s.take(c.PacketID, false); ok {
			w.answer <- *p
		}
	}
	return nil
}

// take frees an id that an answer has come for, if it is one for such a packet.
func (s *session5) take(id uint16, publish bool) (waiting5, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, ok := s.waiting[id]
	if !ok || (w.receipt != nil) != publish {
		return w, false
	}
	delete(s.waiting, id)
	return w, true
}

// ConnectionLost lets requests go. It may be called more than once.
func (s *session5) ConnectionLost(*packets.Disconnect) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = true
	for id, w := range s.waiting {
		if w.receipt == nil {
			w.answer <- packets.ControlPacket{} // paho takes it for the end
		}
		delete(s.waiting, id)
	}
	return nil
}

// Ack is called when a message was handed over, which is too early: see up5.received.
func (s *session5) Ack(*packets.Publish) error { return nil }

// Close has nothing to close.
func (s *session5) Close() error { return nil }

// SetErrorLogger and SetDebugLogger are for a log that nobody writes.
func (s *session5) SetErrorLogger(log.Logger) {}

// SetDebugLogger is as SetErrorLogger.
func (s *session5) SetDebugLogger(log.Logger) {}
