package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"sluice/bridge"
)

// Health is the answer of /api/v1/health, and part of Status.
type Health struct {
	Ready    bool     `json:"ready"`    // messages of QoS 1 and 2 are taken and kept
	Problems []string `json:"problems"` // why it is not ready
	Warnings []string `json:"warnings"` // what an operator should look at
}

// Status is the answer of /api/v1/status.
type Status struct {
	Version       string         `json:"version"`
	UptimeSeconds int64          `json:"uptime_seconds"`
	Health        Health         `json:"health"`
	Connections   int            `json:"connections"`
	Sessions      int            `json:"sessions"`
	Received      uint64         `json:"messages_received"`
	Sent          uint64         `json:"messages_sent"`
	Dropped       uint64         `json:"messages_dropped"`
	HeldBack      int            `json:"clients_held_back"`
	Store         StoreStatus    `json:"store"`
	Bridges       []BridgeStatus `json:"bridges"`
}

// StoreStatus is what the store has to say.
type StoreStatus struct {
	QueuedMessages  int64   `json:"queued_messages"`
	QueuedBytes     int64   `json:"queued_bytes"`
	FileBytes       int64   `json:"file_bytes"`
	BytesWritten    uint64  `json:"bytes_written"`
	BytesPerMessage float64 `json:"bytes_written_per_message"`
	BytesToday      uint64  `json:"bytes_written_today"`
	CommitsLastHour uint64  `json:"commits_last_hour"`
	CommitSeconds   float64 `json:"commit_interval_seconds"`
	BudgetBytes     int64   `json:"write_budget_bytes_per_day"`
	BudgetUsed      float64 `json:"write_budget_used"`
	Dropped         uint64  `json:"messages_dropped"`
}

// BridgeStatus is what a bridge has to say.
type BridgeStatus struct {
	Name      string  `json:"name"`
	State     string  `json:"state"`
	LastError string  `json:"last_error,omitempty"`
	Messages  int64   `json:"queued_messages"`
	Bytes     int64   `json:"queued_bytes"`
	Oldest    float64 `json:"oldest_seconds"`
}

// judge says how the broker is.
func (s *Server) judge() Health {
	h := Health{Ready: true, Problems: []string{}, Warnings: []string{}}
	_, st := s.source.Stats()
	if st.Err != nil {
		h.Ready = false
		h.Problems = append(h.Problems, "the store cannot be written: "+st.Err.Error())
	}
	if st.Quarantined != "" {
		h.Warnings = append(h.Warnings, fmt.Sprintf("the store file was damaged when it was opened: it is kept as %s, %d records of it are in use", st.Quarantined, st.Salvaged))
	}
	if st.WriteBudgetUsed > 1 {
		h.Warnings = append(h.Warnings, "the write budget is exceeded")
	}
	for _, b := range s.bridges() {
		if b.State != bridge.StateUp && b.LastError != "" {
			h.Warnings = append(h.Warnings, fmt.Sprintf("bridge %s is %s: %s", b.Name, b.State, b.LastError))
		}
	}
	return h
}

func (s *Server) bridges() []bridge.Status {
	if s.source.Bridges == nil {
		return nil
	}
	return s.source.Bridges()
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	h := s.judge()
	code := http.StatusOK
	if !h.Ready {
		code = http.StatusServiceUnavailable
	}
	reply(w, code, h)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	ws, st := s.source.Stats()
	a := Status{
		Version: s.source.Version, UptimeSeconds: int64(time.Since(s.began) / time.Second), Health: s.judge(),
		Connections: ws.Connections, Sessions: ws.Sessions, Received: ws.Received, Sent: ws.Sent,
		Dropped: ws.Dropped.Sum() + st.Drops.Sum(), HeldBack: ws.Holding,
		Store: StoreStatus{
			QueuedMessages: st.QueuedMessages, QueuedBytes: st.QueuedBytes, FileBytes: st.FileBytes,
			BytesWritten: st.BytesWritten, BytesPerMessage: st.BytesPerMessage(), BytesToday: st.BytesToday,
			CommitsLastHour: st.CommitsLastHour, CommitSeconds: st.CommitInterval.Seconds(),
			BudgetBytes: st.WriteBudgetBytes, BudgetUsed: st.WriteBudgetUsed, Dropped: st.Drops.Sum(),
		},
		Bridges: []BridgeStatus{},
	}
	for _, b := range s.bridges() {
		backlog, oldest := b.Backlog()
		a.Bridges = append(a.Bridges, BridgeStatus{b.Name, b.State, b.LastError, backlog.Messages, backlog.Bytes, oldest.Seconds()})
	}
	reply(w, http.StatusOK, a)
}

func reply(w http.ResponseWriter, code int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer) // who asked may have gone
}

// backup streams a copy of the store. What went wrong on the way is told by an answer that
// ends too early, which the client's library notices.
func (s *Server) backup(w http.ResponseWriter, _ *http.Request) {
	if s.source.Backup == nil {
		http.Error(w, "the store is in memory: there is nothing to back up", http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Trailer", "Sluice-Commit")
	_, commit, err := s.source.Backup(w)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Sluice-Commit", strconv.FormatUint(commit, 10))
}
