package bridge

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// proxy passes connections on and can be slow or cut them.
type proxy struct {
	ln    net.Listener
	to    string
	delay atomic.Int64 // per read of up to 16 KiB on the way to the upstream

	mu    sync.Mutex
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func pipeAll(ln net.Listener, to string) *proxy {
	p := &proxy{ln: ln, to: to, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	return p
}

func (p *proxy) setDelay(d time.Duration) { p.delay.Store(int64(d)) }

func (p *proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		u, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = c.Close()
			continue
		}
		p.mu.Lock()
		p.conns[c], p.conns[u] = true, true
		p.mu.Unlock()
		for _, conn := range []net.Conn{c, u} { // small buffers, so that the delay shows
			if tc, ok := conn.(*net.TCPConn); ok {
				_ = tc.SetReadBuffer(32 << 10)
				_ = tc.SetWriteBuffer(32 << 10)
			}
		}
		p.wg.Go(func() { p.copy(u, c, true) })
		p.wg.Go(func() { p.copy(c, u, false) })
	}
}

func (p *proxy) copy(dst, src net.Conn, up bool) {
	defer p.drop(dst, src)
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		if d := p.delay.Load(); d > 0 && up {
			time.Sleep(time.Duration(d)) // this is the link's speed, not a wait for something
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) close() {
	_ = p.ln.Close()
	p.cut()
	p.wg.Wait()
}
