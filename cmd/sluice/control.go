package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"time"

	"go.uber.org/zap"

	"sluice/broker"
	"sluice/broker/admin"
	"sluice/configs"
)

// answer begins to answer questions on the control socket. A broker that cannot be asked
// works all the same.
func answer(b *broker.Broker, l *live, cfg *configs.Config, dir string, log *zap.Logger) *admin.Server {
	source := admin.Source{Version: version, Stats: b.Stats, Bridges: l.bridges.set.Status}
	if cfg.Store.Kind == "bolt" {
		source.Backup = b.Backup
	}
	s, err := admin.Listen(dir, source)
	if err != nil {
		log.Warn("nobody can ask how the broker is", zap.Error(err))
		return nil
	}
	return s
}

// target says which broker a command is about.
type target struct {
	Config string `short:"c" type:"path" placeholder:"FILE" help:"Configuration file of the broker."`
	Data   string `type:"path" placeholder:"DIR" help:"Its data directory, instead of the configured one."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// dir is the data directory.
func (t *target) dir() (string, error) {
	if t.Data != "" {
		return t.Data, nil
	}
	cfg, err := loadConfig(t.Config, nil, "")
	if err != nil {
		return "", err
	}
	return cfg.DataPath()
}

// askMax is how long a broker may take to begin an answer.
const askMax = 10 * time.Second

// errNobody says that no broker runs on a data directory.
var errNobody = errors.New("no broker runs there")

// ask asks the broker that has its data in dir. The caller closes the body.
func ask(dir, path string) (*http.Response, error) {
	transport := &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return admin.Dial(ctx, dir) },
		ResponseHeaderTimeout: askMax,
		DisableKeepAlives:     true,
	}
	r, err := (&http.Client{Transport: transport}).Get("http://sluice" + path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, admin.SocketName), errNobody)
	}
	return r, err
}

// statusCmd is `sluice status`.
type statusCmd struct{ target }

// Help explains the exit status.
func (*statusCmd) Help() string {
	return "Exit status: 0 if the broker is well, 1 if it is not, 3 if none runs on that data directory."
}

// Run prints how the broker is.
func (s *statusCmd) Run(c *console) error {
	dir, err := s.dir()
	if err != nil {
		return err
	}
	r, err := ask(dir, "/api/v1/status")
	if errors.Is(err, errNobody) {
		fmt.Fprintf(c.err, "sluice: %v\n", err)
		return exitStatus(exitNobody)
	}
	if err != nil {
		return err
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var st admin.Status
	if err := json.Unmarshal(body, &st); err != nil {
		return fmt.Errorf("the answer is not understood: %w", err)
	}
	if s.JSON {
		_, err = c.out.Write(body)
	} else {
		printStatus(c.out, &st)
	}
	if err == nil && !st.Health.Ready {
		err = exitStatus(exitFailure)
	}
	return err
}

func printStatus(w io.Writer, s *admin.Status) {
	state := "ready"
	if !s.Health.Ready {
		state = "not ready"
	}
	fmt.Fprintf(w, "sluice %s, %s, up %v\n", s.Version, state, time.Duration(s.UptimeSeconds)*time.Second)
	for _, p := range s.Health.Problems {
		fmt.Fprintf(w, "  problem: %s\n", p)
	}
	for _, p := range s.Health.Warnings {
		fmt.Fprintf(w, "  warning: %s\n", p)
	}
	fmt.Fprintf(w, "clients   %d connections, %d sessions, %d held back\n", s.Connections, s.Sessions, s.HeldBack)
	fmt.Fprintf(w, "messages  %d received, %d sent, %d dropped\n", s.Received, s.Sent, s.Dropped)
	fmt.Fprintf(w, "store     %d messages queued (%s), file %s, %s written today, %.0f bytes per message, %d commits in the last hour\n",
		s.Store.QueuedMessages, size(s.Store.QueuedBytes), size(s.Store.FileBytes), size(int64(s.Store.BytesToday)), s.Store.BytesPerMessage, s.Store.CommitsLastHour)
	if s.Store.BudgetBytes > 0 {
		fmt.Fprintf(w, "budget    %s a day, %.0f %% of what may be written ahead is used, a commit waits %v\n",
			size(s.Store.BudgetBytes), 100*s.Store.BudgetUsed, time.Duration(s.Store.CommitSeconds*float64(time.Second)))
	}
	for _, b := range s.Bridges {
		fmt.Fprintf(w, "bridge    %s: %s, %d messages wait (%s), the oldest for %v\n",
			b.Name, b.State, b.Messages, size(b.Bytes), time.Duration(b.Oldest*float64(time.Second)).Round(time.Second))
	}
}

// size writes a number of bytes for people.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
