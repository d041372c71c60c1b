package session

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"sluice/broker/mqtt"
)

type scriptError string

func (e scriptError) Error() string { return string(e) }

func fail(format string, args ...any) { panic(scriptError(fmt.Sprintf(format, args...))) }

// args are the arguments of an event: words, and name=value.
type args struct {
	values map[string]string
	used   map[string]bool
}

func parseArgs(words []string) *args {
	a := &args{values: make(map[string]string), used: make(map[string]bool)}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		a.values[name] = value
	}
	return a
}

func (a *args) has(name string) bool {
	_, ok := a.values[name]
	a.used[name] = true
	return ok
}

func (a *args) flag(name string) bool    { return a.has(name) }
func (a *args) text(name string) string  { a.has(name); return a.values[name] }
func (a *args) bytes(name string) []byte { return []byte(a.text(name)) }

func (a *args) list(name string) []string {
	if !a.has(name) {
		return nil
	}
	return strings.Split(a.text(name), ",")
}

func (a *args) number(name string) int {
	if !a.has(name) {
		return 0
	}
	return number(a.text(name))
}

func (a *args) numbers(name string) (ns []uint32) {
	for _, s := range a.list(name) {
		ns = append(ns, uint32(number(s)))
	}
	return ns
}

// seconds is a number of seconds, or "never".
func (a *args) seconds(name string) uint32 {
	if a.text(name) == "never" {
		return math.MaxUint32
	}
	return a.unsigned(name)
}

// unsigned is a number of 32 bits.
func (a *args) unsigned(name string) uint32 {
	if !a.has(name) {
		return 0
	}
	n, err := strconv.ParseUint(a.text(name), 10, 32)
	if err != nil {
		fail("%s: %v", name, err)
	}
	return uint32(n)
}

func (a *args) version() mqtt.Version {
	switch {
	case a.flag("v31"):
		return mqtt.V31
	case a.flag("v311"):
		return mqtt.V311
	case a.flag("v5"):
		return mqtt.V5
	}
	fail("v31, v311 or v5?")
	return 0
}

func (a *args) mustBeUsed() {
	for name := range a.values {
		if !a.used[name] && name != "on" && name != "off" {
			if _, err := time.ParseDuration(name); err != nil && packetTypes[name] == 0 && reasons[name] == 0 {
				fail("%s means nothing here", name)
			}
		}
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		fail("%q is no number", s)
	}
	return n
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		fail("%q is no duration", s)
	}
	return d
}
