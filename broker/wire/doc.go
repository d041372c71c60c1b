// Package wire holds the byte layers between a socket and MQTT: plain, TLS,
// WebSocket, one above the other, and the PROXY protocol's header. A layer turns
// bytes into bytes; it owns no goroutine, and no socket once it is one (a TLS
// handshake still runs over a socket), so one read path and one write path in the
// worker serve every transport.
package wire
