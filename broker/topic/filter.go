package topic

// Matches tells whether a filter that has passed CheckFilter, and is not that of a
// shared subscription, matches a topic name (MQTT5 4.7).
func Matches(filter string, name []byte) bool {
	return matches([]byte(filter), name)
}

func matches(f, name []byte) bool {
	if len(name) > 0 && name[0] == '$' && (f[0] == '+' || f[0] == '#') { // [MQTT-4.7.2-1]
		return false
	}
	for {
		level, rest, more := cutLevel(f)
		if string(level) == "#" {
			return true
		}
		got, left, follows := cutLevel(name)
		if string(level) != "+" && string(level) != string(got) {
			return false
		}
		switch {
		case !more && !follows:
			return true
		case !follows: // "sport/#" matches "sport" (MQTT5 4.7.1.2)
			return string(rest) == "#"
		case !more:
			return false
		}
		f, name = rest, left
	}
}
