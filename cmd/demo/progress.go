package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/cmd/sluice/e2e/rig"
)

// progress shows how the demo goes: a line that is written anew on a terminal, a
// line each second elsewhere.
type progress struct {
	out      io.Writer
	terminal bool
	ledger   *rig.Ledger
	gateway  *rig.Gateway
	began    time.Time

	mu    sync.Mutex
	phase string
	peak  int64 // of the store, bytes
	done  chan struct{}
	ended sync.WaitGroup
}

func newProgress(out *os.File, ledger *rig.Ledger, gateway *rig.Gateway) *progress {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	p := &progress{out: out, terminal: err == nil, ledger: ledger, gateway: gateway, began: time.Now(), done: make(chan struct{})}
	p.ended.Go(p.run)
	return p
}

func (p *progress) run() {
	interval := time.Second
	if p.terminal {
		interval = 200 * time.Millisecond
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-tick.C:
			p.show()
		}
	}
}

func (p *progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	stored := p.gateway.StoreBytes()
	p.peak = max(p.peak, stored)
	sum := p.ledger.Sum()
	line := fmt.Sprintf("%5.1fs  %-28s acknowledged %7d   at the cloud %7d   on the way %6d   store %6.1f MiB",
		time.Since(p.began).Seconds(), p.phase, sum.Acked, sum.Arrived, max(sum.Acked-sum.Arrived, 0), mib(stored))
	if p.terminal {
		fmt.Fprint(p.out, "\r", line, "\x1b[K")
	} else {
		fmt.Fprintln(p.out, line)
	}
}

// enter begins a phase and says what happens.
func (p *progress) enter(phase, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase = phase
	start := ""
	if p.terminal {
		start = "\r\x1b[K"
	}
	fmt.Fprintf(p.out, "%s%5.1fs  ── %s\n", start, time.Since(p.began).Seconds(), what)
}

// end stops the progress and gives the size that the store had at most.
func (p *progress) end() (peak int64) {
	close(p.done)
	p.ended.Wait()
	p.show()
	if p.terminal {
		fmt.Fprintln(p.out)
	}
	return p.peak
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// table is the account at the end.
func table(out io.Writer, rows [][2]string) {
	fmt.Fprintln(out)
	for _, r := range rows {
		fmt.Fprintf(out, "  %s %s %12s\n", r[0], strings.Repeat(".", 34-len(r[0])), r[1])
	}
	fmt.Fprintln(out)
}
