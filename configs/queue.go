package configs

import (
	"strconv"
	"strings"
	"time"

	"sluice/broker/topic"
)

// Queue bounds what waits for a session, and says what becomes of the rest.
type Queue struct {
	MessagesMax int          `toml:"messages_max" allow:"1..100000000"`
	BytesMax    Bytes        `toml:"bytes_max" allow:"1KiB..1GiB"`
	AgeMax      Duration     `toml:"age_max" allow:"0 or 1s..36500d"` // whole seconds; 0: any age
	Policy      string       `toml:"policy" allow:"reject|drop-oldest|drop-newest"`
	QoS0        string       `toml:"qos0" allow:"off|memory"`
	MQTT5Full   string       `toml:"mqtt5_full" allow:"refuse|hold"`
	Priority    []string     `toml:"priority"` // filters of topics that overtake others, for all sessions
	Classes     []QueueClass `toml:"class"`
}

// QueueClass has other values for some sessions. What it does not set is as in
// [queue]; the first class that a session belongs to holds.
type QueueClass struct {
	Name        string    `toml:"name"`
	ClientIDs   []string  `toml:"client_ids"` // patterns with * and ?; none: any
	Users       []string  `toml:"users"`      // the same
	MessagesMax *int      `toml:"messages_max" allow:"1..100000000"`
	BytesMax    *Bytes    `toml:"bytes_max" allow:"1KiB..1GiB"`
	AgeMax      *Duration `toml:"age_max" allow:"0 or 1s..36500d"`
	Policy      *string   `toml:"policy" allow:"reject|drop-oldest|drop-newest"`
	QoS0        *string   `toml:"qos0" allow:"off|memory"`
	MQTT5Full   *string   `toml:"mqtt5_full" allow:"refuse|hold"`
}

// Of gives the values that hold for a class: its own, and the rest from q.
func (q *Queue) Of(c *QueueClass) Queue {
	of := *q
	of.Classes = nil
	own(&of.MessagesMax, c.MessagesMax)
	own(&of.BytesMax, c.BytesMax)
	own(&of.AgeMax, c.AgeMax)
	own(&of.Policy, c.Policy)
	own(&of.QoS0, c.QoS0)
	own(&of.MQTT5Full, c.MQTT5Full)
	return of
}

func own[T any](value, set *T) {
	if set != nil {
		*value = *set
	}
}

func (v *validator) queue(q *Queue, packetMax Bytes, levelsMax int) {
	v.queueLimits(q, "queue", packetMax)
	v.priority(q.Priority, levelsMax)
	first := map[string]int{}
	for i := range q.Classes {
		c, path := &q.Classes[i], index("queue.class", i)
		if !validName(c.Name) {
			v.problem(path+".name", quoted(c.Name), "1 to 64 letters, digits, '-', '_' or '.'", "")
		} else if j, twice := first[c.Name]; twice {
			v.problem(path+".name", quoted(c.Name)+" twice", "a name of its own for each class", "see "+index("queue.class", j))
		}
		first[c.Name] = i
		if len(c.ClientIDs) == 0 && len(c.Users) == 0 {
			v.problem(path+".client_ids", "neither client_ids nor users", "at least one of them", `client_ids = ["*"] is all clients`)
		}
		of := q.Of(c)
		if c.BytesMax == nil {
			of.BytesMax = packetMax // judged above
		}
		if c.AgeMax == nil {
			of.AgeMax = 0
		}
		v.queueLimits(&of, path, packetMax)
	}
}

// priorityMax bounds the filters that each message is compared with.
const priorityMax = 64

func (v *validator) priority(filters []string, levelsMax int) {
	if len(filters) > priorityMax {
		v.problem("queue.priority", strconv.Itoa(len(filters))+" filters", "at most "+strconv.Itoa(priorityMax), "each message is compared with all of them")
	}
	for _, f := range filters {
		if err := topic.CheckFilter([]byte(f), levelsMax); err != nil {
			v.problem("queue.priority", quoted(f), "topic filters", err.Error())
		} else if strings.HasPrefix(f, "$share/") {
			v.problem("queue.priority", quoted(f), "topic filters", "a shared subscription is none")
		}
	}
}

func (v *validator) queueLimits(q *Queue, path string, packetMax Bytes) {
	if q.BytesMax < packetMax {
		v.problem(path+".bytes_max", quoted(q.BytesMax), "at least limits.packet_bytes_max, "+quoted(packetMax),
			"the largest message must fit into a queue")
	}
	if q.AgeMax.Duration()%time.Second != 0 {
		v.problem(path+".age_max", quoted(q.AgeMax), "whole seconds", "")
	}
}
