package wire

import "strings"

// DESIGN. A browser lets any page open a WebSocket to any host and sends that
// host's cookies with it; only the server can refuse, by the Origin that the browser
// adds (RFC 6455 10.2). Other clients send none, and could send any.

// allowedOrigin decides on a request by its Origin (see WebSocketOptions.Origins).
func allowedOrigin(patterns []string, origin, host string, has bool) bool {
	if !has {
		return true
	}
	scheme, from, ok := strings.Cut(origin, "://")
	if !ok {
		scheme, from = "", origin
	}
	if len(patterns) == 0 {
		return ok && strings.EqualFold(from, host)
	}
	for _, p := range patterns {
		if p == "*" || !ok && p == origin {
			return true
		}
		if wantScheme, rest, has := strings.Cut(p, "://"); has {
			if !strings.EqualFold(wantScheme, scheme) {
				continue
			}
			p = rest
		}
		if ok && matchHost(p, from) {
			return true
		}
	}
	return false
}

// matchHost compares a host with a pattern. A pattern without a port is for all ports.
func matchHost(pattern, host string) bool {
	if !hasPort(pattern) {
		if i := strings.LastIndexByte(host, ':'); hasPort(host) {
			host = host[:i]
		}
	}
	pattern, host = strings.ToLower(pattern), strings.ToLower(host)
	if below, wild := strings.CutPrefix(pattern, "*."); wild {
		return len(host) > len(below)+1 && strings.HasSuffix(host, "."+below)
	}
	return pattern == host
}

// hasPort tells a port from the colons of an IPv6 address in brackets.
func hasPort(host string) bool {
	return strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']')
}
