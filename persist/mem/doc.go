// Package mem is a store without a disk: for tests, for the simulator, and for
// gateways that shall write nothing. It has the semantics of persist/bolt,
// except that what it holds ends with the process.
package mem
