// Command demo shows what Sluice is for, on one machine and in about half a
// minute: a gateway takes readings, the uplink fails, the gateway is killed in
// the middle of it, the uplink comes back, and the account is settled.
//
//	go run ./cmd/demo
//
// The cloud is a mosquitto. The uplink is a TCP proxy in this process, which can
// swallow what is sent, or refuse connections. The gateway is Sluice, built from
// this tree, with a bridge that carries sensors/# to gateway/<host name>/sensors/#.
// The sources are this machine itself (load, memory, disk, CPU, network,
// temperatures) and simulated sensors; each is an MQTT client that publishes
// JSON with QoS 1, numbers its messages, and sends again what was not
// acknowledged. In the cloud a subscriber with a persistent session counts what
// comes.
//
// "Acknowledged" is what a source got a PUBACK for. If any of it does not
// arrive, the exit status is 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// settings are the command line.
type settings struct {
	normal, outage, after, drain time.Duration
	sensors                      int
	rate, machineRate            float64
	sluice                       string
	keep                         bool
}

func parse() settings {
	var s settings
	flag.DurationVar(&s.normal, "normal", 5*time.Second, "time before the outage")
	flag.DurationVar(&s.outage, "outage", 10*time.Second, "length of the outage; in its middle the gateway is killed")
	flag.DurationVar(&s.after, "after", 10*time.Second, "time for which the sources go on after the outage")
	flag.DurationVar(&s.drain, "drain", time.Minute, "then, the longest time to wait for the rest")
	flag.IntVar(&s.sensors, "sensors", 10, "simulated sensors")
	flag.Float64Var(&s.rate, "rate", 50, "messages per second of each simulated sensor")
	flag.Float64Var(&s.machineRate, "machine-rate", 2, "messages per second of each reading of this machine")
	flag.StringVar(&s.sluice, "sluice", "", "program to run as the gateway; default: build it from this tree")
	flag.BoolVar(&s.keep, "keep", false, "keep the temporary directory with configuration, store and logs")
	flag.Parse()
	if flag.NArg() > 0 || s.sensors < 0 || !(s.rate > 0) || !(s.machineRate > 0) {
		flag.Usage()
		os.Exit(2)
	}
	return s
}

// Exit statuses.
const (
	exitLost        = 1 // something acknowledged did not arrive, or the demo itself failed
	exitInterrupted = 130
)

func main() { os.Exit(run(parse())) }

func run(s settings) int {
	// The last two: nobody watches any more.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	out := newScreen(os.Stdout)
	w, err := newWorld(ctx, s, out)
	if err == nil {
		err = w.script(ctx)
	}
	out.clear()
	err = errors.Join(err, w.close())
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "interrupted")
		return exitInterrupted
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		return exitLost
	}
	if lost := w.table(os.Stdout); lost > 0 {
		return exitLost
	}
	return 0
}
