package rig

import (
	"sync"
	"time"
)

// reconnectPause is the pause between two attempts of a Keeper: a broker that
// was killed is back in some tens of milliseconds.
const reconnectPause = 5 * time.Millisecond

// Keeper connects a client again whenever its connection is lost.
type Keeper struct {
	client *Client
	end    chan struct{}
	once   sync.Once
	task   sync.WaitGroup
}

// Keep keeps a client that is connected so, at wherever address says that the
// broker is; "" while it is nowhere. address is called from the keeper's
// goroutine.
func Keep(c *Client, address func() string) *Keeper {
	k := &Keeper{client: c, end: make(chan struct{})}
	k.task.Go(func() {
		for k.wait(c.Lost()) && k.connect(address) {
		}
	})
	return k
}

// Close ends the keeper and its client's connection.
func (k *Keeper) Close() {
	k.once.Do(func() { close(k.end) })
	k.client.Close()
	k.task.Wait()
	k.client.Close() // it may have come back in between
}

// wait tells whether the keeper goes on after c is closed.
func (k *Keeper) wait(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-k.end:
		return false
	}
}

func (k *Keeper) connect(address func() string) bool {
	pause := time.NewTicker(reconnectPause)
	defer pause.Stop()
	for {
		if a := address(); a != "" {
			if _, err := k.client.Connect(a); err == nil {
				return true
			}
		}
		select {
		case <-pause.C:
		case <-k.end:
			return false
		}
	}
}
