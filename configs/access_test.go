package configs

import (
	"slices"
	"strings"
	"testing"
)

const (
	withPassword = "[auth]\npassword_file = \"/p\"\n"
	withTLS      = "[listener.tls]\ncert_file = \"/c\"\nkey_file = \"/k\"\n"
)

func listenOn(address string) string { return "[[listener]]\naddress = \"" + address + "\"\n" }

// Each listener by the way its clients can say who they are: whether it may be opened,
// and whether it lets in who says nothing.
func TestAccess(t *testing.T) {
	const certificates = withTLS + "client_ca_file = \"/ca\"\n"
	tests := []struct {
		name, text string
		problem    string // the key that is wrong; "": none
		anonymous  bool
	}{
		{"loopback", listenOn("127.0.0.1:1"), "", true},
		{"unix socket", listenOn("unix:/s"), "", true},
		{"loopback with passwords", listenOn("127.0.0.1:1") + withPassword, "", false},
		{"loopback with passwords, but open", listenOn("127.0.0.1:1") + "allow_anonymous = true\n" + withPassword, "", true},
		{"a password file that is not asked", listenOn("127.0.0.1:1") + withPassword + "methods = [\"jwt\"]\n", "auth.password_file", true},
		{"loopback behind a proxy", listenOn("127.0.0.1:1") + "proxy_protocol = true\n", "listener[0].allow_anonymous", false},
		{"unix socket behind a proxy", listenOn("unix:/s") + "proxy_protocol = true\n", "listener[0].allow_anonymous", false},
		{"proxy with passwords", listenOn("127.0.0.1:1") + "proxy_protocol = true\n" + withPassword, "", false},
		{"network", listenOn(":1"), "listener[0].allow_anonymous", false},
		{"network, open", listenOn(":1") + "allow_anonymous = true\n", "", true},
		{"network, closed to all", listenOn(":1") + "allow_anonymous = false\n", "listener[0].allow_anonymous", false},
		{"network with passwords", listenOn(":1") + withPassword, "", false},
		{"network with an ACL only", listenOn(":1") + "[auth]\nacl_file = \"/a\"\n", "listener[0].allow_anonymous", false},
		{"network with tokens", listenOn(":1") + "[auth.jwt]\nkey_file = \"/k\"\n", "", false},
		{"network with tokens that are not asked", listenOn(":1") + "[auth]\nmethods = [\"password\"]\njwt = {key_file = \"/k\"}\n", "auth.jwt.key_file", false},
		{"network with TLS", listenOn(":1") + withTLS, "listener[0].allow_anonymous", false},
		{"network with certificates that name nobody", listenOn(":1") + certificates + "client_certificate = \"require\"\n", "listener[0].allow_anonymous", false},
		{"network with certificates", listenOn(":1") + certificates + "client_certificate = \"require\"\nusername_from = \"subject\"\n", "", false},
		{"network with certificates for some", listenOn(":1") + certificates + "client_certificate = \"optional\"\nusername_from = \"common_name\"\n", "", false},
		{"certificates that are not asked", listenOn(":1") + certificates + "client_certificate = \"require\"\nusername_from = \"subject\"\n" + withPassword + "methods = [\"password\"]\n",
			"listener[0].tls.username_from", false},
		{"another listener's certificates", listenOn(":1") + certificates + "client_certificate = \"require\"\nusername_from = \"subject\"\n" + listenOn(":2"), "listener[1].allow_anonymous", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := parse(test.text, "f.toml")
			if err != nil {
				t.Fatal(err)
			}
			var keys []string
			for _, p := range c.problems().sorted() {
				keys = append(keys, p.Key)
			}
			if test.problem == "" && len(keys) > 0 || test.problem != "" && !slices.Contains(keys, test.problem) {
				t.Errorf("problems %v, want %q: %v", keys, test.problem, c.Validate())
			}
			if got := c.Anonymous(&c.Listeners[0]); got != test.anonymous {
				t.Errorf("anonymous: %v", got)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	const bridge = "[[bridge]]\nname = \"b\"\naddress = \"tcp://far\"\nusername = \"u\"\npassword = \"hunter2\"\n"
	tests := []struct {
		name, text string
		want       []string // parts of the warnings, in order
	}{
		{"defaults", "", nil},
		{"passwords in the clear", "\n" + listenOn("0.0.0.0:1") + withPassword, []string{"f.toml:2: listener[0]: passwords and tokens cross"}},
		{"passwords on loopback, in TLS, or none", listenOn("[::1]:1") + listenOn(":8883") + withTLS + withPassword, nil},
		{"open to all", listenOn(":1") + "allow_anonymous = true\n", []string{"f.toml:1: listener[0]: whoever reaches :1"}},
		{"open, but limited", listenOn(":1") + "allow_anonymous = true\n[auth]\nacl_file = \"/a\"\n", nil},
		{"methods that do nothing", "[auth]\nmethods = [\"password\", \"jwt\"]\n", []string{`f.toml:2: auth.methods: "password" does nothing`, `f.toml:2: auth.methods: "jwt" does`}},
		{"bridge in the clear", bridge, []string{"f.toml:1: bridge[0]: the password crosses the network to far in the clear"}},
		{"bridge to this machine", strings.Replace(bridge, "tcp://far", "tcp://[::1]:1884", 1), nil},
		{"bridge that trusts everybody", strings.Replace(bridge, "tcp:", "tls:", 1) + "insecure_skip_verify = true\n", []string{"f.toml:6: bridge[0].insecure_skip_verify: anybody"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := parse(test.text, "f.toml")
			if err != nil {
				t.Fatal(err)
			}
			got := c.Warnings()
			if len(got) != len(test.want) {
				t.Fatalf("got %q", got)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], test.want[i]) || strings.Contains(got[i], "hunter2") {
					t.Errorf("got %q, want %q", got[i], test.want[i])
				}
			}
		})
	}
}

// What a listener and the ways to log in do not allow together; as TestProblems.
func TestListenerProblems(t *testing.T) {
	const local = "[[listener]]\naddress = \"[::1]:1\"\n"
	tests := []struct {
		name, text string
		want       []string
	}{
		{"interface", local + "interface = \"eth0.100\"\n" + listenOn("unix:/s") + "interface = \"eth0\"\n[[listener]]\naddress = \"[::1]:2\"\ninterface = \"sixteen-letters-\"\n", []string{
			`f.toml:6: listener[1].interface: found interface with "unix:/s"`, `f.toml:9: listener[2].interface: found "sixteen-letters-"`}},
		{"one address on two interfaces", "listener = [{address=\"[::1]:1\", interface=\"a\"}, {address=\"[::1]:1\", interface=\"b\"}]", nil},
		{"unix mode", listenOn("unix:/a") + "unix_mode = \"600\"\n" + listenOn("unix:/b") + "unix_mode = \"0888\"\n" + listenOn("unix:/c") + "unix_mode = \"u+x\"\n" + listenOn("unix:/d") + "unix_mode = \"1777\"\n" + local + "unix_mode = \"0600\"\n", []string{
			`f.toml:6: listener[1].unix_mode: found "0888", allowed octal`, `f.toml:9: listener[2].unix_mode: found "u+x"`,
			`f.toml:12: listener[3].unix_mode: found "1777"`, `f.toml:15: listener[4].unix_mode: found unix_mode with "[::1]:1"`}},
		{"WebSocket keys without WebSocket", local + "websocket_path = \"/\"\nwebsocket_origins = [\"*\"]\n", []string{
			`f.toml:3: listener[0].websocket_path: found websocket_path with protocol = "mqtt"`, `f.toml:4: listener[0].websocket_origins: found`}},
		{"WebSocket path", local + "protocol = \"websocket\"\nwebsocket_path = \"mqtt\"\n", []string{`f.toml:4: listener[0].websocket_path: found "mqtt", allowed a path`}},
		{"WebSocket at any path, from anywhere", local + "protocol = \"websocket\"\nwebsocket_path = \"\"\nwebsocket_origins = [\"*\"]\n", nil},
		{"good origins", local + "protocol = \"websocket\"\nwebsocket_origins = [\"https://app.example\", \"http://[::1]:8080\", \"app.example\", \"https://*.app.example:8443\"]\n", nil},
		{"bad origins", local + "protocol = \"websocket\"\nwebsocket_origins = [\n\"*\",\n\"https://a/\",\n\"https://a:443\",\n\"\",\n\"://a\",\n\"https://a.*\",\n\"a b\"]\n", []string{
			`f.toml:4: listener[0].websocket_origins: found "*" beside others`,
			`f.toml:6: listener[0].websocket_origins[1]: found "https://a/"`, `f.toml:7: listener[0].websocket_origins[2]: found "https://a:443"`,
			`f.toml:8: listener[0].websocket_origins[3]: found nothing`, `f.toml:9: listener[0].websocket_origins[4]: found "://a"`,
			`f.toml:10: listener[0].websocket_origins[5]: found "https://a.*"`, `f.toml:11: listener[0].websocket_origins[6]: found "a b"`}},
		{"TLS that is none", local + "[listener.tls]\n" + strings.Replace(local, "1]:1", "1]:2", 1) + "tls = {min_version = \"1.3\"}\n", []string{
			`f.toml:3: listener[0].tls.cert_file: found nothing, allowed a PEM file`, `f.toml:6: listener[1].tls.cert_file: found nothing`}},
		{"TLS values", local + withTLS + "min_version = \"1.1\"\nclient_certificate = \"yes\"\nclient_ca_file = \"/ca\"\nusername_from = \"san\"\n", []string{
			`f.toml:6: listener[0].tls.min_version: found "1.1", allowed "1.2" or "1.3"`, `f.toml:7: listener[0].tls.client_certificate: found "yes"`,
			`f.toml:9: listener[0].tls.username_from: found "san", allowed "none" or "common_name" or "subject"`}},
		{"no key", local + "[listener.tls]\ncert_file = \"/c\"\nclient_certificate = \"require\"\n", []string{
			`f.toml:3: listener[0].tls.client_ca_file: found nothing, allowed a PEM file with client_certificate = "require"`, `f.toml:3: listener[0].tls.key_file: found nothing`}},
		{"client certificates that nobody asks for", local + withTLS + "client_ca_file = \"/ca\"\nclient_crl_file = \"/crl\"\nusername_from = \"subject\"\n", []string{
			`f.toml:6: listener[0].tls.client_ca_file: found`, `f.toml:7: listener[0].tls.client_crl_file: found`, `f.toml:8: listener[0].tls.username_from: found`}},
		{"methods", "[auth]\nmethods = [\"password\", \"kerberos\", \"password\"]\nlogin_failures_max = 0\n", []string{
			`f.toml:2: auth.methods[1]: found "kerberos", allowed "certificate", "jwt", "password"`, `f.toml:2: auth.methods[2]: found "password" twice`,
			`f.toml:3: auth.login_failures_max: found 0, allowed 1 to 1000000`}},
		{"no methods", "[auth]\nmethods = []\n", []string{`f.toml:2: auth.methods: found none, allowed at least one`}},
		{"two keys", "[auth.jwt]\nkey_file = \"/k\"\nsecret_file = \"/s\"\n", []string{`f.toml:3: auth.jwt.secret_file: found key_file and secret_file, allowed one of them`}},
		{"no key for tokens", "[auth.jwt]\nissuer = \"me\"\nuser_claim = \"\"\n", []string{`f.toml:1: auth.jwt: found no key`, `f.toml:3: auth.jwt.user_claim: found nothing`}},
		{"a secret instead of its variable", "[auth.jwt]\nsecret_env = \"hunter2\"\n", []string{
			`f.toml:2: auth.jwt.secret_env: found something else, allowed the name of an environment variable`}},
		{"response information", "[mqtt]\nresponse_information = \"a/+\"\n", []string{`f.toml:2: mqtt.response_information: found "a/+"`}},
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

func TestActiveMethods(t *testing.T) {
	a := Default().Auth
	if got := a.ActiveMethods(); !slices.Equal(got, []string{"certificate"}) {
		t.Errorf("%v", got)
	}
	a.PasswordFile, a.JWT.SecretEnv, a.Methods = "/p", "S", []string{"password", "jwt"}
	if got := a.ActiveMethods(); !slices.Equal(got, []string{"password", "jwt"}) {
		t.Errorf("%v", got)
	}
	a = Auth{Methods: []string{"jwt"}}
	if got := a.ActiveMethods(); got == nil || len(got) > 0 {
		t.Errorf("%#v", got) // nil would mean all
	}
}
