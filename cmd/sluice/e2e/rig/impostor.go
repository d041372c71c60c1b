package rig

import (
	"bufio"
	"io"
	"net"
	"sync"
)

// Impostor listens where a broker should be, takes CONNECTs and does no more: it refuses
// them as not authorized, or lets them in and answers nothing ever after.
type Impostor struct {
	Refuse bool

	listener net.Listener
	mu       sync.Mutex
	conns    []net.Conn
	met      int
	tasks    sync.WaitGroup
}

// Start listens on address, on host if that is not nil.
func (i *Impostor) Start(host *Host, address string) error {
	listen := func() (err error) {
		i.listener, err = net.Listen("tcp4", address)
		return err
	}
	var err error
	if host != nil {
		err = host.Do(listen)
	} else {
		err = listen()
	}
	if err != nil {
		return err
	}
	i.tasks.Go(func() {
		for {
			c, err := i.listener.Accept()
			if err != nil {
				return
			}
			i.mu.Lock()
			i.conns = append(i.conns, c)
			i.mu.Unlock()
			i.tasks.Go(func() { i.serve(c) })
		}
	})
	return nil
}

// Met tells how many CONNECTs came.
func (i *Impostor) Met() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.met
}

func (i *Impostor) serve(c net.Conn) {
	r := bufio.NewReader(c)
	head, err := r.Peek(9) // type, remaining length below 128, "MQTT", level
	if err != nil {
		return
	}
	code := byte(0)
	if i.Refuse {
		code = 5
	}
	answer := []byte{0x20, 2, 0, code}
	if head[8] == 5 {
		if i.Refuse {
			code = 0x87
		}
		answer = []byte{0x20, 3, 0, code, 0}
	}
	i.mu.Lock()
	i.met++
	i.mu.Unlock()
	if _, err := c.Write(answer); err != nil || i.Refuse {
		_ = c.Close()
		return
	}
	_, _ = io.Copy(io.Discard, r) // until it gives up
}

// Close ends it and its connections.
func (i *Impostor) Close() {
	_ = i.listener.Close()
	i.mu.Lock()
	for _, c := range i.conns {
		_ = c.Close()
	}
	i.mu.Unlock()
	i.tasks.Wait()
}
