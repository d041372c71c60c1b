package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/cmd/sluice/e2e/rig"
)

// tool runs one of mosquitto's clients to its end and returns what it wrote.
func tool(t testing.TB, stdin, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out.String())
	}
	return out.String()
}

// listener is a mosquitto_sub that has its subscription.
type listener struct {
	*rig.Process
	t testing.TB
}

// listen starts mosquitto_sub and waits for its SUBACK. It writes a line
// "topic|qos|retained|payload" for each message.
func listen(t testing.TB, args ...string) *listener {
	t.Helper()
	// -d tells of the SUBACK; its lines begin with something else than messages do.
	p, err := rig.Start("mosquitto_sub", "stdbuf", append([]string{"-oL", "mosquitto_sub", "-d", "-F", "MSG %t|%q|%r|%p"}, args...)...)
	must(t, err)
	t.Cleanup(p.Kill)
	must(t, p.Await(patience, func(line string) bool { return strings.HasPrefix(line, "Subscribed") }))
	return &listener{p, t}
}

// messages waits for n messages, or more if the tool has them at once.
func (l *listener) messages(n int) []string {
	l.t.Helper()
	got := func() (all []string) {
		for line := range strings.Lines(l.Log()) {
			if m, ok := strings.CutPrefix(strings.TrimSpace(line), "MSG "); ok && strings.HasSuffix(line, "\n") { // a large one comes in parts
				all = append(all, m)
			}
		}
		return all
	}
	eventually(l.t, patience, fmt.Sprintf("%d messages at mosquitto_sub", n), func() bool { return len(got()) >= n })
	return got()
}

