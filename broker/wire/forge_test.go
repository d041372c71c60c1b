package wire

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// forger writes records of TLS 1.3 that no client of crypto/tls sends, with the
// keys of a client that has sent none yet.
type forger struct {
	t      *testing.T
	hash   func() hash.Hash
	keyLen int
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func newForger(t *testing.T) (*pair, *forger) {
	var log bytes.Buffer
	server, client := newAuthority(t).configs(t, tls.VersionTLS13)
	client.KeyLogWriter = &log
	p := newPair(t, server, client)
	f := &forger{t: t, hash: sha256.New, keyLen: 16}
	switch p.client.ConnectionState().CipherSuite {
	case tls.TLS_AES_256_GCM_SHA384:
		f.hash, f.keyLen = sha512.New384, 32
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		f.keyLen = 32
	}
	for line := range strings.Lines(log.String()) {
		if part := strings.Fields(line); part[0] == "CLIENT_TRAFFIC_SECRET_0" {
			f.secret, _ = hex.DecodeString(part[2])
		}
	}
	f.rekey(p.client.ConnectionState().CipherSuite)
	return p, f
}

func (f *forger) expand(label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 "+label)))
	info = append(append(info, "tls13 "+label...), 0)
	b, err := hkdf.Expand(f.hash, f.secret, string(info), n)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

func (f *forger) rekey(suite uint16) {
	key := f.expand("key", f.keyLen)
	f.iv, f.seq = f.expand("iv", 12), 0
	var err error
	if suite == tls.TLS_CHACHA20_POLY1305_SHA256 {
		f.aead, err = chacha20poly1305.New(key)
	} else {
		var block cipher.Block
		if block, err = aes.NewCipher(key); err == nil {
			f.aead, err = cipher.NewGCM(block)
		}
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *forger) record(kind byte, data string) []byte {
	nonce := bytes.Clone(f.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(f.seq >> (56 - 8*i))
	}
	f.seq++
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(data)+1+16))
	return f.aead.Seal(header, nonce, append([]byte(data), kind), header)
}

// keyUpdate asks for an update in return, or not, and turns to the next keys.
func (f *forger) keyUpdate(suite uint16, asked bool) []byte {
	data := "\x18\x00\x00\x01\x00"
	if asked {
		data = "\x18\x00\x00\x01\x01"
	}
	b := f.record(22, data)
	f.secret = f.expand("traffic upd", len(f.secret))
	f.rekey(suite)
	return b
}

func TestTLSKeyUpdate(t *testing.T) {
	p, f := newForger(t)
	suite := p.client.ConnectionState().CipherSuite
	var wire []byte
	wire = append(wire, f.record(23, "one ")...)
	wire = append(wire, f.keyUpdate(suite, true)...)
	wire = append(wire, f.record(23, "two")...)
	got, err := chunked(p.layer, wire, func() int { return 1 })
	if string(got) != "one two" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	if !p.layer.Pending() {
		t.Fatal("no key update in return")
	}
	out, err := p.layer.Out(nil, []byte("three"))
	if err != nil || p.layer.Pending() {
		t.Fatal(err)
	}
	if got, err := p.receive(out); string(got) != "three" || err != nil {
		t.Fatalf("the client reads %q, %v", got, err)
	}
}

// The answers alone: Out with nothing to send.
func TestTLSKeyUpdateAnswerAlone(t *testing.T) {
	p, f := newForger(t)
	if _, err := p.layer.In(nil, f.keyUpdate(p.client.ConnectionState().CipherSuite, true)); err != nil {
		t.Fatal(err)
	}
	out, err := p.layer.Out(nil, nil)
	if len(out) == 0 || err != nil || p.layer.Pending() {
		t.Fatalf("%d bytes, %v", len(out), err)
	}
}

// Records without data are bounded, also if records with data come between.
func TestTLSIdleRecords(t *testing.T) {
	for name, one := range map[string]func(*forger, uint16) []byte{
		"empty":       func(f *forger, _ uint16) []byte { return f.record(23, "") },
		"key update":  func(f *forger, s uint16) []byte { return f.keyUpdate(s, false) },
		"answered":    func(f *forger, s uint16) []byte { return f.keyUpdate(s, true) },
		"alternating": func(f *forger, s uint16) []byte { return append(f.keyUpdate(s, true), f.record(23, "x")...) },
	} {
		p, f := newForger(t)
		suite := p.client.ConnectionState().CipherSuite
		n, size := 0, 0
		for ; n < 10*idleRecordsMax; n++ {
			if _, err := p.layer.In(nil, one(f, suite)); err != nil {
				break
			}
			size = max(size, len(p.layer.socket.out))
		}
		if n > idleRecordsMax+idleRecordsMax/recordsPerCredit+1 || n < 16 {
			t.Errorf("%s: ended after %d", name, n)
		}
		if size > answersBytesMax {
			t.Errorf("%s: holds %d bytes of answers", name, size)
		}
		if len(p.layer.Close(nil)) == 0 {
			t.Errorf("%s: no alert", name)
		}
	}
}

// An honest client that updates its keys now and then is served for ever.
func TestTLSKeyUpdatesNowAndThen(t *testing.T) {
	p, f := newForger(t)
	suite := p.client.ConnectionState().CipherSuite
	for range 5 * idleRecordsMax {
		for range recordsPerCredit {
			if _, err := p.layer.In(nil, f.record(23, "PINGREQ")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.layer.In(nil, f.keyUpdate(suite, true)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.layer.Out(nil, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// Answers that nobody takes are bounded.
func TestTLSAnswersBound(t *testing.T) {
	p, f := newForger(t)
	suite := p.client.ConnectionState().CipherSuite
	var err error
	for i := 0; err == nil && i < 100_000; i++ {
		for range recordsPerCredit {
			_, _ = p.layer.In(nil, f.record(23, "x"))
		}
		_, err = p.layer.In(nil, f.keyUpdate(suite, true))
	}
	if err != errAnswers || len(p.layer.socket.out) > answersBytesMax+100 {
		t.Fatalf("%v, %d bytes", err, len(p.layer.socket.out))
	}
}

// A peer's fatal alert is an error, not an orderly end, and gets no answer.
func TestTLSPeerAlert(t *testing.T) {
	p, f := newForger(t)
	_, err := p.layer.In(nil, f.record(21, "\x02\x2a"))
	if err == nil || err == io.EOF || !strings.Contains(err.Error(), "bad certificate") {
		t.Fatal(err)
	}
	if b := p.layer.Close(nil); len(b) != 0 {
		t.Fatalf("% x", b)
	}
}

func TestTLSHandshakeMessageRefused(t *testing.T) {
	p, f := newForger(t)
	_, err := p.layer.In(nil, f.record(22, "\x01\x00\x00\x00")) // a ClientHello: renegotiation
	if err == nil {
		t.Fatal("a second hello is accepted")
	}
	if _, err := p.receive(p.layer.Close(nil)); err == nil || !strings.Contains(err.Error(), "remote error") {
		t.Fatalf("the client sees %v", err)
	}
}
