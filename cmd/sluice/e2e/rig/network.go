package rig

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"
)

// DESIGN. Frames are carried in both directions by one goroutine for reading and one for
// writing, through a queue in order of arrival. A frame is lost, or leaves when the
// line is free and its delay is over; what is on the way stays on the way when the
// Weather changes. The queue is bounded as that of a modem is: beyond it frames are lost,
// which is how TCP learns of a slow line.

// Weather is what a Network does to each frame, in each direction.
type Weather struct {
	Delay          time.Duration // one way
	Loss           float64       // share of frames that are lost
	BytesPerSecond int           // 0: no limit
	Hole           bool          // nothing comes through
}

// Network is a line between two hosts of its own.
type Network struct {
	Edge, Cloud *Host

	mu      sync.Mutex
	weather Weather
	random  *rand.Rand
	tasks   sync.WaitGroup
	end     chan struct{}
}

// queueMax is how many frames of one direction may be on their way.
const queueMax = 256

// NewNetwork makes one. It needs root, or a user namespace in which we are root.
func NewNetwork(seed uint64) (*Network, error) {
	n := &Network{random: rand.New(rand.NewPCG(seed, 0)), end: make(chan struct{})}
	var err error
	if n.Edge, err = newHost(net.IPv4(127, 88, 0, 1)); err != nil {
		return nil, err
	}
	if n.Cloud, err = newHost(net.IPv4(127, 88, 0, 2)); err != nil {
		n.Edge.close()
		return nil, err
	}
	n.carry(n.Edge.tap, n.Cloud.tap)
	n.carry(n.Cloud.tap, n.Edge.tap)
	return n, nil
}

// Set changes the weather.
func (n *Network) Set(w Weather) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.weather = w
}

// Close ends the network and waits for its goroutines.
func (n *Network) Close() error {
	close(n.end)
	n.Edge.close()
	n.Cloud.close()
	done := make(chan struct{})
	go func() { n.tasks.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-time.After(hostCloseMax):
		return fmt.Errorf("the network still carries frames %v after its end", hostCloseMax)
	}
}

type frame struct {
	at    time.Time // to be written
	bytes []byte
}

func (n *Network) carry(from, to *os.File) {
	queue := make(chan frame, queueMax)
	n.tasks.Go(func() {
		defer close(queue)
		n.read(from, queue)
	})
	n.tasks.Go(func() { n.write(to, queue) })
}

func (n *Network) read(from *os.File, queue chan<- frame) {
	var free time.Time // when the line is
	buf := make([]byte, 64<<10)
	for {
		size, err := from.Read(buf)
		if err != nil {
			return
		}
		w, unlucky := n.draw()
		if w.Hole || unlucky {
			continue
		}
		at := time.Now()
		if w.BytesPerSecond > 0 {
			if free.Before(at) {
				free = at
			}
			free = free.Add(time.Duration(size) * time.Second / time.Duration(w.BytesPerSecond))
			at = free
		}
		f := frame{at.Add(w.Delay), append([]byte(nil), buf[:size]...)}
		select {
		case queue <- f:
		default: // full: lost
		}
	}
}

func (n *Network) draw() (w Weather, unlucky bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.weather, n.random.Float64() < n.weather.Loss
}

func (n *Network) write(to *os.File, queue <-chan frame) {
	for f := range queue {
		timer := time.NewTimer(time.Until(f.at))
		select {
		case <-timer.C:
			_, _ = to.Write(f.bytes) // a line that is closed carries nothing
		case <-n.end:
			timer.Stop()
		}
	}
}
