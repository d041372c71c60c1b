package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"sluice/broker"
	"sluice/broker/auth"
	"sluice/broker/front"
	"sluice/configs"
)

// DESIGN. What changes on a gateway while it runs are files: certificates that
// are renewed, users, rules. They are looked at when SIGHUP comes and when they
// change, all of one kind are read and judged before the first takes effect, and what
// is broken changes nothing: the old stays, and the log says why. With SIGHUP the
// configuration is read again, too, and the bridges become what it says; the rest
// of it needs a restart, and the log says that.

// live is what can change without a restart.
type live struct {
	cfg     *configs.Config
	load    func() (*configs.Config, error) // reads the configuration again
	log     *zap.Logger
	broker  *broker.Broker
	bridges *bridges
	tls     []*front.TLS
	secret  []byte // of auth.Sources
	last    auth.Sources
	watch   *front.Watcher
	wake    chan []string
}

// watchEvery is how often files are looked at: a renewal need not take effect
// sooner, and a stat of some files in so long costs nothing.
const watchEvery = 5 * time.Second

func newLive(cfg *configs.Config, log *zap.Logger) *live {
	l := &live{cfg: cfg, log: log, bridges: newBridges(log), secret: make([]byte, 32), wake: make(chan []string, 1)}
	_, _ = rand.Read(l.secret) // documented never to fail
	return l
}

// rules reads the files about users.
func (l *live) rules() (*auth.Rules, *auth.Sources, error) {
	s, err := authSources(&l.cfg.Auth)
	if err != nil {
		return nil, nil, err
	}
	s.Secret = l.secret
	r, err := auth.New(s)
	if err != nil {
		return nil, nil, wrongFiles{err}
	}
	return r, s, nil
}

// listeners makes the listeners, with their certificates.
func (l *live) listeners(dir string) ([]front.Listener, error) {
	var all []front.Listener
	var errs []error
	for i := range l.cfg.Listeners {
		c := &l.cfg.Listeners[i]
		x := front.Listener{
			Address: c.Address, ConnectionsMax: c.ConnectionsMax, Device: c.Interface,
			Proxy: c.ProxyProtocol, Anonymous: l.cfg.Anonymous(c), WebSocket: webSocket(c, l.cfg.Anonymous(c)),
		}
		if isUnix(c.Address) {
			x.UnixMode = c.FileMode()
		}
		if c.TLS.Enabled() {
			t, err := front.NewTLS(tlsOptions(c, clockMin(dir)))
			if err != nil {
				errs = append(errs, wrongFiles{fmt.Errorf("listener %s: %w", c.Address, err)})
				continue
			}
			for _, w := range t.Warnings() {
				l.log.Warn("certificate", zap.String("listener", c.Address), zap.String("warning", w))
			}
			x.TLS = t
			if c.TLS.UsernameFrom != "none" {
				x.CertificateUser = c.TLS.UsernameFrom
			}
			l.tls = append(l.tls, t)
		}
		all = append(all, x)
	}
	return all, errors.Join(errs...)
}

func tlsOptions(c *configs.Listener, clock time.Time) front.TLSOptions {
	o := front.TLSOptions{
		CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, ClientCAFile: c.TLS.ClientCAFile, CRLFile: c.TLS.ClientCRLFile,
		ClientCertificate: c.TLS.ClientCertificate, MinVersion: tls.VersionTLS12, WebSocket: c.Protocol == "websocket",
		Tickets: true, ClockMin: clock,
	}
	if c.TLS.MinVersion == "1.3" {
		o.MinVersion = tls.VersionTLS13
	}
	return o
}

// clockMin is a time that is past for certain: when something in the data
// directory was written last. Gateways without a battery boot in 1970.
func clockMin(dir string) (t time.Time) {
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.ModTime().After(t) {
			t = info.ModTime()
		}
	}
	return t
}

// files are those that are worth a look.
func (l *live) files() (files []string) {
	a := &l.cfg.Auth
	for _, f := range []string{a.PasswordFile, a.ACLFile, a.JWT.KeyFile, a.JWT.JWKSFile, a.JWT.SecretFile} {
		if f != "" {
			files = append(files, f)
		}
	}
	for _, t := range l.tls {
		files = append(files, t.Files()...)
	}
	return files
}

// start begins to look at the files.
func (l *live) start(b *broker.Broker) {
	l.broker = b
	l.watch = front.Watch(l.files(), watchEvery, func(files []string) {
		select {
		case l.wake <- files:
		default: // one look is under way to be taken: it will see this change too
		}
	})
	l.reload(zap.String("why", "start")) // what changed since they were read first
}

func (l *live) close() {
	if l.watch != nil {
		l.watch.Close()
	}
}

// reload reads everything again, and uses what is good and has changed.
func (l *live) reload(why zap.Field) {
	var changed []string
	if r, s, err := l.rules(); err != nil {
		l.log.Error("users and rules stay as they were: the new ones are wrong", why, zap.Error(err))
	} else if !sameSources(s, &l.last) {
		l.last = *s
		l.broker.SetRules(r)
		changed = append(changed, "users and rules")
	}
	for _, t := range l.tls {
		switch yes, err := t.Reload(); {
		case err != nil:
			l.log.Error("a certificate stays as it was: the new one is wrong", why, zap.Error(err))
		case yes:
			changed = append(changed, "certificate "+t.Files()[0])
			for _, w := range t.Warnings() {
				l.log.Warn("certificate", zap.String("file", t.Files()[0]), zap.String("warning", w))
			}
		}
	}
	if len(changed) > 0 || why.Key == "signal" {
		l.log.Info("files read again", why, zap.Strings("changed", changed))
	}
}

// reconfigure reads the configuration again and changes what can be changed.
func (l *live) reconfigure() {
	fresh, err := l.load()
	if err != nil {
		l.log.Error("the configuration stays as it was: the new one is wrong", zap.Error(err))
		return
	}
	c, err := l.bridges.apply(fresh, l.broker)
	if err != nil {
		l.log.Error("bridges cannot all be changed", zap.Error(err))
	}
	if c.Any() {
		l.log.Info("bridges changed", zap.Strings("added", c.Added), zap.Strings("changed", c.Changed), zap.Strings("removed", c.Removed), zap.Strings("untouched", c.Kept))
	}
	if later := fresh.Differences(l.cfg); len(later) > 0 {
		l.log.Warn("the configuration has changed in what takes effect after a restart only", zap.Strings("keys", later))
	}
}

func sameSources(a, b *auth.Sources) bool {
	same := func(x, y *auth.File) bool {
		return x == nil && y == nil || x != nil && y != nil && bytes.Equal(x.Data, y.Data)
	}
	if !same(a.Passwords, b.Passwords) || !same(a.ACL, b.ACL) || (a.JWT == nil) != (b.JWT == nil) {
		return false
	}
	if a.JWT == nil {
		return true
	}
	all := func(x, y []auth.File) bool {
		return slices.EqualFunc(x, y, func(p, q auth.File) bool { return bytes.Equal(p.Data, q.Data) })
	}
	return all(a.JWT.PublicKeys, b.JWT.PublicKeys) && all(a.JWT.Secrets, b.JWT.Secrets) && all(a.JWT.JWKS, b.JWT.JWKS)
}
