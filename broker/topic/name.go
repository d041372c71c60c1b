package topic

import "bytes"

// DESIGN. Names and filters come from peers, once per packet, so checking
// allocates nothing and its errors are constants. That the bytes are UTF-8
// without U+0000 is the codec's part ([MQTT-1.5.4-1], [MQTT-4.7.3-2]).
//
// A level may be empty: "/", "a//b" and "a/" are valid and differ from each
// other (MQTT5 4.7.3).

// LengthMax is the most bytes a topic name or filter can have [MQTT-4.7.3-3].
const LengthMax = 65535

// Error is why a topic name or filter is refused. CheckName's errors stand for
// the reason code 0x90 (topic name invalid), CheckFilter's for 0x8F (topic
// filter invalid).
type Error string

// Error is the reason in words, without any byte of the name or filter.
func (e Error) Error() string { return string(e) }

// All that CheckName and CheckFilter return.
const (
	ErrEmpty       Error = "topic is empty [MQTT-4.7.3-1]"
	ErrTooLong     Error = "topic is longer than 65535 bytes [MQTT-4.7.3-3]"
	ErrLevels      Error = "topic has too many levels"
	ErrWildName    Error = "topic name contains a wildcard [MQTT-4.7.0-1]"
	ErrHash        Error = "# is not the last level of the filter or does not stand alone [MQTT-4.7.1-1]"
	ErrPlus        Error = "+ does not stand alone in its level [MQTT-4.7.1-2]"
	ErrShareGroup  Error = "share name is empty [MQTT-4.8.2-1]"
	ErrShareWild   Error = "share name contains a wildcard [MQTT-4.8.2-2]"
	ErrShareFilter Error = "no topic filter after the share name [MQTT-4.8.2-2]"
)

// sharePrefix begins the filter of a shared subscription (MQTT5 4.8.2). A
// filter that is just "$share" does not begin with it and is an ordinary one.
const sharePrefix = "$share/"

// CheckName tells whether one can publish to topic. With levelsMax <= 0 the
// number of levels is not limited.
func CheckName(topic []byte, levelsMax int) error {
	if err := checkSize(topic, levelsMax); err != nil {
		return err
	}
	for _, c := range topic {
		if c == '+' || c == '#' {
			return ErrWildName
		}
	}
	return nil
}

// CheckFilter tells whether one can subscribe to filter, which may be that of
// a shared subscription; then levelsMax (<= 0: no limit) is for the levels
// after the share name.
func CheckFilter(filter []byte, levelsMax int) error {
	if len(filter) > LengthMax {
		return ErrTooLong
	}
	if len(filter) >= len(sharePrefix) && string(filter[:len(sharePrefix)]) == sharePrefix {
		group, rest, found := bytes.Cut(filter[len(sharePrefix):], slash)
		switch {
		case len(group) == 0:
			return ErrShareGroup
		case bytes.IndexByte(group, '+') >= 0 || bytes.IndexByte(group, '#') >= 0:
			return ErrShareWild
		case !found || len(rest) == 0:
			return ErrShareFilter
		}
		filter = rest
	}
	if err := checkSize(filter, levelsMax); err != nil {
		return err
	}
	for i, c := range filter {
		if c != '+' && c != '#' {
			continue
		}
		alone := (i == 0 || filter[i-1] == '/') && (i == len(filter)-1 || filter[i+1] == '/')
		if c == '+' && !alone {
			return ErrPlus
		}
		if c == '#' && (!alone || i != len(filter)-1) {
			return ErrHash
		}
	}
	return nil
}

var slash = []byte{'/'}

// checkSize checks length and number of levels. It returns constants: an Error
// in a variable would be allocated when it becomes an error.
func checkSize(topic []byte, levelsMax int) error {
	switch {
	case len(topic) == 0:
		return ErrEmpty
	case len(topic) > LengthMax:
		return ErrTooLong
	case levelsMax > 0 && bytes.Count(topic, slash) >= levelsMax:
		return ErrLevels
	}
	return nil
}

// SplitShare takes "$share/group/rest" apart. ok is false, and rest the whole
// filter, if filter is not that of a shared subscription.
func SplitShare(filter string) (group, rest string, ok bool) {
	if len(filter) < len(sharePrefix) || filter[:len(sharePrefix)] != sharePrefix {
		return "", filter, false
	}
	tail := filter[len(sharePrefix):]
	for i := 0; i < len(tail); i++ {
		if tail[i] == '/' {
			return tail[:i], tail[i+1:], true
		}
	}
	return "", filter, false
}
