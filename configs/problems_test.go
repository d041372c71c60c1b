package configs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// check loads a text and validates what loads.
func check(text string) error {
	c, err := parse(text, "f.toml")
	if err != nil {
		return err
	}
	return c.Validate()
}

// Each text has exactly the problems that are listed, in this order. A listed one is what
// the line begins with, so that hints can be reworded.
func TestProblems(t *testing.T) {
	const bridge = "[[bridge]]\nname = \"b\"\naddress = \"tcp://h\"\n"
	const route = "[[bridge.route]]\ndirection = \"out\"\nfilter = \"a/#\"\n"
	tests := []struct {
		name, text string
		want       []string
	}{
		{"syntax", "\n[log\nlevel = 1", []string{`f.toml:2: found no TOML: `}},
		{"duplicate key", "workers = 1\nworkers = 2", []string{`f.toml:2: workers: found no TOML: `}},
		{"unknown key", "\n[limits]\npacket_byte_max = 1", []string{`f.toml:3: limits.packet_byte_max: found an unknown key, allowed bytes_per_second_max, client_id_bytes_max,`}},
		{"unknown table", "[limit]\nx = 1", []string{`f.toml:1: limit: found an unknown key, allowed auth, bridge, data_dir, limits, listener, log, mqtt, queue, store, workers (did you mean limits?)`}},
		{"unknown key, quoted", `"a b" = 1`, []string{`f.toml: "a b": found an unknown key, `}},
		{"wrong types", "workers = \"two\"\ndata_dir = 5\n[log]\nlevel = true\n[limits]\npacket_bytes_max = \"1Mb\"\nconnect_timeout = 10\n[[listener]]\naddress = \"[::1]:1\"\nallow_anonymous = \"yes\"", []string{
			`f.toml:1: workers: found "two", allowed a whole number`,
			`f.toml:2: data_dir: found 5, allowed a string`,
			`f.toml:4: log.level: found true, allowed a string`,
			`f.toml:6: limits.packet_bytes_max: found "1Mb", allowed a size such as`,
			`f.toml:7: limits.connect_timeout: found 10, allowed a duration such as`,
			`f.toml:10: listener[0].allow_anonymous: found "yes", allowed true or false`,
		}},
		{"a table for a value and the reverse", "workers = {a = 1}\nlog = 1\nstore = [1]", []string{
			`f.toml:1: workers: found a table, allowed a whole number`, `f.toml:2: log: found 1, allowed a table`, `f.toml:3: store: found an array, allowed a table`}},
		{"single brackets", "[bridge]\nname = \"x\"", []string{`f.toml:1: bridge: found a table, allowed tables, each beginning with [[bridge]]`}},
		{"float for a size", "[limits]\npacket_bytes_max = 1048576.0", []string{`f.toml:2: limits.packet_bytes_max: found 1.048576e+06, allowed a size`}},
		{"a number too large for any int", "workers = 9223372036854775807", []string{`f.toml:1: workers: found 9223372036854775807, allowed`}},
		{"type and value problems together, in the file's order", "workers = 300\n[log]\nlevel = 1\nformat = \"xml\"", []string{
			`f.toml:1: workers: found 300, allowed 0 to 256`, `f.toml:3: log.level: found 1, allowed a string`, `f.toml:4: log.format: found "xml", allowed "console" or "json"`}},
		{"ranges", "[limits]\npacket_bytes_max = 1023\nconnect_bytes_max = 600\nkeepalive_max = \"500ms\"\nconnect_timeout = \"0\"\n[store]\nkind = \"disk\"\nmax_bytes = \"1KiB\"", []string{
			`f.toml:2: limits.packet_bytes_max: found "1023B", allowed 1KiB to 256MiB`,
			`f.toml:4: limits.keepalive_max: found "500ms", allowed 0 or 1s to 65535s`,
			`f.toml:5: limits.connect_timeout: found "0", allowed 100ms to 10m`,
			`f.toml:7: store.kind: found "disk", allowed "bolt" or "memory"`,
			`f.toml:8: store.max_bytes: found "1KiB", allowed 0 or 1MiB to 1TiB`,
		}},
		{"at the ends of a range", "[limits]\npacket_bytes_max = \"1KiB\"\nconnect_bytes_max = \"1KiB\"\nkeepalive_max = \"0\"\nsession_expiry_max = \"36500d\"", nil},
		{"limits against each other", "[limits]\nconnect_bytes_max = \"4KiB\"\npacket_bytes_max = \"2KiB\"\nkeepalive_max = \"1500ms\"", []string{
			`f.toml:2: limits.connect_bytes_max: found "4KiB", allowed at most packet_bytes_max, "2KiB"`,
			`f.toml:4: limits.keepalive_max: found "1.5s", allowed whole seconds`}},
		{"a queue smaller than a message", "[queue]\nbytes_max = \"512KiB\"", []string{
			`f.toml:2: queue.bytes_max: found "512KiB", allowed at least limits.packet_bytes_max`}},
		{"queue classes", "[queue]\nage_max = \"1500ms\"\npolicy = \"drop\"\n[[queue.class]]\nname = \"a b\"\nusers = [\"u\"]\nage_max = \"2500ms\"\n[[queue.class]]\nname = \"c\"\nbytes_max = \"64KiB\"\nmessages_max = 0\n[[queue.class]]\nname = \"c\"\nclient_ids = [\"*\"]", []string{
			`f.toml:2: queue.age_max: found "1.5s", allowed whole seconds`, `f.toml:3: queue.policy: found "drop", allowed "reject" or "drop-oldest" or "drop-newest"`,
			`f.toml:5: queue.class[0].name: found "a b"`, `f.toml:7: queue.class[0].age_max: found "2.5s", allowed whole seconds`,
			`f.toml:8: queue.class[1].client_ids: found neither client_ids nor users`, `f.toml:10: queue.class[1].bytes_max: found "64KiB", allowed at least limits.packet_bytes_max`,
			`f.toml:11: queue.class[1].messages_max: found 0, allowed 1 to 100000000`, `f.toml:13: queue.class[2].name: found "c" twice`}},
		{"priority", "[queue]\npriority = [\"a/#\", \"a/#/b\"]\n", []string{`f.toml:2: queue.priority: found "a/#/b", allowed topic filters`}},
		{"priority of a share group", "[queue]\npriority = [\"$share/g/a\"]\n", []string{`f.toml:2: queue.priority: found "$share/g/a", allowed topic filters`}},
		{"too much has priority", "[queue]\npriority = [" + strings.Repeat("\"a\",", 65) + "]\n", []string{`f.toml:2: queue.priority: found 65 filters, allowed at most 64`}},
		{"a queue class that sets nothing", "[limits]\nconnect_bytes_max = \"1KiB\"\npacket_bytes_max = \"1KiB\"\n[queue]\nbytes_max = \"1KiB\"\n[[queue.class]]\nname = \"x\"\nusers = [\"*\"]", nil},
		{"no listener", "listener = []", []string{`f.toml:1: listener: found none, allowed at least one`}},
		{"listener beyond loopback", "[[listener]]\naddress = \"0.0.0.0:1883\"\n[[listener]]\naddress = \"gw.lan:1\"\nallow_anonymous = false\n[[listener]]\naddress=\":1884\"", []string{
			`f.toml:1: listener[0].allow_anonymous: found no way to log in for "0.0.0.0:1883", allowed a loopback address`,
			`f.toml:5: listener[1].allow_anonymous: found false for "gw.lan:1", allowed it with a way to log in`,
			`f.toml:6: listener[2].allow_anonymous: found no way to log in for ":1884"`}},
		{"nobody may connect", "[[listener]]\naddress = \"localhost:1883\"\nallow_anonymous = false", []string{`f.toml:3: listener[0].allow_anonymous: found false, allowed true`}},
		{"listener addresses", "[[listener]]\naddress=\"127.0.0.1\"\n[[listener]]\naddress=\"127.0.0.1:mqtt\"\n[[listener]]\naddress=\"127.0.0.1:65536\"\n[[listener]]\naddress=\"unix:\"\n[[listener]]\n[[listener]]\naddress=\"unix:/" + strings.Repeat("p", 107) + "\"\n", []string{
			`f.toml:2: listener[0].address: found "127.0.0.1", allowed "host:port"`, `f.toml:4: listener[1].address: found "127.0.0.1:mqtt"`,
			`f.toml:6: listener[2].address: found "127.0.0.1:65536"`, `f.toml:8: listener[3].address: found "unix:"`, `f.toml:9: listener[4].address: found nothing`, `f.toml:11: listener[5].address: found "unix:/ppp`}},
		{"all loopback forms", "listener = [{address=\"127.1.2.3:0\"}, {address=\"[::1]:1\"}, {address=\"localhost:2\"}, {address=\"unix:/a\"}, {address=\"[::ffff:127.0.0.1]:3\"}, {address=\"127.1.2.3:0\"}, {address=\"unix:/" + strings.Repeat("p", 106) + "\"}]", nil},
		{"one address twice", "[[listener]]\naddress=\"[::1]:1\"\n[[listener]]\naddress=\"[::1]:1\"", []string{`f.toml:4: listener[1].address: found "[::1]:1" twice`}},
		{"a good bridge", bridge + route, nil},
		{"an empty bridge", "[[bridge]]", []string{
			`f.toml:1: bridge[0].address: found nothing, allowed "tcp://host:1883" or "tls://host:8883"`,
			`f.toml:1: bridge[0].name: found nothing, allowed 1 to 64 letters`,
			`f.toml:1: bridge[0].route: found none, allowed at least one [[bridge.route]]`}},
		{"bridge names", bridge + route + bridge + route + "[[bridge]]\nname=\"a/b\"\naddress=\"tcp://h:1\"\n" + route, []string{
			`f.toml:8: bridge[1].name: found "b" twice`, `f.toml:14: bridge[2].name: found "a/b", allowed 1 to 64`}},
		{"upstream addresses", upstreams("mqtt://h", "tcp://", "tcp://h:0", "tcp://h:65536", "tls://h/x", "h:1883", "tcp://user:hunter2@h", "tls://h", "tcp://[::1]:1883"), []string{
			`f.toml:3: bridge[0].address: found "mqtt://h", allowed "tcp://host:1883" or`, `f.toml:7: bridge[1].address: found "tcp://"`,
			`f.toml:11: bridge[2].address: found "tcp://h:0"`, `f.toml:15: bridge[3].address: found "tcp://h:65536"`, `f.toml:19: bridge[4].address: found "tls://h/x"`,
			`f.toml:23: bridge[5].address: found "h:1883"`, `f.toml:27: bridge[6].address: found an address with credentials,`}},
		{"several addresses", "[[bridge]]\nname = \"b\"\nfailover = \"round-robin\"\naddress = [\"tcp://h\",\n\"tls://h\"]\nca_file = \"/f\"\n" + route, nil},
		{"WebSockets, proxy, interface", "[[bridge]]\nname = \"b\"\naddress = [\"ws://h\", \"wss://h:1/path?x=1\"]\nca_file = \"/f\"\nproxy = \"http://me:hunter2@h\"\ninterface = \"fe80::1234:5678:9abc:def0\"\n" + route, nil},
		{"bad proxies", "[[bridge]]\nname = \"b\"\naddress = \"ws://h#x\"\nproxy = \"https://me:hunter2@h\"\ninterface = \"a-name-too-long-for-it\"\n" + route + "[[bridge]]\nname = \"c\"\naddress = \"wss://h\"\nproxy = [\"hunter2\"]\n" + route, []string{
			`f.toml:3: bridge[0].address: found "ws://h#x"`, `f.toml:4: bridge[0].proxy: found something else`, `f.toml:5: bridge[0].interface: found "a-name-too-long-for-it"`, `f.toml:12: bridge[1].proxy: found an array, allowed a string`}},
		{"ways to a password", bridge + "username = \"u\"\npassword_file = \"/f\"\npassword_command = [\"/token\"]\nsas_lifetime = \"1m\"\n" + route + "[[bridge]]\nname = \"c\"\naddress = \"tls://h\"\nusername = \"u\"\nsas_policy = \"p\"\npassword_command = [\"token\", \"now\"]\n" + route + "[[bridge]]\nname = \"d\"\naddress = \"tls://h\"\nusername = \"u\"\nsas_key_file = \"/k\"\nsas_key_env = \"K\"\n" + route, []string{
			`f.toml:6: bridge[0].password_command: found password_file and password_command, allowed one of them`,
			`f.toml:7: bridge[0].sas_lifetime: found "1m", allowed 5m to 365d`, `f.toml:11: bridge[1].sas_resource: found sas_resource or sas_policy`, `f.toml:16: bridge[1].password_command: found "token", allowed a program with its whole path`, `f.toml:25: bridge[2].sas_key_env: found sas_key_file and sas_key_env`}},
		{"several bad addresses", "[[bridge]]\nname = \"b\"\nfailover = \"random\"\naddress = [\"tcp://h\", \"tcp://h\", \"x\"]\n" + route, []string{
			`f.toml:3: bridge[0].failover: found "random", allowed "order" or "round-robin"`,
			`f.toml:4: bridge[0].address[1]: found "tcp://h" twice`, `f.toml:4: bridge[0].address[2]: found "x"`}},
		{"no address", "[[bridge]]\nname = \"b\"\naddress = []\n" + route + "[[bridge]]\nname = \"c\"\naddress = 5\n" + route, []string{
			`f.toml:3: bridge[0].address: found nothing`, `f.toml:9: bridge[1].address: found 5, allowed an address such as`}},
		{"credentials", bridge + "password = \"x\"\npassword_file = \"/f\"\ncert_file = \"/c\"\n" + route + strings.Replace(bridge, `"b"`, `"c"`, 1) + "key_file = \"/k\"\n" + route, []string{
			`f.toml:4: bridge[0].password: found a password without username, allowed both or none`,
			`f.toml:5: bridge[0].password_file: found a password without username`,
			`f.toml:6: bridge[0].cert_file: found cert_file without key_file`,
			`f.toml:13: bridge[1].key_file: found key_file without cert_file`}},
		{"two passwords", bridge + "username=\"u\"\npassword = \"x\"\npassword_file = \"/f\"\n" + route, []string{
			`f.toml:6: bridge[0].password_file: found password and password_file, allowed one of them`}},
		{"three passwords", bridge + "username=\"u\"\npassword = \"x\"\npassword_env = \"PW\"\npassword_file = \"/f\"\n" + route, []string{
			`f.toml:6: bridge[0].password_env: found password_file and password_env, allowed one of them`,
			`f.toml:7: bridge[0].password_file: found password and password_file, allowed one of them`}},
		{"TLS settings without TLS", bridge + "ca_file = \"/ca\"\ninsecure_skip_verify = true\nalpn = [\"a\"]\nserver_name = \"n\"\n" + route, []string{
			`f.toml:4: bridge[0].ca_file: found ca_file with "tcp://h"`, `f.toml:5: bridge[0].insecure_skip_verify: found`, `f.toml:6: bridge[0].alpn: found`, `f.toml:7: bridge[0].server_name: found`}},
		{"bridge times", bridge + "keepalive = \"1500ms\"\nreconnect_min = \"2m\"\n" + route, []string{
			`f.toml:1: bridge[0].reconnect_max: found "1m", allowed at least reconnect_min, "2m"`,
			`f.toml:4: bridge[0].keepalive: found "1.5s", allowed whole seconds`}},
		{"routes", bridge + route + "[[bridge.route]]\nfilter=\"x\"\n[[bridge.route]]\ndirection=\"both\"\nfilter=\"a/#/b\"\nqos=2\n[[bridge.route]]\ndirection=\"in\"\nfilter=\"#\"\nlocal_prefix=\"a/+\"\nremote_prefix=\"p\"\n[[bridge.route]]\ndirection=\"in\"\n", []string{
			`f.toml:7: bridge[0].route[1].direction: found nothing, allowed "out" or "in"`,
			`f.toml:10: bridge[0].route[2].direction: found "both", allowed "out" or "in"`,
			`f.toml:11: bridge[0].route[2].filter: found "a/#/b", allowed a topic filter`,
			`f.toml:12: bridge[0].route[2].qos: found 2, allowed 0 to 1`,
			`f.toml:16: bridge[0].route[3].local_prefix: found "a/+", allowed a prefix without + and #`,
			`f.toml:18: bridge[0].route[4].filter: found nothing, allowed a topic filter`}},
		{"filters with their prefixes", bridge + "[[bridge.route]]\ndirection=\"in\"\nfilter=\"#\"\nremote_prefix=\"p\"\n[[bridge.route]]\ndirection=\"out\"\nfilter=\"$share/g/x\"\n[[bridge.route]]\ndirection=\"out\"\nlocal_prefix=\"whole\"\nremote_prefix=\"other\"", []string{
			`f.toml:6: bridge[0].route[0].filter: found "#", allowed a topic filter (on the remote side it is "p#"`,
			`f.toml:10: bridge[0].route[1].filter: found "$share/g/x", allowed no shared subscription`}},
		{"queues of a bridge", bridge + "[[bridge.queue]]\nname = \"a/b\"\npriority = 10\n[[bridge.queue]]\nbytes_max = \"1KiB\"\nshare = 0\n[[bridge.queue]]\nage_max = \"1500ms\"\n" + route + "queue = \"a\"\n", []string{
			`f.toml:5: bridge[0].queue[0].name: found "a/b", allowed 1 to 64`, `f.toml:6: bridge[0].queue[0].priority: found 10, allowed 0 to 9`,
			`f.toml:8: bridge[0].queue[1].bytes_max: found "1KiB", allowed at least limits.packet_bytes_max`, `f.toml:9: bridge[0].queue[1].share: found 0, allowed 1 to 1000`,
			`f.toml:10: bridge[0].queue[2].name: found nothing twice`, `f.toml:11: bridge[0].queue[2].age_max: found "1.5s", allowed whole seconds`,
			`f.toml:15: bridge[0].route[0].queue: found "a", allowed the name of a [[bridge.queue]]`}},
		{"when a bridge is active", bridge + "active = [\"22:00-06:00\", \"24:00-01:00\", \"01:00-01:00\"]\nstart = \"manual\"\n" + route, []string{
			`f.toml:4: bridge[0].active[1]: found "24:00-01:00", allowed two times of day`, `f.toml:4: bridge[0].active[2]: found "01:00-01:00"`,
			`f.toml:5: bridge[0].start: found "manual", allowed "automatic" or "lazy" or "once"`}},
		{"a queue that is used", bridge + "[[bridge.queue]]\nname = \"a\"\npolicy = \"drop-oldest\"\n" + route + "queue = \"a\"\n", nil},
		{"unknown keys in elements", bridge + route + "dir = 1\n[[bridge]]\nname=\"c\"\naddress=\"tcp://h\"\nrout = 1\n" + route, []string{
			`f.toml:7: bridge[0].route[0].dir: found an unknown key, allowed direction, exclude, filter, local_prefix, qos, queue, remote_prefix`,
			`f.toml:11: bridge[1].rout: found an unknown key`}},
		{"elements of a string array", bridge + "alpn = [1]\n" + route, []string{`f.toml:4: bridge[0].alpn: found alpn with "tcp://h"`, `f.toml:4: bridge[0].alpn[0]: found 1, allowed a string`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := check(test.text)
			var got []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			if len(got) != len(test.want) {
				t.Fatalf("got %d problems, want %d:\n%s", len(got), len(test.want), strings.Join(got, "\n"))
			}
			for i := range got {
				if !strings.HasPrefix(got[i], test.want[i]) {
					t.Errorf("got  %s\nwant %s", got[i], test.want[i])
				}
			}
		})
	}
}

