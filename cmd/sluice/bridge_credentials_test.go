package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/configs"
)

// Each way to a password ends up in what the bridge logs in with.
func TestBridgeCredentials(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	key := file("key", base64.StdEncoding.EncodeToString([]byte("key"))+"\n", 0o600)
	for what, c := range map[string]struct {
		set  func(*configs.Bridge)
		want string // how the password begins
	}{
		"file": {func(b *configs.Bridge) { b.PasswordFile = file("pw", "hunter2\n", 0o600) }, "hunter2"},
		"command": {func(b *configs.Bridge) {
			b.PasswordCommand = []string{file("cmd", "#!/bin/sh\necho from $1", 0o700), "here"}
		}, "from here"},
		"key": {func(b *configs.Bridge) { b.SASKeyFile = key }, "SharedAccessSignature sr=hub.example%2Fdevices%2Fgw&sig="},
		"named key": {func(b *configs.Bridge) { b.SASKeyFile, b.SASResource, b.SASPolicy = key, "r", "p" },
			"SharedAccessSignature sr=r&sig="},
	} {
		b := configs.Bridge{Name: "b", ClientID: "gw", Address: configs.Addresses{"tls://hub.example"}, Username: "me",
			CommandTimeout: configs.Duration(time.Minute), SASLifetime: configs.Duration(time.Hour)}
		c.set(&b)
		o, err := bridgeOptions(&b, "host")
		if err != nil || o.Credentials == nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		who, err := o.Credentials(t.Context())
		if err != nil || who.Username != "me" || !strings.HasPrefix(who.Password, c.want) {
			t.Errorf("%s: %+v %v", what, who, err)
		}
	}
	b := configs.Bridge{Name: "b", Address: configs.Addresses{"tls://h"}, SASKeyFile: file("bad", "%%%", 0o600), SASLifetime: configs.Duration(time.Hour)}
	if _, err := bridgeOptions(&b, "host"); err == nil || strings.Contains(err.Error(), "%%%") {
		t.Errorf("a key that is none: %v", err)
	}
}
