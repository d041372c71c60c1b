package worker

import (
	"sync"

	"sluice/persist"
)

// DESIGN. A worker's inbox is the only way others reach it. Posting appends
// under a mutex; the worker takes everything at once and works on it outside
// the mutex. A worker that finds its inbox empty says, under the same mutex,
// that it goes to sleep; who posts after that sees it and wakes it. So no
// wake-up is lost, and a worker that is awake is never woken.
//
// Bundles are the bulk of the mail and the only part without a natural bound:
// an inbox that holds more than congestedBytes of them is congested. Workers
// that post to it stop reading from the publishers concerned (Worker.pressed),
// and are woken when the mail has been taken. Nobody ever waits for room.

// congestedBytes is the amount of undelivered mail at which publishers are no
// longer read: some turns' worth, a fraction of the memory of a small gateway.
const congestedBytes = 1 << 20

type mail struct {
	bundles   []*bundle
	handovers []*handover
	settled   []settled
	fetched   []persist.Fetched
	calls     []func(*Worker)
}

func (m *mail) empty() bool {
	return len(m.bundles)+len(m.handovers)+len(m.settled)+len(m.fetched)+len(m.calls) == 0
}

type settled struct {
	tokens []persist.Token
	err    error
}

type inbox struct {
	mu       sync.Mutex
	mail     mail
	spare    mail // emptied, to be used again
	bytes    int  // of bundles
	bytesMax int  // of them; 0: congestedBytes
	asleep   bool
	wake     func()
	waiters  uint64 // bit i: worker i%64 waits for the mail to be taken
}

func (b *inbox) posted() {
	wake := b.asleep
	b.asleep = false
	b.mu.Unlock()
	if wake {
		b.wake()
	}
}

// postBundle posts a bundle and tells whether the inbox is congested.
func (b *inbox) postBundle(x *bundle, from int) (congested bool) {
	b.mu.Lock()
	b.mail.bundles = append(b.mail.bundles, x)
	b.bytes += x.size()
	limit := congestedBytes
	if b.bytesMax != 0 {
		limit = b.bytesMax
	}
	if congested = b.bytes > limit; congested {
		b.waiters |= 1 << (from % 64)
	}
	b.posted()
	return congested
}

func (b *inbox) postHandover(h *handover) {
	b.mu.Lock()
	b.mail.handovers = append(b.mail.handovers, h)
	b.posted()
}

func (b *inbox) postSettled(s settled) {
	b.mu.Lock()
	b.mail.settled = append(b.mail.settled, s)
	b.posted()
}

func (b *inbox) postFetched(f persist.Fetched) {
	b.mu.Lock()
	b.mail.fetched = append(b.mail.fetched, f)
	b.posted()
}

func (b *inbox) postCall(f func(*Worker)) {
	b.mu.Lock()
	b.mail.calls = append(b.mail.calls, f)
	b.posted()
}

// take gives all mail, and the workers that wait for it to be taken. The mail
// is the caller's until it calls giveBack.
func (b *inbox) take() (m mail, waiters uint64) {
	b.mu.Lock()
	m, waiters = b.mail, b.waiters
	b.mail, b.spare = b.spare, mail{}
	b.bytes, b.waiters, b.asleep = 0, 0, false
	b.mu.Unlock()
	return m, waiters
}

func (b *inbox) giveBack(m mail) {
	clear(m.bundles)
	clear(m.handovers)
	clear(m.settled)
	clear(m.fetched)
	clear(m.calls)
	m.bundles, m.handovers, m.settled = m.bundles[:0], m.handovers[:0], m.settled[:0]
	m.fetched, m.calls = m.fetched[:0], m.calls[:0]
	b.mu.Lock()
	b.spare = m
	b.mu.Unlock()
}

// sleep notes that the worker is about to wait, and tells whether it may: not
// while there is mail.
func (b *inbox) sleep() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asleep = b.mail.empty() || canaryLostWakeUp
	return b.asleep
}
