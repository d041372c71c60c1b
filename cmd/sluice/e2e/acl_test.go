package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/paho"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// rules is an ACL file that mosquitto and Sluice understand alike.
const rules = `# comment
topic read public/#
topic write inbox

user alice
topic read sensors/#
topic deny sensors/secret/#
topic write commands/+/set
topic readwrite both
topic any

user bob
topic readwrite #

user carol
topic write sensors/carol

pattern readwrite home/%u/#
pattern write client/%c/up
pattern readwrite barrier/#
`

// topics are all that the rules speak about, and more.
var aclTopics = []string{
	"public/a", "inbox", "sensors/1", "sensors/secret/key", "sensors/secret", "sensors", "sensors/carol", "commands/1/set", "commands/1/get", "both", "any",
	"home/alice/x", "home/bob/x", "home/carol", "client/c-alice/up", "client/c-carol/up", "client/c-/up", "client", "other", "/", "home//x",
}

// TestACLOfMosquitto: with the password file that mosquitto_passwd made and the
// same ACL file, each user may publish and gets at both brokers the same.
func TestACLOfMosquitto(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	passwords, acl := filepath.Join(dir, "passwords"), filepath.Join(dir, "acl")
	users := []string{"alice", "bob", "carol"}
	for i, u := range users {
		args := []string{"-b", passwords, u, "secret of " + u}
		if i == 0 {
			args = append([]string{"-c"}, args...)
		}
		tool(t, "", "mosquitto_passwd", args...)
	}
	must(t, rig.Replace(acl, []byte(rules)))
	theirs := &rig.Cloud{Dir: dir, Config: fmt.Sprintf("allow_anonymous true\npassword_file %s\nacl_file %s\n", passwords, acl)}
	must(t, theirs.Start())
	t.Cleanup(theirs.Kill)
	ours := startGateway(t, &rig.Gateway{Binary: raceBinary, Settings: []string{"allow_anonymous = true\n"},
		Config: fmt.Sprintf("[auth]\npassword_file = %q\nacl_file = %q\n", passwords, acl)})
	for _, u := range append(users, "") {
		want, got := permitted(t, theirs.Addr(), u), permitted(t, ours.Addr(), u)
		for i, what := range []string{"publish", "receive"} {
			if !slices.Equal(got[i], want[i]) {
				t.Errorf("user %q may %s\n%q, with mosquitto\n%q", u, what, got[i], want[i])
			}
			if len(want[i]) == 0 || len(want[i]) == len(aclTopics) && u != "bob" {
				t.Errorf("BUG: user %q may %s %q: the rules test nothing", u, what, want[i])
			}
		}
	}
}

// permitted are the topics that a user may publish to, and those that it gets
// messages of.
func permitted(t *testing.T, address, user string) (all [2][]string) {
	t.Helper()
	var published, got inbox[string]
	in := func(i *inbox[string]) func(*mqtt.Publish) { return func(p *mqtt.Publish) { i.put(string(p.Topic)) } }
	as := func(u string) func(*mqtt.Connect) {
		if u == "" {
			return anonymous
		}
		return login(u, "secret of "+u)
	}
	connect := func(i *inbox[string]) *rig.Client {
		return connected(t, address, rig.ClientOptions{ID: "c-" + user, Clean: true, Connect: as(user), OnMessage: in(i)})
	}
	filters := append([]string{"barrier/#"}, aclTopics...)
	admin := subscribed(t, address, rig.ClientOptions{ID: "admin", Clean: true, Connect: as("bob"), OnMessage: in(&published)}, 1, filters...)
	for _, topic := range append(slices.Clone(aclTopics), "barrier/1") {
		// A connection for each: mosquitto 2.0.11 closes that of a client that publishes what it may not.
		c := connect(new(inbox[string]))
		must(t, c.Publish(topic, []byte("x"), 1, false, 0))
		_ = c.Flush(patience) // see above
		c.Close()
	}
	published.awaitOne(t, "barrier/1")
	all[0] = published.sofar()
	client := connect(&got)
	_, _ = client.Subscribe(1, filters...) // what is refused brings nothing
	for _, topic := range append(slices.Clone(aclTopics), "barrier/2") {
		must(t, admin.Publish(topic, []byte("x"), 1, false, 0))
	}
	got.awaitOne(t, "barrier/2")
	all[1] = got.sofar()
	for i := range all {
		all[i] = slices.DeleteFunc(all[i], func(topic string) bool { return strings.HasPrefix(topic, "barrier/") })
	}
	client.Disconnect()
	admin.Disconnect()
	return all
}

