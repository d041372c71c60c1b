package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"sluice/broker/wire"
	"sluice/broker/worker"
	"sluice/platform/mono"
)

// DESIGN. Before MQTT a connection may have to say whom a proxy brings, to shake
// hands, and to speak through layers: all connections of a run, or none, as they
// come by one listener. The handshake is a few bytes that somebody beside the
// workers reads from the socket, some time later, and answers, or refuses, or
// forgets. What he reads too much is the layer's.

// job is something that somebody beside the workers does, at its time.
type job struct {
	at mono.Time // 0: never, unless the world heals
	do func(healing bool)
}

// later has f done after a while.
func (h *host) later(max time.Duration, f func(healing bool)) {
	h.jobs = append(h.jobs, job{h.w.now.Add(time.Duration(h.w.rng.Int64N(int64(max)))), f})
}

// work does one job that is due. It tells whether there was one.
func (h *host) work() bool {
	for i, j := range h.jobs {
		if !h.up || !h.w.healing && (j.at == 0 || j.at > h.w.now) {
			continue
		}
		h.jobs = append(h.jobs[:i:i], h.jobs[i+1:]...)
		j.do(h.w.healing)
		return true
	}
	return false
}

// hello is what a handshake begins with.
const hello = "HELLO!"

var (
	errShake = errors.New("simulated failure")
	proxied  = netip.MustParseAddrPort("10.0.0.1:4000") // the proxy
)

func (h *host) listener(open *atomic.Int64) worker.Listener {
	w := h.w
	l := worker.Listener{FD: listenFD, Address: "sim", Open: open, Proxy: w.cfg.proxy, Anonymous: !w.cfg.auth}
	if w.cfg.layer {
		l.Layer = above
	}
	if w.cfg.shake {
		l.Handshake = h.handshake
	}
	return l
}

// address is where a client comes from: some share theirs, some have a /64.
func (w *World) address(end endpoint) netip.AddrPort {
	port := uint16(1000 + w.opened%60000)
	switch e := end.(type) {
	case *link:
		switch e.d.n % 3 {
		case 0:
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), port)
		case 1:
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + e.d.n)}), port)
		}
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, byte(e.d.n), 15: byte(w.opened)}
		return netip.AddrPortFrom(netip.AddrFrom16(a), port)
	case *probe:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, 1}), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1}), port)
}

// prepare makes a new connection say what comes before MQTT.
func (w *World) prepare(s *sock) {
	s.remote = w.address(s.end)
	if w.cfg.proxy {
		s.up = append(s.up, w.proxyHeader(s)...)
		s.remote = proxied
	}
	if w.cfg.shake {
		w.counts.Shaken++
		s.shakes = true
		s.up = append(s.up, hello...)
		s.codes = append(s.codes, &codeEnd{})
	}
	if w.cfg.layer {
		w.counts.Layered++
		s.codes = append([]*codeEnd{{}}, s.codes...)
	}
}

// proxyHeader is that of the PROXY protocol, of either version.
func (w *World) proxyHeader(s *sock) []byte {
	_, honest := s.end.(*link)
	a := s.remote.Addr()
	switch {
	case w.chance(0.1) && !w.healing:
		return []byte("PROXY UNKNOWN\r\n")
	case !honest && w.chance(0.1) && !w.healing:
		return []byte("PROXY TCP4 1.2.3\r\n")
	case w.chance(0.5):
		family, to := "TCP4", "192.0.2.254"
		if a.Is6() {
			family, to = "TCP6", "2001:db8::ffff"
		}
		return fmt.Appendf(nil, "PROXY %s %s %s %d 1883\r\n", family, a, to, s.remote.Port())
	}
	b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21")
	family := byte(0x11)
	if a.Is6() {
		family = 0x21
	}
	n := a.BitLen() / 8
	b = binary.BigEndian.AppendUint16(append(b, family), uint16(2*n+4))
	b = append(append(b, a.AsSlice()...), make([]byte, n)...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, s.remote.Port()), 1883)
}

// handshake is worker.Listener.Handshake.
func (h *host) handshake(fd int, first []byte, left time.Duration, done func(wire.Layer, string, error)) error {
	w := h.w
	f := h.kernel.files[fd]
	if f == nil || f.watched {
		w.fail("handshake", "of descriptor %d, which is closed or watched", fd)
	}
	f.lent = true
	s := f.sock
	if len(first) == 0 || left > w.cfg.connectTimeout {
		w.fail("handshake", "of descriptor %d, with %d bytes and %v left", fd, len(first), left)
	}
	w.note("handshake", s.end.String(), int64(s.n), int64(len(first)), "")
	if w.chance(w.cfg.shakeFail) && !w.healing {
		s.unshaken = true
		if w.chance(0.3) {
			return errShake
		}
	}
	hangs := w.chance(w.cfg.shakeHang) && !w.healing
	h.shake(s, first, hangs, done)
	return nil
}

// shake goes on with a handshake after a while.
func (h *host) shake(s *sock, got []byte, hangs bool, done func(wire.Layer, string, error)) {
	w := h.w
	h.later(pick(w, 10*time.Millisecond, time.Second, 15*time.Second), func(healing bool) {
		w.note("shake", s.end.String(), int64(s.n), int64(len(got)), "")
		if !s.closed && !s.reset {
			n := w.rng.IntN(len(s.rx) + 1)
			got = append(got, s.rx[:n]...)
			s.rx = s.rx[n:]
		}
		switch {
		case hangs && !s.closed && !healing:
			h.shake(s, got, hangs, done)
		case hangs || s.unshaken || s.closed || s.reset || len(got) >= len(hello) && string(got[:len(hello)]) != hello || len(got) < len(hello) && s.rxEnd && len(s.rx) == 0:
			s.unshaken = true
			done(nil, "", errShake)
		case len(got) < len(hello):
			h.shake(s, got, hangs, done)
		default:
			done(newCodeLayer(got[len(hello):]), "", nil)
		}
	})
}
