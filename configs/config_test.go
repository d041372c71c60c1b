package configs

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

func bytesOf(t *testing.T, s string) Bytes {
	t.Helper()
	b, err := ParseBytes(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// The defaults are a promise: a change of sluice.toml must show here.
func TestDefaults(t *testing.T) {
	want := &Config{
		Log: Log{Level: "info", Format: "console"},
		Listeners: []Listener{{
			Address: "127.0.0.1:1883", UnixMode: "0660", Protocol: "mqtt", WebSocketPath: "/mqtt", WebSocketOrigins: []string{},
			TLS: ListenerTLS{ClientCertificate: "none", UsernameFrom: "none", MinVersion: "1.2"},
		}},
		Auth: Auth{
			Methods: []string{"certificate", "jwt", "password"}, DeniedPublish: "drop",
			LoginFailuresMax: 10, LoginFailureWindow: Duration(time.Minute), LoginRefuseFor: Duration(5 * time.Minute),
			JWT: JWT{Leeway: Duration(30 * time.Second), RequireExpiry: true,
				UserClaim: "sub", ClientIDClaim: "clientid", PublishClaim: "publ", SubscribeClaim: "subs"},
		},
		Limits: Limits{
			PacketBytesMax: 1 << 20, ConnectBytesMax: 16 << 10, TopicBytesMax: 4096, TopicLevelsMax: 128, ClientIDBytesMax: 256,
			ConnectTimeout: Duration(10 * time.Second), InflightMax: 1000, ReceiveMax: 1000, SubscriptionsMax: 1000,
			TopicAliasMax: 32, TopicAliasOutMax: 16, HandshakesMax: 64, OutputBytesMax: 1 << 20,
			RetainedMessagesMax: 100_000, RetainedBytesMax: 64 << 20,
		},
		Queue: Queue{MessagesMax: 100_000, BytesMax: 64 << 20, Policy: "reject", QoS0: "off", MQTT5Full: "refuse", Priority: []string{}},
		Store: Store{Kind: "bolt", Preset: "balanced", MaxBytes: 1 << 30},
	}
	if got := Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

// uncommented turns every line that comments out a key or a table into one that counts.
func uncommented(text string) string {
	return regexp.MustCompile(`(?m)^# (\[|[a-z0-9_]+ *=)`).ReplaceAllString(text, "$1")
}

// Every key of every struct stands in sluice.toml, and the examples of TLS and of a
// bridge in it show the defaults.
func TestDefaultFileIsComplete(t *testing.T) {
	c := new(Config)
	text := uncommented(DefaultFile())
	if problems := c.lay(text, "sluice.toml"); len(problems) > 0 {
		t.Fatal(problems)
	}
	if err := c.Validate(); err != nil {
		t.Errorf("the commented examples do not hold: %v", err)
	}
	walk(reflect.ValueOf(c).Elem(), "", func(_ reflect.Value, _ reflect.StructField, path string) {
		if _, there := c.at.lines[path]; !there {
			t.Errorf("%s is not in sluice.toml", path)
		}
	})
	tls := NewListener("").TLS
	tls.CertFile, tls.KeyFile = "/etc/sluice/server.pem", "/etc/sluice/server.key"
	if got := c.Listeners[0].TLS; got != tls {
		t.Errorf("the example shows  %+v\nthe defaults are    %+v", got, tls)
	}
	var b Bridge
	var r Route
	b.setDefaults()
	r.setDefaults()
	b.Name, b.Address, b.ALPN, b.Active = "cloud", Addresses{"tls://mqtt.example:8883"}, []string{}, []string{}
	b.PasswordCommand = []string{}
	r.Direction, r.Filter, r.Exclude = "out", "sensors/#", []string{}
	var q BridgeQueue
	q.setDefaults()
	limits := Default().Queue
	q.Name, q.MessagesMax, q.BytesMax, q.AgeMax, q.Policy = "alarms", &limits.MessagesMax, &limits.BytesMax, &limits.AgeMax, &limits.Policy
	b.Queues, b.Routes = []BridgeQueue{q}, []Route{r}
	if !reflect.DeepEqual(c.Bridges, []Bridge{b}) {
		t.Errorf("the example shows  %+v\nthe defaults are    %+v", c.Bridges, []Bridge{b})
	}
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob("examples/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		c, err := Load(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
	}
	c, err := Load("examples/gateway-mosquitto.toml")
	if err != nil {
		t.Fatal(err)
	}
	b := c.Bridges[0]
	if !reflect.DeepEqual(b.Address, Addresses{"tcp://127.0.0.1:1884"}) || !b.BridgeBit || b.Keepalive != Duration(time.Minute) || len(b.Routes) != 2 ||
		!reflect.DeepEqual(b.Routes[1], Route{Direction: "in", Filter: "commands/#", RemotePrefix: "plant7/", QoS: 1}) {
		t.Errorf("the mosquitto example is read as %+v", b)
	}
}

func TestAllowTagsAreWellFormed(t *testing.T) {
	c := Default()
	c.Bridges = []Bridge{{Routes: []Route{{}}}}
	tags := 0
	walk(reflect.ValueOf(c).Elem(), "", func(v reflect.Value, f reflect.StructField, path string) {
		tag := f.Tag.Get("allow")
		if tag != "" {
			allows(tag, v) // panics on a tag that cannot be read
			tags++
		}
		if kind := f.Type.Kind(); tag == "" && kind == reflect.Int || (f.Type == reflect.TypeFor[Bytes]() && tag == "") {
			t.Errorf("%s may be any number", path)
		}
	})
	if tags < 30 {
		t.Errorf("only %d tags were looked at", tags)
	}
}

func TestDataPath(t *testing.T) {
	c := Default()
	c.DataDir = "/somewhere"
	if got, err := c.DataPath(); got != "/somewhere" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	c.DataDir = ""
	t.Setenv("XDG_STATE_HOME", "/state")
	t.Setenv("HOME", "/home/someone")
	got, err := c.DataPath()
	if os.Geteuid() == 0 && got != "/var/lib/sluice" || os.Geteuid() != 0 && got != "/state/sluice" && got != "/var/lib/sluice" || err != nil {
		t.Errorf("as user %d: %q, %v", os.Geteuid(), got, err)
	}
}

func TestClientID(t *testing.T) {
	b := Bridge{Name: "cloud"}
	if got := b.ClientIDOn("gw7"); got != "sluice-cloud-gw7" {
		t.Errorf("%q", got)
	}
	b.ClientID = "mine"
	if got := b.ClientIDOn("gw7"); got != "mine" {
		t.Errorf("%q", got)
	}
}

func TestUnits(t *testing.T) {
	sizes := map[string]Bytes{"0": 0, "1": 1, "512B": 512, "64KiB": 64 << 10, "64 KiB": 64 << 10, "1MiB": 1 << 20, "3GiB": 3 << 30, "1TiB": 1 << 40,
		"5KB": 5000, "5MB": 5e6, "5GB": 5e9, "1025": 1025}
	for text, want := range sizes {
		if got := bytesOf(t, text); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
		if got := bytesOf(t, want.String()); got != want {
			t.Errorf("%d is written %q", want, want.String())
		}
	}
	for _, text := range []string{"", "B", "KiB", "-1", "1.5MiB", "1kib", "1 M", "9999999TiB", "99999999999999999999", "1MiBB", "1e3"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
	spans := map[string]time.Duration{"0": 0, "50ms": 50 * time.Millisecond, "1h30m": 90 * time.Minute, "7d": 7 * day, "1d12h": 36 * time.Hour, "1h": time.Hour,
		"20m": 20 * time.Minute, "90s": 90 * time.Second, "10h0m5s": 10*time.Hour + 5*time.Second, "100d": 100 * day}
	for text, want := range spans {
		got, err := ParseDuration(text)
		if got.Duration() != want || err != nil {
			t.Errorf("%q is %v, %v", text, got, err)
		}
		if again, err := ParseDuration(got.String()); again != got || err != nil {
			t.Errorf("%v is written %q", want, got.String())
		}
	}
	for _, text := range []string{"", "5", "d", "-1s", "-1d", "1d-1h", "1w", "9999999d", "106751d24h", "1dd", "1h1d"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	for _, text := range []string{"7d", "1h30m", "50ms", "10s", "1d12h", "1h"} {
		if d, _ := ParseDuration(text); d.String() != text {
			t.Errorf("%q comes back as %q", text, d.String())
		}
	}
	for _, text := range []string{"64KiB", "1MiB", "1GiB", "512B", "0"} {
		if b, _ := ParseBytes(text); b.String() != text {
			t.Errorf("%q comes back as %q", text, b.String())
		}
	}
}

func TestWithoutIndexes(t *testing.T) {
	for path, want := range map[string]string{"a": "a", "bridge[0].route": "bridge.route", "a[1].b[22].c[3]": "a.b.c"} {
		if got := withoutIndexes(path); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"packet_bytes_max", "connect_bytes_max", "level", "format"}
	for key, want := range map[string]string{"packet_byte_max": "packet_bytes_max", "lvel": "level", "max_packet": "", "x": "", "Level": "level", "": ""} {
		if got := nearest(key, known); got != want {
			t.Errorf("%q is near %q, want %q", key, got, want)
		}
	}
	for _, pair := range [][3]string{{"kitten", "sitting", "3"}, {"", "abc", "3"}, {"abc", "", "3"}, {"same", "same", "0"}} {
		if got := distance(pair[0], pair[1]); string(rune('0'+got)) != pair[2] {
			t.Errorf("%v: %d", pair, got)
		}
	}
}

func TestEmptyFileIsTheDefault(t *testing.T) {
	c, err := parse("# nothing\n", "empty.toml")
	if err != nil {
		t.Fatal(err)
	}
	c.at = positions{}
	if !reflect.DeepEqual(c, Default()) {
		t.Errorf("%+v", c)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "missing.toml")); err == nil || !strings.HasSuffix(err.Error(), "missing.toml: found no such file or directory, allowed a readable TOML file") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestArraysReplaceDefaults(t *testing.T) {
	c, err := parse(`
[[listener]]
address = "unix:/run/a"
[[listener]]
address = "0.0.0.0:1883"
allow_anonymous = true
connections_max = 7
`, "f.toml")
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	want := []Listener{NewListener("unix:/run/a"), NewListener("0.0.0.0:1883")}
	want[1].AllowAnonymous, want[1].ConnectionsMax = &yes, 7
	if !reflect.DeepEqual(c.Listeners, want) {
		t.Errorf("%+v", c.Listeners)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.Override([]string{"127.0.0.1:0"}, "/data")
	if !reflect.DeepEqual(c.Listeners, []Listener{NewListener("127.0.0.1:0")}) || c.DataDir != "/data" {
		t.Errorf("%+v", c)
	}
	c.Override(nil, "")
	if len(c.Listeners) != 1 || c.DataDir != "/data" {
		t.Errorf("%+v", c)
	}
}
