package main

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"sluice/broker"
	"sluice/broker/front"
	"sluice/broker/session"
	"sluice/broker/wire"
	"sluice/configs"
	"sluice/persist"
	"sluice/persist/bolt"
	"sluice/persist/mem"
	"sluice/platform"
)

// runCmd is `sluice run`.
type runCmd struct {
	Config string   `short:"c" type:"path" placeholder:"FILE" help:"Configuration file. Without it the defaults hold: see 'sluice check --defaults'."`
	Listen []string `placeholder:"ADDRESS" help:"Listen here instead of where the configuration says: host:port, [ipv6]:port or unix:/path. May be given several times."`
	Data   string   `type:"path" placeholder:"DIR" help:"Keep the store in this directory instead of the configured one."`
}

// Run starts the broker and its bridges, and serves until a signal or a failure.
func (r *runCmd) Run() error {
	cfg, err := loadConfig(r.Config, r.Listen, r.Data)
	if err != nil {
		return err
	}
	log, err := newLogger(&cfg.Log)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }() // fails on a terminal, and there is no place left to say so
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt, syscall.SIGHUP)
	defer signal.Stop(signals)
	load := func() (*configs.Config, error) { return loadConfig(r.Config, r.Listen, r.Data) }
	return serve(cfg, load, log, signals)
}

// loadConfig reads the file, if any, and lays the command line over it.
func loadConfig(path string, listen []string, data string) (*configs.Config, error) {
	cfg := configs.Default()
	if path != "" {
		var err error
		if cfg, err = configs.Load(path); err != nil {
			return nil, err
		}
	}
	cfg.Override(listen, data)
	return cfg, cfg.Validate()
}

// serve is the life of the process, top to bottom. load reads the configuration again.
func serve(cfg *configs.Config, load func() (*configs.Config, error), log *zap.Logger, signals <-chan os.Signal) error {
	began := time.Now()
	for _, w := range cfg.Warnings() {
		log.Warn("configuration", zap.String("warning", w))
	}
	files, err := platform.RaiseNoFile()
	if err != nil {
		log.Warn("the limit of open files cannot be raised", zap.Error(err))
	}
	dir, err := cfg.DataPath()
	if err != nil {
		return err
	}
	l := newLive(cfg, log)
	l.load = load
	o, err := brokerOptions(cfg, l, dir, files, log)
	if err != nil {
		return err
	}
	o.Attach = func(b *broker.Broker) error {
		_, err := l.bridges.apply(cfg, b)
		if err != nil {
			err = errors.Join(err, l.bridges.close())
		}
		return err
	}
	b, err := broker.Start(o)
	if err != nil {
		return err
	}
	log.Info("started", zap.String("version", version), zap.Strings("listeners", b.Addresses()),
		zap.String("data_dir", dir), zap.String("store", cfg.Store.Kind), zap.Duration("took", time.Since(began)))
	if err := platform.Notify("READY=1"); err != nil {
		log.Warn("cannot tell the service manager that we are ready", zap.Error(err))
	}

	l.start(b)
	answers := answer(b, l, cfg, dir, log)
	err = work(b, l, log, signals)
	l.close()
	if answers != nil {
		err = errors.Join(err, answers.Close())
	}
	_ = platform.Notify("STOPPING=1") // of no consequence any more
	began = time.Now()
	err = errors.Join(err, l.bridges.close(), b.Close())
	log.Info("stopped", zap.Duration("took", time.Since(began)))
	return err
}

// work lasts until the broker is to stop.
func work(b *broker.Broker, l *live, log *zap.Logger, signals <-chan os.Signal) error {
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGHUP {
				l.reload(zap.Stringer("signal", s))
				l.reconfigure()
				continue
			}
			log.Info("stopping", zap.Stringer("signal", s))
			return nil
		case files := <-l.wake:
			l.reload(zap.Strings("files", files))
		case err := <-b.Failed():
			log.Error("a worker has failed", zap.Error(err))
			return err
		}
	}
}

// waitingMax is how many handshakes, and how many password checks, may wait: as many as
// are done in some seconds, and no more than an eighth of the files, since a
// handshake that waits has two.
func waitingMax(files uint64) int { return int(max(16, min(512, files/8))) }

// spareFiles are descriptors that are not for clients: store, logs, listeners,
// bridges, epoll.
const spareFiles = 64

