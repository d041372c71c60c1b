// Package wire holds the byte layers between a socket and MQTT: plain, and
// with later releases TLS and WebSocket. A layer turns bytes into bytes; it owns no
// socket and no goroutine, so one read path and one write path in the worker
// serve every transport.
package wire

// Layer translates between the bytes of a socket and the bytes of MQTT. It
// belongs to one connection, and so to one worker.
type Layer interface {
	// In takes bytes as they were read and gives the bytes of MQTT in them.
	// The result aliases src or dst and is valid until the next call; what
	// src holds of an unfinished record is kept by the layer.
	In(dst, src []byte) ([]byte, error)

	// Out appends to dst what has to be written to send the MQTT bytes in src.
	Out(dst, src []byte) ([]byte, error)
}

// Plain is the layer of a connection without one: bytes go through untouched
// and uncopied.
type Plain struct{}

// In returns src.
func (Plain) In(_, src []byte) ([]byte, error) { return src, nil }

// Out returns src if dst is empty.
func (Plain) Out(dst, src []byte) ([]byte, error) {
	if len(dst) == 0 {
		return src, nil
	}
	return append(dst, src...), nil
}
