package wire

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
)

// DESIGN. The upgrade (RFC 6455 4.2): the request is collected until its empty
// line, read (request.go), and answered with 101 or with a refusal that a person who
// opened the address in a browser can understand. What cannot become a request is
// refused at its first byte, so a client that speaks MQTT or TLS to this port
// does not wait for a timeout.

// UpgradeError is a request that was not answered by an upgrade.
type UpgradeError struct {
	Status int // of HTTP
	Text   string
}

func (e *UpgradeError) Error() string {
	return fmt.Sprintf("websocket: upgrade refused with %d: %s", e.Status, e.Text)
}

var statusText = map[int]string{
	400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
	426: "Upgrade Required", 431: "Request Header Fields Too Large",
}

const endpointText = "This is an endpoint for MQTT over WebSocket: it wants an MQTT client.\n"

// upgrade collects the request. It gives what of src lies behind it.
func (w *WebSocket) upgrade(src []byte) (rest []byte, err error) {
	if len(src) == 0 {
		return nil, nil
	}
	if len(w.kept) == 0 && (src[0] < 'A' || src[0] > 'Z') {
		return nil, w.refuse(&UpgradeError{400, "not HTTP"})
	}
	limit := w.o.RequestBytesMax
	if limit == 0 {
		limit = requestBytesDefault
	}
	had := len(w.kept)
	head := src[:min(len(src), limit)]
	if had > 0 {
		w.kept = append(w.kept, src[:min(len(src), limit-had)]...)
		head = w.kept
	}
	from := max(0, had-3) // the end may have begun in what was kept
	i := bytes.Index(head[from:], []byte("\r\n\r\n"))
	if i < 0 {
		if len(head) >= limit {
			return nil, w.refuse(&UpgradeError{431, "request too large"})
		}
		if had == 0 {
			w.kept = append(w.kept, src...)
		}
		return nil, nil
	}
	end := from + i + 4
	r, refusal := parseRequest(head[:end-2])
	if refusal == nil {
		refusal = w.check(r)
	}
	if refusal != nil {
		return nil, w.refuse(refusal)
	}
	w.say = appendSwitch(w.say, r)
	w.upgraded, w.kept = true, nil
	return src[end-had:], nil
}

// check decides on a request that is well-formed (RFC 6455 4.2.1).
func (w *WebSocket) check(r *request) *UpgradeError {
	key, err := base64.StdEncoding.DecodeString(string(r.key))
	switch {
	case w.o.Path != "" && string(r.path) != w.o.Path:
		return &UpgradeError{404, "no such path"}
	case !r.upgrade || !r.connection:
		return &UpgradeError{426, "no upgrade asked for"}
	case string(r.version) != "13":
		return &UpgradeError{426, "version is not 13"}
	case err != nil || len(key) != 16:
		return &UpgradeError{400, "bad Sec-WebSocket-Key"}
	case !allowedOrigin(w.o.Origins, string(r.origin), string(r.host), r.hasOrigin):
		return &UpgradeError{403, "origin not allowed"}
	case len(r.protocol) == 0: // [MQTT-6.0.0-3]
		return &UpgradeError{400, "sub-protocol mqtt not offered"}
	}
	return nil
}

// appendSwitch appends the answer to a good request.
func appendSwitch(dst []byte, r *request) []byte {
	const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455 1.3
	sum := sha1.Sum(append(append([]byte(nil), r.key...), guid...))
	return fmt.Appendf(dst, "HTTP/1.1 101 Switching Protocols\r\n"+
		"Upgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]), r.protocol)
}

// refuse prepares the answer that Close gives.
func (w *WebSocket) refuse(e *UpgradeError) error {
	w.kept = nil
	body := endpointText + e.Text + "\n"
	more := ""
	switch e.Status {
	case 405:
		more = "Allow: GET\r\n"
	case 426: // RFC 9110 15.5.22, RFC 6455 4.4
		more = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
	}
	connection := "close"
	if e.Status == 426 {
		connection = "Upgrade, close"
	}
	w.say = fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nConnection: %s\r\n%s"+
		"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s",
		e.Status, statusText[e.Status], connection, more, len(body), body)
	return e
}
