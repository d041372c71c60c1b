package crash

import (
	"math/rand/v2"
	"slices"
	"sync"
)

// DESIGN. A Platter is a disk with a volatile write cache. Reads see what was written.
// Flush moves the cache to the platter. Image gives what a cut of the power would leave:
// the platter, and of the writes in the cache none, all, a prefix, any, or any sectors.
// Writes that stay are applied in order, so a sector that was written several times has
// any of its versions.

// sectorBytes is what a disk writes whole or not at all.
const sectorBytes = 512

// Platter is a disk. Its methods may be called from any goroutine.
type Platter struct {
	mu      sync.Mutex
	now     []byte // what reads see
	durable []byte // what is on the platter for sure
	cache   []write
	lies    bool
	flushes int
	trap    int    // how many writes from now on until sprung is called; 0: none
	sprung  func() // under mu
}

type write struct {
	off  int64
	data []byte
}

// NewPlatter makes a disk that holds image. One that lies says that it has flushed,
// and has not.
func NewPlatter(image []byte, lies bool) *Platter {
	return &Platter{now: image, durable: slices.Clone(image), lies: lies}
}

// Bytes is its size.
func (p *Platter) Bytes() int64 { return int64(len(p.now)) }

// Read copies from off to b, as far as the disk goes.
func (p *Platter) Read(b []byte, off int64) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if off >= int64(len(p.now)) {
		return 0
	}
	return copy(b, p.now[off:])
}

// Write puts b into the cache. False: it goes beyond the end.
func (p *Platter) Write(b []byte, off int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if off < 0 || off+int64(len(b)) > int64(len(p.now)) {
		return false
	}
	copy(p.now[off:], b)
	p.cache = append(p.cache, write{off, slices.Clone(b)})
	if p.trap > 0 {
		if p.trap--; p.trap == 0 {
			p.sprung()
		}
	}
	return true
}

// Flush moves the cache to the platter.
func (p *Platter) Flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flushes++
	if p.lies {
		return
	}
	for _, w := range p.cache {
		copy(p.durable[w.off:], w.data)
	}
	p.cache = nil
}

// Flushes is how often it was flushed.
func (p *Platter) Flushes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flushes
}

// Image gives what the platter would hold if the power went when the nth write from now
// is in the cache (0: now), and how many writes were in the cache. at is called at that
// very moment; it must not use the disk. Somebody must write, or Image waits for ever.
func (p *Platter) Image(nth int, random *rand.Rand, at func()) (image []byte, unflushed int) {
	var cache []write
	done := make(chan struct{})
	p.mu.Lock()
	p.trap, p.sprung = nth, func() {
		image, cache = slices.Clone(p.durable), p.cache[:len(p.cache):len(p.cache)]
		at()
		close(done)
	}
	if nth == 0 {
		p.sprung()
	}
	p.mu.Unlock()
	<-done
	lose := func(int, int) bool { return true }
	switch prefix := random.IntN(len(cache) + 1); random.IntN(5) {
	case 0: // all is lost
	case 1:
		lose = func(int, int) bool { return false }
	case 2:
		lose = func(nth, _ int) bool { return nth >= prefix }
	case 3:
		lost := false
		lose = func(_, sector int) bool {
			if sector == 0 {
				lost = random.IntN(2) == 0
			}
			return lost
		}
	default:
		lose = func(int, int) bool { return random.IntN(2) == 0 }
	}
	for nth, w := range cache {
		for at := 0; at < len(w.data); at += sectorBytes {
			if !lose(nth, at/sectorBytes) {
				copy(image[w.off+int64(at):], w.data[at:min(at+sectorBytes, len(w.data))])
			}
		}
	}
	return image, len(cache)
}
