package admin

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"sluice/bridge"
	"sluice/broker/worker"
	"sluice/persist"
)

// DESIGN. The Prometheus text format, version 0.0.4, by hand: a name, a kind and a word
// of help for each family, then its samples. Counters end in _total; sizes are in bytes and
// times in seconds. All names are in docs/operations.md, which a test compares.

// family is one metric with its samples.
type family struct {
	name, kind, help string
	samples          []sample
}

type sample struct {
	labels string // as they are written between braces
	value  float64
}

const (
	counter = "counter"
	gauge   = "gauge"
)

func one[T int | int64 | uint64 | float64](name, kind, help string, v T) family {
	return family{name, kind, help, []sample{{"", float64(v)}}}
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	ws, st := s.source.Stats()
	all := []family{{"sluice_info", gauge, "The version.", []sample{{label("version", s.source.Version), 1}}},
		one("sluice_uptime_seconds", gauge, "Since the start.", time.Since(s.began).Seconds())}
	all = append(all, brokerMetrics(&ws)...)
	all = append(all, storeMetrics(&st)...)
	all = append(all, bridgeMetrics(s.bridges())...)
	write(w, all)
}

// label writes a label with its value.
func label(name, value string) string { return name + "=" + strconv.Quote(value) }

// write writes the families that have samples.
func write(w io.Writer, all []family) {
	for i := range all {
		f := &all[i]
		if len(f.samples) == 0 {
			continue
		}
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
		for _, s := range f.samples {
			name := f.name
			if s.labels != "" {
				name += "{" + s.labels + "}"
			}
			fmt.Fprintf(w, "%s %s\n", name, strconv.FormatFloat(s.value, 'g', -1, 64))
		}
	}
}

func brokerMetrics(s *worker.Stats) []family {
	return []family{
		one("sluice_connections", gauge, "Open connections.", s.Connections),
		one("sluice_sessions", gauge, "Sessions, connected or not.", s.Sessions),
		one("sluice_acknowledgements_waiting", gauge, "Acknowledgements that wait for the store.", s.AcksWaiting),
		one("sluice_clients_held_back", gauge, "Publishers that wait because a queue or the store is full.", s.Holding),
		one("sluice_connections_accepted_total", counter, "Connections accepted.", s.Accepted),
		one("sluice_connections_refused_total", counter, "Connections refused before CONNECT.", s.Refused),
		one("sluice_connects_total", counter, "CONNECT accepted.", s.Connects),
		one("sluice_disconnects_total", counter, "Connections closed.", s.Disconnects),
		one("sluice_takeovers_total", counter, "Sessions taken over by another connection.", s.Takeovers),
		one("sluice_logins_failed_total", counter, "Logins that failed.", s.LoginsFailed),
		one("sluice_logins_refused_total", counter, "Logins refused without trying, as too many had failed.", s.LoginsRefused),
		one("sluice_handshakes_total", counter, "TLS handshakes.", s.Handshakes),
		one("sluice_handshakes_failed_total", counter, "TLS handshakes that failed.", s.HandshakesFailed),
		one("sluice_messages_received_total", counter, "PUBLISH packets received.", s.Received),
		one("sluice_messages_sent_total", counter, "PUBLISH packets sent.", s.Sent),
		one("sluice_bytes_received_total", counter, "Bytes received.", s.BytesReceived),
		one("sluice_bytes_sent_total", counter, "Bytes sent.", s.BytesSent),
		one("sluice_publications_held_total", counter, "Publications whose publisher was held back.", s.Held),
		one("sluice_reading_paused_total", counter, "How often a client was not read for a while.", s.Pauses),
		one("sluice_throttled_total", counter, "How often a client was not read because of its rate.", s.Throttled),
		one("sluice_wills_total", counter, "Wills published.", s.Wills),
		one("sluice_sessions_expired_total", counter, "Sessions that expired.", s.Expired),
		one("sluice_retained_refused_total", counter, "Retained messages over the limit.", s.RetainedRefused),
		{"sluice_messages_dropped_total", counter, "Messages not delivered to a session, by reason.", []sample{
			{label("reason", "qos0_blocked"), float64(s.Dropped.QoS0Blocked)}, {label("reason", "qos0_offline"), float64(s.Dropped.QoS0Offline)},
			{label("reason", "queue_full"), float64(s.Dropped.QueueFull)}, {label("reason", "queue_oldest"), float64(s.Dropped.QueueOldest)},
			{label("reason", "queue_aged"), float64(s.Dropped.QueueAged)}, {label("reason", "too_large"), float64(s.Dropped.TooLarge)},
			{label("reason", "expired"), float64(s.Dropped.Expired)}, {label("reason", "denied"), float64(s.Dropped.Denied)},
		}},
	}
}

