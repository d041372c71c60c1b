package rig

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// DESIGN. Some listeners must come back at the port they had, after a time in
// which they did not listen. A port that the kernel chose could be taken
// meanwhile by one of thousands of outgoing connections; so ports are taken
// from below the range that the kernel gives to those (32768 and up).

const portMin, portMax = 12000, 32000

var ports struct {
	sync.Mutex
	next int
}

// Port finds a free loopback port and does not give it out twice.
func Port() (int, error) {
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		ports.next = portMin + rand.IntN(portMax-portMin)
	}
	for range portMax - portMin {
		port := ports.next
		if ports.next++; ports.next == portMax {
			ports.next = portMin
		}
		ln, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, ln.Close()
		}
	}
	return 0, errors.New("no free port")
}
