// Package wire holds the byte layers between a socket and MQTT: plain, TLS,
// WebSocket, and the PROXY protocol's header. A layer turns bytes into bytes; it owns no
// socket and no goroutine, so one read path and one write path in the worker
// serve every transport.
package wire
