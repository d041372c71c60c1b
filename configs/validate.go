package configs

import (
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/broker/topic"
)

// Validate returns nil or Problems: every value that is impossible by itself or
// together with others.
func (c *Config) Validate() error { return c.problems().err() }

func (c *Config) problems() Problems {
	v := validator{decoder{at: c.at}}
	walk(reflect.ValueOf(c).Elem(), "", func(value reflect.Value, field reflect.StructField, path string) {
		if tag := field.Tag.Get("allow"); tag != "" && !allows(tag, value) {
			value = reflect.Indirect(value)
			found := fmt.Sprint(value.Interface())
			switch {
			case value.IsZero() && value.Kind() == reflect.String:
				found = "nothing"
			case value.Type() != reflect.TypeFor[int]():
				found = strconv.Quote(found)
			}
			v.problem(path, found, allowText(tag), "")
		}
	})
	v.listeners(c)
	v.auth(&c.Auth)
	v.mqtt(&c.MQTT)
	v.limits(&c.Limits)
	v.queue(&c.Queue, c.Limits.PacketBytesMax, c.Limits.TopicLevelsMax)
	v.store(&c.Store)
	v.bridges(c.Bridges, c)
	return v.decoder.problems
}

// validator collects what is wrong between fields.
type validator struct{ decoder }

func (v *validator) mqtt(m *MQTT) {
	if s := m.ResponseInformation; len(s) > 1024 || strings.ContainsAny(s, "+#") || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		v.problem("mqtt.response_information", quoted(s), "at most 1024 bytes without +, # and control characters",
			"clients make response topics of it")
	}
}

func (v *validator) limits(l *Limits) {
	if l.ConnectBytesMax > l.PacketBytesMax {
		v.problem("limits.connect_bytes_max", quoted(l.ConnectBytesMax), "at most packet_bytes_max, "+quoted(l.PacketBytesMax), "")
	}
	for key, d := range map[string]Duration{"keepalive_max": l.KeepaliveMax, "session_expiry_max": l.SessionExpiryMax} {
		if d.Duration()%time.Second != 0 {
			v.problem("limits."+key, quoted(d), "whole seconds", "")
		}
	}
}

func (v *validator) bridges(bridges []Bridge, c *Config) {
	first := map[string]int{}
	for i := range bridges {
		b, path := &bridges[i], index("bridge", i)
		if !validName(b.Name) {
			v.problem(path+".name", quoted(b.Name), "1 to 64 letters, digits, '-', '_' or '.'", "")
		} else if j, twice := first[b.Name]; twice {
			v.problem(path+".name", quoted(b.Name)+" twice", "a name of its own for each bridge", "see "+index("bridge", j))
		}
		first[b.Name] = i
		v.upstream(b, path)
		if b.Keepalive.Duration()%time.Second != 0 {
			v.problem(path+".keepalive", quoted(b.Keepalive), "whole seconds", "")
		}
		if b.ReconnectMax < b.ReconnectMin {
			v.problem(path+".reconnect_max", quoted(b.ReconnectMax), "at least reconnect_min, "+quoted(b.ReconnectMin), "")
		}
		if len(b.Routes) == 0 {
			v.problem(path+".route", "none", "at least one [[bridge.route]]", "the bridge would carry nothing")
		}
		for j := range b.Routes {
			v.route(&b.Routes[j], index(path+".route", j), c.Limits.TopicLevelsMax)
		}
		v.bridgeQueues(b, path, c.Limits.PacketBytesMax)
		v.active(b, path)
	}
}

func validName(name string) bool {
	return len(name) >= 1 && len(name) <= 64 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}

// upstream checks how a bridge reaches and trusts its upstream.
func (v *validator) upstream(b *Bridge, path string) {
	tls, problem := checkUpstream(b.Address)
	if problem != "" {
		found := quoted(b.Address)
		if strings.Contains(b.Address, "@") {
			found = "an address with credentials" // not to be repeated in a log
		}
		v.problem(path+".address", found, `"tcp://host:1883" or "tls://host:8883"`, problem)
		tls = true // what follows from it is not worth a report
	}
	v.password(b, path)
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
				v.problem(path+"."+key, key+" with "+quoted(b.Address), "it with a tls:// address only",
					"tcp:// would send everything in the clear")
			}
		}
	}
}

// password checks that a bridge has at most one password, and a user for it.
func (v *validator) password(b *Bridge, path string) {
	before := ""
	for _, s := range []struct{ key, value string }{{"password", b.Password}, {"password_file", b.PasswordFile}, {"password_env", b.PasswordEnv}} {
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
}

// checkUpstream returns whether an address is one with TLS, and what is wrong
// with it, or "".
func checkUpstream(address string) (tls bool, problem string) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "tcp" && u.Scheme != "tls":
		return false, "it is not a scheme and a host"
	case u.User != nil:
		return false, "write username and password on lines of their own"
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "":
		return false, "nothing may follow the port"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false, "the port must be a number from 1 to 65535"
		}
	}
	return u.Scheme == "tls", ""
}

func (v *validator) route(r *Route, path string, levelsMax int) {
	prefixed := false
	for key, prefix := range map[string]string{"local_prefix": r.LocalPrefix, "remote_prefix": r.RemotePrefix} {
		if strings.ContainsAny(prefix, "+#") {
			v.problem(path+"."+key, quoted(prefix), "a prefix without + and #", "")
			prefixed = true
		}
	}
	if prefixed {
		return
	}
	for _, side := range []struct{ name, prefix string }{{"local", r.LocalPrefix}, {"remote", r.RemotePrefix}} {
		filter := side.prefix + r.Filter
		hint := "on the " + side.name + " side it is " + quoted(filter)
		if strings.HasPrefix(filter, "$share/") {
			v.problem(path+".filter", quoted(r.Filter), "no shared subscription", hint)
			return
		}
		if err := topic.CheckFilter([]byte(filter), levelsMax); err != nil {
			v.problem(path+".filter", quoted(r.Filter), "a topic filter", hint+": "+err.Error())
			return
		}
	}
	from := r.LocalPrefix
	if r.Direction == "in" {
		from = r.RemotePrefix
	}
	for i, x := range r.Exclude {
		if err := topic.CheckFilter([]byte(from+x), levelsMax); err != nil {
			v.problem(index(path+".exclude", i), quoted(x), "a topic filter", "with the prefix it is "+quoted(from+x)+": "+err.Error())
		}
	}
}

// quoted writes a value as it would stand in the file.
func quoted(x any) string {
	if text := fmt.Sprint(x); text != "" {
		return describe(text, false)
	}
	return "nothing"
}
