package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"sluice/bridge"
	"sluice/broker/front"
	"sluice/configs"
)

// checkCmd is `sluice check`.
type checkCmd struct {
	Config   string `short:"c" type:"path" placeholder:"FILE" help:"Configuration file. Without it the defaults are checked, which shows where the store would be."`
	Defaults bool   `help:"Print the default configuration, commented, instead of checking one."`
}

// Run prints one line if the configuration can be run, and otherwise returns
// everything that is wrong with it. It opens no socket and no store.
func (c *checkCmd) Run(con *console) error {
	if c.Defaults {
		_, err := io.WriteString(con.out, configs.DefaultFile())
		return err
	}
	cfg, err := loadConfig(c.Config, nil, "")
	if cfg == nil {
		return err
	}
	if err = errors.Join(err, cfg.CheckFiles()); err != nil {
		return err
	}
	_, authErr := authRules(&cfg.Auth)
	expiring, tlsErr := checkTLS(cfg)
	if err := errors.Join(authErr, tlsErr, checkBridges(cfg)); err != nil {
		return err
	}
	dir, err := cfg.DataPath()
	if err != nil {
		return err
	}
	for _, warning := range slices.Concat(cfg.Warnings(), expiring, openSecrets(cfg)) {
		fmt.Fprintf(con.err, "warning: %s\n", warning)
	}
	name := c.Config
	if name == "" {
		name = "the default configuration"
	}
	_, err = fmt.Fprintf(con.out, "%s: good (listeners: %d, bridges: %d, data: %s)\n", name, len(cfg.Listeners), len(cfg.Bridges), dir)
	return err
}

// checkTLS reads certificates, keys and lists as the broker will.
func checkTLS(cfg *configs.Config) (warnings []string, err error) {
	var errs []error
	for i := range cfg.Listeners {
		l := &cfg.Listeners[i]
		if !l.TLS.Enabled() {
			continue
		}
		t, err := front.NewTLS(tlsOptions(l, time.Time{}))
		if err != nil {
			errs = append(errs, wrongFiles{err})
			continue
		}
		warnings = append(warnings, t.Warnings()...)
	}
	return warnings, errors.Join(errs...)
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
		o.Backlog = func(string) (bridge.Backlog, bool) { panic("BUG: a check looks into a session") }
		if err := o.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("bridge %q: %w", o.Name, err))
		}
	}
	return errors.Join(errs...)
}

// openSecrets says which secrets everybody on this machine can read; of a listener's
// keys front says it.
func openSecrets(cfg *configs.Config) (warnings []string) {
	names := []string{cfg.Auth.PasswordFile, cfg.Auth.JWT.SecretFile}
	for i := range cfg.Bridges {
		names = append(names, cfg.Bridges[i].PasswordFile, cfg.Bridges[i].KeyFile, cfg.Bridges[i].SASKeyFile)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if info, err := os.Stat(name); name != "" && err == nil && info.Mode().Perm()&0o004 != 0 {
			warnings = append(warnings, fmt.Sprintf("%s: every user of this machine can read it; chmod o-r %s", name, name))
		}
	}
	return warnings
}
