package bridge

import (
	"fmt"
	"testing"

	"sluice/broker/mqtt"
)

// Topics that the upstream knows go as numbers, over losses of the connection, too; what
// it has refused it need not know.
func TestTopicAliases(t *testing.T) {
	local, up := newFakeLocal(t), newFakeUpstream(t)
	oracle(t, local, up)
	up.connack = mqtt.Properties{TopicAliasMax: 2}
	refused := 0
	up.puback = func(_ int, m upMsg) mqtt.Reason {
		if m.topic == "up/s/1" && refused < 3 {
			refused++
			return mqtt.QuotaExceeded
		}
		return mqtt.Success
	}
	up.teach = func(p *mqtt.Publish) bool { return string(p.Topic) != "up/s/1" || refused >= 3 }
	o := testOptions(local, up.addr(), outAll)
	o.Protocol, o.TopicAliases, o.InflightMax = Protocol5, 10, 8
	b := startBridge(t, o)
	eventually(t, "up", inState(b, StateUp))
	for i := range 200 {
		publishRound(local, 3, i)
		if i == 100 {
			up.cutAll()
		}
	}
	eventually(t, "the session is empty", func() bool { return local.open() == 0 })
	for k := range 3 {
		if got := len(up.messages()[fmt.Sprintf("up/s/%d", k)]); got != 200 {
			t.Errorf("topic %d: %d of 200 messages", k, got)
		}
	}
	if st := b.Status(); st.Links > 3 {
		t.Errorf("%d links: %s", st.Links, st.LastError)
	}
}

// What they save, on a topic of 40 bytes with payloads of 50.
func TestTopicAliasesSaveBytes(t *testing.T) {
	perMessage := map[int]int{}
	for _, n := range []int{0, 10} {
		local, up := newFakeLocal(t), newFakeUpstream(t)
		up.connack = mqtt.Properties{TopicAliasMax: 100}
		o := testOptions(local, up.addr(), outAll)
		o.Protocol, o.TopicAliases = Protocol5, n
		b := startBridge(t, o)
		eventually(t, "up", inState(b, StateUp))
		const topic = "plant/7/line/3/machine/12/temperature" // 40 with its prefix
		say := func(messages int) (bytes int) {
			up.with(func() { bytes = up.conn.bytes })
			for i := range messages {
				local.publish(topic, fmt.Sprintf("%050d", i), 1, false)
			}
			eventually(t, "the session is empty", func() bool { return local.open() == 0 })
			up.with(func() { bytes = up.conn.bytes - bytes })
			return bytes
		}
		say(1) // which teaches
		perMessage[n] = say(100) / 100
	}
	if perMessage[0] != 97 || perMessage[10] != 60 { // 2 + 2 + 40 + 2 + 1 + 50; the topic makes way for 3 bytes
		t.Errorf("bytes per message: %d without, %d with aliases", perMessage[0], perMessage[10])
	}
}
