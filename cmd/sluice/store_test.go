package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/broker/mqtt"
	"sluice/persist"
	"sluice/persist/bolt"
)

// deaf takes the answers of a store and does nothing.
type deaf struct{}

func (deaf) Settled(int, []persist.Token, error) {}
func (deaf) Fetched(int, persist.Fetched)        {}

// stopped makes a store with a session, which has messages queued, and closes it.
func stopped(t *testing.T, dir string, messages int) {
	t.Helper()
	o := bolt.DefaultOptions()
	o.Path, o.Events = dir, deaf{}
	s, err := bolt.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	var b persist.Batch
	id := s.NewSessionID()
	b.Add(persist.Op{Kind: persist.OpPutSession, ID: id, Sess: &persist.Session{ID: id, ClientID: "probe 7", ExpirySeconds: persist.NoExpiry}})
	for range messages {
		m := mqtt.NewMessage(&mqtt.Publish{Topic: []byte("a/b"), Payload: []byte("payload")})
		m.ID = s.NewMessageID()
		b.Enqueue(id, m, 1, false, nil)
	}
	s.Submit(&b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// command runs a command line.
func command(args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = execute(args, &console{strings.NewReader(""), &out, &errs})
	return status, out.String(), errs.String()
}

func TestStoreCommands(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	stopped(t, data, 3)
	file, damaged, repaired := filepath.Join(data, "sluice.db"), filepath.Join(dir, "damaged.db"), filepath.Join(dir, "repaired.db")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(text, []byte("payload"))
	text[at] ^= 1
	if err := os.WriteFile(damaged, text, 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(config, []byte("data_dir = \""+data+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		args           []string
		status         int
		stdout, stderr string // each a part of what is printed
	}{
		{[]string{"inspect", data}, 0, "\"probe 7\": 3 messages (30 B), 0 subscriptions\n", ""},
		{[]string{"inspect", "-c", config}, 0, "the broker stopped in order", ""},
		{[]string{"inspect", "--data", data, "--json"}, 0, "\"queued_messages\": 3,", ""},
		{[]string{"check", file}, 0, "sound, 4 records", ""},
		{[]string{"check", "--json", file}, 0, "\"sound\": true", ""},
		{[]string{"check", damaged}, 1, "damaged", ""},
		{[]string{"check", filepath.Join(dir, "none")}, 1, "", "no such file"},
		{[]string{"dump", file}, 0, `"seq":3,"topic":"a/b","payload":"cGF5bG9hZA=="`, ""},
		{[]string{"repair", "--to", repaired, damaged}, 0, "1 sessions, 0 subscriptions, ", ""},
		{[]string{"repair", "--to", repaired, damaged}, 1, "", "exists"},
		{[]string{"repair", damaged}, 2, "", "missing flags: --to"},
		{[]string{"check", repaired}, 0, "sound", ""},
		{[]string{"compact", repaired}, 0, "after\n", ""},
		{[]string{"check", repaired}, 0, "sound", ""},
		{[]string{"backup", "--data", data, filepath.Join(dir, "b.db")}, exitNobody, "", "no broker runs there: copy "},
		{[]string{"backup", "--data", data, file}, 1, "", "exists"},
	} {
		status, out, errs := command(append([]string{"store"}, x.args...)...)
		if status != x.status || !strings.Contains(out, x.stdout) || !strings.Contains(errs, x.stderr) {
			t.Errorf("%v: status %d, printed %q and %q", x.args, status, out, errs)
		}
	}
	var in bolt.Inspection
	if _, out, _ := command("store", "inspect", "--json", repaired); json.Unmarshal([]byte(out), &in) != nil || in.QueuedMessages >= 3 {
		t.Errorf("repaired: %s", out)
	}
	if info, err := os.Stat(repaired); err != nil || info.Size() > 256<<10 {
		t.Errorf("compacted to %d bytes: %v", info.Size(), err)
	}
}

// A store in use is refused, and the message says what to do.
func TestStoreInUse(t *testing.T) {
	dir := t.TempDir()
	o := bolt.DefaultOptions()
	o.Path, o.Events = dir, deaf{}
	s, err := bolt.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, args := range [][]string{{"inspect", dir}, {"check", dir}, {"dump", dir}, {"compact", dir}, {"repair", "--to", filepath.Join(dir, "new.db"), dir}} {
		status, _, errs := command(append([]string{"store"}, args...)...)
		if status != exitFailure || !strings.Contains(errs, "in use") || !strings.Contains(errs, "sluice store backup") {
			t.Errorf("%v: status %d, %q", args, status, errs)
		}
	}
}

func TestStatusOfNobody(t *testing.T) {
	if status, _, errs := command("status", "--data", t.TempDir()); status != exitNobody || !strings.Contains(errs, "no broker runs there") {
		t.Errorf("status %d, %q", status, errs)
	}
}
