package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// reading is one real sensor of this machine. read gives its value and unit.
type reading struct {
	name string
	read func() (value float64, unit string, err error)
}

// machine gives the readings that this machine has.
func machine() []reading {
	all := []reading{
		{"load", func() (float64, string, error) { return field("/proc/loadavg", 0), "", nil }},
		{"memory", memory},
		{"disk", disk},
		{"cpu", func() (float64, string, error) { return line("/proc/stat", "cpu ", 0) / 100, "s", nil }},
		{"interrupts", func() (float64, string, error) { return line("/proc/stat", "intr ", 0), "", nil }},
		{"network", func() (float64, string, error) { return line("/proc/net/dev", "lo:", 0), "B", nil }},
	}
	for _, pattern := range []string{"/sys/class/thermal/thermal_zone*/temp", "/sys/class/hwmon/hwmon*/temp*_input"} {
		files, _ := filepath.Glob(pattern) // the patterns are right, so it cannot fail
		for _, file := range files {
			name := "temperature-" + filepath.Base(filepath.Dir(file)) + strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "temp"), "_input")
			all = append(all, reading{name, func() (float64, string, error) { return field(file, 0) / 1000, "°C", nil }})
		}
	}
	return all
}

// field reads number n of a file, 0 if there is none.
func field(file string, n int) float64 {
	text, _ := os.ReadFile(file) // what this machine has not got reads as 0
	return number(strings.Fields(string(text)), n)
}

// line reads number n behind the prefix of a line.
func line(file, prefix string, n int) float64 {
	text, _ := os.ReadFile(file) // as in field
	for l := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(bytes.TrimSpace(l), []byte(prefix)); ok {
			return number(strings.Fields(string(rest)), n)
		}
	}
	return 0
}

func number(fields []string, n int) float64 {
	if n >= len(fields) {
		return 0
	}
	v, _ := strconv.ParseFloat(fields[n], 64) // not a number: 0
	return v
}

func memory() (float64, string, error) {
	all, free := line("/proc/meminfo", "MemTotal:", 0), line("/proc/meminfo", "MemAvailable:", 0)
	if all == 0 {
		return 0, "", fmt.Errorf("no /proc/meminfo")
	}
	return 100 * (1 - free/all), "%", nil
}

func disk() (float64, string, error) {
	var s unix.Statfs_t
	if err := unix.Statfs("/", &s); err != nil {
		return 0, "", err
	}
	return 100 * (1 - float64(s.Bavail)/float64(max(s.Blocks, 1))), "%", nil
}
