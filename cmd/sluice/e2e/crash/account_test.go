package crash

import (
	"bytes"
	"slices"
	"strconv"
	"sync"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// account knows what was acknowledged to publishers and has not reached the subscriber
// of the live broker: a broker that comes up after a cut must have it.
type account struct {
	mu    sync.Mutex
	acked int
	open  int             // how many are owed
	owed  map[string]bool // payloads; false: it came before its acknowledgement
}

const payloadBytes = 100

func newAccount() *account { return &account{owed: map[string]bool{}} }

// acknowledged notes an acknowledgement.
func (a *account) acknowledged(source string, n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acked++
	key := string(rig.Payload(source, n, payloadBytes))
	if _, came := a.owed[key]; came {
		delete(a.owed, key)
		return
	}
	a.owed[key] = true
	a.open++
}

// arrived notes that the subscriber got a message, perhaps again.
func (a *account) arrived(p *mqtt.Publish) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := string(p.Payload)
	switch owed, known := a.owed[key]; {
	case owed:
		delete(a.owed, key)
		a.open--
	case !known && !p.Dup:
		a.owed[key] = false
	}
}

// debts are the payloads that are owed now.
func (a *account) debts() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := make(map[string]bool, a.open)
	for key, owed := range a.owed {
		if owed {
			m[key] = true
		}
	}
	return m
}

// total is how many were acknowledged.
func (a *account) total() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.acked
}

// due is how many are owed.
func (a *account) due() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open
}

// settle takes out of debts what has been paid since: it may be on the way out of the
// store when the power goes.
func (a *account) settle(debts map[string]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range debts {
		if !a.owed[key] {
			delete(debts, key)
		}
	}
}

// delivery is what a broker gives to a session after a cut, up to a marker.
type delivery struct {
	mu     sync.Mutex
	debts  map[string]bool
	last   map[string]uint64 // by source
	wrong  []string
	marker chan struct{} // closed when it came
	state  uint64        // the retained message
}

const (
	markerTopic = "load/marker"
	stateTopic  = "state"
)

func (d *delivery) take(p *mqtt.Publish) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch string(p.Topic) {
	case markerTopic:
		close(d.marker)
		return
	case stateTopic:
		d.state, _ = strconv.ParseUint(string(p.Payload), 10, 64) // 0 is what no publisher sends
		return
	}
	delete(d.debts, string(p.Payload))
	fields := bytes.Fields(p.Payload)
	if len(fields) < 2 || len(p.Payload) != payloadBytes {
		d.wrong = append(d.wrong, "a damaged payload "+strconv.Quote(string(p.Payload)))
		return
	}
	source := string(fields[0])
	n, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if before, seen := d.last[source]; err != nil || seen && n <= before {
		d.wrong = append(d.wrong, "message "+string(fields[1])+" of "+source+" after "+strconv.FormatUint(before, 10))
	}
	d.last[source] = n
}

// missing are the debts that were not paid, a few of them.
func (d *delivery) missing() (n int, some []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key := range d.debts {
		some = append(some, string(bytes.TrimRight([]byte(key), " .")))
	}
	slices.Sort(some)
	return len(some), some[:min(len(some), 5)]
}
