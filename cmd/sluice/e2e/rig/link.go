package rig

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// DESIGN. A Link is a TCP proxy that stands for a bad network. It forwards by
// two goroutines per connection. Each asks the gate before it passes on what it
// has read: while the link is a black hole the gate is closed, bytes stay where
// they are and nobody is told, as when a cable is out: TCP would deliver them
// later, and so does the link, unless the connection is reset first.

// Link forwards TCP connections to a fixed address, as long as it is well.
type Link struct {
	address, target string

	mu    sync.Mutex
	gate  *sync.Cond
	hole  bool
	greet []byte
	ln    net.Listener          // nil: connections are refused
	conns map[*net.TCPConn]bool // true: stalled
	made  int
	tasks sync.WaitGroup
}

// NewLink opens a link to target at a port of its own.
func NewLink(target string) (*Link, error) {
	port, err := Port()
	if err != nil {
		return nil, err
	}
	l := &Link{address: fmt.Sprintf("127.0.0.1:%d", port), target: target, conns: map[*net.TCPConn]bool{}}
	l.gate = sync.NewCond(&l.mu)
	return l, l.Restore()
}

// Addr is where to connect to.
func (l *Link) Addr() string { return l.address }

// Connections tells how many connections were made through the link.
func (l *Link) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made
}

// Restore makes the link well again. Connections that waited in a black hole
// go on.
func (l *Link) Restore() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hole = false
	l.gate.Broadcast()
	if l.ln != nil {
		return nil
	}
	ln, err := net.Listen("tcp4", l.address)
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	l.ln = ln
	l.tasks.Go(func() { l.accept(ln) })
	return nil
}

// Greet makes the link send something to the target on each new connection before
// what the client sends, as a proxy does.
func (l *Link) Greet(header string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.greet = []byte(header)
}

// Blackhole forwards nothing more and tells nobody. New connections are
// accepted, and hang.
func (l *Link) Blackhole() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hole = true
}

// Stall forwards nothing more on the connections that there are, for good, and
// tells nobody; new ones pass. So it is when a router has forgotten them.
func (l *Link) Stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		l.conns[c] = true
	}
}

// Refuse resets all connections and refuses new ones.
func (l *Link) Refuse() {
	l.mu.Lock()
	if l.ln != nil {
		_ = l.ln.Close() // a listener cannot fail to close in a way that matters here
		l.ln = nil
	}
	l.mu.Unlock()
	l.Reset()
}

// Reset breaks all connections with RST.
func (l *Link) Reset() { l.drop(true) }

// Cut ends all connections with FIN, whatever is on the way.
func (l *Link) Cut() { l.drop(false) }

func (l *Link) drop(reset bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if reset {
			_ = c.SetLinger(0)
		}
		_ = c.Close()
		delete(l.conns, c)
	}
	l.gate.Broadcast()
}

// Close ends the link and waits for its goroutines.
func (l *Link) Close() {
	l.Refuse()
	l.mu.Lock()
	l.hole = false
	l.gate.Broadcast()
	l.mu.Unlock()
	l.tasks.Wait()
}

func (l *Link) accept(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		if tc := c.(*net.TCPConn); l.add(tc, ln) {
			l.tasks.Go(func() { l.serve(tc) })
		}
	}
}

// add takes c among the connections that drop ends. ln, if not nil, must be
// listening still: what was in the backlog of a link that refuses is reset.
func (l *Link) add(c *net.TCPConn, ln net.Listener) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln != nil && l.ln != ln {
		_ = c.SetLinger(0)
		_ = c.Close()
		return false
	}
	if ln != nil {
		l.made++
	}
	l.conns[c] = false
	return true
}

func (l *Link) remove(c *net.TCPConn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.gate.Broadcast()
	l.mu.Unlock()
	_ = c.Close()
}

// pass waits while the link is a black hole, or c is stalled. It tells whether c
// is still there.
func (l *Link) pass(c *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		stalled, there := l.conns[c]
		if !there || !l.hole && !stalled {
			return there
		}
		l.gate.Wait()
	}
}

func (l *Link) serve(c *net.TCPConn) {
	defer l.remove(c)
	if !l.pass(c) {
		return
	}
	d, err := net.DialTimeout("tcp4", l.target, time.Second)
	if err != nil {
		_ = c.SetLinger(0)
		return
	}
	far := d.(*net.TCPConn)
	if l.add(far, nil); !l.pass(c) {
		l.remove(far)
		return
	}
	defer l.remove(far)
	l.mu.Lock()
	greet := l.greet
	l.mu.Unlock()
	if _, err := far.Write(greet); err != nil {
		return
	}
	back := make(chan struct{})
	l.tasks.Go(func() {
		l.forward(c, far)
		close(back)
	})
	l.forward(far, c)
	<-back
}

func (l *Link) forward(to, from *net.TCPConn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if !l.pass(from) || !l.pass(to) {
			// The other direction must notice, too.
			l.remove(to)
			l.remove(from)
			return
		}
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				l.remove(from)
				return
			}
		}
		if err != nil {
			_ = to.CloseWrite()
			return
		}
	}
}
