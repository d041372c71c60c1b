package wire

import (
	"net"
	"time"
)

// DESIGN. socket is what crypto/tls takes for its socket: first the real one, then
// slices. It hands out one record at a time, also where more has come: crypto/tls
// keeps its read buffer at the largest size it ever had, and with rests of records
// in it, it would grow to twice a record and more. So it holds a record, and
// nothing of a second.

// recordHeaderLen is the length of a record's header: type, version, length.
const recordHeaderLen = 5

type socket struct {
	conn    net.Conn // nil: detached
	held    []byte   // read before the handshake and not taken yet; comes before all else
	src     []byte   // In's, during In
	out     []byte   // written while detached: Out's dst during Out, else answers
	records int      // whole records handed out since this was set to 0
	left    int      // bytes of the current record's body that are to come
	header  [recordHeaderLen]byte
	headed  uint8 // bytes of the header that have come
}

// noBytes is the read error for "nothing has come yet".
type noBytes struct{}

func (noBytes) Error() string   { return "no bytes yet" }
func (noBytes) Timeout() bool   { return true }
func (noBytes) Temporary() bool { return true }

var errNoBytes net.Error = noBytes{}

func (s *socket) Read(p []byte) (n int, err error) {
	want := s.left
	if s.headed < recordHeaderLen {
		want = int(recordHeaderLen - s.headed)
	}
	p = p[:min(len(p), want)]
	switch {
	case len(s.held) > 0:
		n = copy(p, s.held)
		if s.held = s.held[n:]; len(s.held) == 0 {
			s.held = nil
		}
	case s.conn != nil:
		n, err = s.conn.Read(p)
	case len(s.src) == 0:
		return 0, errNoBytes
	default:
		n = copy(p, s.src)
		s.src = s.src[n:]
	}
	s.follow(p[:n])
	return n, err
}

// follow keeps track of where records end. p is a piece of a header or of a body.
func (s *socket) follow(p []byte) {
	if s.headed < recordHeaderLen {
		s.headed += uint8(copy(s.header[s.headed:], p))
		if s.headed < recordHeaderLen {
			return
		}
		s.left = int(s.header[3])<<8 | int(s.header[4])
	} else {
		s.left -= len(p)
	}
	if s.left == 0 {
		s.headed = 0
		s.records++
	}
}

func (s *socket) Write(p []byte) (int, error) {
	if s.conn != nil {
		return s.conn.Write(p)
	}
	s.out = append(s.out, p...)
	return len(p), nil
}

// Close is called by crypto/tls when the context of a handshake ends.
func (s *socket) Close() error {
	if s.conn != nil {
		return s.conn.Close()
	}
	return nil
}

// nowhere is the address of a socket that is detached.
type nowhere struct{}

func (nowhere) Network() string { return "" }
func (nowhere) String() string  { return "" }

func (s *socket) LocalAddr() net.Addr {
	if s.conn != nil {
		return s.conn.LocalAddr()
	}
	return nowhere{}
}

func (s *socket) RemoteAddr() net.Addr {
	if s.conn != nil {
		return s.conn.RemoteAddr()
	}
	return nowhere{}
}

func (s *socket) SetDeadline(t time.Time) error {
	if s.conn != nil {
		return s.conn.SetDeadline(t)
	}
	return nil
}

func (s *socket) SetReadDeadline(t time.Time) error {
	if s.conn != nil {
		return s.conn.SetReadDeadline(t)
	}
	return nil
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	if s.conn != nil {
		return s.conn.SetWriteDeadline(t)
	}
	return nil
}
