package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/configs"
)

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := file("good.toml", "data_dir = \"/srv/mqtt\"\n")
	bad := file("bad.toml", "workers = -1\n[limits]\nx = 1\n")
	open := file("open.toml", "[[listener]]\naddress = \"0.0.0.0:1883\"\n")
	password := file("password.toml", "[[bridge]]\nname = \"b\"\naddress = \"tcp://h\"\nusername = \"u\"\npassword_file = \"/nonexistent\"\n"+
		"[[bridge.route]]\ndirection = \"out\"\nfilter = \"#\"\n")
	lines := file("lines.acl", "user me\ntropic #\n")
	acl := file("acl.toml", "[auth]\nacl_file = \""+lines+"\"\n")
	users := file("users.toml", "[auth]\npassword_file = \""+lines+"\"\n")
	token := file("token.toml", "[auth.jwt]\nkey_file = \""+lines+"\"\n")
	tls := file("tls.toml", "[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.tls]\ncert_file = \"/nonexistent\"\nkey_file = \"/nonexistent\"\n")
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // each a part of what is printed
	}{
		{"version", []string{"version"}, 0, "sluice dev linux/", ""},
		{"good file", []string{"check", "-c", good}, 0, "good.toml: good (listeners: 1, bridges: 0, data: /srv/mqtt)\n", ""},
		{"example", []string{"check", "-c", "../../configs/examples/gateway-mosquitto.toml"}, 0, "listeners: 1, bridges: 1", ""},
		{"no file", []string{"check"}, 0, "the default configuration: good", ""},
		{"print defaults", []string{"check", "--defaults"}, 0, configs.DefaultFile(), ""},
		{"two problems", []string{"check", "-c", bad}, 2, "", "bad.toml:3: limits.x: found an unknown key"},
		{"the other of them", []string{"check", "-c", bad}, 2, "", "bad.toml:1: workers: found -1, allowed 0 to 256\n"},
		{"run refuses it too", []string{"run", "-c", bad}, 2, "", "bad.toml:1: workers"},
		{"beyond loopback", []string{"check", "-c", open}, 2, "", "open.toml:1: listener[0].allow_anonymous: found"},
		{"beyond loopback on the command line", []string{"run", "--listen", "0.0.0.0:0"}, 2, "", "listener[0].allow_anonymous: found"},
		{"missing file", []string{"check", "-c", filepath.Join(dir, "none.toml")}, 2, "", "none.toml: found no such file"},
		{"missing password", []string{"check", "-c", password}, 2, "", "password.toml:5: bridge[0].password_file: found \"/nonexistent\""},
		{"wrong ACL file", []string{"check", "-c", acl}, 2, "", "lines.acl:2: "},
		{"wrong password file", []string{"check", "-c", users}, 2, "", "lines.acl:1: "},
		{"token key that is none", []string{"check", "-c", token}, 2, "", "no public key"},
		{"missing certificate", []string{"check", "-c", tls}, 2, "", "tls.toml:4: listener[0].tls.cert_file: found \"/nonexistent\""},
		{"unknown flag", []string{"run", "--port", "1"}, 2, "", "unknown flag --port"},
		{"unknown command", []string{"serve"}, 2, "", "unexpected argument serve"},
		{"no command", nil, 2, "", "expected one of"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := execute(test.args, &console{strings.NewReader(""), &stdout, &stderr})
			if code != test.code || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("exit status %d, want %d\nstdout: %s\nstderr: %s", code, test.code, stdout.String(), stderr.String())
			}
			if (code == 0) != (stderr.Len() == 0) || (code == 0) != (stdout.Len() > 0) {
				t.Errorf("status %d, but stdout: %q, stderr: %q", code, stdout.String(), stderr.String())
			}
		})
	}
}

// What is possible but hardly wanted is said, and does not fail.
func TestCheckWarns(t *testing.T) {
	dir := t.TempDir()
	users, config := filepath.Join(dir, "users"), filepath.Join(dir, "f.toml")
	if err := os.WriteFile(config, []byte("[[listener]]\naddress = \":1883\"\n[auth]\npassword_file = \""+users+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(users, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check := func() string {
		var stdout, stderr bytes.Buffer
		if code := execute([]string{"check", "-c", config}, &console{strings.NewReader(""), &stdout, &stderr}); code != 0 {
			t.Fatalf("exit status %d: %s", code, stderr.String())
		}
		return stderr.String()
	}
	if got := check(); !strings.Contains(got, "warning: "+config+":1: listener[0]: passwords and tokens cross") || strings.Contains(got, "can read it") {
		t.Error(got)
	}
	if err := os.Chmod(users, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := check(); !strings.Contains(got, "warning: "+users+": every user of this machine can read it") {
		t.Error(got)
	}
}