// TestACL: what is denied is answered as MQTT 5 has it, in MQTT 3.1.1 as if it
// were done; a subscription is filtered message by message, and new rules hold
// for it at once.
func TestACL(t *testing.T) {
	t.Parallel()
	s := newSite(t, siteOptions{only: []string{"mqtt"}, auth: "acl_file = \"DIR/acl\"\n", prepare: func(s *site) {
		s.write(t, "acl", rules)
		s.passwd(t, "-b", s.passwords, "bob", "pw")
	}})
	bob := subscribed(t, s.Addr(), rig.ClientOptions{ID: "bob", Connect: login("bob", "pw")}, 1, "#")
	alice := paho5(t, s.Addr(), "alice", login5(user, password))
	for _, test := range []struct {
		topic string
		qos   byte
		want  byte
	}{{"commands/1/set", 1, 0}, {"commands/1/get", 1, 0x87}, {"commands/1/get", 2, 0x87}, {"home/alice/x", 2, 0}, {"home/bob/x", 1, 0x87}} {
		answer, err := alice.Publish(within(t), &paho.Publish{Topic: test.topic, QoS: test.qos, Payload: []byte("x")})
		if answer == nil {
			t.Fatalf("%s: %v", test.topic, err)
		}
		if answer.ReasonCode&^0x10 != test.want { // 0x10: nobody subscribes
			t.Errorf("PUBLISH to %s at QoS %d is answered with 0x%02x, want 0x%02x", test.topic, test.qos, answer.ReasonCode, test.want)
		}
	}
	old := connected(t, s.Addr(), s.client("mqtt", rig.ClientOptions{ID: "old", Version: 4}))
	must(t, old.Publish("commands/1/get", []byte("x"), 1, false, 0))
	must(t, old.Publish("commands/1/get", []byte("x"), 2, false, 0))
	must(t, old.Flush(patience)) // acknowledged, though nobody gets it

	suback, err := alice.Subscribe(within(t), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{
		{Topic: "#", QoS: 1}, {Topic: "sensors/secret/#", QoS: 1}, {Topic: "public/#", QoS: 1}, {Topic: "$share/g/home/bob/#", QoS: 1}}})
	if suback == nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x", suback.Reasons); got != "01878787" {
		t.Errorf("SUBACK %s", got)
	}
	say := func(topics ...string) {
		for _, topic := range topics {
			must(t, bob.Publish(topic, []byte("x"), 1, false, 0))
		}
	}
	say("sensors/1", "sensors/secret/key", "public/a", "other", "any")
	same(t, alice.payloads(2), []string{"sensors/1 x", "any x"})

	s.write(t, "acl", strings.Replace(rules, "topic deny sensors/secret/#", "topic deny sensors/1", 1))
	s.reload()
	say("sensors/1", "sensors/secret/key", "any")
	same(t, alice.payloads(4)[2:], []string{"sensors/secret/key x", "any x"})

	// The will is judged as a PUBLISH is.
	for topic, want := range map[string]uint8{"home/alice/will": 0, "home/bob/will": 0x87} {
		will := func(p *mqtt.Connect) {
			login(user, password)(p)
			p.HasWill, p.Will.Topic, p.Will.Payload = true, []byte(topic), []byte("gone")
		}
		if got := s.try(5, will, nil); got != want {
			t.Errorf("a will to %s: CONNACK 0x%02x, want 0x%02x", topic, got, want)
		}
	}
}
