// Package admin answers questions about a running broker: health, figures, and a copy of
// its store. It listens on a unix socket in the data directory, which only the owner of
// the process can open; whoever can read the store anyway may ask.
//
//	GET /api/v1/health         200 or 503, and why
//	GET /api/v1/status         the main figures, as JSON
//	GET /api/v1/store/backup   a copy of the store as of some commit, while it goes on
//	GET /metrics               all counters, in the Prometheus text format
//
// It owns the socket and a bounded number of connections, each with a goroutine of
// net/http; Close waits for all of them. Nothing here is on the way of a message, and
// what is asked is counted by others: Source.
package admin
