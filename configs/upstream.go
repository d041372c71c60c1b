package configs

import (
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Addresses are where an upstream can be reached: in the file one string, or an array
// of them, the first of which is the primary.
type Addresses []string

const addressForm = `"tcp://host:1883" or "tls://host:8883", or the same with ws:// or wss://`

// upstream checks how a bridge reaches and trusts its upstream.
func (v *validator) upstream(b *Bridge, path string) {
	tls := len(b.Address) == 0 // what follows from a problem is not worth a report
	if tls {
		v.problem(path+".address", "nothing", addressForm, "")
	}
	for i, address := range b.Address {
		at := path + ".address"
		if len(b.Address) > 1 {
			at = index(at, i)
		}
		secure, problem := checkUpstream(address)
		if problem != "" {
			found := quoted(address)
			switch {
			case address == "":
				found = "nothing"
			case strings.Contains(address, "@"):
				found = "an address with credentials" // not to be repeated in a log
			}
			v.problem(at, found, addressForm, problem)
		}
		if j := slices.Index(b.Address, address); j < i {
			v.problem(at, quoted(address)+" twice", "each address once", "")
		}
		tls = tls || secure || problem != ""
	}
	v.password(b, path)
	v.proxy(b.Proxy, path+".proxy")
	if len(b.Interface) > 15 && net.ParseIP(b.Interface) == nil {
		v.problem(path+".interface", quoted(b.Interface), "the name of a network interface, or an address of this machine", "")
	}
	if b.CertFile == "" && b.KeyFile != "" {
		v.problem(path+".key_file", "key_file without cert_file", "both or none", "")
	}
	if b.CertFile != "" && b.KeyFile == "" {
		v.problem(path+".cert_file", "cert_file without key_file", "both or none", "")
	}
	if !tls {
		used := map[string]bool{"ca_file": b.CAFile != "", "cert_file": b.CertFile != "", "key_file": b.KeyFile != "",
			"server_name": b.ServerName != "", "alpn": len(b.ALPN) > 0, "insecure_skip_verify": b.InsecureSkipVerify}
		for key, set := range used {
			if set {
				v.problem(path+"."+key, key+" with "+quoted(b.Address[0]), "it with a tls:// or wss:// address only",
					"tcp:// would send everything in the clear")
			}
		}
	}
}

// password checks that a bridge has at most one way to a password, and a user for it.
func (v *validator) password(b *Bridge, path string) {
	before := ""
	program := strings.Join(b.PasswordCommand, " ")
	for _, s := range []struct{ key, value string }{
		{"password", b.Password}, {"password_file", b.PasswordFile}, {"password_env", b.PasswordEnv}, {"password_command", program},
		{"sas_key_file", b.SASKeyFile}, {"sas_key_env", b.SASKeyEnv},
	} {
		if s.value == "" {
			continue
		}
		if b.Username == "" {
			v.problem(path+"."+s.key, "a password without username", "both or none", "")
		} else if before != "" {
			v.problem(path+"."+s.key, before+" and "+s.key, "one of them", "")
		}
		before = s.key
	}
	v.envName(path+".password_env", b.PasswordEnv)
	v.envName(path+".sas_key_env", b.SASKeyEnv)
	if len(b.PasswordCommand) > 0 && !filepath.IsAbs(b.PasswordCommand[0]) {
		v.problem(path+".password_command", quoted(b.PasswordCommand[0]), "a program with its whole path, then its arguments", "there is no shell and no PATH")
	}
	if b.SASKeyFile == "" && b.SASKeyEnv == "" && (b.SASResource != "" || b.SASPolicy != "") {
		v.problem(path+".sas_resource", "sas_resource or sas_policy without a key", "sas_key_file or sas_key_env", "")
	}
}

// proxy checks the way to the addresses. It may hold a password, so it is never repeated.
func (v *validator) proxy(proxy, path string) {
	if proxy == "" {
		return
	}
	const form = `"http://user:password@host:3128" or "socks5://user:password@host:1080"`
	u, err := url.Parse(proxy)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "socks5" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		v.problem(path, "something else", form, "user and password may be missing")
	}
}

// checkUpstream returns whether an address is one with TLS, and what is wrong
// with it, or "".
func checkUpstream(address string) (tls bool, problem string) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || !slices.Contains([]string{"tcp", "tls", "ws", "wss"}, u.Scheme):
		return false, "it is not a scheme and a host"
	case u.User != nil:
		return false, "write username and password on lines of their own"
	case u.Fragment != "" || !strings.HasPrefix(u.Scheme, "ws") && (u.Path != "" || u.RawQuery != ""):
		return false, "nothing may follow the port"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false, "the port must be a number from 1 to 65535"
		}
	}
	return u.Scheme == "tls" || u.Scheme == "wss", ""
}
