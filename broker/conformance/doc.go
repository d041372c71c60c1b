// Package conformance holds Sluice against the MQTT specifications: for every
// numbered statement of MQTT 3.1.1 and MQTT 5, and for the rules of MQTT 3.1, it
// has a test, or says why there is none. It has no code of its own.
//
// DESIGN. The tables (statements_*_test.go) have one line per statement: number,
// a paraphrase, and either the case that tests it or the reason why none does.
// TestStatements runs one subtest per line, so
//
//	go test ./broker/conformance -run 'TestStatements/v5/MQTT-3.1.2-24'
//
// tests one statement. A case (cases in the other files) drives a whole broker in
// this process with packets over loopback TCP. The cases of a version share one
// broker, each with client ids and topics of its own (trial.id, trial.topic);
// one that needs another configuration, or the whole name space, starts its own.
// A case serves each version that has the statement: what differs is decided by
// trial.v.
//
// Nothing here sleeps to let something happen. That something does not come is
// shown by a fence: a later packet that would have been overtaken (peer.ping for
// answers on one connection, trial.quiet for messages). Only what the
// specification measures in seconds waits for a clock.
//
// docs/statements.md is made from the tables:
//
//	go test ./broker/conformance -run TestDocument -update
//
// Sources: "MQTT Version 3.1.1" (OASIS, 2014) and "MQTT Version 5.0" (OASIS,
// 2019), whose numbers are used as they are; "MQTT V3.1 Protocol Specification"
// (2010), which has none: there a rule is named by its section and a letter of
// ours.
package conformance
