package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/broker/admin"
	"sluice/cmd/sluice/e2e/rig"
)

// sluice runs the program, not as a broker.
func sluice(t *testing.T, args ...string) (status int, output string) {
	t.Helper()
	out, err := exec.Command(plainBinary, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		status = exit.ExitCode()
	}
	return status, string(out)
}

// TestBackupWhileRunning: a copy made under load holds, as a store, everything that was
// acknowledged before; a broker starts on it and delivers.
func TestBackupWhileRunning(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	ledger := rig.NewLedger()
	b.away(rig.ClientOptions{ID: "sub"}, 1, "stream")
	s := b.stream(ledger, "stream", 5000, 1, rig.ClientOptions{Clean: true, Window: 100})
	s.acked(1000)
	mark := ledger.Mark()
	copied := t.TempDir()
	file := filepath.Join(copied, "data", "sluice.db")
	if status, out := sluice(t, "store", "backup", "--data", b.DataDir(), filepath.Join(copied, "b.db")); status != 0 || !strings.Contains(out, "as of commit") {
		t.Fatalf("status %d: %s", status, out)
	}
	s.wait()
	if status, out := sluice(t, "store", "check", filepath.Join(copied, "b.db")); status != 0 {
		t.Errorf("status %d: %s", status, out)
	}
	if status, out := sluice(t, "store", "inspect", b.DataDir()); status != 1 || !strings.Contains(out, "sluice store backup") {
		t.Errorf("a store in use: status %d: %s", status, out)
	}
	must(t, exec.Command("mkdir", filepath.Dir(file)).Run())
	must(t, exec.Command("mv", filepath.Join(copied, "b.db"), file).Run())
	restored := startGateway(t, &rig.Gateway{Binary: raceBinary, Dir: copied})
	there := rig.NewLedger()
	again := rig.NewClient(rig.ClientOptions{ID: "sub", OnMessage: arrive(there)})
	t.Cleanup(again.Close)
	present, err := again.Connect(restored.Addr())
	must(t, err)
	if !present {
		t.Fatal("the session is not in the backup")
	}
	eventually(t, patience, "all of the backup arrives", func() bool { return there.Sum().Arrived >= mark["stream"] })
	ordered(t, there.Sum())
}

// TestStatus: the command and the socket tell the same of a running broker, and notice that
// it has ended.
func TestStatus(t *testing.T) {
	t.Parallel()
	b := start(t, "")
	subscribed(t, b.Addr(), rig.ClientOptions{ID: "someone"}, 1, "x")
	status, out := sluice(t, "status", "--json", "--data", b.DataDir())
	var st admin.Status
	must(t, json.Unmarshal([]byte(out), &st))
	if status != 0 || !st.Health.Ready || st.Connections != 1 || st.Sessions != 1 {
		t.Errorf("status %d: %s", status, out)
	}
	if status, out := sluice(t, "status", "-c", b.ConfigFile()); status != 0 || !strings.Contains(out, "1 connections, 1 sessions") {
		t.Errorf("status %d: %s", status, out)
	}
	web := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return admin.Dial(ctx, b.DataDir())
	}}}
	r, err := web.Get("http://sluice/metrics")
	must(t, err)
	text, err := io.ReadAll(r.Body)
	must(t, err)
	must(t, r.Body.Close())
	if !strings.Contains(string(text), "\nsluice_connections 1\n") {
		t.Errorf("%s", text)
	}
	b.kill()
	if status, _ := sluice(t, "status", "--data", b.DataDir()); status != 3 {
		t.Errorf("of a dead broker: status %d", status)
	}
	b.start() // over the socket that the dead one left
	if status, _ := sluice(t, "status", "--data", b.DataDir()); status != 0 {
		t.Errorf("of its successor: status %d", status)
	}
}