func brokerOptions(cfg *configs.Config, live *live, dir string, files uint64, log *zap.Logger) (o broker.Options, err error) {
	l := &cfg.Limits
	o = broker.Options{
		Workers: cfg.Workers,
		Limits: session.Limits{
			PacketBytesMax:      int(l.PacketBytesMax),
			TopicBytesMax:       l.TopicBytesMax,
			TopicLevelsMax:      l.TopicLevelsMax,
			ClientIDBytesMax:    l.ClientIDBytesMax,
			SubscriptionsMax:    l.SubscriptionsMax,
			InflightMax:         l.InflightMax,
			ReceiveMax:          l.ReceiveMax,
			Queue:               sessionQueue(&cfg.Queue),
			SessionExpiryMax:    time.Duration(l.SessionExpiryMax),
			KeepAliveMax:        time.Duration(l.KeepaliveMax),
			TopicAliasMax:       l.TopicAliasMax,
			AliasBytesMax:       session.DefaultLimits().AliasBytesMax,
			TopicAliasOutMax:    l.TopicAliasOutMax,
			DeniedDisconnects:   cfg.Auth.DeniedPublish == "disconnect",
			ResponseInfo:        cfg.MQTT.ResponseInformation,
			RetainedMessagesMax: l.RetainedMessagesMax,
			RetainedBytesMax:    int(l.RetainedBytesMax),
		},
		Classes:         append(bridgeClasses(cfg), queueClasses(&cfg.Queue)...),
		Priority:        cfg.Queue.Priority,
		ConnectionsMax:  l.ConnectionsMax,
		ConnectTimeout:  time.Duration(l.ConnectTimeout),
		ConnectBytesMax: int(l.ConnectBytesMax),
		OutputBytesMax:  int(l.OutputBytesMax),
		Guard:           guardOptions(&cfg.Auth),
		Pool:            front.PoolOptions{HandshakesMax: l.HandshakesMax, WaitingMax: waitingMax(files)},

		ConnectionsPerAddressMax: l.ConnectionsPerAddressMax, ConnectsPerSecondMax: l.ConnectsPerSecondMax,
		ConnectsPerSecondPerAddressMax: l.ConnectsPerSecondPerAddressMax,
		MessagesPerSecondMax:           l.MessagesPerSecondMax, BytesPerSecondMax: int(l.BytesPerSecondMax),

		OpenStore: func(e persist.Events) (persist.Store, error) { return openStore(cfg, dir, e, log) },
		Logger:    log,
	}
	if o.Workers == 0 {
		o.Workers = min(runtime.GOMAXPROCS(0), 256)
	}
	spare := spareFiles
	for i := range cfg.Listeners {
		if cfg.Listeners[i].TLS.Enabled() { // each handshake has a second descriptor
			spare = spareFiles + l.HandshakesMax + waitingMax(files)
		}
	}
	if room := int(min(files, 1<<20)) - spare; o.ConnectionsMax == 0 || o.ConnectionsMax > room {
		o.ConnectionsMax = max(room, 1)
	}
	rules, sources, err := live.rules()
	if err == nil {
		o.Rules, live.last = rules, *sources
		o.Listeners, err = live.listeners(dir)
	}
	return o, err
}

// webSocket is what a listener speaks below MQTT, nil if nothing.
func webSocket(c *configs.Listener, anonymous bool) *wire.WebSocketOptions {
	if c.Protocol != "websocket" {
		return nil
	}
	o := &wire.WebSocketOptions{Path: c.WebSocketPath, Origins: c.WebSocketOrigins}
	if anonymous && len(o.Origins) == 0 && !c.ProxyProtocol && !isUnix(c.Address) {
		// Who may do everything because he is on this machine must not be a page from
		// elsewhere whose host name points here.
		if host, _, err := net.SplitHostPort(c.Address); err == nil {
			if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
				o.Origins = []string{"localhost", "127.0.0.1", "[::1]"}
			}
		}
	}
	return o
}

func isUnix(address string) bool { return strings.HasPrefix(address, "unix:") }

func openStore(cfg *configs.Config, dir string, e persist.Events, log *zap.Logger) (persist.Store, error) {
	if cfg.Store.Kind == "memory" {
		log.Warn("store.kind is memory: sessions and queued messages are lost when the broker stops")
		return mem.New(mem.Options{Events: e}), nil
	}
	o := bolt.DefaultOptions()
	o.Path, o.Events, o.Logger = dir, e, log
	if err := o.SetPreset(cfg.Store.Preset); err != nil {
		return nil, err
	}
	o.CommitInterval, o.CommitIntervalMax = cfg.Store.Intervals(o.CommitInterval, o.CommitIntervalMax)
	o.WriteBudgetBytes = int64(cfg.Store.WriteBudget)
	o.MaxFileBytes = int64(cfg.Store.MaxBytes)
	return bolt.Open(o)
}
