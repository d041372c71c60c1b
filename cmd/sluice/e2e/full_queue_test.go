package e2e

import (
	"fmt"
	"strings"
	"testing"

	"sluice/cmd/sluice/e2e/rig"
)

// A publisher of MQTT 3.1.1 waits while the queue of a session is full, and goes
// on when its client is back: nothing is lost, in order. One of MQTT 5 is told.
func TestFullQueue(t *testing.T) {
	t.Parallel()
	b := start(t, "[queue]\nmessages_max = 20\n")
	at := []string{"-h", "127.0.0.1", "-p", port(b.Addr())}
	session := append(at, "-c", "-i", "away", "-q", "1", "-t", "full")
	tool(t, "", "mosquitto_sub", append(session, "-E")...) // ends when subscribed

	var lines strings.Builder
	var want []string
	for i := range 100 {
		fmt.Fprintf(&lines, "%d\n", i)
		want = append(want, fmt.Sprintf("full|1|0|%d", i))
	}
	pub, err := rig.Start("mosquitto_pub", "sh", "-c",
		"printf '"+strings.ReplaceAll(lines.String(), "\n", "\\n")+"' | stdbuf -oL mosquitto_pub -d -l -V 311 -q 1 -t full -h 127.0.0.1 -p "+port(b.Addr()))
	must(t, err)
	t.Cleanup(pub.Kill)
	acks := 0
	must(t, pub.Await(patience, func(line string) bool {
		if strings.Contains(line, "received PUBACK") {
			acks++
		}
		return acks == 20
	}))
	refused := tool(t, "", "mosquitto_pub", append(at, "-d", "-V", "5", "-q", "1", "-t", "full", "-m", "too much")...)
	if !strings.Contains(refused, "RC:151") {
		t.Errorf("MQTT 5 is not told:\n%s", refused)
	}
	if log := pub.Log(); strings.Count(log, "received PUBACK") != 20 || strings.Contains(log, "DISCONNECT") {
		t.Errorf("the queue takes 20 messages, and the publisher gets\n%s", log)
	}
	same(t, listen(t, session...).messages(len(want)), want)
	acks = 0
	must(t, pub.Await(patience, func(line string) bool {
		if strings.Contains(line, "received PUBACK") {
			acks++
		}
		return acks == 100
	}))
}