func storeMetrics(s *persist.Stats) []family {
	failing := 0
	if s.Err != nil {
		failing = 1
	}
	return []family{
		one("sluice_store_failing", gauge, "1 while the store cannot be written.", failing),
		one("sluice_store_commits_total", counter, "Transactions written.", s.Commits),
		one("sluice_store_commit_errors_total", counter, "Transactions that failed.", s.CommitErrors),
		one("sluice_store_commits_last_hour", gauge, "Transactions written within the last hour.", s.CommitsLastHour),
		one("sluice_store_commit_interval_seconds", gauge, "How long a commit waits at present.", s.CommitInterval.Seconds()),
		one("sluice_store_commit_seconds", gauge, "How long the last commit took.", s.CommitTime.Seconds()),
		one("sluice_store_commit_max_seconds", gauge, "How long the longest commit took.", s.CommitTimeMax.Seconds()),
		one("sluice_store_bytes_written_total", counter, "Bytes written to the disk.", s.BytesWritten),
		one("sluice_store_bytes_written_today", gauge, "Bytes written in this day of the store's clock.", s.BytesToday),
		one("sluice_store_bytes_per_message", gauge, "Bytes written for each message queued.", s.BytesPerMessage()),
		one("sluice_store_write_budget_bytes", gauge, "Bytes that may be written in a day, 0: any.", s.WriteBudgetBytes),
		one("sluice_store_write_budget_used_ratio", gauge, "How much of what may be written ahead is used.", s.WriteBudgetUsed),
		one("sluice_store_enqueued_total", counter, "Messages put into queues.", s.Enqueued),
		one("sluice_store_dequeued_total", counter, "Messages taken out of queues.", s.Dequeued),
		one("sluice_store_cancelled_total", counter, "Messages that were acknowledged before they were written.", s.Cancelled),
		one("sluice_store_refused_total", counter, "Publications refused because the store was full.", s.Refused),
		one("sluice_store_damaged_records_total", counter, "Records that were damaged and left out.", s.Skipped),
		one("sluice_store_file_bytes", gauge, "Size of the file.", s.FileBytes),
		one("sluice_store_pending_bytes", gauge, "Bytes in memory and not yet on the disk.", s.PendingBytes),
		one("sluice_store_queued_messages", gauge, "Messages in all queues.", s.QueuedMessages),
		one("sluice_store_queued_bytes", gauge, "Bytes of messages in all queues.", s.QueuedBytes),
		one("sluice_store_boots_total", counter, "How often the store has been opened.", s.Boot),
		{"sluice_store_dropped_total", counter, "Messages not kept, by the policy of their queue.", []sample{
			{label("reason", "oldest"), float64(s.Drops.Oldest)}, {label("reason", "newest"), float64(s.Drops.Newest)},
			{label("reason", "rejected"), float64(s.Drops.Rejected)}, {label("reason", "aged"), float64(s.Drops.Aged)},
		}},
	}
}

func bridgeMetrics(all []bridge.Status) []family {
	up := family{name: "sluice_bridge_up", kind: gauge, help: "1 while the bridge is connected."}
	links := family{name: "sluice_bridge_links_total", kind: counter, help: "Connections made to the upstream."}
	acked := family{name: "sluice_bridge_messages_acknowledged_total", kind: counter, help: "Messages that the upstream acknowledged."}
	in := family{name: "sluice_bridge_messages_received_total", kind: counter, help: "Messages from the upstream."}
	dropped := family{name: "sluice_bridge_messages_dropped_total", kind: counter, help: "Messages that could not be carried."}
	queued := family{name: "sluice_bridge_queued_messages", kind: gauge, help: "Messages that wait or are under way."}
	queuedBytes := family{name: "sluice_bridge_queued_bytes", kind: gauge, help: "Their size."}
	oldest := family{name: "sluice_bridge_oldest_seconds", kind: gauge, help: "How long the oldest of them has been there."}
	eta := family{name: "sluice_bridge_eta_seconds", kind: gauge, help: "When the queue will be empty if all goes on as it does; -1: it does not become shorter."}
	for i := range all {
		b := &all[i]
		name, connected := label("bridge", b.Name), 0.0
		if b.State == bridge.StateUp || b.State == bridge.StateDegraded {
			connected = 1
		}
		add := func(f *family, labels string, v float64) { f.samples = append(f.samples, sample{labels, v}) }
		add(&up, name, connected)
		add(&links, name, float64(b.Links))
		add(&acked, name, float64(b.Acked))
		add(&in, name, float64(b.RemoteReceived))
		add(&dropped, name, float64(b.Dropped()))
		for _, q := range b.Queues {
			if !q.Known {
				continue
			}
			both := name + "," + label("queue", q.Name)
			add(&queued, both, float64(q.Messages))
			add(&queuedBytes, both, float64(q.Bytes))
			add(&oldest, both, q.Oldest.Seconds())
			add(&eta, both, max(q.ETA.Seconds(), -1))
		}
	}
	return []family{up, links, acked, in, dropped, queued, queuedBytes, oldest, eta}
}
