package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"sluice/bridge"
	"sluice/configs"
)

// bridgeCmd is `sluice bridge`.
type bridgeCmd struct {
	Ping bridgePingCmd `cmd:"" help:"Connect to the upstreams of bridges as configured, without touching their sessions, and explain what fails."`
}

// bridgePingCmd is `sluice bridge ping`.
type bridgePingCmd struct {
	Name   string `arg:"" optional:"" help:"The bridge. Without it all are tried."`
	Config string `short:"c" type:"path" required:"" placeholder:"FILE" help:"Configuration file."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// pingedBridge is the answer for one bridge.
type pingedBridge struct {
	Bridge    string          `json:"bridge"`
	Addresses []bridge.Pinged `json:"addresses"`
}

// Run succeeds if each address of each bridge that was asked for lets us in.
func (c *bridgePingCmd) Run(con *console) error {
	cfg, err := loadConfig(c.Config, nil, "")
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	all, err := pingBridges(ctx, cfg, c.Name)
	if err != nil {
		return err
	}
	if c.JSON {
		text, err := json.MarshalIndent(all, "", "  ")
		if err == nil {
			_, err = fmt.Fprintf(con.out, "%s\n", text)
		}
		if err != nil {
			return err
		}
	} else if err := writePinged(con.out, all); err != nil {
		return err
	}
	for i := range all {
		for j := range all[i].Addresses {
			if !all[i].Addresses[j].OK {
				return exitStatus(exitFailure)
			}
		}
	}
	return nil
}

// pingBridges tries the bridge of that name, or all of them.
func pingBridges(ctx context.Context, cfg *configs.Config, name string) ([]pingedBridge, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("host name, for the bridges' client ids: %w", err)
	}
	var all []pingedBridge
	for i := range cfg.Bridges {
		if name != "" && cfg.Bridges[i].Name != name {
			continue
		}
		o, err := bridgeOptions(&cfg.Bridges[i], hostname)
		if err != nil {
			return nil, err
		}
		o.DialLocal = func(context.Context) (net.Conn, error) { panic("BUG: a ping dials the local broker") }
		o.Backlog = func(string) (bridge.Backlog, bool) { panic("BUG: a ping looks into a session") }
		if err := o.Validate(); err != nil {
			return nil, fmt.Errorf("bridge %q: %w", o.Name, err)
		}
		all = append(all, pingedBridge{Bridge: o.Name, Addresses: bridge.Ping(ctx, o)})
	}
	switch {
	case len(all) > 0:
		return all, nil
	case name != "":
		return nil, fmt.Errorf("there is no bridge %q in the configuration", name)
	}
	return nil, errors.New("there is no bridge in the configuration")
}

func writePinged(w io.Writer, all []pingedBridge) error {
	var err error
	say := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format, args...)
		}
	}
	for _, b := range all {
		for _, p := range b.Addresses {
			say("bridge %s, %s, client id %s\n", b.Bridge, p.Address, p.ClientID)
			for _, s := range p.Steps {
				mark, text := "ok  ", s.Found
				if !s.OK {
					mark, text = "FAIL", s.Error
				}
				say("  %s  %-11s %7.1f ms  %s\n", mark, s.Name, s.Millis, text)
				if s.Hint != "" {
					say("        %s\n", s.Hint)
				}
			}
		}
	}
	return err
}
