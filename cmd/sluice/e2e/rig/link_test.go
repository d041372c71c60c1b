package rig

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// pair is both ends of a connection through a link.
type pair struct {
	t         *testing.T
	near, far net.Conn
}

// through connects through a link to ln.
func through(t *testing.T, l *Link, ln net.Listener) pair {
	t.Helper()
	near, err := net.Dial("tcp4", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return pair{t: t, near: near, far: far}
}

// passes tells whether a byte gets through within the time.
func (p pair) passes(within time.Duration) bool {
	p.t.Helper()
	if _, err := p.near.Write([]byte{1}); err != nil {
		p.t.Fatal(err)
	}
	return p.arrives(within)
}

func (p pair) arrives(within time.Duration) bool {
	p.t.Helper()
	var b [1]byte
	_ = p.far.SetReadDeadline(time.Now().Add(within))
	_, err := p.far.Read(b[:])
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatal(err)
	}
	return err == nil
}

func TestLink(t *testing.T) {
	const soon, never = 10 * time.Second, 50 * time.Millisecond
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	l, err := NewLink(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)

	p := through(t, l, ln)
	if !p.passes(soon) {
		t.Fatal("a link that is well passes nothing")
	}
	l.Blackhole()
	if p.passes(never) {
		t.Error("a black hole passes something")
	}
	if err := l.Restore(); err != nil {
		t.Fatal(err)
	}
	if !p.arrives(soon) {
		t.Error("what was sent into the black hole does not come afterwards")
	}
	l.Stall()
	if p.passes(never) {
		t.Error("a stalled connection passes something")
	}
	if err := l.Restore(); err != nil {
		t.Fatal(err)
	}
	if p.arrives(never) || !through(t, l, ln).passes(soon) {
		t.Error("a stalled connection is back, or a new one does not work")
	}

	p = through(t, l, ln)
	l.Cut()
	if _, err := p.near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("cut: %v", err)
	}
	p = through(t, l, ln)
	l.Refuse()
	if _, err := p.near.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("refuse: %v", err)
	}
	if _, err := net.Dial("tcp4", l.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a link that refuses: %v", err)
	}
	if err := l.Restore(); err != nil {
		t.Fatal(err)
	}
	if !through(t, l, ln).passes(soon) {
		t.Error("not well after a restore")
	}
}
