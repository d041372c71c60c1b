package configs

import (
	"fmt"
	"net"
	"net/url"
	"slices"
)

// Warnings says what a valid configuration does that its owner may not want,
// each with its place and its remedy, in the order of the file's tables.
func (c *Config) Warnings() (warnings []string) {
	warn := func(key, format string, args ...any) {
		file, line := c.at.find(key)
		switch {
		case line > 0:
			file = fmt.Sprintf("%s:%d: ", file, line)
		case file != "":
			file += ": "
		}
		warnings = append(warnings, file+key+": "+fmt.Sprintf(format, args...))
	}
	for i := range c.Listeners {
		l, path := &c.Listeners[i], index("listener", i)
		if l.loopback() {
			continue // what comes through a proxy is the proxy's to encrypt
		}
		if !l.TLS.Enabled() && (c.Auth.UsesPassword() || c.Auth.UsesJWT()) {
			warn(path, "passwords and tokens cross the network to %s in the clear, where others can read them; add [listener.tls]", l.Address)
		}
		if c.Anonymous(l) && c.Auth.ACLFile == "" {
			warn(path, "whoever reaches %s can read and write every topic; set auth.acl_file to limit what anonymous clients may do", l.Address)
		}
	}
	if !slices.Equal(c.Auth.Methods, authMethods) { // somebody has chosen
		if c.Auth.has("password") && c.Auth.PasswordFile == "" {
			warn("auth.methods", `"password" does nothing without auth.password_file`)
		}
		if c.Auth.has("jwt") && !c.Auth.JWT.enabled() {
			warn("auth.methods", `"jwt" does nothing without a key in [auth.jwt]`)
		}
	}
	for i := range c.Bridges {
		b, path := &c.Bridges[i], index("bridge", i)
		for _, address := range b.Address {
			u, err := url.Parse(address)
			if err != nil || u.Scheme != "tcp" && u.Scheme != "ws" || b.Username == "" {
				continue
			}
			if far := NewListener(net.JoinHostPort(u.Hostname(), "0")); !far.loopback() {
				warn(path, "the password crosses the network to %s in the clear; use tls:// or wss://", u.Host)
			}
		}
		if b.InsecureSkipVerify {
			warn(path+".insecure_skip_verify", "anybody on the way to the upstream can read and forge; set ca_file instead")
		}
	}
	return warnings
}
