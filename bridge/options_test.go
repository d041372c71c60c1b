package bridge

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

func validOptions() Options {
	o := Defaults()
	o.Name = "cloud"
	o.Address = "tls://broker.example:8883"
	o.ClientID = "gw-1"
	o.DialLocal = func(context.Context) (net.Conn, error) { return nil, nil }
	o.Routes = []Route{{Direction: Out, Filter: "#", QoS: 1}}
	return o
}

func TestDefaultsAreValid(t *testing.T) {
	o := validOptions()
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
	if got := o.progressTimeout(); got != 90*time.Second {
		t.Errorf("progress timeout %v", got)
	}
	o.KeepAlive = time.Second
	if got := o.progressTimeout(); got != 10*time.Second {
		t.Errorf("progress timeout %v", got)
	}
	if got := o.SessionName(); got != "$bridge/cloud" {
		t.Errorf("session %s", got)
	}
}

func TestValidateListsAllProblemsAtOnce(t *testing.T) {
	var o Options
	o.Name = "a/b"
	o.Password = "p"
	o.TLS.CertFile = "c"
	o.ReconnectMin = time.Second
	o.DrainTimeout = -1
	o.Queues = []Queue{{Name: "a/b", Share: 1}, {Name: "q", Priority: 10}, {Name: "q", Share: 1}, {Name: "r", Share: 1001}}
	o.Routes = []Route{
		{Filter: "a/#/b", QoS: 2, LocalPrefix: "+/"},
		{Direction: In, RemotePrefix: "$share/g/", Filter: "x"},
		{Direction: Out, Queue: "none"},
	}
	o.OutMaxBytesPerSecond = -1
	err := o.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, want := range []string{
		`name "a/b"`, "need tcp://, tls://, ws:// or wss://", "dial the local", "client id", "password needs", "come together",
		"keep alive 0s", "connect timeout 0s", "reconnect max 0s", "stable after", "below reconnect min", "negative time",
		"inflight max 0", "inflight max bytes 0", "max packet bytes 0", "bytes per second -1",
		`queue 1: name "a/b"`, `queue "q": priority 10`, `queue 3: name "q" twice`, `queue "r": share 1001`, "backlog percent 0", `there is no queue "none"`,
		"route 1:", "Direction(0)", "QoS 2", `prefix "+/"`, "# is not the last", "shared subscriptions", "route 3:", "topic is empty",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in:\n%v", want, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	for s, want := range map[string]string{
		"tcp://h":           "h:1883",
		"tls://h":           "h:8883",
		"tls://h:443":       "h:443",
		"tcp://[::1]:1":     "[::1]:1",
		"tcp://10.0.0.1:99": "10.0.0.1:99",
		"ws://h":            "h:80",
		"wss://h/x?y=1":     "h:443",
	} {
		a, err := parseAddress(s)
		if err != nil || a.hostPort() != want || a.tls() != (strings.HasPrefix(s, "tls") || strings.HasPrefix(s, "wss")) {
			t.Errorf("%s: %v %v", s, a, err)
		}
	}
	for s, want := range map[string]string{
		"ws://h":               "ws://h:80/mqtt",
		"wss://h/":             "wss://h:443/",
		"wss://h:1/a%20b?t=s3": "wss://h:1/a%20b",
		"tcp://h/":             "tcp://h:1883",
	} {
		a, err := parseAddress(s)
		if err != nil || a.String() != want || (a.url() != want) != strings.Contains(s, "s3") {
			t.Errorf("%s: %s, %s, %v", s, a, a.url(), err)
		}
	}
	for _, s := range []string{"", "h:1883", "http://h", "tcp://", "tcp://h/path", "tcp://h?x=1", "tcp://h:x", "tcp://user:secret@h"} {
		_, err := parseAddress(s)
		if err == nil {
			t.Errorf("%q is accepted", s)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error tells the password: %v", s, err)
		}
	}
}

func TestLocalSubscriptionsOfAQueue(t *testing.T) {
	routes := parseRoutes("out a/# l/ - 1; out a/b l/ - 1; in x - - 1; out c - - 0; out a/# l/ - 1")
	routes[4].Queue = "q"
	for queue, want := range map[string]string{"": "[{l/a/# 1} {c 0}]", "q": "[{l/a/# 1}]", "other": "[]"} {
		if got := fmt.Sprint(localSubscriptions(routes, queue)); got != want {
			t.Errorf("queue %q subscribes %s, want %s", queue, got, want)
		}
	}
}
