package e2e

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// DESIGN. What a client can do it can do over each transport. One scenario, the
// same for all libraries (party_test.go): log in, exchange messages at each QoS, large
// ones too, find what is retained, get a will, find a session again. mosquitto's tools
// and MQTT.js are processes; the same scenario is written for them.

// large is a payload of several TLS records and several reads.
var large = bytes.Repeat([]byte("0123456789abcdef"), 200<<10/16)

func TestTransports(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	for _, lib := range libraries {
		for _, scheme := range []string{"mqtt", "mqtts", "ws", "wss"} {
			t.Run(lib.name+"/"+scheme, func(t *testing.T) {
				t.Parallel()
				exchange(t, s, lib, scheme)
			})
		}
	}
}

func exchange(t *testing.T, s *site, lib library, scheme string) {
	topic := lib.name + "/" + scheme
	connect := func(via string, o partyOptions) party {
		o.id += " " + topic
		o.will = strings.ReplaceAll(o.will, "TOPIC", topic)
		return lib.connect(t, s.url(scheme, via), s.clients.Clone(), o)
	}
	one, two := connect("", partyOptions{id: "one"}), connect("", partyOptions{id: "two"})
	one.subscribe(topic+"/1/#", 2)
	two.subscribe(topic+"/2", 2)
	var want1, want2 []string
	for qos := range byte(3) {
		for _, payload := range [][]byte{[]byte("small"), large, {}} {
			one.publish(topic+"/2", payload, qos, false)
			two.publish(topic+"/1", payload, qos, false)
			want1 = append(want1, note(topic+"/1", payload, qos, false))
			want2 = append(want2, note(topic+"/2", payload, qos, false))
		}
	}
	same(t, one.inbox().await(t, len(want1)), want1)
	same(t, two.inbox().await(t, len(want2)), want2)

	one.publish(topic+"/kept", large, 1, true)
	late := connect("", partyOptions{id: "late"})
	late.subscribe(topic+"/kept", 1)
	same(t, late.inbox().await(t, 1), []string{note(topic+"/kept", large, 1, true)})

	link, err := rig.NewLink(s.at(scheme))
	must(t, err)
	defer link.Close()
	connect("", partyOptions{id: "orderly", will: "TOPIC/1/orderly"}).leave()
	connect(link.Addr(), partyOptions{id: "dying", will: "TOPIC/1/dying"})
	link.Reset()
	same(t, one.inbox().await(t, len(want1)+1)[len(want1):], []string{note(topic+"/1/dying", []byte("gone"), 1, false)})

	away := connect("", partyOptions{id: "away", durable: true})
	if away.present() {
		t.Error("a session is present that nobody has had")
	}
	away.subscribe(topic+"/away", 2)
	away.leave()
	var missed []string
	for qos := byte(1); qos < 3; qos++ {
		for _, payload := range [][]byte{[]byte("missed"), large} {
			two.publish(topic+"/away", payload, qos, false)
			missed = append(missed, note(topic+"/away", payload, qos, false))
		}
	}
	back := connect("", partyOptions{id: "away", durable: true})
	if !back.present() {
		t.Error("the session is not present")
	}
	same(t, back.inbox().await(t, len(missed)), missed)
}

// reach are the arguments with which mosquitto's clients log in over a scheme.
func (s *site) reach(scheme string) []string {
	as := []string{"-u", user, "-P", password}
	if scheme == "unix" {
		return append(as, "--unix", s.at(scheme))
	}
	as = append(as, "-h", "127.0.0.1", "-p", port(s.at(scheme)))
	if scheme == "mqtts" {
		as = append(as, "--cafile", s.ca.File())
	}
	return as
}

func TestTransportsMosquitto(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{only: []string{"mqtt", "mqtts", "unix"}})
	file := filepath.Join(t.TempDir(), "large")
	must(t, os.WriteFile(file, large, 0o600))
	for _, scheme := range []string{"mqtt", "mqtts", "unix"} {
		for _, v := range versions {
			t.Run(scheme+"/"+v, func(t *testing.T) {
				t.Parallel()
				topic := scheme + "/" + v
				at := append(s.reach(scheme), "-V", v)
				args := func(more ...string) []string { return append(at[:len(at):len(at)], more...) }
				sub := listen(t, args("-q", "2", "-t", topic+"/#")...)
				var want []string
				for _, qos := range []string{"0", "1", "2"} {
					tool(t, "", "mosquitto_pub", args("-q", qos, "-t", topic, "-m", "small")...)
					tool(t, "", "mosquitto_pub", args("-q", qos, "-t", topic, "-f", file)...)
					want = append(want, topic+"|"+qos+"|0|small", topic+"|"+qos+"|0|"+string(large))
				}
				// At QoS 0 one tool may have ended before the broker has its message, and the next overtakes it.
				got := slices.Sorted(slices.Values(sub.messages(len(want))))
				if !slices.Equal(got, slices.Sorted(slices.Values(want))) {
					t.Errorf("%d messages arrived, not those that were sent", len(got))
				}

				tool(t, "", "mosquitto_pub", args("-q", "1", "-r", "-t", "kept/"+topic, "-m", "kept")...)
				same(t, listen(t, args("-q", "1", "-t", "kept/"+topic)...).messages(1), []string{"kept/" + topic + "|1|1|kept"})

				listen(t, args("-t", "other", "--will-topic", topic+"/will", "--will-qos", "1", "--will-payload", "died")...).Kill()
				same(t, sub.messages(len(want) + 1)[len(want):], []string{topic + "/will|1|0|died"})

				session := args("-c", "-i", "away "+topic, "-q", "1", "-t", "away/"+topic)
				tool(t, "", "mosquitto_sub", append(session, "-E")...)
				tool(t, "", "mosquitto_pub", args("-q", "1", "-t", "away/"+topic, "-m", "missed")...)
				same(t, listen(t, session...).messages(1), []string{"away/" + topic + "|1|0|missed"})
			})
		}
	}
}

