package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/bridge"
	"sluice/broker/worker"
	"sluice/persist"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a Source that a test may change between questions.
type world struct {
	ws      worker.Stats
	st      persist.Stats
	bridges []bridge.Status
	backup  func(w io.Writer) (int64, uint64, error)
}

func (x *world) source() Source {
	return Source{Version: "1.2.3", Stats: func() (worker.Stats, persist.Stats) { return x.ws, x.st },
		Bridges: func() []bridge.Status { return x.bridges },
		Backup:  func(w io.Writer) (int64, uint64, error) { return x.backup(w) }}
}

// serve serves x in a directory, and gives it with a way to ask.
func serve(t *testing.T, dir string, source Source) (*Server, func(path string) (*http.Response, string, error)) {
	t.Helper()
	s, err := Listen(dir, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, func(path string) (*http.Response, string, error) {
		tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return Dial(ctx, dir) }}
		r, err := (&http.Client{Transport: tr}).Get("http://x" + path)
		if err != nil {
			return nil, "", err
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		return r, string(body), err
	}
}

func TestHealth(t *testing.T) {
	x := &world{}
	_, ask := serve(t, t.TempDir(), x.source())
	check := func(code int, problems, warnings int) {
		t.Helper()
		r, body, err := ask("/api/v1/health")
		if err != nil {
			t.Fatal(err)
		}
		var h Health
		if err := json.Unmarshal([]byte(body), &h); err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != code || h.Ready != (code == 200) || len(h.Problems) != problems || len(h.Warnings) != warnings {
			t.Errorf("%d %s", r.StatusCode, body)
		}
	}
	check(200, 0, 0)
	x.bridges = []bridge.Status{{Name: "cloud", State: bridge.StateUp, LastError: "of yesterday"}}
	check(200, 0, 0)
	x.bridges[0].State = bridge.StateDown
	check(200, 0, 1)
	x.st.Quarantined, x.st.WriteBudgetUsed = "/d/sluice.db.corrupt-1", 1.5
	check(200, 0, 3)
	x.st.Err = errors.New("no space left on device")
	check(503, 1, 3)
	x.st = persist.Stats{}
	x.bridges = nil
	check(200, 0, 0)
}

// Every metric is documented, and nothing else.
func TestMetrics(t *testing.T) {
	x := &world{bridges: []bridge.Status{{Name: `a"b`, State: bridge.StateUp, Acked: 7, Queues: []bridge.QueueStatus{{Name: "q", Known: true, Messages: 3, ETA: -1}}}}}
	x.ws.Connections, x.st.BytesWritten, x.st.CommitInterval = 5, 1<<40, 50*time.Millisecond
	_, ask := serve(t, t.TempDir(), x.source())
	_, body, err := ask("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"sluice_info{version=\"1.2.3\"} 1", "sluice_connections 5", "sluice_store_bytes_written_total 1.099511627776e+12", "sluice_store_commit_interval_seconds 0.05",
		`sluice_bridge_up{bridge="a\"b"} 1`, `sluice_bridge_queued_messages{bridge="a\"b",queue="q"} 3`, "# TYPE sluice_messages_dropped_total counter",
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("missing: %s", line)
		}
	}
	sampleLine := regexp.MustCompile(`^([a-z0-9_]+)(\{([a-z0-9_]+="([^"\\]|\\.)*",?)+\})? [-+0-9.e]+$`)
	var names []string
	for line := range strings.Lines(body) {
		if line = strings.TrimSuffix(line, "\n"); strings.HasPrefix(line, "# ") {
			if f := strings.Fields(line); f[1] == "TYPE" {
				names = append(names, f[2])
			}
			continue
		}
		if !sampleLine.MatchString(line) {
			t.Errorf("malformed: %s", line)
		}
	}
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := regexp.MustCompile("`(sluice_[a-z0-9_]+)`").FindAllStringSubmatch(string(text), -1)
	var rows []string
	for _, d := range documented {
		rows = append(rows, d[1])
	}
	slices.Sort(rows)
	rows = slices.Compact(rows)
	slices.Sort(names)
	if !slices.Equal(rows, names) {
		t.Errorf("documented:\n%s\nthere are:\n%s", strings.Join(rows, "\n"), strings.Join(names, "\n"))
	}
}

func TestBackup(t *testing.T) {
	x := &world{backup: func(w io.Writer) (int64, uint64, error) {
		n, err := w.Write([]byte("the store"))
		return int64(n), 42, err
	}}
	_, ask := serve(t, t.TempDir(), x.source())
	r, body, err := ask("/api/v1/store/backup")
	if err != nil || body != "the store" || r.Trailer.Get("Sluice-Commit") != "42" {
		t.Errorf("%q %v %v", body, r, err)
	}
	x.backup = func(w io.Writer) (int64, uint64, error) {
		_, _ = w.Write(make([]byte, 100_000))
		return 100_000, 0, errors.New("the disk has gone")
	}
	if _, _, err := ask("/api/v1/store/backup"); err == nil {
		t.Error("half a backup looks like a whole one")
	}
	none := x.source()
	none.Backup = nil
	_, ask = serve(t, t.TempDir(), none)
	if r, _, err := ask("/api/v1/store/backup"); err != nil || r.StatusCode != http.StatusConflict {
		t.Errorf("%v %v", r, err)
	}
}

func TestSocket(t *testing.T) {
	x := &world{}
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	first, err := Listen(dir, x.source())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, SocketName)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if _, err := Listen(dir, x.source()); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	// What a dead process left is replaced; what is somebody else's by then stays.
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	second, ask := serve(t, dir, x.source())
	if _, _, err := ask("/api/v1/health"); err != nil {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error("the other's socket was taken away")
	}
}

// Who connects and says nothing holds one of a few places, for a limited time.
func TestBounded(t *testing.T) {
	x := &world{}
	dir := t.TempDir()
	_, ask := serve(t, dir, x.source())
	for range connectionsMax {
		c, err := Dial(context.Background(), dir)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	done := make(chan error, 1)
	go func() { _, _, err := ask("/api/v1/health"); done <- err }()
	select {
	case err := <-done: // when the first of them has been sent away
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("those who say nothing shut the others out")
	}
}
