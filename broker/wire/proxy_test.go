package wire

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
)

const v2 = proxyV2Start

var proxyTable = []struct {
	name, in string
	remote   string // "": local, or an error
	bad      bool
}{
	{"v1 TCP4", "PROXY TCP4 192.0.2.7 198.51.100.1 56324 1883\r\n", "192.0.2.7:56324", false},
	{"v1 TCP6", "PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n", "[2001:db8::7]:1", false},
	{"v1 longest", "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", false},
	{"v1 unknown", "PROXY UNKNOWN\r\n", "", false},
	{"v1 unknown, longest", "PROXY UNKNOWN " + strings.Repeat("f", 91) + "\r\n", "", false},
	{"v1 too long", "PROXY UNKNOWN " + strings.Repeat("f", 92) + "\r\n", "", true},
	{"v1 endless", "PROXY " + strings.Repeat("f", 200), "", true},
	{"v1 family", "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n", "", true},
	{"v1 family 6", "PROXY TCP6 192.0.2.7 192.0.2.8 1 2\r\n", "", true},
	{"v1 udp", "PROXY UDP4 192.0.2.7 192.0.2.8 1 2\r\n", "", true},
	{"v1 address", "PROXY TCP4 192.0.2.256 192.0.2.8 1 2\r\n", "", true},
	{"v1 leading zero", "PROXY TCP4 192.0.2.07 192.0.2.8 1 2\r\n", "", true},
	{"v1 destination", "PROXY TCP4 192.0.2.7 nowhere 1 2\r\n", "", true},
	{"v1 port", "PROXY TCP4 192.0.2.7 192.0.2.8 65536 2\r\n", "", true},
	{"v1 port with zero", "PROXY TCP4 192.0.2.7 192.0.2.8 01 2\r\n", "", true},
	{"v1 port with sign", "PROXY TCP4 192.0.2.7 192.0.2.8 +1 2\r\n", "", true},
	{"v1 zone", "PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", "", true},
	{"v1 two spaces", "PROXY  TCP4 192.0.2.7 192.0.2.8 1 2\r\n", "", true},
	{"v1 too many", "PROXY TCP4 192.0.2.7 192.0.2.8 1 2 3\r\n", "", true},
	{"v1 nothing", "PROXY \r\n", "", true},
	{"v1 case", "proxy TCP4 192.0.2.7 192.0.2.8 1 2\r\n", "", true},
	{"v2 TCP4", v2 + "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x07\x5b", "192.0.2.7:56324", false},
	{"v2 TCP6", v2 + "\x21\x21\x00\x24\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" + strings.Repeat("\x01", 16) + "\x00\x01\x00\x02", "[2001:db8::7]:1", false},
	{"v2 mapped", v2 + "\x21\x21\x00\x24" + strings.Repeat("\x00", 10) + "\xff\xff\xc0\x00\x02\x07" + strings.Repeat("\x01", 16) + "\x00\x01\x00\x02", "192.0.2.7:1", false},
	{"v2 TLVs", v2 + "\x21\x11\x00\x13\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x07\x5b\xee\x00\x04abcd", "192.0.2.7:56324", false},
	{"v2 local", v2 + "\x20\x00\x00\x00", "", false},
	{"v2 local with bytes", v2 + "\x20\x11\x00\x03abc", "", false},
	{"v2 unspecified", v2 + "\x21\x00\x00\x02ab", "", false},
	{"v2 unix", v2 + "\x21\x31\x00\xd8" + strings.Repeat("p", 216), "", false},
	{"v2 largest", v2 + "\x21\x00\x0f\xf0" + strings.Repeat("p", 4080), "", false},
	{"v2 too large", v2 + "\x21\x00\x0f\xf1", "", true},
	{"v2 datagram", v2 + "\x21\x12\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x07\x5b", "", true},
	{"v2 too short", v2 + "\x21\x11\x00\x0b\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x07", "", true},
	{"v2 version", v2 + "\x11", "", true},
	{"v2 command", v2 + "\x22", "", true},
	{"MQTT", "\x10", "", true},
	{"MQTT, long", "\x10\x10\x00\x04MQTT", "", true},
	{"almost v2", "\r\n\r\n\x00\r\nQUIX", "", true},
}

func TestProxy(t *testing.T) {
	for _, c := range proxyTable {
		b := []byte(c.in + "\x10MQTT")
		if c.bad {
			b = []byte(c.in)
		}
		for i := range b { // each beginning asks for more, or is refused early
			n, _, _, err := ParseProxy(b[:i])
			if i < len(c.in) && n != 0 {
				t.Fatalf("%s: header of %d bytes in %d", c.name, n, i)
			}
			if err != nil && !c.bad {
				t.Fatalf("%s: %v in %d bytes", c.name, err, i)
			}
		}
		n, remote, local, err := ParseProxy(b)
		if c.bad {
			if err != ErrProxy || n != 0 {
				t.Errorf("%s: %d %v", c.name, n, err)
			}
			continue
		}
		want := netip.AddrPort{}
		if c.remote != "" {
			want = netip.MustParseAddrPort(c.remote)
		}
		if n != len(c.in) || err != nil || remote != want || local != (c.remote == "") {
			t.Errorf("%s: %d %v %v %v", c.name, n, remote, local, err)
		}
	}
}

func FuzzProxy(f *testing.F) {
	for _, c := range proxyTable {
		f.Add([]byte(c.in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, remote, local, err := ParseProxy(b)
		switch {
		case n < 0 || n > len(b) || n > proxyV2BytesMax:
			t.Fatalf("%d of %d", n, len(b))
		case err != nil && n != 0, n > 0 && local == remote.IsValid():
			t.Fatalf("%d %v %v %v", n, remote, local, err)
		case n == 0 && err == nil && len(b) >= proxyV2BytesMax:
			t.Fatalf("wants more than %d", len(b))
		case n > 0: // the header does not depend on what follows
			n2, remote2, _, _ := ParseProxy(bytes.Clone(b[:n]))
			if n2 != n || remote2 != remote {
				t.Fatalf("%d %v, alone %d %v", n, remote, n2, remote2)
			}
		}
	})
}
