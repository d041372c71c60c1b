package topic

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, c := range []struct {
		statement string
		topic     string
		levelsMax int
		want      error
	}{
		{"MQTT-4.7.0-1", "sport/+/player1", 0, ErrWildName},
		{"MQTT-4.7.0-1", "sport/#", 0, ErrWildName},
		{"MQTT-4.7.0-1", "a+", 0, ErrWildName},
		{"MQTT-4.7.3-1", "", 0, ErrEmpty},
		{"MQTT-4.7.3-1", "a", 0, nil},
		{"MQTT-4.7.3-3", strings.Repeat("a", 65535), 0, nil},
		{"MQTT-4.7.3-3", strings.Repeat("a", 65536), 0, ErrTooLong},
		{"4.7.3 spaces", "Accounts payable", 0, nil},
		{"4.7.3 only a separator", "/", 0, nil},
		{"4.7.3 leading separator", "/finance", 0, nil},
		{"4.7.1.1 adjacent separators", "a//b/", 0, nil},
		{"4.7.2 server topics", "$SYS/uptime", 0, nil},
		{"limit", "a/b/c", 3, nil},
		{"limit", "a/b/c", 2, ErrLevels},
		{"limit", "//", 2, ErrLevels},
		{"limit off", strings.Repeat("/", 65535), -1, nil},
	} {
		if got := CheckName([]byte(c.topic), c.levelsMax); got != c.want {
			t.Errorf("%s: CheckName(%.40q, %d) = %v, want %v", c.statement, c.topic, c.levelsMax, got, c.want)
		}
	}
}

func TestCheckFilter(t *testing.T) {
	for _, c := range []struct {
		statement string
		filter    string
		levelsMax int
		want      error
	}{
		{"MQTT-4.7.1-1", "sport/tennis/#", 0, nil},
		{"MQTT-4.7.1-1", "#", 0, nil},
		{"MQTT-4.7.1-1", "/#", 0, nil},
		{"MQTT-4.7.1-1", "sport/tennis#", 0, ErrHash},
		{"MQTT-4.7.1-1", "sport/tennis/#/ranking", 0, ErrHash},
		{"MQTT-4.7.1-1", "#/", 0, ErrHash},
		{"MQTT-4.7.1-1", "##", 0, ErrHash},
		{"MQTT-4.7.1-1", "a/#b", 0, ErrHash},
		{"MQTT-4.7.1-2", "+", 0, nil},
		{"MQTT-4.7.1-2", "+/tennis/#", 0, nil},
		{"MQTT-4.7.1-2", "sport+", 0, ErrPlus},
		{"MQTT-4.7.1-2", "+sport", 0, ErrPlus},
		{"MQTT-4.7.1-2", "a/++", 0, ErrPlus},
		{"MQTT-4.7.1-2", "sport/+/player1", 0, nil},
		{"MQTT-4.7.1-2", "+/+", 0, nil},
		{"MQTT-4.7.3-1", "", 0, ErrEmpty},
		{"MQTT-4.7.3-3", strings.Repeat("/", 65535), 0, nil},
		{"MQTT-4.7.3-3", strings.Repeat("/", 65536), 0, ErrTooLong},
		{"MQTT-4.7.3-3", "$share/g/" + strings.Repeat("/", 65530), 0, ErrTooLong},
		{"MQTT-4.8.2-1", "$share/consumer1/sport/tennis/+", 0, nil},
		{"MQTT-4.8.2-1", "$share/consumer1//finance", 0, nil},
		{"MQTT-4.8.2-1", "$share//finance", 0, ErrShareGroup},
		{"MQTT-4.8.2-1", "$share/", 0, ErrShareGroup},
		{"MQTT-4.8.2-1", "$share", 0, nil}, // does not start with $share/
		{"MQTT-4.8.2-1", "$shared/a", 0, nil},
		{"MQTT-4.8.2-2", "$share/g+/a", 0, ErrShareWild},
		{"MQTT-4.8.2-2", "$share/#/a", 0, ErrShareWild},
		{"MQTT-4.8.2-2", "$share/#", 0, ErrShareWild},
		{"MQTT-4.8.2-2", "$share/g", 0, ErrShareFilter},
		{"MQTT-4.8.2-2", "$share/g/", 0, ErrShareFilter},
		{"MQTT-4.8.2-2", "$share/g/a#", 0, ErrHash},
		{"MQTT-4.8.2-2", "$share/g/+a", 0, ErrPlus},
		{"limit", "a/+/#", 3, nil},
		{"limit", "a/+/#", 2, ErrLevels},
		{"limit", "$share/g/a/b", 2, nil},
		{"limit", "$share/g/a/b/c", 2, ErrLevels},
	} {
		if got := CheckFilter([]byte(c.filter), c.levelsMax); got != c.want {
			t.Errorf("%s: CheckFilter(%.40q, %d) = %v, want %v", c.statement, c.filter, c.levelsMax, got, c.want)
		}
	}
}

func TestSplitShare(t *testing.T) {
	for _, c := range []struct {
		filter, group, rest string
		ok                  bool
	}{
		{"a/b", "", "a/b", false},
		{"", "", "", false},
		{"$share", "", "$share", false},
		{"$share/g", "", "$share/g", false},
		{"$share/g/a/b", "g", "a/b", true},
		{"$share/g//a", "g", "/a", true},
		{"$share/g/#", "g", "#", true},
		{"$SHARE/g/#", "", "$SHARE/g/#", false},
	} {
		if group, rest, ok := SplitShare(c.filter); group != c.group || rest != c.rest || ok != c.ok {
			t.Errorf("SplitShare(%q) = %q, %q, %v", c.filter, group, rest, ok)
		}
	}
}

func TestChecksDoNotAllocate(t *testing.T) {
	names := [][]byte{[]byte("a/b/c"), []byte("a/+"), nil}
	filters := [][]byte{[]byte("a/+/#"), []byte("$share/g/a"), []byte("a#"), []byte("$share//a"), []byte("a/b/c/d/e")}
	if n := testing.AllocsPerRun(100, func() {
		for _, b := range names {
			_ = CheckName(b, 4)
		}
		for _, b := range filters {
			_ = CheckFilter(b, 4)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
