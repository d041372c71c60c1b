package broker

import (
	"errors"
	"time"

	"go.uber.org/zap"

	"sluice/broker/auth"
	"sluice/broker/front"
	"sluice/broker/wire"
	"sluice/broker/worker"
)

// listen lets the workers accept.
func (b *Broker) listen() error {
	ws := b.group.Workers()
	answers := make(chan error, len(ws))
	for _, w := range ws {
		w.Call(func(w *worker.Worker) {
			var err error
			for _, s := range b.sockets {
				err = errors.Join(err, w.Listen(b.listener(s)))
			}
			answers <- err
		})
	}
	var err error
	for range ws {
		select {
		case e := <-answers:
			err = errors.Join(err, e)
		case <-b.broken: // Failed tells more
			err = errors.Join(err, errors.New("a worker has failed"))
		}
	}
	if err != nil {
		return err
	}
	for _, s := range b.sockets {
		b.log.Info("listening", zap.String("address", s.Bound), zap.Bool("tls", s.TLS != nil), zap.Bool("websocket", s.WebSocket != nil))
	}
	return nil
}

// listener joins a socket with what its connections need beyond MQTT.
func (b *Broker) listener(s *front.Socket) worker.Listener {
	l := worker.Listener{FD: s.FD, Address: s.Bound, ConnectionsMax: s.ConnectionsMax, Open: s.Open, Anonymous: s.Anonymous, Proxy: s.Proxy}
	if s.TLS != nil {
		config := s.TLS.Config()
		l.Handshake = func(fd int, hello []byte, left time.Duration, done func(wire.Layer, string, error)) error {
			return b.pool.Handshake(front.Handshake{
				FD: fd, Prefix: hello, Config: config, Deadline: time.Now().Add(left),
				Done: func(t *wire.TLS, err error) {
					if err != nil {
						done(nil, "", err)
						return
					}
					done(t, certificateUser(t, s.CertificateUser), nil)
				},
			})
		}
	}
	if s.WebSocket != nil {
		l.Layer = func(below wire.Layer) wire.Layer {
			above := wire.NewWebSocket(s.WebSocket)
			if _, plain := below.(wire.Plain); plain {
				return above
			}
			return wire.NewStack(below, above)
		}
	}
	return l
}

// certificateUser is the user that the client's verified certificate names, or "".
func certificateUser(t *wire.TLS, from string) string {
	if state := t.ConnectionState(); from != "" && len(state.VerifiedChains) > 0 {
		return auth.CertificateUser(state.PeerCertificates[0], from)
	}
	return ""
}

// SetRules makes new rules hold, for who comes and for who is there: what a
// client may do is made anew, its connection stays.
func (b *Broker) SetRules(r *auth.Rules) { b.group.Reload(r) }

// FrontStats tells what the pool for handshakes and password checks has done.
func (b *Broker) FrontStats() front.PoolStats { return b.pool.Stats() }
