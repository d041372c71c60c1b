package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/broker/mqtt"
	"sluice/cmd/sluice/e2e/rig"
)

// schemes are the transports that a site has if its test does not say otherwise. There is
// "proxy" besides: MQTT behind a header of the PROXY protocol.
var schemes = []string{"mqtt", "mqtts", "ws", "wss", "unix"}

// The user that every site has.
const user, password = "alice", "correct horse"

// site is a broker that listens on every transport and has users, and the
// authority that its certificates come from.
type site struct {
	*broker
	ca        *rig.Authority
	server    *rig.Certificate
	dir       string
	schemes   []string
	passwords string // file
	clients   *tls.Config
}

// siteOptions say how a site differs from the plain one.
type siteOptions struct {
	binary string   // "": with the race detector
	only   []string // schemes; none: all
	tls    string   // more of [listener.tls]
	listen string   // more of [[listener]]
	auth   string   // more of [auth]; other tables may follow
	fixed  bool     // the ports are the same after a restart
	open   bool     // everybody may come in, and nobody has a password
	// prepare may write files into the site's directory before the broker starts.
	prepare func(s *site)
}

// newSite starts one.
func newSite(t testing.TB, o siteOptions) *site {
	t.Helper()
	if o.binary == "" {
		o.binary = raceBinary
	}
	if o.only == nil {
		o.only = schemes
	}
	dir, err := os.MkdirTemp("", "sl") // short: a path of a unix socket has 107 bytes at most
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &site{dir: dir, schemes: o.only, passwords: filepath.Join(dir, "passwords")}
	s.ca, err = rig.NewAuthority(dir)
	must(t, err)
	s.server, err = s.ca.Issue("broker", "server")
	must(t, err)
	s.clients, err = s.ca.Client(nil)
	must(t, err)
	if o.open {
		o.listen += "allow_anonymous = true\n"
	} else {
		s.passwd(t, "-c", "-b", s.passwords, user, password)
		o.auth = "password_file = " + strconv.Quote(s.passwords) + "\n" + o.auth
	}
	if o.prepare != nil {
		o.prepare(s)
	}
	g := &rig.Gateway{Binary: o.binary, Config: "[auth]\n" + s.files(o.auth)}
	for _, scheme := range o.only {
		address, settings := "127.0.0.1:0", o.listen
		if o.fixed {
			port, err := rig.Port()
			must(t, err)
			address = "127.0.0.1:" + strconv.Itoa(port)
		}
		switch scheme {
		case "unix":
			address = "unix:" + filepath.Join(dir, "s")
		case "proxy":
			settings += "proxy_protocol = true\n"
		case "ws", "wss":
			settings += "protocol = \"websocket\"\n"
		}
		if scheme == "mqtts" || scheme == "wss" {
			settings += "[listener.tls]\ncert_file = " + strconv.Quote(s.server.CertFile) + "\nkey_file = " + strconv.Quote(s.server.KeyFile) + "\n" + s.files(o.tls)
		}
		g.Listeners = append(g.Listeners, address)
		g.Settings = append(g.Settings, settings)
	}
	s.broker = startGateway(t, g)
	return s
}

// files puts the site's directory in the place of "DIR".
func (s *site) files(config string) string { return strings.ReplaceAll(config, "DIR", s.dir) }

// passwd runs `sluice passwd`.
func (s *site) passwd(t testing.TB, args ...string) {
	t.Helper()
	tool(t, "", plainBinary, append([]string{"passwd"}, args...)...)
}

// write replaces a file of the site and returns its path.
func (s *site) write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	must(t, rig.Replace(path, []byte(text)))
	return path
}

// at is the address of a scheme's listener.
func (s *site) at(scheme string) string {
	i := slices.Index(s.schemes, scheme)
	if i < 0 {
		panic("BUG: the site has no listener for " + scheme)
	}
	return s.Bound()[i]
}

// url is where a client of a scheme connects to; via may be another address.
func (s *site) url(scheme, via string) string {
	if via == "" {
		via = s.at(scheme)
	}
	switch scheme {
	case "unix":
		return "unix:" + via
	case "ws", "wss":
		return scheme + "://" + via + "/mqtt"
	}
	return scheme + "://" + via
}

// client are options for a client of the rig that logs in over a scheme.
func (s *site) client(scheme string, o rig.ClientOptions) rig.ClientOptions {
	before := o.Connect
	o.Connect = func(p *mqtt.Connect) {
		login(user, password)(p)
		if before != nil {
			before(p)
		}
	}
	if o.Dial == nil {
		o.Dial = dialer(s.url(scheme, ""), s.clients)
	}
	return o
}

// login sets user and password of a CONNECT.
func login(user, password string) func(*mqtt.Connect) {
	return func(p *mqtt.Connect) {
		p.HasUsername, p.Username = true, []byte(user)
		p.HasPassword, p.Password = true, []byte(password)
	}
}

// dialer makes connections to a URL, wherever the client believes to connect to.
func dialer(url string, config *tls.Config) func(string) (net.Conn, error) {
	return func(string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return rig.Dial(ctx, url, config)
	}
}

// refusal is the code of a CONNACK that refuses; 0: that is not what err is.
func refusal(err error) uint8 {
	var refused *rig.Refused
	if errors.As(err, &refused) {
		return refused.Code
	}
	return 0
}

func read(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	return string(text)
}
