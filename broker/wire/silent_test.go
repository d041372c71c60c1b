package wire

import (
	"runtime"
	"strings"
	"testing"
)

// Post-handshake handshake message that never ends.
func TestEndlessHandshakeMessage(t *testing.T) {
	const n = 30
	var all []*pair
	var fs []*forger
	for range n {
		p, f := newForger(t)
		all, fs = append(all, p), append(fs, f)
	}
	before := heap()
	for i, p := range all {
		f := fs[i]
		var err error
		for k := range 3 {
			data := strings.Repeat("x", 16384)
			if k == 0 {
				data = "\x18\x00\xff\xf0" + data[4:]
			}
			if _, err = p.layer.In(make([]byte, 0, 96<<10), f.record(22, data)); err != nil {
				break
			}
		}
		if err == nil {
			t.Fatal("48 KiB of a message that never ends were taken")
		}
	}
	if held := (heap() - before) / n; held > 48<<10 {
		t.Errorf("%d bytes are kept for each", held)
	}
	runtime.KeepAlive(all)
}
