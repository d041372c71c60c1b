package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A ping of bridges that cannot connect says where it ends, for people and as JSON,
// and fails.
func TestBridgePing(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := ln.Addr().String()
	_ = ln.Close()
	file := filepath.Join(t.TempDir(), "sluice.toml")
	route := "[[bridge.route]]\ndirection = \"out\"\nfilter = \"#\"\n"
	text := "[[bridge]]\nname = \"a\"\nclient_id = \"gw\"\naddress = [\"tcp://" + dead + "\", \"tls://" + dead + "\"]\n" + route +
		"[[bridge]]\nname = \"b\"\naddress = \"tcp://" + dead + "\"\n" + route
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := execute(append([]string{"bridge", "ping", "-c", file}, args...), &console{strings.NewReader(""), &stdout, &stderr})
		return code, stdout.String(), stderr.String()
	}
	code, out, _ := run()
	if code != exitFailure || strings.Count(out, "bridge a,") != 2 || strings.Count(out, "bridge b,") != 1 || !strings.Contains(out, "FAIL  TCP") || !strings.Contains(out, "nobody listens") {
		t.Errorf("status %d:\n%s", code, out)
	}
	code, out, _ = run("a", "--json")
	var got []pingedBridge
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitFailure || len(got) != 1 || len(got[0].Addresses) != 2 || got[0].Addresses[0].ClientID != "gw-ping" || got[0].Addresses[1].Steps[0].Name != "TCP" {
		t.Errorf("status %d, %v:\n%s", code, err, out)
	}
	if code, _, errText := run("c"); code != exitFailure || !strings.Contains(errText, `no bridge "c"`) {
		t.Errorf("status %d: %s", code, errText)
	}
}
