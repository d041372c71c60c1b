package bridge

import (
	"io"

	"sluice/broker/mqtt"
)

// frames cuts a stream into packets. Its buffer grows with the bytes that are
// really there, up to the largest packet, and is let go after a large one.
type frames struct {
	src  io.Reader
	max  int // largest packet, header included
	buf  []byte
	r, w int // the bytes not yet handed out: buf[r:w]
}

const (
	framesFirstBytes = 4 << 10
	framesKeepBytes  = 64 << 10
)

// next returns the next packet. body is valid until the following call.
func (f *frames) next() (h mqtt.Header, body []byte, err error) {
	for {
		h, n, err := mqtt.ParseHeader(f.buf[f.r:f.w], f.max)
		if err != nil {
			return h, nil, err
		}
		if n > 0 && f.w-f.r-n >= h.Remaining {
			body = f.buf[f.r+n : f.r+n+h.Remaining : f.r+n+h.Remaining]
			f.r += n + h.Remaining
			return h, body, nil
		}
		if err := f.fill(); err != nil {
			return h, nil, err
		}
	}
}

// fill reads at least one byte.
func (f *frames) fill() error {
	if f.r == f.w {
		f.r, f.w = 0, 0
		if len(f.buf) > framesKeepBytes {
			f.buf = nil
		}
	}
	if f.r > 0 && f.w == len(f.buf) {
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	}
	if f.w == len(f.buf) {
		grown := make([]byte, max(framesFirstBytes, 2*len(f.buf)))
		copy(grown, f.buf)
		f.buf = grown
	}
	n, err := f.src.Read(f.buf[f.w:])
	f.w += n
	if n > 0 {
		return nil // an error comes again
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}
