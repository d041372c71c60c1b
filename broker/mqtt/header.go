package mqtt

// Header is the fixed header of a packet (MQTT5 2.1).
type Header struct {
	Type      Type
	Flags     byte // the low nibble of the first byte
	Remaining int  // bytes after the fixed header, 0 to 268435455
}

const (
	flagsAck    = 0b0010 // PUBREL, SUBSCRIBE, UNSUBSCRIBE
	flagsAckDup = 0b1010 // the same with DUP: MQTT 3.1 only, which resends these
	flagDup     = 0b1000 // PUBLISH
	flagRetain  = 0b0001 // PUBLISH
)

var (
	errTypeZero       = malformed("MQTT5 2.1.2", "packet type 0 is reserved")
	errFlagsReserved  = malformed("MQTT-2.1.3-1", "reserved flags of the fixed header are set")
	errFlagsPubrel    = malformed("MQTT-3.6.1-1", "flags of PUBREL are not 0010")
	errFlagsSubscribe = malformed("MQTT-3.8.1-1", "flags of SUBSCRIBE are not 0010")
	errFlagsUnsub     = malformed("MQTT-3.10.1-1", "flags of UNSUBSCRIBE are not 0010")
	errFlagsAuth      = malformed("MQTT-3.15.1-1", "flags of AUTH are not 0000")
	errFlagsDisconn   = malformed("MQTT-3.14.1-1", "flags of DISCONNECT are not 0000")
	errPublishQoS3    = malformed("MQTT-3.3.1-4", "PUBLISH with QoS 3")
	errPublishDup     = protocolError("MQTT-3.3.1-2", "PUBLISH with QoS 0 and DUP")
	errAuthType       = malformed("MQTT3.1.1 2.2.1", "packet type 15 is reserved before MQTT 5")
	errTooLarge       = &Error{Reason: PacketTooLarge, Statement: "MQTT5 3.1.2.11.4", Text: "packet exceeds the maximum packet size"}
)

// ParseHeader reads the fixed header of the packet at the head of b. n is the
// length of the header, 2 to 5; n == 0 without an error: more bytes are needed.
// What can be refused is refused as early as the bytes tell: wrong flags by the
// first byte, and a packet of more than maxBytes, header included, by the
// length (maxBytes <= 0: no limit).
//
// The version is not known here: DUP on PUBREL, SUBSCRIBE and UNSUBSCRIBE,
// which MQTT 3.1 allows, and AUTH pass; CheckFlags looks again. A remaining
// length that is longer than necessary is refused for all versions: 3.1 and
// 3.1.1 do not forbid it in words, but give one encoding for each length.
func ParseHeader(b []byte, maxBytes int) (h Header, n int, err error) {
	if len(b) == 0 {
		return h, 0, nil
	}
	h.Type, h.Flags = Type(b[0]>>4), b[0]&0x0F
	if e := checkFlags(h.Type, h.Flags, V31); e != nil {
		return h, 0, e
	}
	remaining, size, e := parseVarint(b[1:])
	if e != nil {
		return h, 0, e
	}
	if size == 0 {
		return h, 0, nil
	}
	h.Remaining = remaining
	if maxBytes > 0 && remaining > maxBytes-1-size {
		return h, 0, errTooLarge
	}
	return h, 1 + size, nil
}

// CheckFlags tells whether a packet of type t may have these flags in version
// v, and whether v has the type at all. It is for packets that passed
// ParseHeader, once the version is known.
func CheckFlags(t Type, flags byte, v Version) error {
	if t == AUTH && v < V5 {
		return errAuthType
	}
	if e := checkFlags(t, flags, v); e != nil {
		return e
	}
	return nil
}

func checkFlags(t Type, flags byte, v Version) *Error {
	switch t {
	case PUBLISH:
		switch {
		case flags&0b0110 == 0b0110:
			return errPublishQoS3
		case flags&0b1110 == flagDup:
			return errPublishDup
		}
		return nil
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		if flags == flagsAck || flags == flagsAckDup && v == V31 {
			return nil
		}
	default:
		if flags == 0 && t != 0 {
			return nil
		}
	}
	switch t {
	case 0:
		return errTypeZero
	case PUBREL:
		return errFlagsPubrel
	case SUBSCRIBE:
		return errFlagsSubscribe
	case UNSUBSCRIBE:
		return errFlagsUnsub
	case DISCONNECT:
		return errFlagsDisconn
	case AUTH:
		return errFlagsAuth
	}
	return errFlagsReserved
}
