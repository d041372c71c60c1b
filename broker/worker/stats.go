package worker

import "sluice/broker/session"

// Stats counts what a worker has done since the start, and what it has now.
type Stats struct {
	Accepted, Refused     uint64 // connections
	Connects, Disconnects uint64 // CONNECT accepted, connections closed
	Takeovers             uint64
	Handshakes            uint64 // TLS
	HandshakesFailed      uint64
	LoginsFailed          uint64
	LoginsRefused         uint64 // without trying: too many had failed
	Throttled             uint64 // a client was not read because it sent more than its rate
	Received, Sent        uint64 // PUBLISH packets
	BytesReceived         uint64
	BytesSent             uint64
	Wills                 uint64
	Redelivered           uint64 // messages of share groups, to another member
	Expired               uint64 // sessions
	RetainedRefused       uint64 // retained messages over the limit
	Pauses                uint64 // a client was not read for a while
	Held                  uint64 // publications that a full queue or store refused, and whose publisher was held back
	Dropped               session.Drops

	Holding     int // clients that are held back
	Connections int
	Sessions    int
	AcksWaiting int
}

// Snapshot asks for the counters; the answer comes through the channel, which
// must have room for it.
func (w *Worker) Snapshot(answer chan<- Stats) {
	w.Call(func(w *Worker) { answer <- w.Counters() })
}

// Counters gives the counters. It belongs to the worker's goroutine.
func (w *Worker) Counters() Stats {
	s := w.stats
	s.Sent, s.Dropped = w.fx.Sent, w.fx.Dropped
	s.Holding = len(w.holding)
	s.Connections, s.Sessions, s.AcksWaiting = w.conns.used, w.clients.used, w.fx.Waiting
	return s
}

// Add adds another worker's counters.
func (s *Stats) Add(o *Stats) {
	s.Accepted += o.Accepted
	s.Refused += o.Refused
	s.Connects += o.Connects
	s.Disconnects += o.Disconnects
	s.Takeovers += o.Takeovers
	s.Handshakes += o.Handshakes
	s.HandshakesFailed += o.HandshakesFailed
	s.LoginsFailed += o.LoginsFailed
	s.LoginsRefused += o.LoginsRefused
	s.Throttled += o.Throttled
	s.Received += o.Received
	s.Sent += o.Sent
	s.BytesReceived += o.BytesReceived
	s.BytesSent += o.BytesSent
	s.Wills += o.Wills
	s.Redelivered += o.Redelivered
	s.Expired += o.Expired
	s.RetainedRefused += o.RetainedRefused
	s.Pauses += o.Pauses
	s.Held += o.Held
	s.Holding += o.Holding
	s.Dropped.Add(&o.Dropped)
	s.Connections += o.Connections
	s.Sessions += o.Sessions
	s.AcksWaiting += o.AcksWaiting
}
