package wire

import (
	"bytes"
	"strings"
)

// DESIGN. A strict reader of one HTTP/1.1 request without a body: what two servers
// could read in two ways (folded lines, bare line ends, a second Host) is refused.

// request is what the upgrade wants to know. Its slices may alias the bytes read.
type request struct {
	path      []byte // without the query
	host      []byte
	origin    []byte
	key       []byte
	version   []byte
	protocol  string // the first of those offered that is MQTT
	hasOrigin bool

	upgrade    bool // Upgrade names websocket
	connection bool // Connection names upgrade
}

// protocols are the sub-protocols that stand for MQTT: the standard's, and the one
// of clients from before it.
var protocols = []string{"mqtt", "mqttv3.1"}

// parseRequest reads a request up to its empty line, which is not part of b.
func parseRequest(b []byte) (*request, *UpgradeError) {
	line, b, _ := bytes.Cut(b, []byte("\r\n"))
	r := new(request)
	if e := r.startLine(line); e != nil {
		return nil, e
	}
	for len(b) > 0 {
		line, b, _ = bytes.Cut(b, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(":"))
		value = bytes.Trim(value, " \t")
		if !ok || !isToken(name) || !isFieldValue(value) {
			return nil, &UpgradeError{400, "malformed header field"}
		}
		if e := r.field(strings.ToLower(string(name)), value); e != nil {
			return nil, e
		}
	}
	if len(r.host) == 0 {
		return nil, &UpgradeError{400, "no Host"}
	}
	return r, nil
}

// startLine reads method, target and version.
func (r *request) startLine(line []byte) *UpgradeError {
	part := bytes.Split(line, []byte(" "))
	if len(part) != 3 || !isToken(part[0]) || string(part[2]) != "HTTP/1.1" {
		return &UpgradeError{400, "not a request of HTTP/1.1"}
	}
	if string(part[0]) != "GET" {
		return &UpgradeError{405, "method is not GET"}
	}
	target := part[1]
	scheme, after, absolute := bytes.Cut(target, []byte("://"))
	if s := string(scheme); absolute && (s == "http" || s == "https") { // RFC 9112 3.2.2
		i := bytes.IndexByte(after, '/')
		if i < 0 {
			after, i = []byte("/"), 0
		}
		target = after[i:]
	}
	r.path, _, _ = bytes.Cut(target, []byte("?"))
	if len(r.path) == 0 || r.path[0] != '/' || !isFieldValue(target) {
		return &UpgradeError{400, "malformed target"}
	}
	return nil
}

// field takes one header field. Those that may come only once are refused the
// second time.
func (r *request) field(name string, value []byte) *UpgradeError {
	var once *[]byte
	switch name {
	case "host":
		once = &r.host
	case "sec-websocket-key":
		once = &r.key
	case "sec-websocket-version":
		once = &r.version
	case "origin":
		if r.hasOrigin {
			return &UpgradeError{400, "origin twice"}
		}
		r.hasOrigin, r.origin = true, value
	case "upgrade":
		r.upgrade = r.upgrade || hasToken(value, "websocket")
	case "connection":
		r.connection = r.connection || hasToken(value, "upgrade")
	case "sec-websocket-protocol":
		r.choose(value)
	case "content-length", "transfer-encoding":
		if string(value) != "0" {
			return &UpgradeError{400, "request with a body"}
		}
	}
	if once != nil {
		if *once != nil {
			return &UpgradeError{400, name + " twice"}
		}
		*once = append([]byte{}, value...)
	}
	return nil
}

// choose takes the first sub-protocol offered that is MQTT.
func (r *request) choose(value []byte) {
	for offered := range bytes.SplitSeq(value, []byte(",")) {
		offered = bytes.Trim(offered, " \t")
		for _, p := range protocols {
			if r.protocol == "" && string(offered) == p {
				r.protocol = p
			}
		}
	}
}

// hasToken tells whether a list of tokens has one, in any case.
func hasToken(list []byte, token string) bool {
	for t := range bytes.SplitSeq(list, []byte(",")) {
		if strings.EqualFold(string(bytes.Trim(t, " \t")), token) {
			return true
		}
	}
	return false
}

// isToken tells whether b is a token (RFC 9110 5.6.2).
func isToken(b []byte) bool {
	for _, c := range b {
		alphanumeric := c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !alphanumeric && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return len(b) > 0
}

// isFieldValue tells whether b has no control characters but tabs (RFC 9110 5.5).
func isFieldValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
