package configs

import (
	"fmt"
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
