package worker

import (
	"sluice/broker/auth"
	"sluice/broker/mqtt"
	"sluice/broker/session"
)

// dispatch decodes a packet from a connected client and gives it to the session.
func (w *Worker) dispatch(x *client, h mqtt.Header, body []byte) {
	if h.Type == mqtt.PUBLISH {
		if err := mqtt.DecodePublish(&w.pub, h.Flags, body, x.Version); err != nil {
			w.refuse(x.conn, err)
			return
		}
		w.stats.Received++
		if e := x.conn.extra; e != nil {
			w.spend(&e.rate, len(body))
		}
		w.publish(x, &w.pub)
		return
	}
	if err := mqtt.CheckFlags(h.Type, h.Flags, x.Version); err != nil {
		w.refuse(x.conn, err)
		return
	}
	if err := w.control(x, h.Type, body); err != nil {
		w.refuse(x.conn, err)
	}
}

var (
	errSecondConnect = &mqtt.Error{Reason: mqtt.ProtocolError, Statement: "MQTT-3.1.0-2", Text: "second CONNECT on a connection"}
	errServerPacket  = &mqtt.Error{Reason: mqtt.ProtocolError, Text: "packet that only a server sends"}
)

func (w *Worker) control(x *client, t mqtt.Type, body []byte) error {
	switch t {
	case mqtt.PUBACK, mqtt.PUBREC, mqtt.PUBREL, mqtt.PUBCOMP:
		a := &w.ack
		if err := mqtt.DecodeAck(a, t, body, x.Version); err != nil {
			return err
		}
		fx := w.begin(x)
		switch t {
		case mqtt.PUBACK:
			x.OnPuback(fx, a, w.now)
		case mqtt.PUBREC:
			x.OnPubrec(fx, a, w.now)
		case mqtt.PUBREL:
			x.OnPubrel(fx, a)
		case mqtt.PUBCOMP:
			x.OnPubcomp(fx, a, w.now)
		}
		w.end(x)
	case mqtt.SUBSCRIBE:
		if err := mqtt.DecodeSubscribe(&w.sub, body, x.Version); err != nil {
			return err
		}
		w.subscribe(x, &w.sub)
	case mqtt.UNSUBSCRIBE:
		if err := mqtt.DecodeUnsubscribe(&w.unsub, body, x.Version); err != nil {
			return err
		}
		w.unsubscribe(x, &w.unsub)
	case mqtt.PINGREQ:
		if err := mqtt.DecodeEmpty(t, body); err != nil {
			return err
		}
		fx := w.begin(x)
		x.OnPingreq(fx)
		w.end(x)
	case mqtt.DISCONNECT:
		if err := mqtt.DecodeDisconnect(&w.disc, body, x.Version); err != nil {
			return err
		}
		fx := w.begin(x)
		x.OnDisconnect(fx, &w.disc)
		w.end(x)
	case mqtt.CONNECT: // [MQTT-3.1.0-2]
		return errSecondConnect
	case mqtt.AUTH:
		if x.Version != mqtt.V5 {
			return errServerPacket
		}
		var a mqtt.Auth
		if err := mqtt.DecodeAuth(&a, body); err != nil {
			return err
		}
		w.reauthenticate(x, &a)
	default:
		return errServerPacket
	}
	return nil
}

// reauthenticate takes an AUTH packet (MQTT5 4.12.1).
func (w *Worker) reauthenticate(x *client, a *mqtt.Auth) {
	c := x.conn
	fx := w.begin(x)
	id := x.OnAuth(fx, a, func(method string) (session.Exchange, error) {
		cr := auth.Credentials{ClientID: x.ClientID, Username: x.Username, HasUsername: x.Username != "", Remote: c.remote.addr()}
		rules := w.g.rules.Load()
		if rules == nil {
			return nil, &auth.Error{Reason: mqtt.BadAuthenticationMethod, Text: "no authentication is configured"}
		}
		return rules.Begin(method, &cr, w.g.opt.Wall())
	})
	w.end(x)
	if id != nil && !c.dying {
		w.permit(x, w.g.rules.Load().Permit(id, x.ClientID))
		x.identity = id
		w.expires(c, id)
	}
}

func (w *Worker) subscribe(x *client, p *mqtt.Subscribe) {
	fx := w.begin(x)
	w.grants = x.OnSubscribe(fx, p, w.grants[:0])
	w.end(x)
	for i := range w.grants {
		g := &w.grants[i]
		w.enter(x, g.Sub)
		if g.Retained {
			w.sendRetained(x, g.Sub)
		}
	}
	clear(w.grants)
}

func (w *Worker) unsubscribe(x *client, p *mqtt.Unsubscribe) {
	fx := w.begin(x)
	w.gone = x.OnUnsubscribe(fx, p, w.gone[:0])
	w.end(x)
	for _, f := range w.gone {
		w.g.index.Unsubscribe(f, x.ID)
	}
	clear(w.gone)
	w.readdress(w.fx.Orphans)
	clear(w.fx.Orphans)
	w.fx.Orphans = w.fx.Orphans[:0]
}
