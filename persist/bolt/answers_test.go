package bolt

import (
	"sync"

	"sluice/persist"
)

// answers collects what a store tells.
type answers struct {
	mu      sync.Mutex
	cond    *sync.Cond
	settled int
	failed  int
	fetched []persist.Fetched
}

func newAnswers() *answers {
	a := &answers{}
	a.cond = sync.NewCond(&a.mu)
	return a
}

func (a *answers) Settled(_ int, tokens []persist.Token, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settled += len(tokens)
	if err != nil {
		a.failed += len(tokens)
	}
	a.cond.Broadcast()
}

func (a *answers) Fetched(_ int, f persist.Fetched) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fetched = append(a.fetched, f)
	a.cond.Broadcast()
}

// waitSettled waits until n groups are settled.
func (a *answers) waitSettled(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.settled < n {
		a.cond.Wait()
	}
}

// waitFetched waits for an answer.
func (a *answers) waitFetched() persist.Fetched {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.fetched) == 0 {
		a.cond.Wait()
	}
	f := a.fetched[0]
	a.fetched = a.fetched[1:]
	return f
}
