package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"sluice/bridge"
	"sluice/configs"
)

// credentials returns what a bridge logs in with if that may change: a password that is
// read from a file for each connection, printed by a command, or made of a key. nil: it
// is the configured one. o has its address and client id.
func credentials(c *configs.Bridge, o *bridge.Options) (func(context.Context) (bridge.Login, error), error) {
	switch {
	case c.SASKeyFile != "" || c.SASKeyEnv != "":
		return sasCredentials(c, o)
	case len(c.PasswordCommand) > 0:
		return bridge.CommandLogin(c.Username, c.PasswordCommand, time.Duration(c.CommandTimeout)), nil
	case c.PasswordFile != "":
		file := configs.Bridge{PasswordFile: c.PasswordFile}
		return bridge.ReadLogin(c.Username, file.ReadPassword), nil
	}
	return nil, nil
}

func sasCredentials(c *configs.Bridge, o *bridge.Options) (func(context.Context) (bridge.Login, error), error) {
	key, err := c.ReadSASKey()
	if err != nil {
		return nil, fmt.Errorf("sas_key: %w", err)
	}
	s := bridge.SAS{Resource: c.SASResource, Policy: c.SASPolicy, Key: key, Lifetime: time.Duration(c.SASLifetime)}
	if s.Resource == "" {
		u, err := url.Parse(o.Address)
		if err != nil {
			return nil, fmt.Errorf("address: %w", err)
		}
		s.Resource = u.Hostname() + "/devices/" + o.ClientID
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return s.Login(c.Username, o.Now), nil
}
