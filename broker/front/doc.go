// Package front holds what stands between the network and the workers: the
// listening sockets, their TLS certificates and the watch over those files, and the
// pool that does what takes too long for a worker: TLS handshakes and password
// hashing.
package front
