package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// An alarm that is published last overtakes 1,000 messages that wait for a
// client which was away.
func TestAlarmOvertakesTheQueue(t *testing.T) {
	t.Parallel()
	b := start(t, "[queue]\npriority = [\"alarms/#\"]\n")
	at := []string{"-h", "127.0.0.1", "-p", port(b.Addr())}
	for _, v := range versions {
		t.Run(v, func(t *testing.T) {
			t.Parallel()
			session := append(at, "-V", v, "-c", "-i", "away-"+v, "-q", "1", "-t", "q/"+v, "-t", "alarms/"+v)
			tool(t, "", "mosquitto_sub", append(session, "-E")...) // ends when subscribed
			want := []string{"alarms/" + v + "|1|0|fire"}
			var lines strings.Builder
			for i := range 1000 {
				fmt.Fprintf(&lines, "%d\n", i)
				want = append(want, fmt.Sprintf("q/%s|1|0|%d", v, i))
			}
			tool(t, lines.String(), "mosquitto_pub", append(at, "-V", v, "-q", "1", "-t", "q/"+v, "-l")...)
			tool(t, "", "mosquitto_pub", append(at, "-V", v, "-q", "1", "-t", "alarms/"+v, "-m", "fire")...)
			same(t, listen(t, session...).messages(len(want)), want)
		})
	}
}
