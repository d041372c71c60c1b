// Package mqtt is the codec for MQTT 3.1, 3.1.1 and 5: bytes in, structs out,
// and back. It does no I/O, reads no clock and logs nothing.
//
// DESIGN. A packet is found in two steps. ParseHeader reads the fixed header
// and tells how long the packet is; the caller waits until the whole packet
// is there and hands the body to the decoder of its type. Decoders fill a
// struct that the caller owns and reuses. Everything decoded that is a
// []byte aliases the input: whoever keeps it beyond the life of the input
// copies it (Message does).
//
// Invariants:
//   - No decoder panics, whatever the input, and none allocates by a length
//     that the peer merely declared: what is allocated is bounded by the bytes
//     that are really there.
//   - Decoding is strict: what the specification calls malformed or a protocol
//     error is refused with an *Error that carries the MQTT 5 reason code and
//     the statement number. Nothing that a decoder accepts can make an encoder
//     emit a malformed packet.
//   - Encoders append to a slice and return it, as append does. They do not
//     fail: their input is checked where it is made.
//
// Sources: "MQTT V3.1 Protocol Specification" (IBM/Eurotech, 2010), "MQTT
// Version 3.1.1" (OASIS, 2014), "MQTT Version 5.0" (OASIS, 2019). Sections are
// cited as MQTT5 3.3.2.3.4, statements as [MQTT-3.3.1-4].
package mqtt
