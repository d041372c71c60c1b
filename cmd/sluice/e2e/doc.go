// Package e2e tests the built binary from outside, with real clients and a real
// broker upstream: mosquitto's tools and mosquitto itself, paho for Go (3.1.1
// and 5), MQTT.js, and clients of its own where a test needs to see each
// acknowledgement.
//
// DESIGN. TestMain builds the program twice: with the race detector for nearly
// all tests, and without for those that measure memory. Each test starts
// brokers of its own (broker_test.go) with temporary directories and ports that
// nobody else has; when a test ends, its brokers must stop on SIGTERM with exit
// code 0, and their logs must be free of races and panics. Package rig holds
// the processes, the network that fails, and the clients.
//
// A site (site_test.go) is a broker that listens on each transport, with users and
// certificates of an authority of its own. What idle connections and handshakes cost is
// measured by benchmarks, which assert nothing:
//
//	go test -run '^$' -bench . -benchtime 1x ./cmd/sluice/e2e
//
// mosquitto and node must be installed: nothing is skipped.
package e2e
