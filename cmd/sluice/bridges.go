package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"sluice/bridge"
	"sluice/broker"
	"sluice/broker/session"
	"sluice/broker/worker"
	"sluice/configs"
)

// bridges joins the bridges with the configuration and with the broker, which
// do not know each other.
type bridges struct {
	log *zap.Logger
	set *bridge.Set
}

func newBridges(log *zap.Logger) *bridges {
	return &bridges{log: log, set: bridge.NewSet(log.Named("bridge"))}
}

// apply makes the bridges what the configuration says. Each is attached to its
// sessions when apply returns, so messages are queued for it from then on; it
// connects by itself. Sessions of bridges that are not configured any more
// gather nothing further, but keep what they have: it may be a mistake in the
// configuration.
func (x *bridges) apply(cfg *configs.Config, b *broker.Broker) (bridge.Changes, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return bridge.Changes{}, fmt.Errorf("host name, for the bridges' client ids: %w", err)
	}
	sessions := map[string][]string{}
	for _, s := range b.Sessions(session.InternalPrefix) {
		sessions[s.ClientID] = s.Filters
	}
	var all []bridge.Options
	var errs []error
	for i := range cfg.Bridges {
		o, err := bridgeOptions(&cfg.Bridges[i], hostname)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		x.attach(&o, b, sessions)
		all = append(all, o)
	}
	if err := errors.Join(errs...); err != nil {
		return bridge.Changes{}, err
	}
	c, err := x.set.Apply(context.Background(), all)
	if err != nil && !c.Any() {
		return c, err
	}
	for id, filters := range sessions { // of no bridge any more
		if len(filters) > 0 {
			x.log.Warn("a session of a bridge that is not configured gathers nothing further; what it has stays until the bridge is configured again", zap.String("session", id))
			b.Mute(id)
		}
	}
	return c, err
}

// attach gives a bridge its way to the broker, and takes its sessions out of
// those that there are.
func (x *bridges) attach(o *bridge.Options, b *broker.Broker, sessions map[string][]string) {
	o.DialLocal, o.Announce = b.Dial, b.Announce
	o.Backlog = func(id string) (bridge.Backlog, bool) {
		messages, bytes, known := b.Backlog(id)
		return bridge.Backlog{Messages: messages, Bytes: bytes}, known
	}
	o.Sessions = map[string][]string{}
	for id, filters := range sessions {
		if id == o.SessionName() || strings.HasPrefix(id, o.SessionName()+"/") {
			o.Sessions[id] = filters
			delete(sessions, id)
		}
	}
}

func (x *bridges) close() error { return x.set.Close() }

// bridgeClasses are the limits of the bridges' queues. What they do not set has
// no limit but the store's.
func bridgeClasses(cfg *configs.Config) []worker.QueueClass {
	q := configs.Queue{Policy: "reject", QoS0: "off", MQTT5Full: "refuse"}
	for i := range cfg.Bridges {
		o := bridge.Options{Name: cfg.Bridges[i].Name}
		q.Classes = append(q.Classes, cfg.Bridges[i].QueueClasses(o.QueueSession)...)
	}
	return queueClasses(&q)
}

// fingerprint stands for all that the options of a bridge are made of.
func fingerprint(c *configs.Bridge, password, hostname string) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%q %q %s", password, hostname, c.Fingerprint())))
}

func bridgeOptions(c *configs.Bridge, hostname string) (bridge.Options, error) {
	password, err := c.ReadPassword()
	if err != nil {
		return bridge.Options{}, fmt.Errorf("bridge %q: password_file: %w", c.Name, err)
	}
	o := bridge.Defaults()
	o.Name, o.ClientID = c.Name, c.ClientIDOn(hostname)
	o.Address, o.MoreAddresses = c.Address[0], c.Address[1:]
	o.Proxy, o.Interface = c.Proxy, c.Interface
	o.Protocol, o.TopicAliases = bridge.Protocol(c.Protocol), c.TopicAliases
	o.Failover, o.ReturnToPrimary = bridge.Failover(c.Failover), time.Duration(c.ReturnToPrimary)
	o.Fingerprint = fingerprint(c, password, hostname)
	if o.Credentials, err = credentials(c, &o); err != nil {
		return o, fmt.Errorf("bridge %q: %w", c.Name, err)
	}
	o.Username, o.Password = c.Username, password
	o.BridgeBit = c.BridgeBit
	o.TLS = bridge.TLS{
		CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, ServerName: c.ServerName,
		ALPN: c.ALPN, InsecureSkipVerify: c.InsecureSkipVerify,
	}
	o.KeepAlive, o.ConnectTimeout = time.Duration(c.Keepalive), time.Duration(c.ConnectTimeout)
	o.ReconnectMin, o.ReconnectMax = time.Duration(c.ReconnectMin), time.Duration(c.ReconnectMax)
	o.InflightMax, o.InflightMaxBytes = c.InflightMax, int(c.InflightBytesMax)
	o.MaxPacketBytes, o.MaxPayloadBytes = int(c.PacketBytesMax), int(c.PayloadBytesMax)
	o.OutMaxMessagesPerSecond, o.OutMaxBytesPerSecond = c.MessagesPerSecondMax, int(c.BytesPerSecondMax)
	o.BacklogPercent, o.Notifications, o.CleanSession = c.BacklogPercent, c.Notifications, c.CleanSession
	o.Start, o.IdleTimeout = bridge.StartMode(c.Start), time.Duration(c.IdleTimeout)
	for _, s := range c.Active {
		w, err := bridge.ParseWindow(s)
		if err != nil {
			return o, fmt.Errorf("bridge %q: active: %w", c.Name, err)
		}
		o.Active = append(o.Active, w)
	}
	for _, q := range c.Queues {
		o.Queues = append(o.Queues, bridge.Queue{Name: q.Name, Priority: q.Priority, Share: q.Share})
	}
	for _, r := range c.Routes {
		d := bridge.Out
		if r.Direction == "in" {
			d = bridge.In
		}
		o.Routes = append(o.Routes, bridge.Route{
			Direction: d, Filter: r.Filter, LocalPrefix: r.LocalPrefix, RemotePrefix: r.RemotePrefix, Exclude: r.Exclude, QoS: uint8(r.QoS), Queue: r.Queue,
		})
	}
	return o, nil
}
