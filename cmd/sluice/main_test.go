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
		{"unknown flag", []string{"run", "--port", "1"}, 2, "", "unknown flag --port"},
		{"unknown command", []string{"serve"}, 2, "", "unexpected argument serve"},
		{"no command", nil, 2, "", "expected one of"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := execute(test.args, &stdout, &stderr)
			if code != test.code || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("exit status %d, want %d\nstdout: %s\nstderr: %s", code, test.code, stdout.String(), stderr.String())
			}
			if (code == 0) != (stderr.Len() == 0) || (code == 0) != (stdout.Len() > 0) {
				t.Errorf("status %d, but stdout: %q, stderr: %q", code, stdout.String(), stderr.String())
			}
		})
	}
}
