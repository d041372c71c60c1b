// Package bridge carries messages between the local broker and one upstream
// broker, and loses none on the way.
//
// DESIGN. A bridge is an ordinary durable session of the local broker, named
// "$bridge/<name>", and one more for each further queue, "$bridge/<name>/<queue>".
// The package attaches to them as any client does, over a net.Conn with MQTT 5
// (local), and to the upstream with the client libraries of Eclipse Paho (upstream).
// So the queues, their limits, their durability and the resending of what was
// not acknowledged are the sessions' work; the bridge holds no message that it
// could lose. It keeps one rule in each direction:
//
//   - out: the local PUBACK leaves after the upstream's PUBACK (lane.go);
//   - in: the upstream PUBACK leaves after the local PUBACK, which means that
//     the message is durable here (in.go).
//
// Between two links the sessions are detached, so that messages wait in the store
// and not in memory. When a link is lost for whatever reason, all of its
// connections are dropped and everything about it is forgotten: the sessions
// send again, marked DUP, what was not acknowledged. A message may therefore
// arrive upstream more than once, but not less than once.
//
//	Set (set.go)           the bridges of a process; a reload changes some
//	  Bridge (bridge.go)   supervisor: wait until a link is wanted (start.go), dial one of the addresses
//	                       (addresses.go) in a version (protocol.go), run it, back off
//	    reporter (report.go) looks how full the queues are (gauge.go), tells $SYS
//	    link (link.go)     one life of all connections; the first error ends it
//	      dialing          credentials, proxy, TCP, TLS, WebSocket, CONNECT, step by step (dial.go)
//	      upstream, guard  3.1.1 and 5 (up3.go, up5.go, session5.go); what may be sent to us (cap.go, cap5.go)
//	      outFlow (out.go) one sender for all lanes, by the schedule (schedule.go, pace.go)
//	        lane (lane.go) one queue: its session's MQTT 5 client (local.go) and what is on the way (refused.go)
//	      inFlow (in.go)   the other direction, by the first lane's session
//	  remap (remap.go)     topics: which route, which name on the other side
//	Ping (ping.go)         dials as a Bridge does, and explains
//
// Goroutines: supervisor and reporter per Bridge and, while a link is up, four of
// ours, three more for each queue, and about ten of paho's; one more with an address that
// is not the primary (addresses.go), and one if the password expires (renew.go); one of a
// lost link may stay for up to two seconds more. The number does not depend on traffic, and
// Close waits for ours.
//
// Memory: of each queue, and of what comes in, at most InflightMax messages; of
// all queues together, and of what comes in, softly, InflightMaxBytes; see Options
// and budget.go.
//
// Without Options.CleanSession off, downlink messages that the upstream publishes while
// the link is down are not kept for us. In MQTT 3.1.1, properties of MQTT 5 messages do
// not cross, and what the upstream refuses looks delivered; without Options.BridgeBit the
// upstream clears the retain flag of live downlink messages [MQTT-3.3.1-9] and
// echoes our own messages where routes overlap.
package bridge
