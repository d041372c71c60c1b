package worker

// chunks pools the output buffers of one worker's connections: a connection
// has one only between the first byte that is to be sent and the moment the
// socket has taken the last.
type chunks struct {
	free [chunkClasses][][]byte
}

// Chunks come in sizes of 512 bytes to 256 KiB, each twice the one before.
// Larger ones are left to the garbage collector.
const (
	chunkMinBytes = 512
	chunkClasses  = 10
	// chunkKeepBytes is how much of one class is kept: enough for the
	// connections of one turn of a fan-out, and no more than that.
	chunkKeepBytes = 1 << 20
)

func (p *chunks) get(class uint8) []byte {
	if f := p.free[class]; len(f) > 0 {
		b := f[len(f)-1]
		p.free[class] = f[:len(f)-1]
		return b[:0]
	}
	return make([]byte, 0, chunkMinBytes<<class)
}

func (p *chunks) put(b []byte) {
	class := chunkClass(cap(b))
	if cap(b) < chunkMinBytes || class >= chunkClasses || len(p.free[class]) >= chunkKeepBytes/(chunkMinBytes<<class) {
		return
	}
	p.free[class] = append(p.free[class], b)
}

// chunkClass is the largest class whose chunks are not larger than n bytes, n
// being at least chunkMinBytes.
func chunkClass(n int) int {
	class := 0
	for n >= chunkMinBytes<<(class+1) {
		class++
	}
	return class
}

// chunkFor is the smallest class whose chunks hold n bytes, or the largest class.
func chunkFor(n int) uint8 {
	class := 0
	for class < chunkClasses-1 && chunkMinBytes<<class < n {
		class++
	}
	return uint8(class)
}
