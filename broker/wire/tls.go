package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
)

// DESIGN. A handshake takes milliseconds of computing and several round trips,
// and crypto/tls can only do it by blocking: so it runs over the socket on a
// goroutine of the caller's pool. Afterwards the same tls.Conn is fed by hand: it
// reads from what In was given and writes into what Out gives back (socket.go). It
// is asked for more until it says that it has no bytes; nothing decrypted is ever
// left in it, so an idle connection holds no plaintext.
//
// crypto/tls remembers every read error for good, except a net.Error that calls
// itself temporary: errNoBytes is one, and a test guards that it stays so.

// TLS is the server's side of one TLS connection. Its life: NewTLS, Handshake,
// Detach, and then it is a Layer.
type TLS struct {
	conn    *tls.Conn
	socket  socket
	err     error // what ended the reading
	failed  bool  // the TLS state machine itself failed: it has said so, nothing can follow
	credits int32 // records without data that the peer may still send
	earned  int32 // records with data since the last credit was given back
	silent  int32 // bytes since the last data
}

const (
	// idleRecordsMax bounds records that carry no data (key updates, empty
	// ones, warnings), which make us compute for nothing: the initial credit, of
	// which one is given back for each recordsPerCredit records with data. An
	// honest peer updates its keys after millions of records; one that does
	// so hourly and sends a PINGREQ a minute is served for ever.
	idleRecordsMax   = 64
	recordsPerCredit = 32

	// answersBytesMax bounds what waits to be sent because of records that ask
	// for an answer: a worker that sees Pending takes it in the same turn, so this
	// is what one read buffer of key updates may cause.
	answersBytesMax = 4096

	// plaintextMin is the least room for which crypto/tls is asked: below it, a
	// record would be fetched in too many pieces.
	plaintextMin = 512

	// plaintextMax is the most that one record holds (RFC 8446 5.1).
	plaintextMax = 16384
)

// silentBytesMax bounds what a peer may send without any data in it, and make
// crypto/tls keep: more than the largest record, which gives nothing until it is whole.
const silentBytesMax = 20 << 10

var (
	errSilent      = errors.New("tls: too many bytes without data")
	errIdleRecords = errors.New("tls: too many records without data")
	errAnswers     = errors.New("tls: too many records that want an answer")
)

// NewTLS prepares a connection over c of which prefix has been read already
// (copied). cfg is shared and not changed.
func NewTLS(c net.Conn, prefix []byte, cfg *tls.Config) *TLS {
	t := &TLS{credits: idleRecordsMax}
	t.socket = socket{conn: c, held: append([]byte(nil), prefix...)}
	t.conn = tls.Server(&t.socket, cfg)
	return t
}

// Handshake does the handshake over the socket and blocks meanwhile. It is bound
// by the deadlines of the socket; if ctx ends first, the socket is closed. After an
// error the alert has been written, and nothing but closing the socket is left.
func (t *TLS) Handshake(ctx context.Context) error { return t.conn.HandshakeContext(ctx) }

// Detach ends the use of the socket, which the caller may close, after a good
// handshake: from here on t is a Layer. Bytes that came with the handshake and
// are not part of it are given by the first In, so call it even with nothing read.
// No byte behind the handshake's last record has been taken from the socket itself,
// only from the prefix.
func (t *TLS) Detach() {
	if !t.conn.ConnectionState().HandshakeComplete {
		panic("BUG: Detach without a good handshake")
	}
	t.socket.conn = nil
}

// ConnectionState tells what the handshake agreed on, and the client's
// certificates. It allocates: ask once.
func (t *TLS) ConnectionState() tls.ConnectionState { return t.conn.ConnectionState() }

// In decrypts. io.EOF is the peer's close_notify.
func (t *TLS) In(dst, src []byte) ([]byte, error) {
	if t.socket.conn != nil {
		panic("BUG: TLS used as a layer before Detach")
	}
	if t.err != nil {
		return dst, t.err
	}
	t.socket.src = src
	before := len(dst)
	for t.err == nil {
		if cap(dst)-len(dst) < plaintextMin {
			dst = slices.Grow(dst, min(max(len(t.socket.src), plaintextMin), plaintextMax))
		}
		n, err := t.conn.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		t.account(n)
		if err == errNoBytes {
			break
		}
		if err != nil {
			t.err, t.failed = err, err != io.EOF
		}
	}
	t.socket.src = nil
	if len(dst) > before {
		t.silent = 0
	} else if t.silent += int32(len(src)); t.silent > silentBytesMax && t.err == nil {
		t.err = errSilent
	}
	return dst, t.err
}

// account keeps the credit, after a read that gave n bytes of data.
func (t *TLS) account(n int) {
	idle := t.socket.records
	t.socket.records = 0
	if n > 0 && idle > 0 { // crypto/tls stops at the first record with data
		idle--
		if t.earned++; t.earned == recordsPerCredit {
			t.earned = 0
			t.credits = min(t.credits+1, idleRecordsMax)
		}
	}
	t.credits -= int32(idle)
	switch {
	case t.credits < 0:
		t.err = errIdleRecords
	case len(t.socket.out) > answersBytesMax:
		t.err = errAnswers
	}
}

// Out encrypts src, in as many records as it takes.
func (t *TLS) Out(dst, src []byte) ([]byte, error) {
	if t.socket.conn != nil {
		panic("BUG: TLS used as a layer before Detach")
	}
	if t.failed { // what it has said is for Close
		return dst, t.err
	}
	if len(src) == 0 {
		return t.answers(dst), nil
	}
	t.socket.out = t.answers(dst)
	_, err := t.conn.Write(src)
	dst, t.socket.out = t.socket.out, nil
	return dst, err
}

// answers appends what crypto/tls had to say by itself while it read.
func (t *TLS) answers(dst []byte) []byte {
	dst = append(dst, t.socket.out...)
	t.socket.out = nil
	return dst
}

// Pending tells whether there is an answer to a key update, or an alert.
func (t *TLS) Pending() bool { return len(t.socket.out) > 0 }

// Close gives the alert that an error of In caused, or close_notify.
func (t *TLS) Close(dst []byte) []byte {
	if t.socket.conn != nil {
		panic("BUG: TLS used as a layer before Detach")
	}
	t.socket.out = t.answers(dst)
	if !t.failed {
		// Fails only if Out has failed before, and then there is nothing to say.
		_ = t.conn.CloseWrite()
	}
	dst, t.socket.out = t.socket.out, nil
	return dst
}
