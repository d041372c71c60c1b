package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// named is an instrument and what it is called in topics.
type named struct {
	name string
	read instrument
}

// instruments are those of this machine; what it does not have is left out.
func instruments() []named {
	all := []named{{"load", load}, {"memory", memory}, {"disk", disk}, {"cpu", cpu()}, {"network", network}}
	if len(thermometers()) > 0 {
		all = append(all, named{"temperature", temperatures})
	}
	have := all[:0]
	for _, x := range all {
		if x.read() != nil {
			have = append(have, x)
		}
	}
	return have
}

// fields reads a file of /proc as lines of fields, nil if it is not there.
func fields(path string) (lines [][]string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 0 {
			lines = append(lines, f)
		}
	}
	return lines
}

// number reads a number; what is none is 0.
func number(s string) float64 {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	return v
}

// load is the load average of 1, 5 and 15 minutes.
func load() map[string]float64 {
	lines := fields("/proc/loadavg")
	if len(lines) == 0 || len(lines[0]) < 3 {
		return nil
	}
	return map[string]float64{"1m": number(lines[0][0]), "5m": number(lines[0][1]), "15m": number(lines[0][2])}
}

// memory is in bytes.
func memory() map[string]float64 {
	names := map[string]string{"MemTotal:": "total", "MemAvailable:": "available", "SwapFree:": "swap_free"}
	values := map[string]float64{}
	for _, f := range fields("/proc/meminfo") {
		if name, ok := names[f[0]]; ok && len(f) > 1 {
			values[name] = number(f[1]) * 1024
		}
	}
	if len(values) == 0 {
		return nil
	}
	return values
}

// disk is that of the root file system, in bytes.
func disk() map[string]float64 {
	var st unix.Statfs_t
	if unix.Statfs("/", &st) != nil {
		return nil
	}
	block := float64(st.Bsize)
	return map[string]float64{"total": float64(st.Blocks) * block, "free": float64(st.Bavail) * block}
}

// cpu is how busy all processors were since the last reading, in percent.
func cpu() instrument {
	var busyBefore, allBefore float64
	return func() map[string]float64 {
		lines := fields("/proc/stat")
		if len(lines) == 0 || len(lines[0]) < 5 || lines[0][0] != "cpu" {
			return nil
		}
		var all float64
		for _, f := range lines[0][1:] {
			all += number(f)
		}
		idle := number(lines[0][4])
		if len(lines[0]) > 5 {
			idle += number(lines[0][5]) // waiting for a disk
		}
		busy := all - idle
		values := map[string]float64{"busy_percent": 0}
		if all > allBefore {
			values["busy_percent"] = 100 * (busy - busyBefore) / (all - allBefore)
		}
		busyBefore, allBefore = busy, all
		return values
	}
}

// network is the counters of all interfaces but the loopback's, in bytes.
func network() map[string]float64 {
	values := map[string]float64{}
	for _, f := range fields("/proc/net/dev") {
		name, colon := strings.CutSuffix(f[0], ":")
		if colon && name != "lo" && len(f) > 9 {
			values[name+"_received"], values[name+"_sent"] = number(f[1]), number(f[9])
		}
	}
	if len(values) == 0 {
		return nil
	}
	return values
}

// thermometers are files that hold a temperature in thousandths of a degree
// Celsius.
func thermometers() (files []string) {
	for _, pattern := range []string{"/sys/class/thermal/thermal_zone*/temp", "/sys/class/hwmon/hwmon*/temp*_input"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			panic("BUG: pattern " + pattern)
		}
		files = append(files, found...)
	}
	return files
}

func temperatures() map[string]float64 {
	values := map[string]float64{}
	for _, file := range thermometers() {
		if lines := fields(file); len(lines) > 0 {
			name := filepath.Base(filepath.Dir(file)) + "_" + strings.TrimSuffix(filepath.Base(file), "_input")
			values[name] = number(lines[0][0]) / 1000
		}
	}
	if len(values) == 0 {
		return nil
	}
	return values
}
