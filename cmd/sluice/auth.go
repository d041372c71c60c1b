package main

import (
	"os"

	"sluice/broker/auth"
	"sluice/configs"
)

// authRules reads the files of [auth] and makes rules of them. The error is
// wrongFiles.
func authRules(c *configs.Auth) (*auth.Rules, error) {
	sources, err := authSources(c)
	if err != nil {
		return nil, err
	}
	rules, err := auth.New(sources)
	if err != nil {
		return nil, wrongFiles{err}
	}
	return rules, nil
}

// authSources reads the files of [auth].
func authSources(c *configs.Auth) (*auth.Sources, error) {
	s := &auth.Sources{Methods: c.ActiveMethods()}
	var err error
	if c.UsesPassword() {
		if s.Passwords, err = readFile(c.PasswordFile); err != nil {
			return nil, err
		}
	}
	if c.ACLFile != "" {
		if s.ACL, err = readFile(c.ACLFile); err != nil {
			return nil, err
		}
	}
	if c.UsesJWT() {
		if s.JWT, err = jwtOptions(&c.JWT); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func jwtOptions(c *configs.JWT) (*auth.JWTOptions, error) {
	o := &auth.JWTOptions{
		Audience: c.Audience, Issuer: c.Issuer, Leeway: c.Leeway.Duration(), WithoutExpiry: !c.RequireExpiry,
		UserClaim: c.UserClaim, UsernameClaim: c.UsernameClaim, ClientIDClaim: c.ClientIDClaim,
		PublishClaim: c.PublishClaim, SubscribeClaim: c.SubscribeClaim,
	}
	for _, k := range []struct {
		name string
		keys *[]auth.File
	}{{c.KeyFile, &o.PublicKeys}, {c.JWKSFile, &o.JWKS}} {
		if k.name == "" {
			continue
		}
		file, err := readFile(k.name)
		if err != nil {
			return nil, err
		}
		*k.keys = []auth.File{*file}
	}
	secret, err := c.Secret()
	if err != nil {
		return nil, wrongFiles{err}
	}
	if secret != nil {
		name := c.SecretFile
		if name == "" {
			name = "environment variable " + c.SecretEnv
		}
		o.Secrets = []auth.File{{Name: name, Data: secret}}
	}
	return o, nil
}

func readFile(name string) (*auth.File, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, wrongFiles{err}
	}
	return &auth.File{Name: name, Data: data}, nil
}

// guardOptions are the limits of failed logins.
func guardOptions(c *configs.Auth) auth.GuardOptions {
	o := auth.DefaultGuardOptions()
	o.FailuresMax, o.Window, o.RefuseFor = c.LoginFailuresMax, c.LoginFailureWindow.Duration(), c.LoginRefuseFor.Duration()
	return o
}