func same(t testing.TB, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

var versions = []string{"mqttv31", "mqttv311", "mqttv5"}

func TestMosquittoPubSub(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	at := []string{"-h", "127.0.0.1", "-p", port(b.Addr())}
	for _, v := range versions {
		for qos := range 3 {
			t.Run(v+"/qos"+strconv.Itoa(qos), func(t *testing.T) {
				t.Parallel()
				topic, q := fmt.Sprintf("pubsub/%s/%d", v, qos), strconv.Itoa(qos)
				sub := listen(t, append(at, "-V", v, "-q", q, "-t", topic+"/#")...)
				var lines strings.Builder
				var want []string
				for i := range 50 {
					fmt.Fprintf(&lines, "reading %d\n", i)
					want = append(want, fmt.Sprintf("%s|%d|0|reading %d", topic, qos, i))
				}
				tool(t, lines.String(), "mosquitto_pub", append(at, "-V", v, "-q", q, "-t", topic, "-l")...)
				same(t, sub.messages(len(want)), want)
			})
		}
	}
}

func TestMosquittoRetained(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	at := []string{"-h", "127.0.0.1", "-p", port(b.Addr())}
	for _, v := range versions {
		topic := "state/" + v
		live := listen(t, append(at, "-V", v, "-q", "1", "-t", topic)...)
		for _, state := range []string{"off", "on"} {
			tool(t, "", "mosquitto_pub", append(at, "-V", v, "-q", "1", "-r", "-t", topic, "-m", state)...)
		}
		same(t, live.messages(2), []string{topic + "|1|0|off", topic + "|1|0|on"}) // live: not marked [MQTT-3.3.1-9]
		late := listen(t, append(at, "-V", v, "-q", "2", "-t", topic)...)
		same(t, late.messages(1), []string{topic + "|1|1|on"})

		// An empty one removes it [MQTT-3.3.1-6], and is itself not kept.
		tool(t, "", "mosquitto_pub", append(at, "-V", v, "-q", "1", "-r", "-n", "-t", topic)...)
		later := listen(t, append(at, "-V", v, "-q", "1", "-t", topic)...)
		tool(t, "", "mosquitto_pub", append(at, "-V", v, "-q", "1", "-t", topic, "-m", "live")...)
		same(t, later.messages(1), []string{topic + "|1|0|live"})
	}
}

func TestMosquittoWill(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	at := []string{"-h", "127.0.0.1", "-p", port(b.Addr())}
	for _, v := range versions {
		t.Run(v, func(t *testing.T) {
			t.Parallel()
			watch := listen(t, append(at, "-V", v, "-q", "1", "-t", "gone/"+v)...)
			will := append(at, "-V", v, "-t", "whatever", "--will-topic", "gone/"+v, "--will-qos", "1", "--will-payload")
			orderly := listen(t, append(will, "left")...)
			must(t, orderly.Stop(patience)) // mosquitto_sub sends a DISCONNECT
			listen(t, append(will, "died")...).Kill()
			want := []string{"gone/" + v + "|1|0|died"}
			if v == "mqttv5" { // there it asks for its will all the same, by reason code 0x04
				want = []string{"gone/" + v + "|1|0|left", want[0]}
			}
			same(t, watch.messages(len(want)), want)
		})
	}
}

func TestMosquittoOfflineQueue(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	at := []string{"-h", "127.0.0.1", "-p", port(b.Addr())}
	for _, v := range versions {
		for _, qos := range []string{"1", "2"} {
			t.Run(v+"/qos"+qos, func(t *testing.T) {
				t.Parallel()
				id := "away-" + v + "-" + qos
				topic := "queue/" + id
				session := append(at, "-V", v, "-c", "-i", id, "-q", qos, "-t", topic)
				tool(t, "", "mosquitto_sub", append(session, "-E")...) // ends when subscribed
				var lines strings.Builder
				var want []string
				for i := range 200 {
					fmt.Fprintf(&lines, "%d\n", i)
					want = append(want, fmt.Sprintf("%s|%s|0|%d", topic, qos, i))
				}
				tool(t, lines.String(), "mosquitto_pub", append(at, "-V", v, "-q", qos, "-t", topic, "-l")...)
				same(t, listen(t, session...).messages(len(want)), want)
			})
		}
	}
}

func TestSysIsReadOnly(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	at := []string{"-h", "127.0.0.1", "-p", port(b.Addr())}
	watch := listen(t, append(at, "-q", "1", "-t", "$SYS/e2e/#", "-t", "$SYS/e2e", "-t", "barrier")...)
	refusal := tool(t, "", "mosquitto_pub", append(at, "-V", "mqttv5", "-q", "1", "-t", "$SYS/e2e/x", "-m", "forged")...)
	if !strings.Contains(refusal, "Not authorized") {
		t.Errorf("mosquitto_pub to $SYS with MQTT 5 says %q", refusal)
	}
	for _, qos := range []string{"0", "1", "2"} {
		tool(t, "", "mosquitto_pub", append(at, "-V", "mqttv311", "-q", qos, "-r", "-t", "$SYS/e2e", "-m", "forged")...)
	}
	tool(t, "", "mosquitto_pub", append(at, "-q", "1", "-t", "barrier", "-m", "end")...)
	same(t, watch.messages(1), []string{"barrier|1|0|end"})
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "sl") // short: a path of such a socket has 107 bytes at most
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	b := startGateway(t, &rig.Gateway{Binary: raceBinary, Listeners: []string{"127.0.0.1:0", "unix:" + path}})
	sub := listen(t, "-h", "127.0.0.1", "-p", port(b.Addr()), "-q", "1", "-t", "u/#")
	tool(t, "", "mosquitto_pub", "--unix", path, "-q", "1", "-t", "u/1", "-m", "from the file system")
	same(t, sub.messages(1), []string{"u/1|1|0|from the file system"})

	// A path that a killed broker left behind does not keep the next one from starting.
	b.kill()
	b.start()
	tool(t, "", "mosquitto_pub", "--unix", path, "-q", "1", "-t", "u/1", "-m", "again")
	b.stop()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there after a stop: %v", err)
	}
}
