package wire

// Layer translates between the bytes of a socket and the bytes of MQTT. It
// belongs to one connection, and so to one worker.
type Layer interface {
	// In takes bytes as they were read, and appends to dst the bytes of MQTT in
	// them (Plain gives src itself, WebSocket decodes within src if dst is empty).
	// The result aliases src or dst, and src may have been overwritten. What src
	// holds of an unfinished record or frame is kept by the layer, bounded by what
	// has come.
	//
	// Bytes may come together with an error: they were good, and are older than
	// it. io.EOF says that the peer closed in order; any other error that it broke
	// the protocol. After an error the layer gives nothing more; Close says what
	// the peer is to be told of it.
	In(dst, src []byte) ([]byte, error)

	// Out appends to dst what has to be written to send the MQTT bytes in src,
	// after what the layer itself has to say (see Pending). With an empty src
	// only that. What it gives has to be written once, in this order and whole: it
	// cannot be made again from the same src. dst and src do not overlap.
	Out(dst, src []byte) ([]byte, error)

	// Pending tells whether the layer has something to say by itself: a pong,
	// the answer to an upgrade, a record of TLS.
	Pending() bool

	// Close appends to dst the layer's farewell: an alert, a close frame. Nothing
	// else is called after it.
	Close(dst []byte) []byte
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

// Pending returns false.
func (Plain) Pending() bool { return false }

// Close returns dst.
func (Plain) Close(dst []byte) []byte { return dst }
