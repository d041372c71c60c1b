package rig

import (
	"os"
	"sync"
	"testing"
)

// A process outlives the hosts that come and go after its start, whatever threads they
// take: it dies with the thread that started it.
func TestProcessesOutliveHosts(t *testing.T) {
	var processes []*Process
	var mu sync.Mutex
	var starts sync.WaitGroup
	for range 20 {
		starts.Go(func() { // on as many threads as there are
			p, err := Start("sleep", "sleep", "600")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			processes = append(processes, p)
			mu.Unlock()
		})
	}
	starts.Wait()
	for range 10 {
		n, err := NewNetwork(1)
		if err != nil && os.Geteuid() != 0 && os.Getenv("CI") == "" {
			t.Skipf("needs root to make network namespaces: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range processes {
		select {
		case <-p.Done():
			t.Errorf("process %d has ended", p.PID())
		default:
		}
		p.Kill()
	}
}
