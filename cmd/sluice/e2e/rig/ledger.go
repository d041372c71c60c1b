package rig

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Ledger is the account of numbered messages: what was acknowledged to their
// publishers, and what arrived. The numbers of a source begin at 0.
type Ledger struct {
	mu      sync.Mutex
	sources map[string]*account
	sum     Sum
	last    time.Time // of arrival
}

type account struct {
	acked   []bool
	arrived []uint16 // how often
	highest int      // number arrived so far
}

// Sum is what a Ledger comes to.
type Sum struct {
	Acked      int
	Arrived    int // different messages
	Duplicates int // arrivals beyond the first of each message
	Disorder   int // first arrivals behind a later message of the same source
	Strange    int // payloads that are none of ours
	LongestGap time.Duration
}

// NewLedger makes an empty one.
func NewLedger() *Ledger { return &Ledger{sources: map[string]*account{}} }

// Payload is the payload of message n of a source, filled up to size.
func Payload(source string, n uint64, size int) []byte {
	b := strconv.AppendUint(append(append(make([]byte, 0, size), source...), ' '), n, 10)
	b = append(b, ' ')
	for len(b) < size {
		b = append(b, '.')
	}
	return b
}

func (l *Ledger) account(source string) *account {
	a := l.sources[source]
	if a == nil {
		a = &account{highest: -1}
		l.sources[source] = a
	}
	return a
}

func grow[T any](s []T, n uint64) []T {
	if n < uint64(len(s)) {
		return s
	}
	return append(s, make([]T, n+1-uint64(len(s)))...)
}

// Acked notes that the broker acknowledged message n.
func (l *Ledger) Acked(source string, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.account(source)
	a.acked = grow(a.acked, n)
	if !a.acked[n] {
		a.acked[n] = true
		l.sum.Acked++
	}
}

// Arrived notes that message n arrived.
func (l *Ledger) Arrived(source string, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if gap := now.Sub(l.last); !l.last.IsZero() && gap > l.sum.LongestGap {
		l.sum.LongestGap = gap
	}
	l.last = now
	a := l.account(source)
	a.arrived = grow(a.arrived, n)
	a.arrived[n]++
	switch {
	case a.arrived[n] > 1:
		l.sum.Duplicates++
		return
	case int(n) < a.highest:
		l.sum.Disorder++
	default:
		a.highest = int(n)
	}
	l.sum.Arrived++
}

// ArrivedPayload is Arrived for what Payload made.
func (l *Ledger) ArrivedPayload(payload []byte) {
	source, rest, _ := bytes.Cut(payload, []byte(" "))
	number, _, ok := bytes.Cut(rest, []byte(" "))
	n, err := strconv.ParseUint(string(number), 10, 32)
	if !ok || err != nil {
		l.mu.Lock()
		l.sum.Strange++
		l.mu.Unlock()
		return
	}
	l.Arrived(string(source), n)
}

// Sum is the account so far.
func (l *Ledger) Sum() Sum {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum
}

// Lost tells how many messages were acknowledged and have not arrived, and names
// some of them.
func (l *Ledger) Lost() (n int, some string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	const namesMax = 10
	var names []string
	for source, a := range l.sources {
		for i, acked := range a.acked {
			if acked && (i >= len(a.arrived) || a.arrived[i] == 0) {
				if n++; len(names) < namesMax {
					names = append(names, fmt.Sprintf("%s/%d", source, i))
				}
			}
		}
	}
	slices.Sort(names)
	return n, strings.Join(names, " ")
}

// Mark is a point in the account.
type Mark map[string]int // how many messages of each source

// Mark is what is acknowledged by now.
func (l *Ledger) Mark() Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := Mark{}
	for source, a := range l.sources {
		m[source] = len(a.acked)
	}
	return m
}

// Missing tells how many messages up to the mark were acknowledged and have not
// arrived.
func (l *Ledger) Missing(m Mark) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for source, end := range m {
		a := l.sources[source]
		for i, acked := range a.acked[:end] {
			if acked && (i >= len(a.arrived) || a.arrived[i] == 0) {
				n++
			}
		}
	}
	return n
}
