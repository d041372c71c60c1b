package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"sluice/configs"
)

// checkCmd is `sluice check`.
type checkCmd struct {
	Config   string `short:"c" type:"path" placeholder:"FILE" help:"Configuration file. Without it the defaults are checked, which shows where the store would be."`
	Defaults bool   `help:"Print the default configuration, commented, instead of checking one."`
}

// Run prints one line if the configuration can be run, and otherwise returns
// everything that is wrong with it. It opens no socket and no store.
func (c *checkCmd) Run(out io.Writer) error {
	if c.Defaults {
		_, err := io.WriteString(out, configs.DefaultFile())
		return err
	}
	cfg, err := loadConfig(c.Config, nil, "")
	if cfg == nil {
		return err
	}
	if err = errors.Join(err, cfg.CheckFiles()); err != nil {
		return err
	}
	if err := checkBridges(cfg); err != nil {
		return err
	}
	dir, err := cfg.DataPath()
	if err != nil {
		return err
	}
	name := c.Config
	if name == "" {
		name = "the default configuration"
	}
	_, err = fmt.Fprintf(out, "%s: good (listeners: %d, bridges: %d, data: %s)\n", name, len(cfg.Listeners), len(cfg.Bridges), dir)
	return err
}

// checkBridges asks the bridges themselves, whose word is the last.
func checkBridges(cfg *configs.Config) error {
	hostname, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("host name, for the bridges' client ids: %w", err)
	}
	var errs []error
	for i := range cfg.Bridges {
		o, err := bridgeOptions(&cfg.Bridges[i], hostname)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		o.DialLocal = func(context.Context) (net.Conn, error) { panic("BUG: a check dials") }
		if err := o.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("bridge %q: %w", o.Name, err))
		}
	}
	return errors.Join(errs...)
}
