package configs

import (
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// DESIGN: what a listener needs before it may be opened. Whoever can reach an
// address must be asked who they are, or the file must say that nobody is. The
// rule is here and nowhere else: Config.Anonymous tells it to the broker, and
// validator.access refuses a listener that would let in nobody, or everybody by
// oversight.

// Listener is one address to listen on.
type Listener struct {
	Address          string      `toml:"address"`   // host:port, [ipv6]:port or unix:/path
	Interface        string      `toml:"interface"` // "": any. SO_BINDTODEVICE, not for unix:
	UnixMode         string      `toml:"unix_mode"` // octal, see FileMode; for unix: only
	Protocol         string      `toml:"protocol" allow:"mqtt|websocket"`
	WebSocketPath    string      `toml:"websocket_path"`    // "": any
	WebSocketOrigins []string    `toml:"websocket_origins"` // none: the host that was asked for; "*": any
	ProxyProtocol    bool        `toml:"proxy_protocol"`    // every connection must begin with its header
	AllowAnonymous   *bool       `toml:"allow_anonymous"`   // nil: see Config.Anonymous
	ConnectionsMax   int         `toml:"connections_max" allow:"0..1000000"`
	TLS              ListenerTLS `toml:"tls"`
}

// ListenerTLS encrypts a listener if CertFile is set.
type ListenerTLS struct {
	CertFile          string `toml:"cert_file"` // PEM, the leaf first
	KeyFile           string `toml:"key_file"`  // PEM
	ClientCAFile      string `toml:"client_ca_file"`
	ClientCRLFile     string `toml:"client_crl_file"` // PEM or DER
	ClientCertificate string `toml:"client_certificate" allow:"none|optional|require"`
	UsernameFrom      string `toml:"username_from" allow:"none|common_name|subject"`
	MinVersion        string `toml:"min_version" allow:"1.2|1.3"`
}

// setDefaults fills in a [[listener]] before its keys are laid over it. sluice.toml
// shows the same values, and a test compares them.
func (l *Listener) setDefaults() {
	*l = Listener{
		UnixMode:      "0660",
		Protocol:      "mqtt",
		WebSocketPath: "/mqtt",
		TLS:           ListenerTLS{ClientCertificate: "none", UsernameFrom: "none", MinVersion: "1.2"},
	}
}

// NewListener returns a listener with the defaults of a [[listener]].
func NewListener(address string) Listener {
	var l Listener
	l.setDefaults()
	l.Address = address
	return l
}

// Enabled says whether the listener speaks TLS.
func (t *ListenerTLS) Enabled() bool { return t.CertFile != "" }

// FileMode is unix_mode; it is valid after Validate.
func (l *Listener) FileMode() fs.FileMode {
	mode, _ := parseMode(l.UnixMode)
	return mode
}

func parseMode(s string) (fs.FileMode, bool) {
	n, err := strconv.ParseUint(s, 8, 32)
	return fs.FileMode(n), err == nil && len(s) >= 3 && len(s) <= 4 && n <= 0o777
}

// Anonymous says whether clients of a listener need not say who they are: as
// configured, or else only where nobody but this machine can connect and nobody has
// been given a password, a token or a certificate to show.
func (c *Config) Anonymous(l *Listener) bool {
	if l.AllowAnonymous != nil {
		return *l.AllowAnonymous
	}
	return l.local() && !c.authenticates(l)
}

// authenticates says whether a client has any way to prove who it is at this listener.
func (c *Config) authenticates(l *Listener) bool {
	return c.Auth.UsesPassword() || c.Auth.UsesJWT() || c.Auth.has("certificate") && l.TLS.names()
}

// names says whether client certificates become user names.
func (t *ListenerTLS) names() bool {
	return t.Enabled() && t.ClientCertificate != "none" && t.UsernameFrom != "none"
}

// local says whether only this machine can connect. It resolves no names:
// besides localhost none is known to be local. Behind a proxy clients are
// wherever the proxy lets them in from.
func (l *Listener) local() bool { return !l.ProxyProtocol && l.loopback() }

// loopback says whether the address is one of this machine only.
func (l *Listener) loopback() bool {
	if strings.HasPrefix(l.Address, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(l.Address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func (v *validator) listeners(c *Config) {
	if len(c.Listeners) == 0 {
		v.problem("listener", "none", "at least one", "nobody could connect")
	}
	first := map[string]int{}
	for i := range c.Listeners {
		l, path := &c.Listeners[i], index("listener", i)
		v.transport(l, path)
		v.webSocket(l, path)
		v.listenerTLS(c, l, path)
		if problem := checkListen(l.Address); problem != "" {
			v.problem(path+".address", quoted(l.Address), `"host:port", "[ipv6]:port" or "unix:/path"`, problem)
			continue
		}
		place := l.Address + "%" + l.Interface // one address on two interfaces is two places
		if j, twice := first[place]; twice && !strings.HasSuffix(l.Address, ":0") {
			v.problem(path+".address", quoted(l.Address)+" twice", "each address once", "see "+index("listener", j))
		}
		first[place] = i
		v.access(c, l, path)
	}
}

// checkListen returns what is wrong with the address of a listener, or "".
func checkListen(address string) string {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		// sun_path of unix(7) has 108 bytes, the last of which is 0.
		if path == "" || len(path) > 107 {
			return "the path must have 1 to 107 bytes"
		}
		return ""
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "it is not host and port"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || port != strconv.FormatUint(n, 10) {
		return "the port must be a number from 0 to 65535"
	}
	return ""
}

// access refuses a listener that would let in everybody by oversight, or nobody.
func (v *validator) access(c *Config, l *Listener, path string) {
	switch {
	case c.Anonymous(l) || c.authenticates(l):
	case l.AllowAnonymous != nil && l.local():
		v.problem(path+".allow_anonymous", "false", "true",
			"no way to log in is configured, so nobody could connect: set auth.password_file or [auth.jwt], or remove the line")
	case l.AllowAnonymous != nil:
		v.problem(path+".allow_anonymous", "false for "+quoted(l.Address), "it with a way to log in",
			"nobody could connect: set auth.password_file, [auth.jwt], or client_certificate with username_from in [listener.tls]")
	case l.loopback():
		v.problem(path+".allow_anonymous", "no way to log in for "+quoted(l.Address), "proxy_protocol with a way to log in, or with allow_anonymous = true",
			"the clients of a proxy come from anywhere: set auth.password_file, [auth.jwt], or client_certificate with username_from in [listener.tls]")
	default:
		v.problem(path+".allow_anonymous", "no way to log in for "+quoted(l.Address),
			"a loopback address or unix: without one",
			"whoever reaches this address could read and write every topic: set auth.password_file, [auth.jwt], or client_certificate with "+
				"username_from in [listener.tls]; if that network is trusted write allow_anonymous = true, or else listen on 127.0.0.1")
	}
}

// transport checks what belongs to one kind of socket only.
func (v *validator) transport(l *Listener, path string) {
	unix := strings.HasPrefix(l.Address, "unix:")
	if l.Interface != "" && unix {
		v.problem(path+".interface", "interface with "+quoted(l.Address), "it with host and port only", "")
	} else if len(l.Interface) > 15 || strings.ContainsAny(l.Interface, "/ \t\n") { // IFNAMSIZ of netdevice(7) is 16 with the 0
		v.problem(path+".interface", quoted(l.Interface), `the name of a network interface such as "eth0"`, "")
	}
	if _, ok := parseMode(l.UnixMode); !ok {
		v.problem(path+".unix_mode", quoted(l.UnixMode), `octal permissions such as "0660"`, "")
	} else if fresh := NewListener(""); !unix && l.UnixMode != fresh.UnixMode {
		v.problem(path+".unix_mode", "unix_mode with "+quoted(l.Address), "it with a unix: address only", "")
	}
}

func (v *validator) webSocket(l *Listener, path string) {
	if fresh := NewListener(""); l.Protocol == "mqtt" {
		if l.WebSocketPath != fresh.WebSocketPath {
			v.problem(path+".websocket_path", `websocket_path with protocol = "mqtt"`, `it with protocol = "websocket" only`, "")
		}
		if len(l.WebSocketOrigins) > 0 {
			v.problem(path+".websocket_origins", `websocket_origins with protocol = "mqtt"`, `it with protocol = "websocket" only`, "")
		}
		return
	}
	if l.WebSocketPath != "" && (l.WebSocketPath[0] != '/' || strings.ContainsAny(l.WebSocketPath, "?# \t\r\n")) {
		v.problem(path+".websocket_path", quoted(l.WebSocketPath), `a path such as "/mqtt", or "" for any`, "")
	}
	for i, origin := range l.WebSocketOrigins {
		if !validOrigin(origin) {
			v.problem(index(path+".websocket_origins", i), quoted(origin), `an origin such as "https://app.example" or "https://app.example:8443", or "*" for any`,
				"what browsers send: no path, and no port that the scheme has anyway")
		}
	}
	if len(l.WebSocketOrigins) > 1 && slices.Contains(l.WebSocketOrigins, "*") {
		v.problem(path+".websocket_origins", `"*" beside others`, `"*" alone, or others`, "")
	}
}

// validOrigin says whether a pattern can match what a browser sends as Origin (RFC
// 6454, 6.2). The scheme may be left out, and the host begin with "*.".
func validOrigin(origin string) bool {
	if origin == "*" {
		return true
	}
	scheme, host, ok := strings.Cut(origin, "://")
	if !ok {
		scheme, host = "http", origin
	} else if scheme == "" {
		return false
	}
	host = strings.TrimPrefix(host, "*.")
	if host == "" || strings.ContainsAny(host, "/*?#@ \t\r\n") {
		return false
	}
	return !(scheme == "http" && strings.HasSuffix(host, ":80") || scheme == "https" && strings.HasSuffix(host, ":443"))
}

func (v *validator) listenerTLS(c *Config, l *Listener, path string) {
	t, fresh := &l.TLS, NewListener("").TLS
	path += ".tls"
	_, written := v.at.lines[path]
	if t.CertFile == "" && (written || *t != fresh) {
		v.problem(path+".cert_file", "nothing", "a PEM file", "without it the listener does not speak TLS; remove [listener.tls] if it shall not")
		return
	}
	if !t.Enabled() {
		return
	}
	if t.KeyFile == "" {
		v.problem(path+".key_file", "nothing", "a PEM file", "cert_file needs its key")
	}
	asks := t.ClientCertificate != "none"
	if asks && t.ClientCAFile == "" {
		v.problem(path+".client_ca_file", "nothing", "a PEM file with client_certificate = "+quoted(t.ClientCertificate), "it says which client certificates are good")
	}
	if !asks {
		for _, s := range []struct {
			key string
			set bool
		}{{"client_ca_file", t.ClientCAFile != ""}, {"client_crl_file", t.ClientCRLFile != ""}, {"username_from", t.UsernameFrom != "none"}} {
			if s.set {
				v.problem(path+"."+s.key, s.key+` with client_certificate = "none"`, `it with client_certificate = "optional" or "require" only`, "")
			}
		}
	}
	if t.names() && !c.Auth.has("certificate") {
		v.problem(path+".username_from", quoted(t.UsernameFrom)+` without "certificate" in auth.methods`, "both or none", "")
	}
}
