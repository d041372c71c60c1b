package bridge

import (
	"sync"
	"sync/atomic"
)

// DESIGN. Topic aliases towards the upstream (MQTT5 3.3.2.3.4): a number of two bytes in
// place of a topic. The first topics of a connection get one each, as many as both sides
// want; the others go as they are. Until the upstream has acknowledged a message that
// bore both the topic and the number, the topic goes along: a message that is refused
// may have taught it nothing, and a number that it does not know would end the
// connection. Messages of QoS 0 are never acknowledged and teach nobody.
type aliases struct {
	max int

	mu      sync.Mutex
	byTopic map[string]*alias
}

type alias struct {
	number uint16
	known  atomic.Bool // to the upstream
}

// aliasBytes is what an alias costs beside the topic; a shorter topic needs none.
// Properties may need one byte more for their length.
const aliasBytes = 3

func newAliases(n int) *aliases { return &aliases{max: n, byTopic: map[string]*alias{}} }

// of returns the alias of a topic; nil: it has none.
func (a *aliases) of(topic string) *alias {
	if a.max == 0 || len(topic) <= aliasBytes {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.byTopic[topic]
	if x == nil && len(a.byTopic) < a.max {
		x = &alias{number: uint16(len(a.byTopic) + 1)}
		a.byTopic[topic] = x
	}
	return x
}
