package bridge

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
)

// DESIGN. A bridge has one durable local session per queue. Each subscribes the
// filters of its own routes, so a message that routes of two queues select is
// in both. It goes once all the same: of all routes the first that leads to a
// topic decides which queue sends it there, and the other queue only
// acknowledges it.
//
// That is right only as long as both queues do have it, which is not so for
// messages that were queued before a route moved from one queue to another.
// Therefore the subscriptions of a bridge with several queues bear the
// generation, a number made of all routes, as their identifier, and it comes
// with each message, also after a restart. A message of another generation goes
// wherever its topic leads, whoever brought it: perhaps twice, but not never.

// Queue is one of a bridge's queues.
type Queue struct {
	Name     string // named by routes; 1 to 64 letters, digits, '-', '_' or '.'. "": the one of routes that name none
	Priority int    // 0 to 9: nothing of a lower one goes while a higher one has something to send
	Share    int    // 1 to 1000: weight among the queues of one priority
}

// defaultQueue is what the queue without a name is unless Options.Queues has it.
var defaultQueue = Queue{Share: 1}

const (
	priorityMax = 9
	shareMax    = 1000
	queuesMax   = 16 // of one bridge: each costs a session, a connection and three goroutines
)

// queues returns the queues that there are, the one without a name first.
func (o *Options) queues() []Queue {
	all := []Queue{defaultQueue}
	for _, q := range o.Queues {
		if q.Name == "" {
			all[0] = q
			continue
		}
		all = append(all, q)
	}
	return all
}

// QueueSession returns the client id of a queue's session at the local broker.
func (o *Options) QueueSession(queue string) string {
	if queue == "" {
		return o.SessionName()
	}
	return o.SessionName() + "/" + queue
}

// retired returns the queues that have a session here and are not configured
// any more. They are emptied beside the lowest priority.
func (o *Options) retired() []Queue {
	var gone []Queue
	known := o.queues()
	for id := range o.Sessions {
		name, ok := strings.CutPrefix(id, o.SessionName()+"/")
		if ok && !slices.ContainsFunc(known, func(q Queue) bool { return q.Name == name }) {
			gone = append(gone, Queue{Name: name, Share: 1})
		}
	}
	slices.SortFunc(gone, func(a, b Queue) int { return strings.Compare(a.Name, b.Name) })
	return gone
}

// generation identifies the routes and their queues in subscriptions; 0 if
// there is but one queue, which needs none.
func (o *Options) generation() uint32 {
	if len(o.queues()) == 1 {
		return 0
	}
	const identifierMax = 268_435_455 // MQTT5 3.8.2.1.2
	h := fnv.New32a()
	for i := range o.Routes {
		fmt.Fprintf(h, "%+v\n", o.Routes[i])
	}
	return h.Sum32()%identifierMax + 1
}

func (o *Options) validateQueues() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	seen := map[string]bool{}
	for i, q := range o.Queues {
		switch {
		case q.Name != "" && !validName(q.Name):
			bad("queue %d: name %q: need 1 to 64 letters, digits, '-', '_' or '.'", i+1, q.Name)
		case seen[q.Name]:
			bad("queue %d: name %q twice", i+1, q.Name)
		}
		seen[q.Name] = true
		if q.Priority < 0 || q.Priority > priorityMax {
			bad("queue %q: priority %d: need 0 to %d", q.Name, q.Priority, priorityMax)
		}
		if q.Share < 1 || q.Share > shareMax {
			bad("queue %q: share %d: need 1 to %d", q.Name, q.Share, shareMax)
		}
	}
	if len(o.queues()) > queuesMax {
		bad("%d queues: need at most %d", len(o.queues()), queuesMax)
	}
	for i := range o.Routes {
		if r := &o.Routes[i]; r.Queue != "" && !seen[r.Queue] {
			bad("route %d: there is no queue %q", i+1, r.Queue)
		}
	}
	return errors.Join(errs...)
}
