package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// DESIGN. A load balancer tells in a few bytes before all others who the client
// is. The header is read by a function without memory: the caller collects until it
// is whole. Whether a listener expects a header is configuration; guessing would
// let any client give itself an address.

const (
	proxyV1BytesMax = 107 // with CR LF, by the specification

	// proxyV2BytesMax bounds a header of version 2 with its TLVs, which may hold
	// a client's certificate name, a unique id and the like, and are not used.
	proxyV2BytesMax = 4096

	proxyV1Start = "PROXY "
	proxyV2Start = "\r\n\r\n\x00\r\nQUIT\n"
	proxyV2Fixed = 16 // start, command, family, length

	proxyPortsMax = 5 // digits
)

// ErrProxy is the error of bytes that are no valid header of the PROXY protocol.
var ErrProxy = errors.New("no valid PROXY protocol header")

// ParseProxy reads a header of the PROXY protocol, version 1 or 2, at the beginning
// of b. n is its length; 0 without an error: more bytes are needed, of at most
// 4096. remote is the client's address; local says that there is none (a health
// check of the proxy itself, an address that is not IP), and the socket's counts.
func ParseProxy(b []byte) (n int, remote netip.AddrPort, local bool, err error) {
	switch {
	case startsLike(b, proxyV1Start):
		return parseProxyV1(b)
	case startsLike(b, proxyV2Start):
		return parseProxyV2(b)
	}
	return 0, remote, false, ErrProxy
}

// startsLike tells whether b begins with start, as far as it goes.
func startsLike(b []byte, start string) bool {
	n := min(len(b), len(start))
	return string(b[:n]) == start[:n]
}

func parseProxyV1(b []byte) (n int, remote netip.AddrPort, local bool, err error) {
	i := bytes.Index(b[:min(len(b), proxyV1BytesMax)], []byte("\r\n"))
	if i < 0 {
		if len(b) >= proxyV1BytesMax {
			err = ErrProxy
		}
		return 0, remote, false, err
	}
	if i < len(proxyV1Start) {
		return 0, remote, false, ErrProxy
	}
	n = i + 2
	f := strings.Split(string(b[len(proxyV1Start):i]), " ")
	if f[0] == "UNKNOWN" { // whatever follows is to be ignored
		return n, remote, true, nil
	}
	if len(f) != 5 || f[0] != "TCP4" && f[0] != "TCP6" {
		return 0, remote, false, ErrProxy
	}
	source, ok1 := parseProxyAddr(f[1], f[3], f[0] == "TCP4")
	_, ok2 := parseProxyAddr(f[2], f[4], f[0] == "TCP4")
	if !ok1 || !ok2 {
		return 0, remote, false, ErrProxy
	}
	return n, source, false, nil
}

func parseProxyAddr(addr, port string, four bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Is4() != four || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	if port == "" || len(port) > proxyPortsMax || port[0] == '0' && port != "0" {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), err == nil
}

func parseProxyV2(b []byte) (n int, remote netip.AddrPort, local bool, err error) {
	const version, commandLocal, commandProxy = 0x20, 0x0, 0x1
	if len(b) > 12 {
		if command := b[12]; command != version|commandLocal && command != version|commandProxy {
			return 0, remote, false, ErrProxy
		}
	}
	if len(b) < proxyV2Fixed {
		return 0, remote, false, nil
	}
	n = proxyV2Fixed + int(binary.BigEndian.Uint16(b[14:]))
	if n > proxyV2BytesMax {
		return 0, remote, false, ErrProxy
	}
	if len(b) < n {
		return 0, remote, false, nil
	}
	if b[12] == version|commandLocal {
		return n, remote, true, nil
	}
	remote, local, err = proxyV2Source(b[13], b[proxyV2Fixed:n])
	if err != nil {
		n = 0
	}
	return n, remote, local, err
}

// proxyV2Source reads the addresses of version 2: source, destination, the two ports.
func proxyV2Source(family byte, body []byte) (remote netip.AddrPort, local bool, err error) {
	const stream, inet, inet6, unix = 0x1, 0x10, 0x20, 0x30
	var size int
	switch family {
	case inet | stream:
		size = 4
	case inet6 | stream:
		size = 16
	case 0, unix | stream: // unspecified, or a path
		return remote, true, nil
	default: // datagrams do not carry MQTT, the rest is not defined
		return remote, false, ErrProxy
	}
	if len(body) < 2*size+4 {
		return remote, false, ErrProxy
	}
	a, _ := netip.AddrFromSlice(body[:size])
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(body[2*size:])), false, nil
}
