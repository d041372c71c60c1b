// Package bridge carries messages between the local broker and one upstream
// broker, and loses none on the way.
//
// DESIGN. A bridge is an ordinary durable session of the local broker, named
// "$bridge/<name>". The package attaches to that session as any client does,
// over a net.Conn with MQTT 5 (local), and to the upstream with
// github.com/eclipse/paho.mqtt.golang (uplink). So the queue, its limits, its
// durability and the resending of what was not acknowledged are the session's
// work; the bridge holds no message that it could lose. It keeps one rule in
// each direction:
//
//   - out: the local PUBACK leaves after the upstream's PUBACK (out.go);
//   - in: the upstream PUBACK leaves after the local PUBACK, which means that
//     the message is durable here (in.go).
//
// Between two links the session is detached, so that messages wait in the store
// and not in memory. When a link is lost for whatever reason, both of its
// connections are dropped and everything about it is forgotten: the session
// sends again, marked DUP, what was not acknowledged. A message may therefore
// arrive upstream more than once, but not less than once.
//
//	Bridge (bridge.go)   supervisor: dial, run the link, back off, dial again
//	  link (link.go)     one life of both connections; the first error ends it
//	    uplink, guard    the paho client; what the upstream may send (uplink.go, cap.go)
//	    local            the MQTT 5 client of the local session (local.go)
//	    outFlow, inFlow  the two directions (out.go, in.go)
//	  remap (remap.go)   topics: which route, which name on the other side
//
// Goroutines: one supervisor per Bridge and, while a link is up, seven of ours
// and about ten of paho's; one of a lost link may stay for up to two seconds
// more. The number does not depend on traffic, and Close waits for ours.
//
// Memory: in each direction at most InflightMax messages and, softly,
// InflightMaxBytes; see Options and budget.go.
//
// What the uplink cannot do, being MQTT 3.1.1 with a clean session: properties
// of MQTT 5 messages do not cross; downlink messages that the upstream publishes
// while the link is down are not kept for us by it; without Options.BridgeBit the
// upstream clears the retain flag of live downlink messages [MQTT-3.3.1-9] and
// echoes our own messages where routes overlap.
package bridge