// upstreams writes one bridge for each address; the address of bridge[i] is on line 4*i+3.
func upstreams(addresses ...string) string {
	var b strings.Builder
	for i, address := range addresses {
		fmt.Fprintf(&b, "[[bridge]]\nname = \"b%d\"\naddress = %q\nroute = [{direction = \"out\", filter = \"a\"}]\n", i, address)
	}
	return b.String()
}

// A password shows in no message, whatever is wrong with it.
func TestPasswordsAreNotRepeated(t *testing.T) {
	for _, value := range []string{"4711", "[4711]", "{a = 4711}", "4711.5", "true", "h4711", "'4711"} {
		err := check("[[bridge]]\nname=\"b\"\naddress=\"tcp://u:4711@h\"\npassword = " + value)
		if err == nil || !strings.Contains(err.Error(), "password: found") || strings.Contains(err.Error(), "4711") {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestProblemsAreSingleErrorsToo(t *testing.T) {
	err := check("workers = 300\n[log]\nlevel = \"loud\"")
	var problem Problem
	if !errors.As(err, &problem) || problem.Line != 1 || problem.Key != "workers" || problem.Allowed != "0 to 256" {
		t.Errorf("%+v", problem)
	}
	var all Problems
	if !errors.As(err, &all) || len(all) != 2 {
		t.Errorf("%+v", all)
	}
}

// What comes from the command line has no line of the file.
func TestOverriddenKeysLoseTheirLines(t *testing.T) {
	c, err := parse("[[listener]]\naddress = \"[::1]:1\"\n[[listener]]\naddress = \"[::1]:2\"", "f.toml")
	if err != nil {
		t.Fatal(err)
	}
	c.Override([]string{"nowhere"}, "")
	if got := c.Validate().Error(); !strings.HasPrefix(got, `f.toml: listener[0].address: found "nowhere"`) {
		t.Error(got)
	}
	c = Default()
	c.Override([]string{"nowhere"}, "")
	if got := c.Validate().Error(); !strings.HasPrefix(got, `listener[0].address: found "nowhere"`) {
		t.Error(got)
	}
}

func TestCheckFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := file("password", "s3cret\r\n")
	c := Default()
	c.Bridges = []Bridge{{PasswordFile: good}}
	if err := c.CheckFiles(); err != nil {
		t.Error(err)
	}
	if got, err := c.Bridges[0].ReadPassword(); got != "s3cret" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	plain := Bridge{Password: "p"}
	if got, err := plain.ReadPassword(); got != "p" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	c.Bridges = []Bridge{
		{PasswordFile: filepath.Join(dir, "none"), CAFile: file("ca", "no PEM"), CertFile: good, KeyFile: good},
		{PasswordFile: file("empty", "\n"), CAFile: dir},
		{PasswordFile: file("huge", strings.Repeat("x", secretMax+1))},
	}
	var problems Problems
	if !errors.As(c.CheckFiles(), &problems) {
		t.Fatal("no problems")
	}
	var keys []string
	for _, p := range problems {
		keys = append(keys, p.Key)
	}
	slices.Sort(keys)
	want := []string{"bridge[0].ca_file", "bridge[0].cert_file", "bridge[0].password_file", "bridge[1].ca_file", "bridge[1].password_file", "bridge[2].password_file"}
	if !slices.Equal(keys, want) {
		t.Errorf("got %v\nwant %v\n%v", keys, want, problems)
	}
}
