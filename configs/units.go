package configs

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size. In the file it is a whole number of bytes or a string with a
// unit: "512B", "64KiB", "1MiB", "2GiB", "1TiB", or decimal "64KB", "1MB", "2GB".
type Bytes int64

// byteUnits are in the order in which String tries them.
var byteUnits = []struct {
	suffix string
	size   int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

var errBytes = errors.New("not a size")

// ParseBytes reads a size as it is written in the file. A number without a unit is
// bytes.
func ParseBytes(s string) (Bytes, error) {
	size := int64(1)
	for _, u := range byteUnits {
		if number, ok := strings.CutSuffix(s, u.suffix); ok {
			s, size = strings.TrimSuffix(number, " "), u.size
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/size {
		return 0, errBytes
	}
	return Bytes(n * size), nil
}

// String writes the size with the largest binary unit that divides it.
func (b Bytes) String() string {
	for _, u := range byteUnits {
		if n := int64(b) / u.size; n > 0 && int64(b)%u.size == 0 && (u.size == 1 || u.size&(u.size-1) == 0) {
			return strconv.FormatInt(n, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Duration is a time span. In the file it is a string as time.ParseDuration takes
// it, days allowed in front: "50ms", "1h30m", "7d", "1d12h"; "0" is none.
type Duration time.Duration

const day = 24 * time.Hour

var errDuration = errors.New("not a duration")

// ParseDuration reads a duration as it is written in the file.
func ParseDuration(s string) (Duration, error) {
	var days int64
	rest := s
	if number, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 0 || n > int64(math.MaxInt64/day) {
			return 0, errDuration
		}
		if days, rest = n, after; rest == "" {
			rest = "0"
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-time.Duration(days)*day {
		return 0, errDuration
	}
	return Duration(time.Duration(days)*day + d), nil
}

// Duration converts it for the rest of the program.
func (d Duration) Duration() time.Duration { return time.Duration(d) }

// String writes the duration so that ParseDuration reads it, without units that
// are zero: "1h30m", "7d", "0".
func (d Duration) String() string {
	if d == 0 {
		return "0"
	}
	text := ""
	days, rest := time.Duration(d)/day, time.Duration(d)%day
	if days > 0 {
		text = strconv.FormatInt(int64(days), 10) + "d"
	}
	if rest == 0 {
		return text
	}
	clock := rest.String() // such as 1h0m0s
	if strings.HasSuffix(clock, "m0s") {
		clock = strings.TrimSuffix(clock, "0s")
	}
	if strings.HasSuffix(clock, "h0m") {
		clock = strings.TrimSuffix(clock, "0m")
	}
	return text + clock
}