func TestTransportsMQTTJS(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{})
	installMQTTJS(t)
	for _, scheme := range []string{"mqtt", "mqtts", "ws", "wss"} {
		for _, version := range []string{"4", "5"} {
			t.Run(scheme+"/v"+version, func(t *testing.T) {
				t.Parallel()
				cmd := exec.Command("node", "mqttjs.mjs", "transport", version, s.url(scheme, ""))
				cmd.Env = append(os.Environ(), "E2E_USER="+user, "E2E_PASSWORD="+password, "E2E_CA="+s.ca.File())
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	}
}

// TestTLSVersions: 1.2 and 1.3 work, 1.2 only where it is allowed, and so do the
// protocol names that clients offer.
func TestTLSVersions(t *testing.T) {
	t.Parallel()
	lenient := newSite(t, siteOptions{only: []string{"mqtts", "wss"}})
	strict := newSite(t, siteOptions{only: []string{"mqtts", "wss"}, tls: "min_version = \"1.3\"\n"})
	for _, test := range []struct {
		what    string
		s       *site
		scheme  string
		version uint16
		alpn    []string
		agreed  string
		ok      bool
	}{
		{"1.2", lenient, "mqtts", tls.VersionTLS12, nil, "", true},
		{"1.3", lenient, "mqtts", tls.VersionTLS13, nil, "", true},
		{"1.1", lenient, "mqtts", tls.VersionTLS11, nil, "", false},
		{"1.2 where 1.3 is the least", strict, "mqtts", tls.VersionTLS12, nil, "", false},
		{"1.3 where it is the least", strict, "mqtts", tls.VersionTLS13, nil, "", true},
		{"ALPN", lenient, "mqtts", tls.VersionTLS13, []string{"mqtt"}, "mqtt", true},
		{"ALPN of AWS", lenient, "mqtts", tls.VersionTLS12, []string{"x-amzn-mqtt-ca"}, "x-amzn-mqtt-ca", true},
		{"ALPN of something else", lenient, "mqtts", tls.VersionTLS13, []string{"h2"}, "", false},
		{"ALPN of browsers", lenient, "wss", tls.VersionTLS13, []string{"h2", "http/1.1"}, "http/1.1", true},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			config := test.s.clients.Clone()
			config.MinVersion, config.MaxVersion, config.NextProtos = tls.VersionTLS10, test.version, test.alpn
			conn, err := tls.Dial("tcp", test.s.at(test.scheme), config)
			if (err == nil) != test.ok {
				t.Fatalf("the handshake ends with %v", err)
			}
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			if got := conn.ConnectionState(); got.Version != test.version || got.NegotiatedProtocol != test.agreed {
				t.Errorf("got %s and protocol %q", tls.VersionName(got.Version), got.NegotiatedProtocol)
			}
		})
	}
}

// TestProxyHeader: behind a proxy, the client is who the header says, over each
// transport, and nobody gets in without a header.
func TestProxyHeader(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{only: []string{"mqtt", "mqtts", "ws", "wss"}, listen: "proxy_protocol = true\n"})
	v1 := "PROXY TCP4 203.0.113.%d 203.0.113.1 40000 1883\r\n"
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71%c\xcb\x00\x71\x01\x9c\x40\x07\x5b"
	for i, scheme := range []string{"mqtt", "mqtts", "ws", "wss"} {
		for j, header := range []string{v1, v2} {
			from := 10 + 2*i + j
			// Neither the rig nor the libraries can send something before TLS; a link can.
			link, err := rig.NewLink(s.at(scheme))
			must(t, err)
			t.Cleanup(link.Close)
			link.Greet(fmt.Sprintf(header, from))
			config := s.clients
			o := partyOptions{id: fmt.Sprint("client ", from)}
			good := connect5(t, s.url(scheme, link.Addr()), config, o)
			good.subscribe("t", 1)
			good.publish("t", large, 1, false)
			same(t, good.inbox().await(t, 1), []string{note("t", large, 1, false)})

			bad := rig.NewClient(s.client(scheme, rig.ClientOptions{ID: "bad", Connect: login(user, "wrong"),
				Dial: dialer(s.url(scheme, link.Addr()), config)}))
			if _, err := bad.Connect(""); refusal(err) != 4 {
				t.Errorf("%s: a wrong password ends with %v", scheme, err)
			}
			must(t, s.Await(patience, func(line string) bool {
				return strings.Contains(line, "login failed") && strings.Contains(line, fmt.Sprintf(`"203.0.113.%d:40000"`, from))
			}))
		}
		c := dial(t, s.at(scheme))
		c.send(mqtt.AppendConnect(nil, &mqtt.Connect{Version: mqtt.V5, Clean: true}))
		if !c.closed(patience) {
			t.Errorf("%s: still open without a header", scheme)
		}
	}
}
